//! Resolution of a task's inputs from the outputs of others, the inputs of its graph and constants.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ir::{Component, Task, TaskInputParameter};
use super::placeholders::{self, Scope};
use super::run::{Artifact, Outputs, TaskState};
use super::values::{coerce, normalise};

/// Inputs of a task or graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// Parameters by name; one that has no value is not there.
    pub parameters: BTreeMap<String, Value>,
    /// Artifacts by name.
    pub artifacts: BTreeMap<String, Vec<Artifact>>,
}

/// What became of a task that others may depend on.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// How it ended, or how far it is.
    pub state: TaskState,
    /// What it gave.
    pub outputs: Arc<Outputs>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Why inputs could not be resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Unresolved {
    /// What it needs was never made, since the task that makes it did not run: the task is skipped.
    Absent(String),
    /// A fault: the task fails.
    Fault(String),
}

/// `parseJson(string_value)["key"]`, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector(Option<String>);

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What the selector must look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.strip_prefix("parseJson(string_value)[")
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|key| serde_json::from_str::<String>(key).ok())
            .map(|key| Self(Some(key)))
            .ok_or_else(|| {
                format!("{text:?} is not supported; it must look like parseJson(string_value)[\"key\"]")
            })
    }

    fn apply(&self, value: Value) -> Result<Value, String> {
        let Some(key) = &self.0 else {
            return Ok(value);
        };
        let object = match value {
            Value::String(text) => serde_json::from_str(&text)
                .map_err(|_| format!("the value is no JSON, so it has no {key:?}"))?,
            other => other,
        };
        object
            .get(key)
            .cloned()
            .ok_or_else(|| format!("the value has no key {key:?}"))
    }
}

/// What resolution reads.
pub struct Sources<'a> {
    /// Inputs of the graph the task is in.
    pub graph: &'a Inputs,
    /// The tasks of the graph.
    pub upstream: &'a dyn Fn(&str) -> Option<Upstream>,
    /// Facts of the run by name, such as `pipeline_job_uuid`.
    pub run: &'a dyn Fn(&str) -> Option<String>,
}

/// Resolves the inputs of a task.
///
/// # Errors
/// [`Unresolved`].
pub fn inputs(task: &Task, component: &Component, sources: &Sources<'_>) -> Result<Inputs, Unresolved> {
    let mut resolved = Inputs::default();
    // Constants may name other inputs of the same task, so they come last.
    let (constants, others): (Vec<_>, Vec<_>) = task
        .inputs
        .parameters
        .iter()
        .partition(|(_, source)| source.runtime_value.is_some());
    for (name, source) in others.into_iter().chain(constants) {
        let declared = component.input_definitions.parameters.get(name);
        let optional = declared.is_none_or(|d| d.is_optional || d.default_value.is_some());
        let value = match parameter(source, sources, &resolved) {
            Ok(value) => value,
            Err(Unresolved::Absent(_)) if optional => Value::Null,
            Err(error) => return Err(error),
        };
        if value.is_null() {
            if !optional {
                return Err(Unresolved::Fault(format!(
                    "input parameter {name:?} has no value"
                )));
            }
            continue;
        }
        let fault = |error: String| Unresolved::Fault(format!("input parameter {name:?}: {error}"));
        let value = Selector::parse(&source.parameter_expression_selector)
            .and_then(|selector| selector.apply(value))
            .map_err(fault)?;
        let value = match declared {
            Some(declared) => coerce(value, &declared.parameter_type).map_err(fault)?,
            None => normalise(value),
        };
        resolved.parameters.insert(name.clone(), value);
    }
    for (name, declared) in &component.input_definitions.parameters {
        if let Some(default) = declared.default_value.as_ref().filter(|value| !value.is_null())
            && !resolved.parameters.contains_key(name)
        {
            let value = coerce(default.clone(), &declared.parameter_type).map_err(|error| {
                Unresolved::Fault(format!("default of input parameter {name:?}: {error}"))
            })?;
            resolved.parameters.insert(name.clone(), value);
        }
    }
    for (name, source) in &task.inputs.artifacts {
        let optional = component
            .input_definitions
            .artifacts
            .get(name)
            .is_none_or(|d| d.is_optional);
        let artifacts = if let Some(output) = &source.task_output_artifact {
            let upstream = (sources.upstream)(&output.producer_task);
            upstream.and_then(|u| u.outputs.artifacts.get(&output.output_artifact_key).cloned())
        } else {
            source
                .component_input_artifact
                .as_ref()
                .and_then(|name| sources.graph.artifacts.get(name).cloned())
        };
        match artifacts {
            Some(artifacts) => {
                resolved.artifacts.insert(name.clone(), artifacts);
            }
            None if optional => {}
            None => {
                return Err(Unresolved::Absent(format!(
                    "input artifact {name:?} was not made"
                )));
            }
        }
    }
    Ok(resolved)
}

