//! Tasks, attempts and facts of a run, and what a tick of the scheduler changes in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_db::{DbError, Row, Tx, params};
use ferroflow_kernel::{Event, Result};
use jiff::Timestamp;
use serde_json::json;

use super::{ArtifactIds, AttemptRow, CacheEntry, RunUpdate, Store, TaskRow, failed};
use crate::domain::run::{AttemptFacts, AttemptState, CacheFact, Observed, Outputs, TaskKind, TaskState};

const TASK: &str = "path, task_id, parent, name, display_name, kind, state, cached, message, inputs, outputs, \
    after_tasks, iteration, position, created_at, started_at, ended_at, history, execution_id";
const ATTEMPT: &str =
    "path, number, pod_name, pod_uid, state, message, outputs, folder, created_at, ended_at";

/// What one tick of the scheduler changes.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// New state of the run.
    pub run: Option<RunUpdate>,
    /// Tasks whose view changed.
    pub tasks: Vec<TaskRow>,
    /// What the cache said, by path: the key and, on a hit, the result.
    pub cache: Vec<(String, String, Option<Arc<Outputs>>)>,
    /// Attempts that are decided on, each with the key under which its success is remembered.
    pub started: Vec<(AttemptRow, Option<String>)>,
    /// Attempts that ended.
    pub ended: Vec<AttemptRow>,
    /// Results to remember: key, path, outputs.
    pub remembered: Vec<(String, String, Arc<Outputs>)>,
    /// Tasks whose execution is to be recorded in the metadata service: path and state.
    pub lineage: Vec<(String, TaskState)>,
    /// What the world is told.
    pub events: Vec<Event>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.run.is_none()
            && self.tasks.is_empty()
            && self.cache.is_empty()
            && self.started.is_empty()
            && self.ended.is_empty()
            && self.lineage.is_empty()
    }
}

fn task(row: &Row) -> Result<TaskRow, DbError> {
    let kind: TaskKind = serde_json::from_value(row.text(5)?.into()).unwrap_or(TaskKind::Container);
    Ok(TaskRow {
        path: row.text(0)?,
        task_id: row.text(1)?,
        parent: row.opt_text(2)?,
        name: row.text(3)?,
        display_name: row.text(4)?,
        kind,
        state: TaskState::from_name(&row.text(6)?).unwrap_or(TaskState::Pending),
        cached: row.bool(7)?,
        message: row.opt_text(8)?,
        inputs: row.json(9)?,
        outputs: row.json(10)?,
        after: row.json(11)?,
        iteration: row.opt_int(12)?,
        position: row.int(13)?,
        created_at: row.time(14)?,
        started_at: row.opt_time(15)?,
        ended_at: row.opt_time(16)?,
        history: row.json(17)?,
        execution_id: row.opt_int(18)?,
    })
}

fn attempt(row: &Row) -> Result<AttemptRow, DbError> {
    let outputs = match row.opt_text(6)? {
        Some(_) => Some(row.json(6)?),
        None => None,
    };
    Ok(AttemptRow {
        path: row.text(0)?,
        number: u32::try_from(row.int(1)?).unwrap_or_default(),
        pod_name: row.text(2)?,
        pod_uid: row.opt_text(3)?,
        state: row.text(4)?,
        message: row.opt_text(5)?,
        outputs,
        folder: row.text(7)?,
        created_at: row.time(8)?,
        ended_at: row.opt_time(9)?,
    })
}

