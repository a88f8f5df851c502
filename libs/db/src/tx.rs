use std::sync::Arc;

use ferroflow_kernel::Event;
use sqlx::{Postgres, Sqlite, Transaction};
use tokio::sync::Notify;

use crate::{DbError, Row, Value};

/// One serializable transaction. Dropped without [`Tx::commit`] it rolls back.
pub struct Tx {
    pub(crate) inner: Inner,
    pub(crate) committed: Arc<Notify>,
}

pub(crate) enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

macro_rules! bind {
    ($sql:expr, $params:expr, $engine:ty) => {{
        let mut query = sqlx::query::<$engine>(sqlx::AssertSqlSafe($sql.to_owned()));
        for value in $params {
            query = match value {
                Value::NullText => query.bind(None::<String>),
                Value::NullInt => query.bind(None::<i64>),
                Value::NullReal => query.bind(None::<f64>),
                Value::NullBytes => query.bind(None::<Vec<u8>>),
                Value::Int(v) => query.bind(v),
                Value::Real(v) => query.bind(v),
                Value::Text(v) => query.bind(v),
                Value::Bytes(v) => query.bind(v.to_vec()),
            };
        }
        query
    }};
}
pub(crate) use bind;

impl Tx {
    /// Makes everything that was done in this transaction durable.
    ///
    /// # Errors
    /// If the engine refuses; nothing was done then.
    pub async fn commit(self) -> Result<(), DbError> {
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
        }
        self.committed.notify_waiters();
        self.committed.notify_one();
        Ok(())
    }

    /// Runs a statement; answers how many rows it touched. SQL text never holds user input: that goes into `params`.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn execute(&mut self, sql: &str, params: Vec<Value>) -> Result<u64, DbError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bind!(sql, params, Sqlite)
                .execute(&mut **tx)
                .await?
                .rows_affected(),
            Inner::Postgres(tx) => bind!(sql, params, Postgres)
                .execute(&mut **tx)
                .await?
                .rows_affected(),
        })
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn fetch_all(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, DbError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => {
                let rows = bind!(sql, params, Sqlite).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Inner::Postgres(tx) => {
                let rows = bind!(sql, params, Postgres).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row of a query, if there is one.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn fetch_optional(&mut self, sql: &str, params: Vec<Value>) -> Result<Option<Row>, DbError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => bind!(sql, params, Sqlite)
                .fetch_optional(&mut **tx)
                .await?
                .map(Row::Sqlite),
            Inner::Postgres(tx) => bind!(sql, params, Postgres)
                .fetch_optional(&mut **tx)
                .await?
                .map(Row::Postgres),
        })
    }

    /// Appends an event to the outbox: it is published if and only if this transaction commits.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn append_event(&mut self, event: &Event) -> Result<(), DbError> {
        let body = serde_json::to_string(event).map_err(ferroflow_kernel::Error::internal)?;
        self.execute(
            "INSERT INTO outbox (id, body) VALUES ($1, $2)",
            vec![Value::from(event.id.as_str()), Value::from(body)],
        )
        .await?;
        Ok(())
    }

    /// Records that a consumer has seen an event. False means it had seen it before: skip the effect.
    ///
    /// # Errors
    /// If the engine refuses.
    pub async fn record_inbox(&mut self, consumer: &str, event_id: &str) -> Result<bool, DbError> {
        let sql = "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        Ok(self
            .execute(sql, vec![Value::from(consumer), Value::from(event_id)])
            .await?
            == 1)
    }
}
