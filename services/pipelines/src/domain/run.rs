//! What a run is meant to do (desired) and what is known about its tasks (observed).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::package::Package;

/// What a run is meant to do.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Its id.
    pub run_id: String,
    /// Its name for people; `{{$.pipeline_job_name}}`.
    pub display_name: String,
    /// Its namespace.
    pub namespace: String,
    /// A Kubernetes name of the run; `{{$.pipeline_job_resource_name}}`.
    pub resource_name: String,
    /// URI below which outputs go.
    pub pipeline_root: String,
    /// Every parameter, with defaults.
    pub parameters: BTreeMap<String, Value>,
    /// The pipeline.
    pub package: Arc<Package>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was meant to start.
    pub scheduled_at: Timestamp,
    /// Whether somebody asked to end it.
    pub terminate: bool,
}

/// What is known about the tasks of a run, by path. All else is derived from it.
pub type Observed = BTreeMap<String, TaskFacts>;

/// What is known about one container task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskFacts {
    /// What the cache said.
    pub cache: CacheFact,
    /// Its attempts, in order.
    pub attempts: Vec<AttemptFacts>,
    /// How many of the attempts no longer count, because the run was retried by hand after them.
    pub forgiven: usize,
}

/// What the cache said about a task.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum CacheFact {
    /// It was not asked.
    #[default]
    Unasked,
    /// There is no former result.
    Miss,
    /// There is a former result.
    Hit(Arc<Outputs>),
}

/// What is known about one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptFacts {
    /// How far it is.
    pub state: AttemptState,
    /// When it ended, once it did.
    pub ended_at: Option<Timestamp>,
    /// What its Pod waits for, if something is wrong with it.
    pub trouble: Option<String>,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptState {
    /// Its intent is recorded; a Pod exists or is about to.
    Started,
    /// Its outcome is a success.
    Succeeded(Arc<Outputs>),
    /// Its outcome is a failure, or there never will be one.
    Failed(String),
    /// It was ended on request.
    Stopped,
}

impl AttemptState {
    /// Its name once it has ended; one without an outcome was stopped.
    pub fn ended_as(&self) -> &'static str {
        match self {
            Self::Succeeded(_) => "SUCCEEDED",
            Self::Failed(_) => "FAILED",
            Self::Stopped | Self::Started => "STOPPED",
        }
    }
}

/// What a task gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    /// Parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// Artifacts by name; one, or those of a list in order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Vec<Artifact>>,
}

/// An artifact as tasks hand it on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Where its bytes are.
    pub uri: String,
    /// For example `system.Model`.
    pub schema_title: String,
    /// For example `0.0.1`.
    pub schema_version: String,
    /// What is recorded about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// `sha256:<hex>` of its bytes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes in all, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What kind of thing a task in a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The run itself.
    Root,
    /// A step that runs in a Pod.
    Container,
    /// Names an artifact that exists already.
    Importer,
    /// A graph inside the graph.
    Dag,
    /// A loop.
    Loop,
    /// One pass of a loop.
    Iteration,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// It waits for others, for a retry or for room.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It did not run and will not.
    Skipped,
    /// It ended badly.
    Failed,
    /// It is being ended on request.
    Canceling,
    /// It was ended on request.
    Canceled,
}

impl TaskState {
    /// Whether nothing more will happen to it.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Skipped | Self::Failed | Self::Canceled
        )
    }

    /// Its name in the API's `RuntimeState`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Skipped => "SKIPPED",
            Self::Failed => "FAILED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Succeeded,
            Self::Skipped,
            Self::Failed,
            Self::Canceling,
            Self::Canceled,
        ]
        .into_iter()
        .find(|state| state.name() == name)
    }
}

/// An id that is always the same for the same words: a UUID made of their digest.
pub fn derived_id(words: &[&str]) -> String {
    use sha2::Digest as _;
    let mut digest = sha2::Sha256::new();
    for word in words {
        digest.update((word.len() as u64).to_be_bytes());
        digest.update(word.as_bytes());
    }
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
