//! What each framework's processes are told about each other.
//!
//! The variables, their order and their values are the Training Operator's 1.9.4. They are appended to every container
//! of a Pod, after the job's own, so that they win over a variable of the same name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use serde_json::json;

use super::job::{Job, port_of, replica_name};
use super::kind::Framework;

/// A job whose replicas cannot find each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: no container {container} with a port {port} tells the replicas how to reach it")]
pub struct EnvironmentError {
    field: String,
    container: &'static str,
    port: &'static str,
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike")]
fn var(name: &str, value: impl ToString) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_string()),
        value_from: None,
    }
}

fn port(job: &Job, replica_type: &str) -> Result<i32, EnvironmentError> {
    job.replica(replica_type)
        .and_then(|spec| port_of(job.kind, spec))
        .ok_or_else(|| EnvironmentError {
            field: format!("spec.{}[{replica_type}]", job.kind.replica_field),
            container: job.kind.container,
            port: job.kind.port_name,
        })
}

/// Variables of the replica `replica_type`/`index`.
///
/// # Errors
/// If the replica that the others connect to has no port.
pub fn variables(job: &Job, replica_type: &str, index: i32) -> Result<Vec<EnvVar>, EnvironmentError> {
    match job.kind.framework {
        Framework::XGBoost => xgboost(job, replica_type, index),
        Framework::PyTorch => pytorch(job, replica_type, index),
        Framework::TensorFlow => Ok(tensorflow(job, replica_type, index)),
        Framework::Jax => jax(job, index),
        Framework::Paddle => Ok(paddle(job, replica_type, index)),
    }
}

fn xgboost(job: &Job, replica_type: &str, index: i32) -> Result<Vec<EnvVar>, EnvironmentError> {
    let masters = job.replica("Master").and_then(|m| m.replicas).unwrap_or(0);
    let rank = if replica_type == "Worker" {
        index + masters
    } else {
        index
    };
    let total = job.total_replicas();
    let mut env = vec![
        var("MASTER_PORT", port(job, "Master")?),
        var("MASTER_ADDR", replica_name(job.name(), "Master", 0)),
        var("WORLD_SIZE", total),
        var("RANK", rank),
        var("PYTHONUNBUFFERED", 1),
    ];
    if total > 1 {
        // LightGBM wants to know everybody.
        let workers: Vec<String> = (0..total - 1)
            .map(|i| replica_name(job.name(), "Worker", i))
            .collect();
        env.push(var("WORKER_PORT", port(job, "Worker")?));
        env.push(var("WORKER_ADDRS", workers.join(",")));
    }
    Ok(env)
}

fn pytorch(job: &Job, replica_type: &str, index: i32) -> Result<Vec<EnvVar>, EnvironmentError> {
    let total = job.total_replicas();
    // `auto`, `cpu` and `gpu` are settled in the process; the world size then counts Pods.
    let nproc = job
        .nproc_per_node
        .as_deref()
        .and_then(|n| n.parse::<i32>().ok())
        .unwrap_or(1);
    let mut env = vec![var("PYTHONUNBUFFERED", 1)];
    if job.replica("Master").is_some() {
        let master_port = port(job, "Master")?;
        let master = replica_name(job.name(), "Master", 0);
        let rank = if replica_type == "Worker" {
            index + 1
        } else {
            index
        };
        env.extend([
            var("MASTER_PORT", master_port),
            var("PET_MASTER_PORT", master_port),
            var("MASTER_ADDR", &master),
            var("PET_MASTER_ADDR", &master),
            var("WORLD_SIZE", total * nproc),
            var("RANK", rank),
            var("PET_NODE_RANK", rank),
        ]);
    }
    if let Some(nproc) = &job.nproc_per_node {
        env.push(var("PET_NPROC_PER_NODE", nproc));
    }
    let Some(elastic) = &job.elastic else {
        env.push(var("PET_NNODES", total));
        return Ok(env);
    };
    let host = elastic
        .rdzv_host
        .clone()
        .unwrap_or_else(|| format!("{}-worker-0", job.name()));
    let rdzv_port = match elastic.rdzv_port {
        Some(port) => port,
        None => port(job, "Worker")?,
    };
    env.push(var("PET_RDZV_ENDPOINT", format!("{host}:{rdzv_port}")));
    env.push(var(
        "PET_RDZV_BACKEND",
        elastic.rdzv_backend.as_deref().unwrap_or("c10d"),
    ));
    env.push(match (elastic.min_replicas, elastic.max_replicas) {
        (Some(min), Some(max)) => var("PET_NNODES", format!("{min}:{max}")),
        _ => var(
            "PET_NNODES",
            job.replica("Worker").and_then(|w| w.replicas).unwrap_or(1),
        ),
    });
    if let Some(restarts) = elastic.max_restarts {
        env.push(var("PET_MAX_RESTARTS", restarts));
    }
    if let Some(nproc) = elastic.n_proc_per_node {
        env.push(var("PET_NPROC_PER_NODE", nproc));
    }
    if let Some(id) = &elastic.rdzv_id {
        env.push(var("PET_RDZV_ID", id));
    }
    if let Some(conf) = elastic.rdzv_conf.as_ref().filter(|conf| !conf.is_empty()) {
        let pairs: Vec<String> = conf.iter().map(|c| format!("{}={}", c.key, c.value)).collect();
        env.push(var("PET_RDZV_CONF", pairs.join(",")));
    }
    if elastic.standalone == Some(true) {
        env.push(var("PET_STANDALONE", ""));
    }
    Ok(env)
}

