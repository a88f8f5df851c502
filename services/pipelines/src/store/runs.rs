//! Runs.

use ferroflow_db::{DbError, Row, params};
use ferroflow_kernel::{Error, Event, Page, Result};
use jiff::Timestamp;
use serde_json::json;

use super::list::{ListQuery, Table};
use super::{RunRow, Store, failed};
use crate::domain::run::TaskState;

const COLUMNS: &str = "id, namespace, experiment_id, display_name, description, storage_state, state, error, \
    pipeline_name, spec, pipeline_id, version_id, parameters, runtime_config, pipeline_root, service_account, \
    resource_name, recurring_run_id, created_by, created_at, scheduled_at, finished_at, history, terminate, revision, trace";

fn read(row: &Row) -> Result<RunRow, DbError> {
    Ok(RunRow {
        id: row.text(0)?,
        namespace: row.text(1)?,
        experiment_id: row.text(2)?,
        display_name: row.text(3)?,
        description: row.text(4)?,
        archived: row.text(5)? == "ARCHIVED",
        state: TaskState::from_name(&row.text(6)?).unwrap_or(TaskState::Pending),
        error: row.opt_text(7)?,
        pipeline_name: row.text(8)?,
        spec: row.json(9)?,
        pipeline_id: row.text(10)?,
        version_id: row.text(11)?,
        parameters: row.json(12)?,
        runtime_config: row.json(13)?,
        pipeline_root: row.text(14)?,
        service_account: row.text(15)?,
        resource_name: row.text(16)?,
        recurring_run_id: row.text(17)?,
        created_by: row.text(18)?,
        created_at: row.time(19)?,
        scheduled_at: row.time(20)?,
        finished_at: row.time(21)?,
        history: row.json(22)?,
        terminate: row.bool(23)?,
        revision: row.int(24)?,
        trace: row
            .opt_text(25)?
            .and_then(|text| serde_json::from_str(&text).ok()),
    })
}

