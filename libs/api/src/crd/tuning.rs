//! Katib's resources, `kubeflow.org/v1beta1`: Experiment, Suggestion and Trial.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A search: what to optimise, over which parameters, how, how long, and what one trial is.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubeflow.org",
    version = "v1beta1",
    kind = "Experiment",
    plural = "experiments"
)]
#[kube(
    namespaced,
    status = "ExperimentStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentSpec {
    /// The search space; numbers are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<ParameterSpec>>,
    /// The metric and its direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveSpec>,
    /// Who proposes the trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AlgorithmSpec>,
    /// Who ends hopeless trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<AlgorithmSpec>,
    /// The resource that runs a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_template: Option<TrialTemplate>,
    /// Trials at the same time; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_trial_count: Option<i32>,
    /// Trials in all; no bound by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_trial_count: Option<i32>,
    /// Failed trials until the experiment fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_trial_count: Option<i32>,
    /// How metrics are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_collector_spec: Option<MetricsCollectorSpec>,
    /// Neural architecture search, instead of parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nas_config: Option<Value>,
    /// `Never` (default), `LongRunning` or `FromVolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_policy: Option<String>,
}

/// One dimension of the search space.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSpec {
    /// Name, to which trial parameters refer.
    #[serde(default)]
    pub name: String,
    /// `double`, `int`, `discrete` or `categorical`.
    #[serde(default)]
    pub parameter_type: String,
    /// Its values.
    #[serde(default)]
    pub feasible_space: FeasibleSpace,
}

/// Bounds of a number, or the values of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeasibleSpace {
    /// Largest number, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub max: String,
    /// Smallest number, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub min: String,
    /// Values of a discrete or categorical parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list: Vec<String>,
    /// Distance between numbers, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// `uniform` (default), `logUniform`, `normal` or `logNormal`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub distribution: String,
}

/// What is optimised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveSpec {
    /// `minimize` or `maximize`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// The experiment has succeeded when this is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Name of the metric.
    #[serde(default)]
    pub objective_metric_name: String,
    /// Metrics that are recorded as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_metric_names: Option<Vec<String>>,
    /// Which of a metric's values counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_strategies: Option<Vec<MetricStrategy>>,
}

/// `min`, `max` or `latest` of a metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricStrategy {
    /// Name of the metric.
    #[serde(default)]
    pub name: String,
    /// The strategy.
    #[serde(default)]
    pub value: String,
}

/// An algorithm and its settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlgorithmSpec {
    /// Name, such as `random`.
    #[serde(default)]
    pub algorithm_name: String,
    /// Settings by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm_settings: Option<Vec<AlgorithmSetting>>,
}

/// One setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgorithmSetting {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Value, as text.
    #[serde(default)]
    pub value: String,
}

/// The resource that runs a trial, and how to tell how it ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialTemplate {
    /// The resource stays when the trial has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    /// Any namespaced resource, with `${trialParameters.NAME}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_spec: Option<Value>,
    /// The same as text in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// What the template's names stand for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_parameters: Option<Vec<TrialParameterSpec>>,
    /// Labels of the Pod that reports metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_pod_labels: Option<BTreeMap<String, String>>,
    /// Its container that reports metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_container_name: Option<String>,
    /// GJSON query that finds something in a resource that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_condition: Option<String>,
    /// GJSON query that finds something in a resource that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_condition: Option<String>,
}

/// A template in a ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name.
    #[serde(default)]
    pub config_map_name: String,
    /// Namespace.
    #[serde(default)]
    pub config_map_namespace: String,
    /// Key.
    #[serde(default)]
    pub template_path: String,
}

/// A name in the template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialParameterSpec {
    /// Name in the template.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A parameter of the experiment, or `${trialSpec.Name}` and the like.
    #[serde(default)]
    pub reference: String,
}

/// How metrics are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsCollectorSpec {
    /// The kind of collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<CollectorSpec>,
    /// What it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceSpec>,
}

/// The kind of a collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectorSpec {
    /// `StdOut` (default), `File`, `Push`, `TensorFlowEvent`, `PrometheusMetric`, `Custom` or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The container of a custom collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_collector: Option<Value>,
}

/// What a collector reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// A Prometheus endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<Value>,
    /// A file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system_path: Option<FileSystemPath>,
    /// How a line is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterSpec>,
}