impl Store {
    /// Tasks of a run in the order of the plan.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn tasks(&self, run_id: &str) -> Result<Vec<TaskRow>> {
        let sql = format!("SELECT {TASK} FROM tasks WHERE run_id = $1 ORDER BY position, path");
        let rows = self.db.fetch_all(&sql, params![run_id]).await.map_err(failed)?;
        rows.iter().map(|row| task(row).map_err(failed)).collect()
    }

    /// Attempts of a run, in order.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn attempts(&self, run_id: &str) -> Result<Vec<AttemptRow>> {
        let sql = format!("SELECT {ATTEMPT} FROM attempts WHERE run_id = $1 ORDER BY path, number");
        let rows = self.db.fetch_all(&sql, params![run_id]).await.map_err(failed)?;
        rows.iter().map(|row| attempt(row).map_err(failed)).collect()
    }

    /// Everything that is known about the tasks of a run.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn observed(&self, run_id: &str) -> Result<Observed> {
        let mut observed = Observed::new();
        let sql = "SELECT path, cache, cached_outputs, forgiven FROM facts WHERE run_id = $1";
        for row in self.db.fetch_all(sql, params![run_id]).await.map_err(failed)? {
            let facts = observed.entry(row.text(0).map_err(failed)?).or_default();
            facts.cache = match row.text(1).map_err(failed)?.as_str() {
                "HIT" => CacheFact::Hit(Arc::new(row.json(2).map_err(failed)?)),
                "MISS" => CacheFact::Miss,
                _ => CacheFact::Unasked,
            };
            facts.forgiven = usize::try_from(row.int(3).map_err(failed)?).unwrap_or_default();
        }
        for attempt in self.attempts(run_id).await? {
            let state = match attempt.state.as_str() {
                "SUCCEEDED" => AttemptState::Succeeded(Arc::new(attempt.outputs.unwrap_or_default())),
                "FAILED" => AttemptState::Failed(attempt.message.unwrap_or_default()),
                "STOPPED" => AttemptState::Stopped,
                _ => AttemptState::Started,
            };
            let fact = AttemptFacts {
                state,
                ended_at: attempt.ended_at,
                trouble: None,
            };
            observed.entry(attempt.path).or_default().attempts.push(fact);
        }
        Ok(observed)
    }

    /// Under which key the result of each task is to be remembered, by path.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cache_keys(&self, run_id: &str) -> Result<BTreeMap<String, String>> {
        let sql = "SELECT path, cache_key FROM facts WHERE run_id = $1 AND cache_key IS NOT NULL";
        let rows = self.db.fetch_all(sql, params![run_id]).await.map_err(failed)?;
        rows.iter()
            .map(|row| Ok((row.text(0).map_err(failed)?, row.text(1).map_err(failed)?)))
            .collect()
    }

    /// A former result.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cached(&self, namespace: &str, pipeline: &str, key: &str) -> Result<Option<CacheEntry>> {
        let sql = "SELECT run_id, path, outputs FROM cache WHERE namespace = $1 AND pipeline_name = $2 AND key = $3";
        let row = self
            .db
            .fetch_optional(sql, params![namespace, pipeline, key])
            .await
            .map_err(failed)?;
        let read = |row: &Row| -> Result<CacheEntry, DbError> {
            Ok(CacheEntry {
                run_id: row.text(0)?,
                path: row.text(1)?,
                outputs: row.json(2)?,
            })
        };
        row.map(|row| read(&row).map_err(failed)).transpose()
    }

    /// Forgets a result whose bytes are gone.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn forget_cached(&self, namespace: &str, pipeline: &str, key: &str) -> Result<()> {
        let sql = "DELETE FROM cache WHERE namespace = $1 AND pipeline_name = $2 AND key = $3";
        self.change(sql, params![namespace, pipeline, key]).await
    }

    /// Records the UIDs of Pods that were created: path, attempt, UID.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pods_created(&self, run_id: &str, pods: &[(String, u32, String)]) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for (path, number, uid) in pods {
                    tx.execute(
                        "UPDATE attempts SET pod_uid = $1 WHERE run_id = $2 AND path = $3 AND number = $4",
                        params![uid, run_id, path, *number],
                    )
                    .await?;
                }
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    /// Applies a tick of the scheduler.
    ///
    /// # Errors
    /// If the database fails; then nothing is changed.
    pub async fn apply(
        &self,
        run_id: &str,
        namespace: &str,
        pipeline: &str,
        now: Timestamp,
        changes: &Changes,
    ) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                write(&mut tx, run_id, namespace, pipeline, now, changes).await?;
                tx.commit().await
            })
            .await
            .map_err(failed)
    }

    /// Ids of the artifacts of a run in the metadata service.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn artifact_ids(&self, run_id: &str) -> Result<ArtifactIds> {
        let sql = "SELECT uri, artifact_id FROM artifact_ids WHERE run_id = $1";
        let rows = self.db.fetch_all(sql, params![run_id]).await.map_err(failed)?;
        rows.iter()
            .map(|row| Ok((row.text(0).map_err(failed)?, row.int(1).map_err(failed)?)))
            .collect()
    }

    /// Executions that are to be recorded: sequence number, run and path.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending_lineage(&self, limit: usize) -> Result<Vec<(i64, String, String)>> {
        let sql = format!("SELECT seq, run_id, path FROM lineage WHERE done = 0 ORDER BY seq LIMIT {limit}");
        let rows = self.db.fetch_all(&sql, params![]).await.map_err(failed)?;
        let read = |row: &Row| -> Result<_, DbError> { Ok((row.int(0)?, row.text(1)?, row.text(2)?)) };
        rows.iter().map(|row| read(row).map_err(failed)).collect()
    }

    /// Records that an execution could not be recorded; after five times, or at once if it is the `last`, it is given up.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lineage_failed(&self, seq: i64, last: bool) -> Result<()> {
        let sql = "UPDATE lineage SET tries = tries + 1, done = CASE WHEN tries >= 4 OR $1 = 1 THEN 1 ELSE 0 END \
                   WHERE seq = $2";
        self.change(sql, params![last, seq]).await
    }

    /// Records that an execution was recorded, with its id and those of its artifacts.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lineage_done(
        &self,
        seq: i64,
        run_id: &str,
        path: &str,
        execution_id: Option<i64>,
        artifacts: &BTreeMap<String, i64>,
    ) -> Result<()> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute("UPDATE lineage SET done = 1 WHERE seq = $1", params![seq])
                    .await?;
                if let Some(id) = execution_id {
                    tx.execute(
                        "UPDATE tasks SET execution_id = $1 WHERE run_id = $2 AND path = $3",
                        params![id, run_id, path],
                    )
                    .await?;
                }
                for (uri, id) in artifacts {
                    tx.execute(
                        "INSERT INTO artifact_ids (run_id, uri, artifact_id) VALUES ($1, $2, $3) \
                         ON CONFLICT (run_id, uri) DO UPDATE SET artifact_id = excluded.artifact_id",
                        params![run_id, uri, *id],
                    )
                    .await?;
                }
                tx.commit().await
            })
            .await
            .map_err(failed)
    }
}

