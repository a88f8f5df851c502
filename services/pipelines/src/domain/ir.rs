//! PipelineSpec, the compiled form of a pipeline, as its JSON or YAML has it (`ml_pipelines.PipelineSpec`).
//!
//! Only what the scheduler reads is named here; the text that was submitted is kept as it came.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

/// The whole pipeline.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// Name and description.
    pub pipeline_info: PipelineInfo,
    /// Version of this format; `2.1.0` is the one in use.
    pub schema_version: String,
    /// Which SDK compiled it.
    #[serde(default)]
    pub sdk_version: String,
    /// Components by name.
    #[serde(default)]
    pub components: BTreeMap<String, Component>,
    /// The entry.
    pub root: Component,
    /// Executors by label.
    #[serde(default)]
    pub deployment_spec: DeploymentSpec,
    /// Where outputs go unless the run says otherwise.
    #[serde(default)]
    pub default_pipeline_root: String,
}

/// Name and description of a pipeline.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineInfo {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// A name for people.
    #[serde(default)]
    pub display_name: String,
    /// A description.
    #[serde(default)]
    pub description: String,
}

/// Executors by label.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// The executors.
    #[serde(default)]
    pub executors: BTreeMap<String, Executor>,
}

/// What runs a component: exactly one of the fields is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executor {
    /// A container.
    pub container: Option<Container>,
    /// Names an artifact that exists already.
    pub importer: Option<Importer>,
    /// A query for artifacts; not in use by open source KFP.
    pub resolver: Option<Value>,
    /// A Vertex job; not in use by open source KFP.
    pub custom_job: Option<Value>,
}

/// A container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The image; may hold placeholders.
    #[serde(default)]
    pub image: String,
    /// The command; may hold placeholders.
    #[serde(default)]
    pub command: Vec<String>,
    /// The arguments; may hold placeholders.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Requests and limits.
    pub resources: Option<Resources>,
}

/// One environment variable.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// Requests and limits. The `resource_*` texts win over the numbers, which older SDKs wrote (cores, gigabytes).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Cores.
    pub cpu_limit: Option<f64>,
    /// Gigabytes (10^9 bytes).
    pub memory_limit: Option<f64>,
    /// Cores.
    pub cpu_request: Option<f64>,
    /// Gigabytes (10^9 bytes).
    pub memory_request: Option<f64>,
    /// A Kubernetes quantity.
    #[serde(default)]
    pub resource_cpu_limit: String,
    /// A Kubernetes quantity.
    #[serde(default)]
    pub resource_memory_limit: String,
    /// A Kubernetes quantity.
    #[serde(default)]
    pub resource_cpu_request: String,
    /// A Kubernetes quantity.
    #[serde(default)]
    pub resource_memory_request: String,
    /// GPUs and the like.
    pub accelerator: Option<Accelerator>,
}

/// GPUs and the like.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    /// Name of the extended resource (older SDKs).
    #[serde(default, rename = "type")]
    pub kind: String,
    /// How many (older SDKs): a JSON number or a text.
    pub count: Option<Value>,
    /// Name of the extended resource, for example `nvidia.com/gpu`.
    #[serde(default)]
    pub resource_type: String,
    /// How many.
    #[serde(default)]
    pub resource_count: String,
}

/// Names an artifact that exists already.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Importer {
    /// Its URI.
    #[serde(default)]
    pub artifact_uri: RuntimeValue,
    /// Its type.
    #[serde(default)]
    pub type_schema: ArtifactType,
    /// Metadata to record; may hold placeholders.
    pub metadata: Option<Value>,
    /// Whether a new artifact is recorded even when one of this URI exists.
    #[serde(default)]
    pub reimport: bool,
    /// Whether the bytes are to be copied to the workspace.
    #[serde(default)]
    pub download_to_workspace: bool,
}

/// A constant, or the name of a parameter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeValue {
    /// A constant.
    #[serde(default, deserialize_with = "present")]
    pub constant: Option<Value>,
    /// A constant in the older, typed form: `{"stringValue": ..}`.
    pub constant_value: Option<Value>,
    /// Name of an input parameter of the component.
    pub runtime_parameter: Option<String>,
}

