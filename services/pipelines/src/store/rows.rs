//! What is in a row of each table.

use std::collections::BTreeMap;

use ferroflow_telemetry::TraceContext;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::run::{Artifact, Outputs, TaskKind, TaskState};

/// An experiment: a folder of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentRow {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Whether it is archived.
    pub archived: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its newest run was created; the epoch when there is none.
    pub last_run_created_at: Timestamp,
}

/// A pipeline: a name for versions.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineRow {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A version of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRow {
    /// Its id.
    pub id: String,
    /// Its pipeline.
    pub pipeline_id: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where its source code is.
    pub code_source_url: String,
    /// Where its package came from.
    pub package_url: String,
    /// The pipeline, as the API gives it.
    pub spec: Value,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A state, and since when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// Since when.
    pub update_time: Timestamp,
    /// Which state.
    pub state: TaskState,
    /// Why, if something was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its experiment.
    pub experiment_id: String,
    /// Its name.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Whether it is archived.
    pub archived: bool,
    /// How far it is.
    pub state: TaskState,
    /// Why it failed.
    pub error: Option<String>,
    /// Name of the pipeline.
    pub pipeline_name: String,
    /// The pipeline, as the API gives it.
    pub spec: Value,
    /// The pipeline it was made from; empty when the spec was given.
    pub pipeline_id: String,
    /// The version it was made from; empty when the spec was given.
    pub version_id: String,
    /// Every parameter.
    pub parameters: BTreeMap<String, Value>,
    /// What the user gave as runtime config.
    pub runtime_config: Value,
    /// Where its outputs go.
    pub pipeline_root: String,
    /// As whom its Pods run.
    pub service_account: String,
    /// A Kubernetes name for it.
    pub resource_name: String,
    /// The recurring run that made it; empty for none.
    pub recurring_run_id: String,
    /// Who made it.
    pub created_by: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was meant to start.
    pub scheduled_at: Timestamp,
    /// When it ended; the epoch while it has not.
    pub finished_at: Timestamp,
    /// Its states so far.
    pub history: Vec<StateChange>,
    /// Whether somebody asked to end it.
    pub terminate: bool,
    /// Grows with every change.
    pub revision: i64,
    /// Where in a trace the request was that made it.
    pub trace: Option<TraceContext>,
}

/// What changes in a run while it is worked on.
#[derive(Debug, Clone, PartialEq)]
pub struct RunUpdate {
    /// How far it is.
    pub state: TaskState,
    /// Why it failed.
    pub error: Option<String>,
    /// When it ended; the epoch while it has not.
    pub finished_at: Timestamp,
    /// Its states so far.
    pub history: Vec<StateChange>,
}

/// A task of a run as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Its path.
    pub path: String,
    /// Its id.
    pub task_id: String,
    /// Path of what it is in.
    pub parent: Option<String>,
    /// Its name in its graph.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// What it is.
    pub kind: TaskKind,
    /// How far it is.
    pub state: TaskState,
    /// Whether its result was taken from the cache.
    pub cached: bool,
    /// Why it failed or was skipped, or what it waits for.
    pub message: Option<String>,
    /// What it was given.
    pub inputs: Outputs,
    /// What it gave.
    pub outputs: Outputs,
    /// The tasks of its graph that it waits for.
    pub after: Vec<String>,
    /// Which pass of a loop it is.
    pub iteration: Option<i64>,
    /// Its place in the list of tasks.
    pub position: i64,
    /// When it became known.
    pub created_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its states so far.
    pub history: Vec<StateChange>,
    /// Its execution in the metadata service.
    pub execution_id: Option<i64>,
}

/// An attempt of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// Path of the task.
    pub path: String,
    /// Its number, from 0.
    pub number: u32,
    /// Name of its Pod.
    pub pod_name: String,
    /// UID of its Pod, once there is one.
    pub pod_uid: Option<String>,
    /// `STARTED`, `SUCCEEDED`, `FAILED` or `STOPPED`.
    pub state: String,
    /// Why it failed.
    pub message: Option<String>,
    /// What it gave.
    pub outputs: Option<Outputs>,
    /// URI of its folder.
    pub folder: String,
    /// When it was decided on.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A result that can be taken again.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheEntry {
    /// The run that made it.
    pub run_id: String,
    /// The task that made it.
    pub path: String,
    /// The result.
    pub outputs: Outputs,
}

impl CacheEntry {
    /// Every artifact of the result.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.outputs.artifacts.values().flatten()
    }
}

/// Ids of artifacts in the metadata service by URI.
pub type ArtifactIds = BTreeMap<String, i64>;

/// A run that is made again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurringRow {
    /// Its id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its experiment.
    pub experiment_id: String,
    /// Its name.
    pub display_name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed.
    pub updated_at: Timestamp,
    /// Whether it makes runs.
    pub enabled: bool,
    /// The rest of it, as the API has it.
    pub spec: Value,
    /// When it makes the next run; the far future for never.
    pub next_at: Timestamp,
    /// When it made the last one; the epoch for never.
    pub last_at: Timestamp,
    /// How many it made.
    pub fired: i64,
}
