//! The contract between the pipelines service and the launcher: what a step is told, and what it answers.
//!
//! A [`Step`] travels in the arguments of the Pod's container. An [`Outcome`] is the object that the launcher
//! creates once, at [`Step::outcome_uri`]: that object is the result of the attempt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name of the environment variable with the URL of the artifacts service.
pub const ENV_ARTIFACTS_URL: &str = "FERROFLOW_ARTIFACTS_URL";
/// Name of the environment variable with the URL that is told when an outcome exists.
pub const ENV_HINT_URL: &str = "FERROFLOW_HINT_URL";
/// Name of the environment variable with the token of this one attempt. The launcher removes it from what
/// the user's command sees.
pub const ENV_TOKEN: &str = "FERROFLOW_ARTIFACTS_TOKEN";

/// Name of the environment variable with the W3C `traceparent`, as OpenTelemetry's specification has it.
pub const ENV_TRACEPARENT: &str = "TRACEPARENT";
/// Name of the environment variable with the W3C `tracestate`.
pub const ENV_TRACESTATE: &str = "TRACESTATE";

/// One attempt of one task, with everything resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Id of the run.
    pub run_id: String,
    /// Path of the task in the run, for example `root/for-loop-1/0/train`.
    pub task: String,
    /// Number of the attempt, from 0.
    pub attempt: u32,
    /// The container's command, with placeholders.
    pub command: Vec<String>,
    /// The container's arguments, with placeholders.
    #[serde(default)]
    pub args: Vec<String>,
    /// `ml_pipelines.ExecutorInput` in its JSON form.
    pub executor_input: Value,
    /// Declared types of the output parameters (`NUMBER_INTEGER`, `STRING`, ...).
    #[serde(default)]
    pub output_types: BTreeMap<String, String>,
    /// Where the outcome is to be created.
    pub outcome_uri: String,
    /// Values of `{{$.<name>}}` for names that are about the run, such as `pipeline_job_uuid`.
    #[serde(default)]
    pub placeholders: BTreeMap<String, String>,
    /// Where the spans of this attempt belong; absent when nothing is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<StepTrace>,
}

/// A place in a trace, and who collects it. The user's code finds the same in the environment ([`Self::environment`]), where a
/// component may say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepTrace {
    /// W3C `traceparent`.
    pub traceparent: String,
    /// W3C `tracestate`; mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tracestate: String,
    /// URL of an OTLP collector that speaks gRPC, as a Pod resolves it.
    pub endpoint: String,
}

impl StepTrace {
    /// The environment variables by which OpenTelemetry's SDKs join in.
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        let all = [
            (ENV_TRACEPARENT, self.traceparent.as_str()),
            (ENV_TRACESTATE, &self.tracestate),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeState {
    /// The command exited with 0 and every output was stored.
    Succeeded,
    /// Anything else.
    Failed,
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Id of the run.
    pub run_id: String,
    /// Path of the task in the run.
    pub task: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// How it ended.
    pub state: OutcomeState,
    /// Exit code of the command; 128 + n when signal n ended it; absent when it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Start of the command, RFC 3339.
    pub started_at: String,
    /// When the outputs were stored, RFC 3339.
    pub finished_at: String,
    /// Output parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    /// Output artifacts.
    #[serde(default)]
    pub artifacts: BTreeMap<String, Vec<OutcomeArtifact>>,
}

/// One artifact that a step stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeArtifact {
    /// Its name.
    pub name: String,
    /// Where its bytes are: an object, or the prefix of the objects of a folder.
    pub uri: String,
    /// Schema title, for example `system.Model`.
    #[serde(default)]
    pub schema_title: String,
    /// Version of the schema.
    #[serde(default)]
    pub schema_version: String,
    /// What the component recorded about it.
    #[serde(default)]
    pub metadata: serde_json::Map<String, Value>,
    /// `sha256:<hex>` of the bytes; of the sorted list of (name, digest) for a folder; absent when the
    /// component wrote nothing there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}