/// A component: a graph, or one executor.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Declared inputs.
    #[serde(default)]
    pub input_definitions: Inputs,
    /// Declared outputs.
    #[serde(default)]
    pub output_definitions: Outputs,
    /// A graph of tasks.
    pub dag: Option<Dag>,
    /// Label of an executor.
    pub executor_label: Option<String>,
}

/// Declared inputs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, InputParameter>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, InputArtifact>,
}

/// A declared input parameter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputParameter {
    /// Its type.
    #[serde(default)]
    pub parameter_type: String,
    /// Its default; `null` counts as none.
    pub default_value: Option<Value>,
    /// Whether it may be left out.
    #[serde(default)]
    pub is_optional: bool,
    /// The values that are allowed, if limited.
    #[serde(default)]
    pub literals: Vec<Value>,
}

/// A declared input artifact.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputArtifact {
    /// Its type.
    #[serde(default)]
    pub artifact_type: ArtifactType,
    /// Whether it is a list of artifacts.
    #[serde(default)]
    pub is_artifact_list: bool,
    /// Whether it may be left out.
    #[serde(default)]
    pub is_optional: bool,
}

/// Declared outputs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outputs {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, OutputParameter>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, OutputArtifact>,
}

/// A declared output parameter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputParameter {
    /// Its type.
    #[serde(default)]
    pub parameter_type: String,
}

/// A declared output artifact.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputArtifact {
    /// Its type.
    #[serde(default)]
    pub artifact_type: ArtifactType,
    /// Whether it is a list of artifacts.
    #[serde(default)]
    pub is_artifact_list: bool,
    /// Metadata to record.
    pub metadata: Option<Value>,
}

/// Type of an artifact.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactType {
    /// For example `system.Model`.
    #[serde(default)]
    pub schema_title: String,
    /// For example `0.0.1`.
    #[serde(default)]
    pub schema_version: String,
    /// A schema elsewhere; not in use by open source KFP.
    pub schema_uri: Option<String>,
    /// An inline schema (older SDKs).
    pub instance_schema: Option<String>,
}

/// A graph of tasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dag {
    /// Tasks by name, in the order of the text.
    #[serde(default)]
    pub tasks: IndexMap<String, Task>,
    /// What the graph gives.
    #[serde(default)]
    pub outputs: DagOutputs,
}

/// What a graph gives.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DagOutputs {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, DagOutputParameter>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, DagOutputArtifact>,
}

/// Where an output parameter of a graph comes from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DagOutputParameter {
    /// From one task.
    pub value_from_parameter: Option<ParameterSelector>,
    /// From the first of several that ran.
    pub value_from_oneof: Option<ParameterSelectors>,
}

/// Several sources of a parameter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSelectors {
    /// In order of preference.
    #[serde(default)]
    pub parameter_selectors: Vec<ParameterSelector>,
}

/// An output parameter of a task in the graph.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSelector {
    /// The task.
    #[serde(default)]
    pub producer_subtask: String,
    /// Its output.
    #[serde(default)]
    pub output_parameter_key: String,
}

/// Where an output artifact of a graph comes from: one source, or the first of several that ran.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DagOutputArtifact {
    /// In order of preference.
    #[serde(default)]
    pub artifact_selectors: Vec<ArtifactSelector>,
}

/// An output artifact of a task in the graph.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSelector {
    /// The task.
    #[serde(default)]
    pub producer_subtask: String,
    /// Its output.
    #[serde(default)]
    pub output_artifact_key: String,
}

/// A task: one use of a component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its name for people.
    #[serde(default)]
    pub task_info: TaskInfo,
    /// What its inputs are.
    #[serde(default)]
    pub inputs: TaskInputs,
    /// Tasks that come before it, besides those its inputs name.
    #[serde(default)]
    pub dependent_tasks: Vec<String>,
    /// Whether a former result may be taken.
    #[serde(default)]
    pub caching_options: CachingOptions,
    /// The component.
    #[serde(default)]
    pub component_ref: ComponentRef,
    /// When it runs.
    #[serde(default)]
    pub trigger_policy: TriggerPolicy,
    /// How it is tried again.
    pub retry_policy: Option<RetryPolicy>,
    /// A loop over values.
    pub parameter_iterator: Option<ParameterIterator>,
    /// A loop over artifacts.
    pub artifact_iterator: Option<ArtifactIterator>,
    /// How wide the loop runs.
    #[serde(default)]
    pub iterator_policy: IteratorPolicy,
}

