//! Rows in the JSON of KFP `v2beta1`: protobuf's JSON with snake_case names, unset fields left out and 64 bit
//! integers as text.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::domain::run::{Outputs, TaskKind};
use crate::store::{
    ArtifactIds, AttemptRow, ExperimentRow, PipelineRow, RunRow, StateChange, TaskRow, VersionRow,
};

/// An instant: seconds, with milliseconds where there are any.
pub fn time(at: Timestamp) -> Value {
    let text = if at.subsec_nanosecond() < 1_000_000 {
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        format!("{at:.3}")
    };
    Value::String(text)
}

/// Leaves out what is empty, as protobuf's JSON does.
pub fn compact(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| match value {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                _ => true,
            });
            Value::Object(kept.collect())
        }
        other => other,
    }
}

fn storage_state(archived: bool) -> &'static str {
    if archived { "ARCHIVED" } else { "AVAILABLE" }
}

/// An experiment.
pub fn experiment(row: &ExperimentRow) -> Value {
    compact(json!({
        "experiment_id": row.id,
        "display_name": row.display_name,
        "description": row.description,
        "created_at": time(row.created_at),
        "namespace": row.namespace,
        "storage_state": storage_state(row.archived),
        "last_run_created_at": time(row.last_run_created_at),
    }))
}

/// A pipeline.
pub fn pipeline(row: &PipelineRow) -> Value {
    compact(json!({
        "pipeline_id": row.id,
        "name": row.name,
        "display_name": row.display_name,
        "description": row.description,
        "created_at": time(row.created_at),
        "namespace": row.namespace,
        "tags": row.tags,
    }))
}

/// A version of a pipeline.
pub fn version(row: &VersionRow) -> Value {
    compact(json!({
        "pipeline_id": row.pipeline_id,
        "pipeline_version_id": row.id,
        "name": row.name,
        "display_name": row.display_name,
        "description": row.description,
        "created_at": time(row.created_at),
        "code_source_url": row.code_source_url,
        "package_url": compact(json!({"pipeline_url": row.package_url})),
        "pipeline_spec": row.spec,
        "tags": row.tags,
    }))
}

fn history(changes: &[StateChange]) -> Value {
    let list = changes.iter().map(|change| {
        compact(json!({
            "update_time": time(change.update_time),
            "state": change.state.name(),
            "error": status(change.error.as_deref()),
        }))
    });
    Value::Array(list.collect())
}

/// `google.rpc.Status`; 13 is INTERNAL, which upstream gives too.
fn status(error: Option<&str>) -> Value {
    error.map_or(Value::Null, |message| json!({"code": 13, "message": message}))
}

/// A run, without the details of its tasks.
pub fn run(row: &RunRow) -> Value {
    let reference = (!row.version_id.is_empty())
        .then(|| json!({"pipeline_id": row.pipeline_id, "pipeline_version_id": row.version_id}));
    let spec = if reference.is_some() {
        Value::Null
    } else {
        row.spec.clone()
    };
    compact(json!({
        "experiment_id": row.experiment_id,
        "run_id": row.id,
        "display_name": row.display_name,
        "storage_state": storage_state(row.archived),
        "description": row.description,
        "pipeline_spec": spec,
        "pipeline_version_reference": reference,
        "runtime_config": row.runtime_config,
        "service_account": row.service_account,
        "created_at": time(row.created_at),
        "scheduled_at": time(row.scheduled_at),
        "finished_at": time(row.finished_at),
        "state": row.state.name(),
        "error": status(row.error.as_deref()),
        "recurring_run_id": row.recurring_run_id,
        "state_history": history(&row.history),
    }))
}

fn artifact_lists(outputs: &Outputs, ids: &ArtifactIds) -> Value {
    let lists = outputs.artifacts.iter().map(|(name, list)| {
        let ids: Vec<String> = list
            .iter()
            .filter_map(|a| ids.get(&a.uri))
            .map(i64::to_string)
            .collect();
        (name.clone(), compact(json!({"artifact_ids": ids})))
    });
    Value::Object(lists.collect())
}

