//! Rows of the pipelines service. SQL is written once and runs on SQLite and PostgreSQL alike.

mod catalog;
mod experiments;
mod list;
mod rows;
mod runs;
mod schedule;
mod tasks;

use ferroflow_db::{Db, DbError};

pub use list::{ListQuery, Predicate, PredicateValue, Sort};
pub use rows::{
    ArtifactIds, AttemptRow, CacheEntry, ExperimentRow, PipelineRow, RecurringRow, RunRow, RunUpdate,
    StateChange, TaskRow, VersionRow,
};
pub use tasks::Changes;

/// The schema, in steps.
pub const MIGRATIONS: &[&str] = &["
CREATE TABLE experiments (
  id TEXT PRIMARY KEY, namespace TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
  storage_state TEXT NOT NULL, created_at TEXT NOT NULL, last_run_created_at TEXT NOT NULL,
  UNIQUE (namespace, display_name));
CREATE INDEX experiments_created ON experiments (namespace, created_at, id);
CREATE TABLE pipelines (
  id TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL,
  description TEXT NOT NULL, created_at TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE (namespace, name));
CREATE INDEX pipelines_created ON pipelines (namespace, created_at, id);
CREATE TABLE versions (
  id TEXT PRIMARY KEY, pipeline_id TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL,
  description TEXT NOT NULL, created_at TEXT NOT NULL, code_source_url TEXT NOT NULL, package_url TEXT NOT NULL,
  spec TEXT NOT NULL, tags TEXT NOT NULL, UNIQUE (pipeline_id, name));
CREATE INDEX versions_created ON versions (pipeline_id, created_at, id);
CREATE TABLE runs (
  id TEXT PRIMARY KEY, namespace TEXT NOT NULL, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL,
  description TEXT NOT NULL, storage_state TEXT NOT NULL, state TEXT NOT NULL, error TEXT, pipeline_name TEXT NOT NULL,
  spec TEXT NOT NULL, pipeline_id TEXT NOT NULL, version_id TEXT NOT NULL, parameters TEXT NOT NULL,
  runtime_config TEXT NOT NULL, pipeline_root TEXT NOT NULL, service_account TEXT NOT NULL,
  resource_name TEXT NOT NULL, recurring_run_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
  scheduled_at TEXT NOT NULL, finished_at TEXT NOT NULL, history TEXT NOT NULL, terminate BIGINT NOT NULL,
  active BIGINT NOT NULL, revision BIGINT NOT NULL);
CREATE INDEX runs_created ON runs (namespace, storage_state, created_at, id);
CREATE INDEX runs_experiment ON runs (experiment_id, created_at, id);
CREATE INDEX runs_active ON runs (active, id);
CREATE INDEX runs_recurring ON runs (recurring_run_id, active);
CREATE TABLE tasks (
  run_id TEXT NOT NULL, path TEXT NOT NULL, task_id TEXT NOT NULL, parent TEXT, name TEXT NOT NULL,
  display_name TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, cached BIGINT NOT NULL, message TEXT,
  inputs TEXT NOT NULL, outputs TEXT NOT NULL, after_tasks TEXT NOT NULL, iteration BIGINT, position BIGINT NOT NULL,
  created_at TEXT NOT NULL, started_at TEXT, ended_at TEXT, history TEXT NOT NULL, execution_id BIGINT,
  PRIMARY KEY (run_id, path));
CREATE TABLE facts (
  run_id TEXT NOT NULL, path TEXT NOT NULL, cache TEXT NOT NULL, cached_outputs TEXT, cache_key TEXT,
  forgiven BIGINT NOT NULL, PRIMARY KEY (run_id, path));
CREATE TABLE attempts (
  run_id TEXT NOT NULL, path TEXT NOT NULL, number BIGINT NOT NULL, pod_name TEXT NOT NULL, pod_uid TEXT,
  state TEXT NOT NULL, message TEXT, outputs TEXT, folder TEXT NOT NULL, created_at TEXT NOT NULL, ended_at TEXT,
  PRIMARY KEY (run_id, path, number));
CREATE INDEX attempts_pod ON attempts (pod_name);
CREATE TABLE cache (
  namespace TEXT NOT NULL, pipeline_name TEXT NOT NULL, key TEXT NOT NULL, run_id TEXT NOT NULL, path TEXT NOT NULL,
  outputs TEXT NOT NULL, created_at TEXT NOT NULL, PRIMARY KEY (namespace, pipeline_name, key));
CREATE TABLE recurring (
  id TEXT PRIMARY KEY, namespace TEXT NOT NULL, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL,
  created_at TEXT NOT NULL, updated_at TEXT NOT NULL, enabled BIGINT NOT NULL, spec TEXT NOT NULL,
  next_at TEXT NOT NULL, last_at TEXT NOT NULL, fired BIGINT NOT NULL);
CREATE INDEX recurring_created ON recurring (namespace, created_at, id);
CREATE INDEX recurring_next ON recurring (enabled, next_at);
CREATE TABLE lineage (
  seq {{identity}}, run_id TEXT NOT NULL, path TEXT NOT NULL, state TEXT NOT NULL, done BIGINT NOT NULL,
  tries BIGINT NOT NULL, UNIQUE (run_id, path, state));
CREATE INDEX lineage_done ON lineage (done, seq);
CREATE TABLE artifact_ids (
  run_id TEXT NOT NULL, uri TEXT NOT NULL, artifact_id BIGINT NOT NULL, PRIMARY KEY (run_id, uri));
", "
ALTER TABLE runs ADD COLUMN trace TEXT;
"];

/// The rows.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) db: Db,
}

impl Store {
    /// Rows in a database that was opened with [`MIGRATIONS`].
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The database.
    pub fn db(&self) -> &Db {
        &self.db
    }
}

/// A kernel error from a database error.
pub(crate) fn failed(error: DbError) -> ferroflow_kernel::Error {
    error.into()
}