/// Name of a task for people.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskInfo {
    /// The name.
    #[serde(default)]
    pub name: String,
}

/// Name of a component.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ComponentRef {
    /// The name.
    #[serde(default)]
    pub name: String,
}

/// Whether a former result may be taken.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachingOptions {
    /// Whether it may.
    #[serde(default)]
    pub enable_cache: bool,
    /// A key chosen by the user.
    #[serde(default)]
    pub cache_key: String,
}

/// When a task runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerPolicy {
    /// A condition over its inputs.
    #[serde(default)]
    pub condition: String,
    /// Which states of the tasks before it let it run.
    #[serde(default)]
    pub strategy: String,
}

impl TriggerPolicy {
    /// Whether the task runs once all before it ended, however they ended.
    pub fn runs_after_failure(&self) -> bool {
        self.strategy == "ALL_UPSTREAM_TASKS_COMPLETED"
    }
}

/// How a task is tried again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// How often, after the first attempt.
    #[serde(default)]
    pub max_retry_count: u32,
    /// Wait before the first retry, as a protobuf duration such as `1.5s`.
    #[serde(default)]
    pub backoff_duration: String,
    /// By what the wait is multiplied from one retry to the next; 0 means 2.
    #[serde(default)]
    pub backoff_factor: f64,
    /// Upper bound of the wait; none means an hour.
    #[serde(default)]
    pub backoff_max_duration: String,
}

/// How wide a loop runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IteratorPolicy {
    /// How many iterations at a time; 0 means all.
    #[serde(default)]
    pub parallelism_limit: usize,
}

/// A loop over values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterIterator {
    /// The values.
    #[serde(default)]
    pub items: ParameterItems,
    /// Name of the component's input that takes one value.
    #[serde(default)]
    pub item_input: String,
}

/// The values of a loop.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParameterItems {
    /// A JSON list.
    pub raw: Option<String>,
    /// Name of an input of the task that is a list.
    pub input_parameter: Option<String>,
}

/// A loop over artifacts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactIterator {
    /// The artifacts.
    #[serde(default)]
    pub items: ArtifactItems,
    /// Name of the component's input that takes one artifact.
    #[serde(default)]
    pub item_input: String,
}

/// The artifacts of a loop.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactItems {
    /// Name of an input of the task that is a list of artifacts.
    #[serde(default)]
    pub input_artifact: String,
}

/// What the inputs of a task are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskInputs {
    /// Parameters by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, TaskInputParameter>,
    /// Artifacts by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, TaskInputArtifact>,
}

/// Where an input parameter comes from: exactly one of the sources is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskInputParameter {
    /// From another task.
    pub task_output_parameter: Option<TaskOutputParameter>,
    /// A constant.
    pub runtime_value: Option<RuntimeValue>,
    /// From an input of the graph.
    pub component_input_parameter: Option<String>,
    /// How another task ended.
    pub task_final_status: Option<TaskFinalStatus>,
    /// A part of the value: `parseJson(string_value)["key"]`.
    #[serde(default)]
    pub parameter_expression_selector: String,
}

/// An output parameter of another task.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOutputParameter {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
    /// Its output.
    #[serde(default)]
    pub output_parameter_key: String,
}

/// How another task ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFinalStatus {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
}

/// Where an input artifact comes from: exactly one of the sources is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskInputArtifact {
    /// From another task.
    pub task_output_artifact: Option<TaskOutputArtifact>,
    /// From an input of the graph.
    pub component_input_artifact: Option<String>,
}

/// An output artifact of another task.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOutputArtifact {
    /// The task.
    #[serde(default)]
    pub producer_task: String,
    /// Its output.
    #[serde(default)]
    pub output_artifact_key: String,
}

impl Task {
    /// The tasks that must end before this one, each once, in order of their names.
    pub fn dependencies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.dependent_tasks.iter().map(String::as_str).collect();
        for input in self.inputs.parameters.values() {
            if let Some(output) = &input.task_output_parameter {
                names.push(&output.producer_task);
            }
            if let Some(status) = &input.task_final_status {
                names.push(&status.producer_task);
            }
        }
        for input in self.inputs.artifacts.values() {
            if let Some(output) = &input.task_output_artifact {
                names.push(&output.producer_task);
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Keeps the difference between a value that is `null` and one that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
