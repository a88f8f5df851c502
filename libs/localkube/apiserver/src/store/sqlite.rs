//! The SQLite file: one row per object, one row per change of the window.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::object::{Change, ChangeKind};
use super::window::Limits;

/// Version of the tables; a file with a higher one is refused.
const SCHEMA: i64 = 1;
/// Changes after which those that left the window are removed from the file.
const TRIM_EVERY: usize = 1024;

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("cannot open the database {file}: {source}")]
    Sqlite { file: PathBuf, source: sqlx::Error },
    #[error(
        "the database {file} has schema version {found}, newer than {known} which this ferroflow knows; use the ferroflow that wrote it, or another data folder"
    )]
    Newer { file: PathBuf, found: i64, known: i64 },
}

pub(super) struct Row {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub rv: u64,
    pub data: Vec<u8>,
}

pub(super) struct Loaded {
    pub objects: Vec<Row>,
    /// The latest changes that fit the limits, oldest first.
    pub changes: Vec<(i64, Row)>,
    pub rv: u64,
}

pub(super) struct Database {
    conn: SqliteConnection,
    file: PathBuf,
    since_trim: usize,
}

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(std::time::Duration::from_secs(5))
        // All objects are in memory; the file is read once and then only written.
        .pragma("cache_size", "-1024")
        .disable_statement_logging()
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Database {
    pub async fn open(file: &Path, window: Limits) -> Result<(Self, Loaded), OpenStoreError> {
        let wrap = |source| OpenStoreError::Sqlite {
            file: file.to_owned(),
            source,
        };
        let mut conn = SqliteConnection::connect_with(&options(file))
            .await
            .map_err(wrap)?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut conn)
            .await
            .map_err(wrap)?;
        if found > SCHEMA {
            return Err(OpenStoreError::Newer {
                file: file.to_owned(),
                found,
                known: SCHEMA,
            });
        }
        for statement in [
            "CREATE TABLE IF NOT EXISTS objects (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, \
             rv INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS changes (rv INTEGER PRIMARY KEY, kind INTEGER NOT NULL, resource TEXT NOT NULL, \
             namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL)",
            "PRAGMA user_version = 1",
        ] {
            sqlx::query(statement).execute(&mut conn).await.map_err(wrap)?;
        }
        let objects: Vec<Row> = sqlx::query("SELECT resource, namespace, name, rv, data FROM objects")
            .fetch(&mut conn)
            .map_ok(|r| row(&r))
            .try_collect()
            .await
            .map_err(wrap)?;
        let changes = latest_changes(&mut conn, window).await.map_err(wrap)?;
        let rv = changes
            .last()
            .map(|(_, r)| r.rv)
            .into_iter()
            .chain(objects.iter().map(|o| o.rv))
            .max()
            .unwrap_or(0);
        let database = Self {
            conn,
            file: file.to_owned(),
            since_trim: 0,
        };
        Ok((database, Loaded { objects, changes, rv }))
    }

    /// Writes changes in one transaction; now and then removes those up to version `unneeded`. After an error nothing is
    /// written, unless the last step itself failed: see [`Self::holds`].
    pub async fn commit(
        &mut self,
        changes: impl ExactSizeIterator<Item = &Change>,
        unneeded: u64,
    ) -> Result<(), sqlx::Error> {
        let written = changes.len();
        self.run("BEGIN IMMEDIATE").await?;
        for change in changes {
            self.write(change).await?;
        }
        let trims = self.since_trim + written >= TRIM_EVERY;
        if trims {
            sqlx::query("DELETE FROM changes WHERE rv <= $1")
                .bind(signed(unneeded))
                .execute(&mut self.conn)
                .await?;
        }
        self.run("COMMIT").await?;
        self.since_trim = if trims { 0 } else { self.since_trim + written };
        Ok(())
    }

    async fn write(&mut self, change: &Change) -> Result<(), sqlx::Error> {
        let key = &change.key;
        let data: &[u8] = change.obj.bytes();
        if change.kind == ChangeKind::Deleted {
            sqlx::query("DELETE FROM objects WHERE resource = $1 AND namespace = $2 AND name = $3")
                .bind(key.resource.as_ref())
                .bind(&key.namespace)
                .bind(&key.name)
                .execute(&mut self.conn)
                .await?;
        } else {
            sqlx::query(
                "INSERT INTO objects (resource, namespace, name, rv, data) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (resource, namespace, name) DO UPDATE SET rv = excluded.rv, data = excluded.data",
            )
            .bind(key.resource.as_ref())
            .bind(&key.namespace)
            .bind(&key.name)
            .bind(signed(change.rv))
            .bind(data)
            .execute(&mut self.conn)
            .await?;
        }
        sqlx::query(
            "INSERT INTO changes (rv, kind, resource, namespace, name, data) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(signed(change.rv))
        .bind(change.kind.code())
        .bind(key.resource.as_ref())
        .bind(&key.namespace)
        .bind(&key.name)
        .bind(data)
        .execute(&mut self.conn)
        .await?;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(&mut self.conn).await.map(drop)
    }

    /// Ends a transaction that failed and tells whether the file holds the change of a version: a commit that reports an
    /// error may have been written all the same.
    pub async fn holds(&mut self, version: u64) -> Result<bool, sqlx::Error> {
        // SQLite may have rolled back by itself; then this says that there is no transaction
        let _none = self.run("ROLLBACK").await;
        // fails while a transaction is open, in which changes would be seen that no file has
        self.run("BEGIN").await?;
        let found = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM changes WHERE rv = $1)")
            .bind(signed(version))
            .fetch_one(&mut self.conn)
            .await;
        self.run("ROLLBACK").await?;
        found
    }

    /// Opens the file anew, as after a crash.
    pub async fn reopen(&mut self) -> Result<(), sqlx::Error> {
        self.conn = SqliteConnection::connect_with(&options(&self.file)).await?;
        Ok(())
    }

    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
    }

    #[cfg(test)]
    pub async fn lose(&mut self) {
        self.conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    }

    #[cfg(test)]
    pub async fn execute(&mut self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::query(sql).execute(&mut self.conn).await.unwrap();
    }
}

async fn latest_changes(conn: &mut SqliteConnection, limits: Limits) -> Result<Vec<(i64, Row)>, sqlx::Error> {
    let sql = "SELECT kind, resource, namespace, name, rv, data FROM changes ORDER BY rv DESC LIMIT $1";
    let mut found = sqlx::query(sql)
        .bind(i64::try_from(limits.changes).unwrap_or(i64::MAX))
        .fetch(conn);
    let (mut changes, mut bytes) = (Vec::new(), 0);
    while let Some(r) = found.try_next().await? {
        let change = (r.get("kind"), row(&r));
        bytes += change.1.data.len();
        if bytes > limits.bytes {
            break;
        }
        changes.push(change);
    }
    changes.reverse();
    Ok(changes)
}

fn row(r: &SqliteRow) -> Row {
    Row {
        resource: r.get("resource"),
        namespace: r.get("namespace"),
        name: r.get("name"),
        rv: unsigned(r.get("rv")),
        data: r.get("data"),
    }
}
