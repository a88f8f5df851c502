//! Publishes what the outbox holds. A row is deleted only after the bus has accepted the event, so a crash between
//! the two publishes it again with the same id, which the bus and the consumers' inboxes drop.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_bus::EventBus;
use ferroflow_kernel::Event;
use tokio_util::sync::CancellationToken;

use crate::{Db, DbError, params};

const BATCH: i64 = 64;
const IDLE: Duration = Duration::from_secs(5);

/// Moves events from one store's outbox to the bus.
pub struct Relay {
    db: Db,
    bus: Arc<dyn EventBus>,
}

impl Relay {
    /// A relay for `db`.
    pub fn new(db: Db, bus: Arc<dyn EventBus>) -> Self {
        Self { db, bus }
    }

    /// Publishes until `cancel`; wakes at each commit, and at least every five seconds for commits of other processes.
    pub async fn run(self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let pause = match self.publish_batch().await {
                Ok(0) => IDLE,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "outbox relay will try again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.db.committed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Publishes the oldest unpublished events; answers how many.
    ///
    /// # Errors
    /// If the database or the bus does not answer; nothing is lost.
    pub async fn publish_batch(&self) -> Result<usize, DbError> {
        let sql = "SELECT seq, body FROM outbox ORDER BY seq LIMIT $1";
        let rows = self.db.fetch_all(sql, params![BATCH]).await?;
        let mut published = Vec::with_capacity(rows.len());
        for row in &rows {
            let event: Event = row.json(1)?;
            self.bus
                .publish(event)
                .await
                .map_err(ferroflow_kernel::Error::internal)?;
            published.push(row.int(0)?);
        }
        if !published.is_empty() {
            self.db.retry(|| self.forget(&published)).await?;
        }
        Ok(published.len())
    }

    async fn forget(&self, published: &[i64]) -> Result<(), DbError> {
        let mut tx = self.db.begin().await?;
        for seq in published {
            tx.execute("DELETE FROM outbox WHERE seq = $1", params![*seq])
                .await?;
        }
        tx.commit().await
    }
}
