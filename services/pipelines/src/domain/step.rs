//! One attempt of a container task with everything resolved: what its Pod will run.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_api::step::Step;
use serde_json::{Map, Value, json};

use super::ir::{Component, Container, Resources};
use super::placeholders::{self, Scope};
use super::resolve::{Inputs, local_path};
use super::run::{Artifact, RunSpec, derived_id};

/// One attempt of a container task with everything resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPlan {
    /// Name of the task in its graph.
    pub task_name: String,
    /// The image.
    pub image: String,
    /// Environment variables of the component.
    pub env: Vec<(String, String)>,
    /// Requests and limits as Kubernetes quantities, by resource name.
    pub requests: BTreeMap<String, String>,
    /// Limits as Kubernetes quantities, by resource name.
    pub limits: BTreeMap<String, String>,
    /// What the PlatformSpec adds, with its parameters resolved.
    pub kubernetes: Option<Value>,
    /// URI of the folder of this attempt: everything it writes lies below.
    pub folder: String,
    /// Folders that must be writable in the container: `/s3`, `/gcs`, `/minio`, `/oci`.
    pub roots: BTreeSet<&'static str>,
    /// What the launcher is told.
    pub step: Step,
}

/// A name as one part of a URI's path.
fn path_part(name: &str) -> String {
    let clean = |c: char| {
        if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
            c
        } else {
            '-'
        }
    };
    let part: String = name.chars().map(clean).collect();
    if part.chars().all(|c| c == '.') {
        "x".to_owned()
    } else {
        part
    }
}

/// What a step is made of.
pub struct Parts<'a> {
    /// The run.
    pub run: &'a RunSpec,
    /// Path of the task.
    pub path: &'a str,
    /// Name of the task in its graph.
    pub task_name: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// The component.
    pub component: &'a Component,
    /// Its container.
    pub container: &'a Container,
    /// The inputs.
    pub inputs: &'a Inputs,
    /// What the PlatformSpec adds, with its parameters resolved.
    pub kubernetes: Option<Value>,
}

/// Facts of a run by the names that placeholders use.
pub fn run_fact(run: &RunSpec, path: &str, name: &str) -> Option<String> {
    Some(match name {
        "pipeline_job_name" => run.display_name.clone(),
        "pipeline_job_resource_name" => run.resource_name.clone(),
        "pipeline_job_uuid" => run.run_id.clone(),
        "pipeline_task_name" => path.rsplit('/').next().unwrap_or(path).to_owned(),
        "pipeline_task_uuid" => task_id(&run.run_id, path),
        "pipeline_job_create_time_utc" => run.created_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "pipeline_job_schedule_time_utc" => run.scheduled_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "pipeline_root" => run.pipeline_root.clone(),
        "workspace_path" => "/kfp-workspace".to_owned(),
        _ => return None,
    })
}

/// Id of a task of a run.
pub fn task_id(run_id: &str, path: &str) -> String {
    derived_id(&["task", run_id, path])
}

/// Builds a step.
///
/// # Errors
/// A placeholder that names something which does not exist, or a resource that is no quantity.
pub fn build(parts: Parts<'_>) -> Result<StepPlan, String> {
    let Parts {
        run,
        path,
        task_name,
        attempt,
        component,
        container,
        inputs,
        kubernetes,
    } = parts;
    let folder = format!(
        "{}/{}/{}/{}/{}",
        run.pipeline_root.trim_end_matches('/'),
        path_part(&run.package.spec.pipeline_info.name),
        run.run_id,
        path_part(task_name),
        derived_id(&["attempt", &run.run_id, path, &attempt.to_string()]),
    );
    let executor_input = executor_input(component, inputs, &folder);
    let scope = Scope {
        executor_input: &executor_input,
        run: &|name| run_fact(run, path, name),
        local_path: &local_path,
    };
    let render_all = |texts: &[String]| -> Result<Vec<String>, String> {
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            all.extend(placeholders::argument(text, &scope)?);
        }
        Ok(all)
    };
    let mut env = Vec::with_capacity(container.env.len());
    for variable in &container.env {
        env.push((
            variable.name.clone(),
            placeholders::render(&variable.value, &scope)?,
        ));
    }
    let (requests, limits) = resources(container.resources.as_ref(), &scope)?;
    let mut roots = BTreeSet::new();
    let all = inputs.artifacts.values().flatten().map(|a| a.uri.as_str());
    for uri in all.chain([folder.as_str()]) {
        for (scheme, root) in [
            ("s3://", "/s3"),
            ("gs://", "/gcs"),
            ("minio://", "/minio"),
            ("oci://", "/oci"),
        ] {
            if uri.starts_with(scheme) {
                roots.insert(root);
            }
        }
    }
    let output_types = component
        .output_definitions
        .parameters
        .iter()
        .map(|(name, output)| (name.clone(), output.parameter_type.clone()))
        .collect();
    let step = Step {
        run_id: run.run_id.clone(),
        task: path.to_owned(),
        attempt,
        command: render_all(&container.command)?,
        args: render_all(&container.args)?,
        output_types,
        outcome_uri: format!("{folder}/outcome.json"),
        placeholders: BTreeMap::new(),
        trace: None,
        executor_input: Value::Null,
    };
    let image = image(container, &scope)?;
    Ok(StepPlan {
        task_name: task_name.to_owned(),
        image,
        env,
        requests,
        limits,
        kubernetes,
        folder,
        roots,
        step: Step {
            executor_input,
            ..step
        },
    })
}