/// `run_details` of a run.
pub fn details(run: &RunRow, tasks: &[TaskRow], attempts: &[AttemptRow], ids: &ArtifactIds) -> Value {
    let mut by_task: HashMap<&str, Vec<&AttemptRow>> = HashMap::new();
    for attempt in attempts {
        by_task.entry(&attempt.path).or_default().push(attempt);
    }
    let task_ids: BTreeMap<&str, &str> = tasks
        .iter()
        .map(|t| (t.path.as_str(), t.task_id.as_str()))
        .collect();
    let mut children: HashMap<&str, Vec<Value>> = HashMap::new();
    for task in tasks {
        if let Some(parent) = &task.parent {
            children
                .entry(parent)
                .or_default()
                .push(json!({"task_id": task.task_id}));
        }
    }
    let list = tasks.iter().map(|task| {
        let attempts = by_task
            .get(task.path.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let last = attempts.last().map(|a| a.pod_name.as_str());
        let failed: Vec<&str> = attempts
            .iter()
            .filter(|a| a.state == "FAILED")
            .map(|a| a.pod_name.as_str())
            .collect();
        let display = if task.kind == TaskKind::Root {
            "root"
        } else {
            &task.display_name
        };
        let error = task
            .message
            .as_deref()
            .filter(|_| task.state.name() != "SUCCEEDED");
        compact(json!({
            "run_id": run.id,
            "task_id": task.task_id,
            "display_name": display,
            "create_time": time(task.created_at),
            "start_time": task.started_at.map(time),
            "end_time": task.ended_at.map(time),
            "executor_detail": compact(json!({"main_job": last, "failed_main_jobs": failed})),
            "state": task.state.name(),
            "execution_id": task.execution_id.map(|id| id.to_string()),
            "error": status(error),
            "inputs": artifact_lists(&task.inputs, ids),
            "outputs": artifact_lists(&task.outputs, ids),
            "parent_task_id": task.parent.as_deref().and_then(|p| task_ids.get(p)),
            "state_history": history(&task.history),
            "pod_name": last,
            "child_tasks": children.remove(task.path.as_str()),
        }))
    });
    json!({"task_details": list.collect::<Vec<_>>()})
}

fn values(outputs: &Outputs, ids: &ArtifactIds) -> Value {
    let artifacts: Map<String, Value> = outputs
        .artifacts
        .iter()
        .map(|(name, list)| {
            let list = list.iter().map(|artifact| {
                compact(json!({
                    "id": ids.get(&artifact.uri).map(i64::to_string),
                    "name": artifact.name,
                    "uri": artifact.uri,
                    "type": artifact.schema_title,
                    "metadata": artifact.metadata,
                    "digest": artifact.digest,
                    "size": artifact.size,
                }))
            });
            (name.clone(), Value::Array(list.collect()))
        })
        .collect();
    json!({"parameters": outputs.parameters, "artifacts": artifacts})
}

/// Everything that the run page shows: every task with its values and attempts.
pub fn graph(row: &RunRow, tasks: &[TaskRow], attempts: &[AttemptRow], ids: &ArtifactIds) -> Value {
    let mut by_task: HashMap<&str, Vec<Value>> = HashMap::new();
    for attempt in attempts {
        by_task.entry(&attempt.path).or_default().push(json!({
            "number": attempt.number,
            "pod_name": attempt.pod_name,
            "state": attempt.state,
            "message": attempt.message,
            "created_at": time(attempt.created_at),
            "ended_at": attempt.ended_at.map(time),
        }));
    }
    let tasks: Vec<Value> = tasks
        .iter()
        .map(|task| {
            json!({
                "path": task.path,
                "task_id": task.task_id,
                "parent": task.parent,
                "name": task.name,
                "display_name": task.display_name,
                "kind": task.kind,
                "state": task.state.name(),
                "cached": task.cached,
                "message": task.message,
                "after": task.after,
                "iteration": task.iteration,
                "created_at": time(task.created_at),
                "started_at": task.started_at.map(time),
                "ended_at": task.ended_at.map(time),
                "inputs": values(&task.inputs, ids),
                "outputs": values(&task.outputs, ids),
                "attempts": by_task.remove(task.path.as_str()).unwrap_or_default(),
                "execution_id": task.execution_id.map(|id| id.to_string()),
            })
        })
        .collect();
    json!({"run": run(row), "namespace": row.namespace, "parameters": row.parameters, "tasks": tasks})
}

/// A page of a list.
pub fn page<T>(key: &str, page: &ferroflow_kernel::Page<T>, each: impl Fn(&T) -> Value) -> Value {
    let items: Vec<Value> = page.items.iter().map(each).collect();
    let mut answer = compact(json!({key: items, "next_page_token": page.next_page_token}));
    if let (Some(total), Some(fields)) = (page.total_size.filter(|total| *total > 0), answer.as_object_mut())
    {
        fields.insert("total_size".to_owned(), json!(total));
    }
    answer
}