/// A file or folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemPath {
    /// Absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `File` or `Directory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `TEXT` or `JSON`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// Regular expressions with two groups, name and value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterSpec {
    /// The expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_format: Option<Vec<String>>,
}

/// What has become of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    /// See [`Condition`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the controller last changed the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reconcile_time: Option<Time>,
    /// `Created`, `Running`, `Restarting`, `Succeeded`, `Failed`; the last is the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The best trial so far.
    #[serde(default)]
    pub current_optimal_trial: OptimalTrial,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succeeded_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub early_stopped_trial_list: Vec<String>,
    /// Names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics_unavailable_trial_list: Vec<String>,
    /// All trials.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_succeeded: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_failed: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_killed: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_pending: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_running: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trials_early_stopped: i32,
    /// Count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trial_metrics_unavailable: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// One state of an experiment, a suggestion or a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The state.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// A word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When reason or message last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// When the status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// The best trial so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OptimalTrial {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub best_trial_name: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameter_assignments: Vec<ParameterAssignment>,
    /// Its metrics.
    #[serde(default)]
    pub observation: Observation,
}

/// A value of a parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ParameterAssignment {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Value, as text.
    #[serde(default)]
    pub value: String,
}

/// Metrics of a trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// One per metric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// The smallest, largest and latest value of a metric, as text; `unavailable` where none was reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Smallest.
    #[serde(default)]
    pub min: String,
    /// Largest.
    #[serde(default)]
    pub max: String,
    /// Latest.
    #[serde(default)]
    pub latest: String,
}

/// One point of the search space.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubeflow.org",
    version = "v1beta1",
    kind = "Trial",
    plural = "trials"
)]
#[kube(namespaced, status = "TrialStatus", schema = "disabled", derive = "PartialEq")]
#[serde(rename_all = "camelCase")]
pub struct TrialSpec {
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveSpec>,
    /// The point.
    #[serde(default)]
    pub parameter_assignments: Vec<ParameterAssignment>,
    /// From the early stopping service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping_rules: Option<Vec<EarlyStoppingRule>>,
    /// The resource, as it will be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_spec: Option<Value>,
    /// It stays when the trial has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_run: Option<bool>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_collector: Option<MetricsCollectorSpec>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_pod_labels: Option<BTreeMap<String, String>>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_container_name: Option<String>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_condition: Option<String>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_condition: Option<String>,
    /// From the suggestion service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// When a trial is not worth finishing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStoppingRule {
    /// Metric.
    #[serde(default)]
    pub name: String,
    /// Bound, as text.
    #[serde(default)]
    pub value: String,
    /// `equal`, `less` or `greater`.
    #[serde(default)]
    pub comparison: String,
    /// Reports before the rule counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_step: i32,
}

/// What has become of a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialStatus {
    /// When the controller first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the controller last changed the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reconcile_time: Option<Time>,
    /// `Created`, `Running`, `Succeeded`, `Killed`, `Failed`, `MetricsUnavailable`, `EarlyStopped`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<Observation>,
}

/// What an algorithm proposed for the experiment of the same name.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubeflow.org",
    version = "v1beta1",
    kind = "Suggestion",
    plural = "suggestions"
)]
#[kube(
    namespaced,
    status = "SuggestionStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct SuggestionSpec {
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AlgorithmSpec>,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<AlgorithmSpec>,
    /// Points wanted in all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests: i32,
    /// The experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_policy: Option<String>,
}

/// The points.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuggestionStatus {
    /// State that the algorithm returned; overlays the experiment's settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithm_settings: Vec<AlgorithmSetting>,
    /// Number of points.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suggestion_count: i32,
    /// The points, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suggestions: Vec<TrialAssignment>,
    /// When the controller first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the controller last changed the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reconcile_time: Option<Time>,
    /// `Created`, `DeploymentReady`, `Running`, `Succeeded`, `Failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A point and the name of the trial that tries it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrialAssignment {
    /// The point.
    #[serde(default)]
    pub parameter_assignments: Vec<ParameterAssignment>,
    /// Name of the trial.
    #[serde(default)]
    pub name: String,
    /// From the early stopping service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub early_stopping_rules: Vec<EarlyStoppingRule>,
    /// From the suggestion service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