/// The image with its placeholders replaced.
///
/// # Errors
/// A placeholder that names something which does not exist.
pub fn image(container: &Container, scope: &Scope<'_>) -> Result<String, String> {
    placeholders::render(&container.image, scope)
}

/// `ml_pipelines.ExecutorInput` of a step.
pub fn executor_input(component: &Component, inputs: &Inputs, folder: &str) -> Value {
    let mut outputs = Map::new();
    let mut artifacts = Map::new();
    for (name, output) in &component.output_definitions.artifacts {
        let mut artifact = json!({
            "name": name,
            "type": {
                "schemaTitle": output.artifact_type.schema_title,
                "schemaVersion": output.artifact_type.schema_version,
            },
            "uri": format!("{folder}/{name}"),
        });
        if let Some(metadata) = &output.metadata {
            artifact["metadata"] = metadata.clone();
        }
        artifacts.insert(name.clone(), json!({"artifacts": [artifact]}));
    }
    let parameters: Map<String, Value> = component
        .output_definitions
        .parameters
        .keys()
        .map(|name| {
            (
                name.clone(),
                json!({"outputFile": format!("/tmp/kfp/outputs/{name}")}),
            )
        })
        .collect();
    if !parameters.is_empty() {
        outputs.insert("parameters".to_owned(), Value::Object(parameters));
    }
    if !artifacts.is_empty() {
        outputs.insert("artifacts".to_owned(), Value::Object(artifacts));
    }
    // The SDK derives `dsl.get_uri()` from the folder of this file.
    let file = format!("{}/output_metadata.json", local_path(folder));
    outputs.insert("outputFile".to_owned(), Value::String(file));
    let mut given = Map::new();
    if !inputs.parameters.is_empty() {
        given.insert("parameterValues".to_owned(), json!(inputs.parameters));
    }
    if !inputs.artifacts.is_empty() {
        let artifacts: Map<String, Value> = inputs
            .artifacts
            .iter()
            .map(|(name, list)| {
                let list: Vec<Value> = list.iter().map(artifact_json).collect();
                (name.clone(), json!({"artifacts": list}))
            })
            .collect();
        given.insert("artifacts".to_owned(), Value::Object(artifacts));
    }
    json!({"inputs": given, "outputs": outputs})
}

fn artifact_json(artifact: &Artifact) -> Value {
    json!({
        "name": artifact.name,
        "type": {"schemaTitle": artifact.schema_title, "schemaVersion": artifact.schema_version},
        "uri": artifact.uri,
        "metadata": artifact.metadata,
    })
}

type Quantities = BTreeMap<String, String>;

fn resources(resources: Option<&Resources>, scope: &Scope<'_>) -> Result<(Quantities, Quantities), String> {
    let (mut requests, mut limits) = (Quantities::new(), Quantities::new());
    let Some(resources) = resources else {
        return Ok((requests, limits));
    };
    let cores = |number: Option<f64>| number.filter(|n| *n > 0.0).map(|n| n.to_string());
    // The SDK's numbers are gigabytes of 10^9 bytes.
    let bytes = |number: Option<f64>| number.filter(|n| *n > 0.0).map(|n| format!("{n}G"));
    for (is_limit, name, text, number) in [
        (
            true,
            "cpu",
            &resources.resource_cpu_limit,
            cores(resources.cpu_limit),
        ),
        (
            true,
            "memory",
            &resources.resource_memory_limit,
            bytes(resources.memory_limit),
        ),
        (
            false,
            "cpu",
            &resources.resource_cpu_request,
            cores(resources.cpu_request),
        ),
        (
            false,
            "memory",
            &resources.resource_memory_request,
            bytes(resources.memory_request),
        ),
    ] {
        let target = if is_limit { &mut limits } else { &mut requests };
        let text = placeholders::render(text, scope)?;
        if let Some(quantity) = Some(text).filter(|t| !t.is_empty()).or(number) {
            target.insert(name.to_owned(), quantity);
        }
    }
    if let Some(accelerator) = &resources.accelerator {
        let kind = if accelerator.resource_type.is_empty() {
            &accelerator.kind
        } else {
            &accelerator.resource_type
        };
        let kind = placeholders::render(kind, scope)?;
        let count = if accelerator.resource_count.is_empty() {
            accelerator
                .count
                .as_ref()
                .map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned))
        } else {
            Some(placeholders::render(&accelerator.resource_count, scope)?)
        };
        if let Some(count) = count.filter(|count| count != "0" && !kind.is_empty()) {
            limits.insert(kind, count);
        }
    }
    Ok((requests, limits))
}