async fn write(
    tx: &mut Tx,
    run_id: &str,
    namespace: &str,
    pipeline: &str,
    now: Timestamp,
    changes: &Changes,
) -> Result<(), DbError> {
    for (path, key, outputs) in &changes.cache {
        let (state, outputs) = match outputs {
            Some(outputs) => ("HIT", Some(json!(outputs))),
            None => ("MISS", None),
        };
        tx.execute(
            "INSERT INTO facts (run_id, path, cache, cached_outputs, cache_key, forgiven) VALUES ($1, $2, $3, $4, $5, 0) \
             ON CONFLICT (run_id, path) DO UPDATE SET cache = excluded.cache, cached_outputs = excluded.cached_outputs, \
             cache_key = excluded.cache_key",
            params![run_id, path, state, outputs, key],
        )
        .await?;
    }
    for (attempt, key) in &changes.started {
        tx.execute(
            "INSERT INTO facts (run_id, path, cache, cached_outputs, cache_key, forgiven) VALUES ($1, $2, '', NULL, $3, 0) \
             ON CONFLICT (run_id, path) DO UPDATE SET cache_key = excluded.cache_key",
            params![run_id, &attempt.path, key.clone()],
        )
        .await?;
        tx.execute(
            "INSERT INTO attempts (run_id, path, number, pod_name, pod_uid, state, message, outputs, folder, \
             created_at, ended_at) VALUES ($1, $2, $3, $4, NULL, 'STARTED', NULL, NULL, $5, $6, NULL)",
            params![
                run_id,
                &attempt.path,
                attempt.number,
                &attempt.pod_name,
                &attempt.folder,
                attempt.created_at
            ],
        )
        .await?;
    }
    for attempt in &changes.ended {
        tx.execute(
            "UPDATE attempts SET state = $1, message = $2, outputs = $3, ended_at = $4 \
             WHERE run_id = $5 AND path = $6 AND number = $7 AND state = 'STARTED'",
            params![
                &attempt.state,
                attempt.message.clone(),
                attempt.outputs.as_ref().map(|outputs| json!(outputs)),
                attempt.ended_at,
                run_id,
                &attempt.path,
                attempt.number
            ],
        )
        .await?;
    }
    for (key, path, outputs) in &changes.remembered {
        tx.execute(
            "INSERT INTO cache (namespace, pipeline_name, key, run_id, path, outputs, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (namespace, pipeline_name, key) DO UPDATE SET \
             run_id = excluded.run_id, path = excluded.path, outputs = excluded.outputs, \
             created_at = excluded.created_at",
            params![namespace, pipeline, key, run_id, path, json!(outputs), now],
        )
        .await?;
    }
    for row in &changes.tasks {
        write_task(tx, run_id, row).await?;
    }
    for (path, state) in &changes.lineage {
        tx.execute(
            "INSERT INTO lineage (run_id, path, state, done, tries) VALUES ($1, $2, $3, 0, 0) \
             ON CONFLICT (run_id, path, state) DO UPDATE SET done = 0",
            params![run_id, path, state.name()],
        )
        .await?;
    }
    if let Some(run) = &changes.run {
        tx.execute(
            "UPDATE runs SET state = $1, error = $2, finished_at = $3, history = $4, active = $5, \
             revision = revision + 1 WHERE id = $6",
            params![
                run.state.name(),
                run.error.clone(),
                run.finished_at,
                json!(run.history),
                !run.state.is_final(),
                run_id
            ],
        )
        .await?;
    }
    for event in &changes.events {
        tx.append_event(event).await?;
    }
    Ok(())
}

async fn write_task(tx: &mut Tx, run_id: &str, row: &TaskRow) -> Result<(), DbError> {
    let kind = serde_json::to_value(row.kind)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default();
    tx.execute(
        "INSERT INTO tasks (run_id, path, task_id, parent, name, display_name, kind, state, cached, message, inputs, \
         outputs, after_tasks, iteration, position, created_at, started_at, ended_at, history, execution_id) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, NULL) \
         ON CONFLICT (run_id, path) DO UPDATE SET state = excluded.state, cached = excluded.cached, \
         message = excluded.message, inputs = excluded.inputs, outputs = excluded.outputs, \
         position = excluded.position, started_at = excluded.started_at, ended_at = excluded.ended_at, \
         history = excluded.history",
        params![
            run_id,
            &row.path,
            &row.task_id,
            row.parent.clone(),
            &row.name,
            &row.display_name,
            kind,
            row.state.name(),
            row.cached,
            row.message.clone(),
            json!(row.inputs),
            json!(row.outputs),
            json!(row.after),
            row.iteration,
            row.position,
            row.created_at,
            row.started_at,
            row.ended_at,
            json!(row.history)
        ],
    )
    .await?;
    Ok(())
}