/// `TF_CONFIG`, unless the job is a single process: TensorFlow would wait for others.
fn tensorflow(job: &Job, replica_type: &str, index: i32) -> Vec<EnvVar> {
    if job.total_replicas() <= 1 {
        return Vec::new();
    }
    let mut cluster: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (other, spec) in &job.replicas {
        let port = port_of(job.kind, spec).unwrap_or(job.kind.port);
        let hosts = (0..spec.replicas.unwrap_or(1))
            .map(|i| {
                format!(
                    "{}.{}.svc:{port}",
                    replica_name(job.name(), other, i),
                    job.namespace()
                )
            })
            .collect();
        cluster.insert(other.to_lowercase(), hosts);
    }
    let task_type = replica_type.to_lowercase();
    let task = json!({"type": task_type, "index": index});
    let config = if job.dynamic_worker {
        let own = cluster
            .get(&task_type)
            .and_then(|hosts| hosts.get(usize::try_from(index).ok()?))
            .cloned();
        let servers = cluster.get("ps").cloned().unwrap_or_default();
        let sparse = match (task_type.as_str(), own) {
            ("ps", Some(own)) => json!({"worker": {}, "ps": [own]}),
            ("worker", Some(own)) => json!({"worker": {index.to_string(): own}, "ps": servers}),
            _ => json!({"worker": {}, "ps": []}),
        };
        json!({"cluster": sparse, "task": task})
    } else {
        json!({"cluster": cluster, "task": task, "environment": "cloud"})
    };
    vec![var("TF_CONFIG", config)]
}

fn jax(job: &Job, index: i32) -> Result<Vec<EnvVar>, EnvironmentError> {
    Ok(vec![
        var("PYTHONUNBUFFERED", 1),
        var("COORDINATOR_PORT", port(job, "Worker")?),
        var("COORDINATOR_ADDRESS", replica_name(job.name(), "Worker", 0)),
        var("NUM_PROCESSES", job.total_replicas()),
        var("PROCESS_ID", index),
    ])
}

fn paddle(job: &Job, replica_type: &str, index: i32) -> Vec<EnvVar> {
    let with_master = job.replica("Master").is_some();
    let meeting = if with_master { "Master" } else { "Worker" };
    let port = job
        .replica(meeting)
        .and_then(|s| port_of(job.kind, s))
        .unwrap_or(job.kind.port);
    let mut env = vec![
        var("PYTHONUNBUFFERED", 1),
        var("PADDLE_JOB_ID", job.name()),
        var("PADDLE_NNODES", job.total_replicas()),
    ];
    if index == 0 && replica_type == meeting {
        let field = ObjectFieldSelector {
            field_path: "status.podIP".to_owned(),
            api_version: None,
        };
        env.push(EnvVar {
            name: "POD_IP_DUMMY".to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(field),
                ..EnvVarSource::default()
            }),
        });
        env.push(var("PADDLE_MASTER", format!("$(POD_IP_DUMMY):{port}")));
    } else {
        env.push(var(
            "PADDLE_MASTER",
            format!("{}:{port}", replica_name(job.name(), meeting, 0)),
        ));
    }
    if with_master {
        env.push(var(
            if replica_type == "Master" {
                "PADDLE_SERVER_NUM"
            } else {
                "PADDLE_TRAINER_NUM"
            },
            1,
        ));
    }
    env
}
