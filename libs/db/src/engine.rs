use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, PgPool, Postgres, Sqlite, SqlitePool};
use tokio::sync::Notify;

use crate::tx::{Inner, bind};
use crate::{DbError, Row, Tx, Value, migrate};

const ATTEMPTS: u32 = 8;

/// How to open a store's database.
#[derive(Debug, Clone)]
pub struct DbOptions {
    /// `sqlite:///absolute/file.db` or `postgres://user:password@host/database`.
    pub url: String,
    /// Name of the store: its schema in PostgreSQL and its row in `schema_version`.
    pub name: String,
    /// Most connections that read at once.
    pub readers: u32,
}

impl DbOptions {
    /// A SQLite file.
    pub fn sqlite(file: &Path, name: &str) -> Self {
        Self {
            url: format!("sqlite://{}", file.display()),
            name: name.to_owned(),
            readers: 4,
        }
    }

    /// Any URL.
    pub fn url(url: &str, name: &str) -> Self {
        Self {
            url: url.to_owned(),
            name: name.to_owned(),
            readers: 8,
        }
    }
}

/// A store's database. Clones share it.
#[derive(Debug, Clone)]
pub struct Db {
    engine: Engine,
    /// Told after each commit, so that the outbox relay wakes at once.
    committed: Arc<Notify>,
}

#[derive(Debug, Clone)]
enum Engine {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres(PgPool),
}

impl Db {
    /// Opens the database, creates it where needed and applies the migrations that it lacks.
    ///
    /// # Errors
    /// If the URL is wrong, the engine does not answer, or the database is newer than `migrations`.
    pub async fn open(options: &DbOptions, migrations: &[&str]) -> Result<Self, DbError> {
        let engine = if let Some(file) = options.url.strip_prefix("sqlite://") {
            open_sqlite(Path::new(file), options.readers).await?
        } else if options.url.starts_with("postgres://") || options.url.starts_with("postgresql://") {
            open_postgres(options).await?
        } else {
            let scheme = options.url.split("://").next().unwrap_or_default();
            return Err(DbError::Url {
                url: format!("{scheme}://..."),
                reason: "unknown scheme".to_owned(),
            });
        };
        let db = Self {
            engine,
            committed: Arc::new(Notify::new()),
        };
        migrate::migrate(&db, &options.name, migrations).await?;
        Ok(db)
    }

    /// Begins a serializable transaction. On SQLite it holds the one writer until it ends, so nothing slow belongs inside.
    ///
    /// # Errors
    /// If no connection is free within thirty seconds or the engine refuses.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let inner = match &self.engine {
            Engine::Sqlite { writer, .. } => Inner::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Engine::Postgres(pool) => {
                Inner::Postgres(pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?)
            }
        };
        Ok(Tx {
            inner,
            committed: self.committed.clone(),
        })
    }

    /// Runs `work`, which begins and commits a transaction of its own, again from its start as long as the engine says that it
    /// lost a race against another transaction. `work` must have no effect outside its transaction.
    ///
    /// ```ignore
    /// db.retry(|| async { let mut tx = db.begin().await?; tx.execute(sql, params![id]).await?; tx.commit().await }).await?;
    /// ```
    ///
    /// # Errors
    /// What `work` answers.
    pub async fn retry<T, F, W>(&self, mut work: F) -> Result<T, DbError>
    where
        F: FnMut() -> W,
        W: Future<Output = Result<T, DbError>>,
    {
        let mut pause = Duration::from_millis(2);
        let mut attempt = 1;
        loop {
            match work().await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tracing::debug!(attempt, %error, "transaction is run again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// All rows of a query, from a reader connection. SQL text never holds user input: that goes into `params`.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn fetch_all(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        Ok(match &self.engine {
            Engine::Sqlite { readers, .. } => {
                let rows = bind!(sql, params, Sqlite).fetch_all(readers).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Engine::Postgres(pool) => {
                let rows = bind!(sql, params, Postgres).fetch_all(pool).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn fetch_optional(&self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, DbError> {
        Ok(match &self.engine {
            Engine::Sqlite { readers, .. } => bind!(sql, params, Sqlite)
                .fetch_optional(readers)
                .await?
                .map(Row::Sqlite),
            Engine::Postgres(pool) => bind!(sql, params, Postgres)
                .fetch_optional(pool)
                .await?
                .map(Row::Postgres),
        })
    }

    /// Resolves after a later commit through this handle or a clone of it.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Waits for what is running and closes all connections.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Engine::Postgres(pool) => pool.close().await,
        }
    }

    /// Splits a migration into statements and writes the engine's own words for `{{identity}}` and `{{bytes}}`.
    pub(crate) fn statements(&self, text: &str) -> Vec<String> {
        let (identity, bytes) = match self.engine {
            Engine::Sqlite { .. } => ("INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB"),
            Engine::Postgres(_) => ("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "BYTEA"),
        };
        let text = text.replace("{{identity}}", identity).replace("{{bytes}}", bytes);
        let statement = |part: &str| Some(part.trim().to_owned()).filter(|s| !s.is_empty());
        text.split(";\n").filter_map(statement).collect()
    }
}

async fn open_sqlite(file: &Path, readers: u32) -> Result<Engine, DbError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("temp_store", "memory")
        .disable_statement_logging();
    let pool = |max| {
        SqlitePoolOptions::new()
            .max_connections(max)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(Duration::from_secs(30))
            .test_before_acquire(false)
    };
    let writer = pool(1).connect_with(options.clone()).await?;
    let readers = pool(readers)
        .min_connections(0)
        .connect_with(options.read_only(true))
        .await?;
    Ok(Engine::Sqlite { writer, readers })
}

async fn open_postgres(options: &DbOptions) -> Result<Engine, DbError> {
    let parse = |e: sqlx::Error| DbError::Url {
        url: "postgres://...".to_owned(),
        reason: e.to_string(),
    };
    let schema = format!("ferroflow_{}", options.name.replace('-', "_"));
    let connect: PgConnectOptions = options.url.parse().map_err(parse)?;
    let connect = connect
        .options([("search_path", &schema)])
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(options.readers + 4)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(connect)
        .await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "CREATE SCHEMA IF NOT EXISTS {schema}"
    )))
    .execute(&pool)
    .await?;
    Ok(Engine::Postgres(pool))
}