impl Store {
    /// Adds a run. For one that a schedule makes, a run of the same id that exists already is left as it is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_run(&self, row: &RunRow) -> Result<()> {
        let event = Event::new(
            "pipelines",
            "ferroflow.pipelines.run.created",
            format!("namespaces/{}/runs/{}", row.namespace, row.id),
            row.revision,
            row.created_at,
            json!({"run_id": row.id, "experiment_id": row.experiment_id, "pipeline": row.pipeline_name}),
        );
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let added = tx
                    .execute(
                        "INSERT INTO runs (id, namespace, experiment_id, display_name, description, storage_state, \
                         state, error, pipeline_name, spec, pipeline_id, version_id, parameters, runtime_config, \
                         pipeline_root, service_account, resource_name, recurring_run_id, created_by, created_at, \
                         scheduled_at, finished_at, history, terminate, active, revision, trace) VALUES ($1, $2, $3, $4, $5, \
                         'AVAILABLE', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
                         $22, 0, 1, $23, $24) ON CONFLICT (id) DO NOTHING",
                        params![
                            &row.id,
                            &row.namespace,
                            &row.experiment_id,
                            &row.display_name,
                            &row.description,
                            row.state.name(),
                            row.error.clone(),
                            &row.pipeline_name,
                            &row.spec,
                            &row.pipeline_id,
                            &row.version_id,
                            json!(row.parameters),
                            &row.runtime_config,
                            &row.pipeline_root,
                            &row.service_account,
                            &row.resource_name,
                            &row.recurring_run_id,
                            &row.created_by,
                            row.created_at,
                            row.scheduled_at,
                            row.finished_at,
                            json!(row.history),
                            row.revision,
                            row.trace.as_ref().map(|trace| json!(trace).to_string())
                        ],
                    )
                    .await?;
                if added > 0 {
                    tx.execute(
                        "UPDATE experiments SET last_run_created_at = $1 WHERE id = $2",
                        params![row.created_at, &row.experiment_id],
                    )
                    .await?;
                    tx.append_event(&event).await?;
                }
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    /// The run of an id.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn run(&self, id: &str) -> Result<RunRow> {
        let sql = format!("SELECT {COLUMNS} FROM runs WHERE id = $1");
        let row = self.db.fetch_optional(&sql, params![id]).await.map_err(failed)?;
        row.map(|row| read(&row).map_err(failed))
            .transpose()?
            .ok_or_else(|| Error::not_found("run", id))
    }

    /// The runs that are not over, with the revision of each.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn active_runs(&self) -> Result<Vec<(String, i64)>> {
        let rows = self
            .db
            .fetch_all(
                "SELECT id, revision FROM runs WHERE active = 1 ORDER BY id",
                params![],
            )
            .await;
        rows.map_err(failed)?
            .iter()
            .map(|row| Ok((row.text(0).map_err(failed)?, row.int(1).map_err(failed)?)))
            .collect()
    }

    /// How many unfinished runs a recurring run has.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn active_runs_of(&self, recurring_run_id: &str) -> Result<i64> {
        let sql = "SELECT COUNT(*) FROM runs WHERE recurring_run_id = $1 AND active = 1";
        let row = self
            .db
            .fetch_optional(sql, params![recurring_run_id])
            .await
            .map_err(failed)?;
        row.map_or(Ok(0), |row| row.int(0)).map_err(failed)
    }

    /// A page of the runs of a namespace, of one experiment if given.
    ///
    /// # Errors
    /// A bad filter, order or token.
    pub async fn list_runs(
        &self,
        namespace: &str,
        experiment_id: &str,
        query: &ListQuery,
    ) -> Result<Page<RunRow>> {
        let mut fixed = vec![("namespace", namespace.to_owned())];
        if !experiment_id.is_empty() {
            fixed.push(("experiment_id", experiment_id.to_owned()));
        }
        let table = Table {
            name: "runs",
            columns: COLUMNS,
            fields: &[
                ("id", "id"),
                ("run_id", "id"),
                ("name", "display_name"),
                ("display_name", "display_name"),
                ("description", "description"),
                ("created_at", "created_at"),
                ("scheduled_at", "scheduled_at"),
                ("finished_at", "finished_at"),
                ("state", "state"),
                ("status", "state"),
                ("storage_state", "storage_state"),
                ("experiment_id", "experiment_id"),
                ("recurring_run_id", "recurring_run_id"),
                ("pipeline_id", "pipeline_id"),
                ("pipeline_version_id", "version_id"),
                ("pipeline_name", "pipeline_name"),
                ("namespace", "namespace"),
                ("service_account", "service_account"),
            ],
            fixed,
        };
        table.list(&self.db, query, read).await
    }

    /// Archives or restores a run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn archive_run(&self, id: &str, archive: bool) -> Result<()> {
        let state = if archive { "ARCHIVED" } else { "AVAILABLE" };
        self.change(
            "UPDATE runs SET storage_state = $1 WHERE id = $2",
            params![state, id],
        )
        .await
    }

    /// Asks to end a run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn terminate_run(&self, id: &str) -> Result<()> {
        let sql = "UPDATE runs SET terminate = 1, revision = revision + 1 WHERE id = $1 AND active = 1";
        self.change(sql, params![id]).await
    }

    /// Makes a run that ended badly go on: what failed or was ended no longer counts.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn retry_run(&self, id: &str, now: Timestamp) -> Result<()> {
        let run = self.run(id).await?;
        let mut history = run.history;
        history.push(super::StateChange {
            update_time: now,
            state: TaskState::Pending,
            error: None,
        });
        let history = json!(history);
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute(
                    "UPDATE facts SET forgiven = (SELECT COUNT(*) FROM attempts a WHERE a.run_id = facts.run_id AND \
                     a.path = facts.path) WHERE run_id = $1 AND EXISTS (SELECT 1 FROM attempts b WHERE b.run_id = \
                     facts.run_id AND b.path = facts.path AND b.state IN ('FAILED', 'STOPPED') AND b.number = \
                     (SELECT MAX(c.number) FROM attempts c WHERE c.run_id = b.run_id AND c.path = b.path))",
                    params![id],
                )
                .await?;
                tx.execute(
                    "UPDATE runs SET active = 1, terminate = 0, state = 'PENDING', error = NULL, finished_at = $1, \
                     history = $2, revision = revision + 1 WHERE id = $3",
                    params![Timestamp::UNIX_EPOCH, &history, id],
                )
                .await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    /// Removes a run with its tasks.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_run(&self, id: &str) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for table in ["tasks", "facts", "attempts", "lineage", "artifact_ids", "cache"] {
                    tx.execute(&format!("DELETE FROM {table} WHERE run_id = $1"), params![id])
                        .await?;
                }
                tx.execute("DELETE FROM runs WHERE id = $1", params![id]).await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }
}
