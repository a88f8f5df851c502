//! Recurring runs.

use ferroflow_db::{DbError, Row, params};
use ferroflow_kernel::{Error, Page, Result};
use jiff::Timestamp;

use super::list::{ListQuery, Table};
use super::{RecurringRow, Store, failed};

const COLUMNS: &str = "id, namespace, experiment_id, display_name, created_at, updated_at, enabled, spec, next_at, last_at, fired";

fn read(row: &Row) -> Result<RecurringRow, DbError> {
    Ok(RecurringRow {
        id: row.text(0)?,
        namespace: row.text(1)?,
        experiment_id: row.text(2)?,
        display_name: row.text(3)?,
        created_at: row.time(4)?,
        updated_at: row.time(5)?,
        enabled: row.bool(6)?,
        spec: row.json(7)?,
        next_at: row.time(8)?,
        last_at: row.time(9)?,
        fired: row.int(10)?,
    })
}

impl Store {
    /// Adds a recurring run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_recurring(&self, row: &RecurringRow) -> Result<()> {
        self.change(
            "INSERT INTO recurring (id, namespace, experiment_id, display_name, created_at, updated_at, enabled, spec, \
             next_at, last_at, fired) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                &row.id,
                &row.namespace,
                &row.experiment_id,
                &row.display_name,
                row.created_at,
                row.updated_at,
                row.enabled,
                &row.spec,
                row.next_at,
                row.last_at,
                row.fired
            ],
        )
        .await
    }

    /// The recurring run of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn recurring(&self, id: &str) -> Result<RecurringRow> {
        let sql = format!("SELECT {COLUMNS} FROM recurring WHERE id = $1");
        let row = self.db.fetch_optional(&sql, params![id]).await.map_err(failed)?;
        row.map(|row| read(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| Error::not_found("recurring run", id))
    }

    /// A page of the recurring runs of a namespace, of one experiment if given.
    ///
    /// # Errors
    /// A bad filter, order or token.
    pub async fn list_recurring(
        &self,
        namespace: &str,
        experiment_id: &str,
        query: &ListQuery,
    ) -> Result<Page<RecurringRow>> {
        let mut fixed = vec![("namespace", namespace.to_owned())];
        if !experiment_id.is_empty() {
            fixed.push(("experiment_id", experiment_id.to_owned()));
        }
        let table = Table {
            name: "recurring",
            columns: COLUMNS,
            fields: &[
                ("id", "id"),
                ("recurring_run_id", "id"),
                ("name", "display_name"),
                ("display_name", "display_name"),
                ("created_at", "created_at"),
                ("updated_at", "updated_at"),
                ("experiment_id", "experiment_id"),
                ("namespace", "namespace"),
            ],
            fixed,
        };
        table.list(&self.db, query, read).await
    }

    /// Those that are to make a run by now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn due_recurring(&self, now: Timestamp) -> Result<Vec<RecurringRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM recurring WHERE enabled = 1 AND next_at <= $1 ORDER BY next_at LIMIT 100"
        );
        let rows = self.db.fetch_all(&sql, params![now]).await.map_err(failed)?;
        rows.iter().map(|row| read(row).map_err(failed)).collect()
    }

    /// When the next one is to make a run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn next_recurring(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT next_at FROM recurring WHERE enabled = 1 ORDER BY next_at LIMIT 1";
        let row = self.db.fetch_optional(sql, params![]).await.map_err(failed)?;
        row.map(|row| row.time(0).map_err(failed)).transpose()
    }

    /// Records that one made a run, or was enabled or disabled.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_recurring(&self, row: &RecurringRow) -> Result<()> {
        self.change(
            "UPDATE recurring SET enabled = $1, next_at = $2, last_at = $3, fired = $4, updated_at = $5 WHERE id = $6",
            params![row.enabled, row.next_at, row.last_at, row.fired, row.updated_at, &row.id],
        )
        .await
    }

    /// Removes a recurring run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_recurring(&self, id: &str) -> Result<()> {
        self.change("DELETE FROM recurring WHERE id = $1", params![id])
            .await
    }
}