fn parameter(
    source: &TaskInputParameter,
    sources: &Sources<'_>,
    so_far: &Inputs,
) -> Result<Value, Unresolved> {
    if let Some(output) = &source.task_output_parameter {
        let upstream = (sources.upstream)(&output.producer_task);
        return upstream
            .and_then(|u| u.outputs.parameters.get(&output.output_parameter_key).cloned())
            .ok_or_else(|| {
                Unresolved::Absent(format!(
                    "task {:?} gave no {:?}",
                    output.producer_task, output.output_parameter_key
                ))
            });
    }
    if let Some(name) = &source.component_input_parameter {
        return Ok(sources.graph.parameters.get(name).cloned().unwrap_or(Value::Null));
    }
    if let Some(status) = &source.task_final_status {
        let upstream = (sources.upstream)(&status.producer_task);
        let failed = upstream.as_ref().is_some_and(|u| u.state == TaskState::Failed);
        let message = upstream.and_then(|u| u.error).unwrap_or_default();
        return Ok(json!({
            "state": if failed { "FAILED" } else { "COMPLETE" },
            "error": {"message": message},
            "pipelineJobResourceName": (sources.run)("pipeline_job_resource_name"),
            "pipelineTaskName": status.producer_task,
        }));
    }
    let Some(value) = &source.runtime_value else {
        return Ok(Value::Null);
    };
    if let Some(name) = &value.runtime_parameter {
        return Ok(sources.graph.parameters.get(name).cloned().unwrap_or(Value::Null));
    }
    let constant = value
        .constant
        .clone()
        .or_else(|| value.constant_value.as_ref().map(typed_constant));
    constant_with(constant.unwrap_or(Value::Null), sources, so_far).map_err(Unresolved::Fault)
}

/// A value that the PlatformSpec takes from a constant, an input of the graph or another task.
///
/// # Errors
/// What has no value.
pub fn platform_value(
    source: &TaskInputParameter,
    sources: &Sources<'_>,
    inputs: &Inputs,
) -> Result<Value, String> {
    match parameter(source, sources, inputs) {
        Ok(value) => Ok(value),
        Err(Unresolved::Absent(why) | Unresolved::Fault(why)) => Err(format!("platform_spec: {why}")),
    }
}

/// `{"stringValue": ..}` and its kin, which SDKs before 2.0 wrote.
pub fn typed_constant(value: &Value) -> Value {
    if let Some(text) = value.get("stringValue") {
        return text.clone();
    }
    if let Some(int) = value.get("intValue") {
        // protobuf writes 64 bit integers as text.
        return int
            .as_str()
            .and_then(|t| t.parse::<i64>().ok())
            .map_or_else(|| int.clone(), Value::from);
    }
    value.get("doubleValue").cloned().unwrap_or(Value::Null)
}

/// Placeholders inside a constant, at any depth.
fn constant_with(value: Value, sources: &Sources<'_>, so_far: &Inputs) -> Result<Value, String> {
    match value {
        Value::String(text) if text.contains("{{$.") => {
            let executor_input = json!({"inputs": {"parameterValues": so_far.parameters}});
            let scope = Scope {
                executor_input: &executor_input,
                run: sources.run,
                local_path: &local_path,
            };
            placeholders::render(&text, &scope).map(Value::String)
        }
        Value::Array(items) => items
            .into_iter()
            .map(|item| constant_with(item, sources, so_far))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| Ok((key, constant_with(value, sources, so_far)?)))
            .collect::<Result<_, String>>()
            .map(Value::Object),
        other => Ok(other),
    }
}

/// Where the SDK expects the bytes of a URI in the container's file system.
pub fn local_path(uri: &str) -> String {
    for (scheme, folder) in [("s3://", "/s3/"), ("gs://", "/gcs/"), ("minio://", "/minio/")] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{folder}{rest}");
        }
    }
    match uri.strip_prefix("oci://") {
        Some(rest) => format!("/oci/{}/models", rest.replace('/', "_")),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_take_one_key() {
        let selector = Selector::parse("parseJson(string_value)[\"a b\"]").unwrap();
        assert_eq!(selector.apply(json!("{\"a b\": 1}")).unwrap(), json!(1));
        assert_eq!(selector.apply(json!({"a b": [2]})).unwrap(), json!([2]));
        assert_eq!(
            selector.apply(json!({})).unwrap_err(),
            "the value has no key \"a b\""
        );
        assert!(Selector::parse("size(x)").is_err());
    }

    #[test]
    fn uris_have_the_paths_of_the_sdk() {
        assert_eq!(local_path("s3://b/k"), "/s3/b/k");
        assert_eq!(local_path("gs://b/k"), "/gcs/b/k");
        assert_eq!(local_path("minio://b/k"), "/minio/b/k");
        assert_eq!(local_path("oci://r/m:v"), "/oci/r_m:v/models");
        assert_eq!(local_path("/already/local"), "/already/local");
    }
}
