//! Experiments.

use ferroflow_db::{DbError, Row, params};
use ferroflow_kernel::{Error, Page, Result};
use jiff::Timestamp;

use super::list::{ListQuery, Table};
use super::{ExperimentRow, Store, failed};

const COLUMNS: &str =
    "id, namespace, display_name, description, storage_state, created_at, last_run_created_at";

fn read(row: &Row) -> Result<ExperimentRow, DbError> {
    Ok(ExperimentRow {
        id: row.text(0)?,
        namespace: row.text(1)?,
        display_name: row.text(2)?,
        description: row.text(3)?,
        archived: row.text(4)? == "ARCHIVED",
        created_at: row.time(5)?,
        last_run_created_at: row.time(6)?,
    })
}

impl Store {
    /// Adds an experiment.
    ///
    /// # Errors
    /// `AlreadyExists` if its namespace has one of that name.
    pub async fn create_experiment(&self, row: &ExperimentRow) -> Result<()> {
        let done = self
            .db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute(
                    "INSERT INTO experiments (id, namespace, display_name, description, storage_state, created_at, \
                     last_run_created_at) VALUES ($1, $2, $3, $4, 'AVAILABLE', $5, $6)",
                    params![
                        &row.id,
                        &row.namespace,
                        &row.display_name,
                        &row.description,
                        row.created_at,
                        Timestamp::UNIX_EPOCH
                    ],
                )
                .await?;
                tx.commit().await
            })
            .await;
        match done {
            Err(error) if error.is_conflict() => Err(Error::already_exists("experiment", &row.display_name)),
            other => other.map_err(failed),
        }
    }

    /// The experiment of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn experiment(&self, id: &str) -> Result<ExperimentRow> {
        let sql = format!("SELECT {COLUMNS} FROM experiments WHERE id = $1");
        let row = self.db.fetch_optional(&sql, params![id]).await.map_err(failed)?;
        row.map(|row| read(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| Error::not_found("experiment", id))
    }

    /// The experiment of a name, if there is one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn experiment_by_name(&self, namespace: &str, name: &str) -> Result<Option<ExperimentRow>> {
        let sql = format!("SELECT {COLUMNS} FROM experiments WHERE namespace = $1 AND display_name = $2");
        let row = self
            .db
            .fetch_optional(&sql, params![namespace, name])
            .await
            .map_err(failed)?;
        row.map(|row| read(&row).map_err(failed)).transpose()
    }

    /// A page of the experiments of a namespace.
    ///
    /// # Errors
    /// A bad filter, order or token.
    pub async fn list_experiments(&self, namespace: &str, query: &ListQuery) -> Result<Page<ExperimentRow>> {
        let table = Table {
            name: "experiments",
            columns: COLUMNS,
            fields: &[
                ("id", "id"),
                ("experiment_id", "id"),
                ("name", "display_name"),
                ("display_name", "display_name"),
                ("description", "description"),
                ("created_at", "created_at"),
                ("last_run_created_at", "last_run_created_at"),
                ("storage_state", "storage_state"),
                ("namespace", "namespace"),
            ],
            fixed: vec![("namespace", namespace.to_owned())],
        };
        table.list(&self.db, query, read).await
    }

    /// Archives an experiment with its runs and disables its recurring runs, or restores it (and only it).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn archive_experiment(&self, id: &str, archive: bool) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let state = if archive { "ARCHIVED" } else { "AVAILABLE" };
                tx.execute(
                    "UPDATE experiments SET storage_state = $1 WHERE id = $2",
                    params![state, id],
                )
                .await?;
                if archive {
                    tx.execute(
                        "UPDATE runs SET storage_state = 'ARCHIVED' WHERE experiment_id = $1",
                        params![id],
                    )
                    .await?;
                    tx.execute(
                        "UPDATE recurring SET enabled = 0 WHERE experiment_id = $1",
                        params![id],
                    )
                    .await?;
                }
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    /// Removes an experiment; its runs stay.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_experiment(&self, id: &str) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute("DELETE FROM experiments WHERE id = $1", params![id])
                    .await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }
}
