//! Observation logs: what trials reported. Katib keys them by the trial's name alone, so two namespaces collide; here the
//! namespace is part of the key.

use ferroflow_db::{Db, DbError, Value, params};
use jiff::Timestamp;

use crate::domain::observation::Report;

/// The schema.
pub const MIGRATIONS: &[&str] = &["
CREATE TABLE observation_logs (
  id {{identity}},
  namespace TEXT NOT NULL,
  trial_name TEXT NOT NULL,
  time TEXT NOT NULL,
  metric_name TEXT NOT NULL,
  value TEXT NOT NULL
);
CREATE INDEX observation_logs_by_trial ON observation_logs (namespace, trial_name, time, id);
"];

/// Rows of one statement; five parameters each.
const CHUNK: usize = 100;

/// The logs.
#[derive(Debug, Clone)]
pub struct ObservationLogs {
    db: Db,
}

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Only this metric; all when empty.
    pub metric: String,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
}

impl ObservationLogs {
    /// Logs in this database, opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Appends to the log of a trial, all or nothing.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn append(&self, namespace: &str, trial: &str, reports: &[Report]) -> Result<(), DbError> {
        if reports.is_empty() {
            return Ok(());
        }
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for chunk in reports.chunks(CHUNK) {
                    let mut values = Vec::with_capacity(chunk.len() * 5);
                    let mut rows = Vec::with_capacity(chunk.len());
                    for report in chunk {
                        let at = values.len();
                        rows.push(format!("(${}, ${}, ${}, ${}, ${})", at + 1, at + 2, at + 3, at + 4, at + 5));
                        values.extend([
                            Value::from(namespace),
                            Value::from(trial),
                            Value::from(report.time),
                            Value::from(report.name.as_str()),
                            Value::from(report.value.as_str()),
                        ]);
                    }
                    let sql = format!(
                        "INSERT INTO observation_logs (namespace, trial_name, time, metric_name, value) VALUES {}",
                        rows.join(", ")
                    );
                    tx.execute(&sql, values).await?;
                }
                tx.commit().await
            })
            .await
    }

    /// The log of a trial by time; equal times in the order of arrival.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn read(&self, namespace: &str, trial: &str, query: &LogQuery) -> Result<Vec<Report>, DbError> {
        let mut sql =
            "SELECT time, metric_name, value FROM observation_logs WHERE namespace = $1 AND trial_name = $2"
                .to_owned();
        let mut values = params![namespace, trial];
        if !query.metric.is_empty() {
            values.push(Value::from(query.metric.as_str()));
            sql.push_str(&format!(" AND metric_name = ${}", values.len()));
        }
        for (operator, time) in [(">=", query.start), ("<=", query.end)] {
            if let Some(time) = time {
                values.push(Value::from(time));
                sql.push_str(&format!(" AND time {operator} ${}", values.len()));
            }
        }
        sql.push_str(" ORDER BY time, id");
        let rows = self.db.fetch_all(&sql, values).await?;
        rows.iter()
            .map(|row| {
                Ok(Report {
                    time: row.time(0)?,
                    name: row.text(1)?,
                    value: row.text(2)?,
                })
            })
            .collect()
    }

    /// Forgets the log of a trial.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn delete(&self, namespace: &str, trial: &str) -> Result<(), DbError> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let sql = "DELETE FROM observation_logs WHERE namespace = $1 AND trial_name = $2";
                tx.execute(sql, params![namespace, trial]).await?;
                tx.commit().await
            })
            .await
    }
}
