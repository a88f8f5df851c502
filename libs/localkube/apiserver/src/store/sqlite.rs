//! The SQLite file: one row per object, one row per change of the window.

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, Row as _};

use super::{Change, ChangeKind};

/// Version of the tables; a file with a higher one is refused.
const SCHEMA: i64 = 1;

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
    pub changes: Vec<(i64, Row)>,
    pub rv: u64,
}

pub(super) struct Database {
    conn: SqliteConnection,
    since_trim: i64,
    /// Changes kept in the file.
    keep: i64,
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Database {
    pub async fn open(file: &Path, window: usize) -> Result<(Self, Loaded), OpenStoreError> {
        let wrap = |source| OpenStoreError::Sqlite {
            file: file.to_owned(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(std::time::Duration::from_secs(5));
        let mut conn = SqliteConnection::connect_with(&options).await.map_err(wrap)?;
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
        let row = |r: &sqlx::sqlite::SqliteRow| Row {
            resource: r.get("resource"),
            namespace: r.get("namespace"),
            name: r.get("name"),
            rv: unsigned(r.get("rv")),
            data: r.get("data"),
        };
        let objects: Vec<Row> = sqlx::query("SELECT resource, namespace, name, rv, data FROM objects")
            .fetch_all(&mut conn)
            .await
            .map_err(wrap)?
            .iter()
            .map(row)
            .collect();
        let mut changes: Vec<(i64, Row)> = sqlx::query(
            "SELECT kind, resource, namespace, name, rv, data FROM changes ORDER BY rv DESC LIMIT $1",
        )
        .bind(i64::try_from(window).unwrap_or(i64::MAX))
        .fetch_all(&mut conn)
        .await
        .map_err(wrap)?
        .iter()
        .map(|r| (r.get("kind"), row(r)))
        .collect();
        changes.reverse();
        let rv = changes
            .last()
            .map(|(_, r)| r.rv)
            .into_iter()
            .chain(objects.iter().map(|o| o.rv))
            .max()
            .unwrap_or(0);
        Ok((
            Self {
                conn,
                since_trim: 0,
                keep: i64::try_from(window).unwrap_or(i64::MAX),
            },
            Loaded { objects, changes, rv },
        ))
    }

    /// Writes changes in one transaction.
    pub async fn commit(&mut self, changes: impl Iterator<Item = &Change>) -> Result<(), sqlx::Error> {
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        let mut newest = 0;
        for change in changes {
            let key = &change.key;
            newest = signed(change.rv);
            self.since_trim += 1;
            let data: &[u8] = change.obj.bytes();
            if change.kind == ChangeKind::Deleted {
                sqlx::query("DELETE FROM objects WHERE resource = $1 AND namespace = $2 AND name = $3")
                    .bind(key.resource.as_ref())
                    .bind(&key.namespace)
                    .bind(&key.name)
                    .execute(&mut *tx)
                    .await?;
            } else {
                sqlx::query(
                    "INSERT INTO objects (resource, namespace, name, rv, data) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (resource, namespace, name) DO UPDATE SET rv = excluded.rv, data = excluded.data",
                )
                .bind(key.resource.as_ref())
                .bind(&key.namespace)
                .bind(&key.name)
                .bind(newest)
                .bind(data)
                .execute(&mut *tx)
                .await?;
            }
            sqlx::query(
                "INSERT INTO changes (rv, kind, resource, namespace, name, data) VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(newest)
            .bind(change.kind.code())
            .bind(key.resource.as_ref())
            .bind(&key.namespace)
            .bind(&key.name)
            .bind(data)
            .execute(&mut *tx)
            .await?;
        }
        if self.since_trim >= 1024 {
            self.since_trim = 0;
            sqlx::query("DELETE FROM changes WHERE rv <= $1")
                .bind(newest - self.keep)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await
    }

    pub async fn close(self) {
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "closing the database failed");
        }
    }
}
