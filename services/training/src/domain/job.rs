//! A training job of any kind, with its defaults.

use std::collections::BTreeMap;

use ferroflow_api::crd::training::{ElasticPolicy, JobStatus, ReplicaSpec, RunPolicy};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;

use super::kind::{API_VERSION, Kind};

/// A job whose defaults are filled in.
#[derive(Debug, Clone)]
pub struct Job {
    /// What differs between kinds.
    pub kind: &'static Kind,
    /// Metadata as stored.
    pub metadata: ObjectMeta,
    /// See [`RunPolicy`].
    pub run_policy: RunPolicy,
    /// By type, in the kind's order; replicas and restart policy are set.
    pub replicas: Vec<(String, ReplicaSpec)>,
    /// Only PyTorch and Paddle.
    pub elastic: Option<ElasticPolicy>,
    /// Only PyTorch.
    pub nproc_per_node: Option<String>,
    /// Only TensorFlow.
    pub all_workers_must_succeed: bool,
    /// Only TensorFlow.
    pub dynamic_worker: bool,
    /// As stored.
    pub status: JobStatus,
}

/// A stored object that is no job.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {field} cannot be read: {source}")]
pub struct ReadError {
    kind: &'static str,
    name: String,
    field: &'static str,
    source: serde_json::Error,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Extras {
    run_policy: RunPolicy,
    elastic_policy: Option<ElasticPolicy>,
    nproc_per_node: Option<String>,
    success_policy: Option<String>,
    enable_dynamic_worker: bool,
}

impl Job {
    /// Reads a stored object and fills in the defaults.
    ///
    /// # Errors
    /// If a field has the wrong type.
    pub fn read(kind: &'static Kind, object: &DynamicObject) -> Result<Self, ReadError> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let fail = |field| {
            let name = name.clone();
            move |source| ReadError {
                kind: kind.kind,
                name,
                field,
                source,
            }
        };
        let spec = object.data.get("spec").cloned().unwrap_or(Value::Null);
        let replicas = spec.get(kind.replica_field).cloned().unwrap_or(Value::Null);
        let extras: Extras = if spec.is_null() {
            Extras::default()
        } else {
            serde_json::from_value(spec).map_err(fail("spec"))?
        };
        let replicas: BTreeMap<String, Option<ReplicaSpec>> = if replicas.is_null() {
            BTreeMap::new()
        } else {
            serde_json::from_value(replicas).map_err(fail(kind.replica_field))?
        };
        let status = match object.data.get("status") {
            None | Some(Value::Null) => JobStatus::default(),
            Some(status) => serde_json::from_value(status.clone()).map_err(fail("status"))?,
        };
        let mut job = Self {
            kind,
            metadata: object.metadata.clone(),
            run_policy: extras.run_policy,
            replicas: replicas
                .into_iter()
                .map(|(t, spec)| (t, spec.unwrap_or_default()))
                .collect(),
            elastic: extras.elastic_policy,
            nproc_per_node: extras.nproc_per_node,
            all_workers_must_succeed: extras.success_policy.as_deref() == Some("AllWorkers"),
            dynamic_worker: extras.enable_dynamic_worker,
            status,
        };
        job.set_defaults();
        Ok(job)
    }

    fn set_defaults(&mut self) {
        let kind = self.kind;
        self.run_policy
            .clean_pod_policy
            .get_or_insert_with(|| "None".to_owned());
        for (replica_type, spec) in &mut self.replicas {
            if let Some(known) = kind
                .replica_types
                .iter()
                .find(|t| t.eq_ignore_ascii_case(replica_type))
            {
                (*known).clone_into(replica_type);
            }
            spec.replicas.get_or_insert(1);
            if spec.restart_policy.as_deref().unwrap_or_default().is_empty() {
                spec.restart_policy = Some(kind.restart_policy.to_owned());
            }
            if let Some(pod) = &mut spec.template.spec {
                set_default_port(kind, pod);
            }
        }
        self.replicas
            .sort_by_key(|(t, _)| kind.replica_types.iter().position(|k| k == t));
        let workers = self.replica("Worker").and_then(|w| w.replicas);
        if let Some(elastic) = &mut self.elastic {
            let min = elastic.min_replicas.or(elastic.max_replicas).or(workers);
            let max = elastic.max_replicas.or(elastic.min_replicas).or(workers);
            elastic.min_replicas = min;
            elastic.max_replicas = max;
        }
        let elastic_nproc = self.elastic.as_ref().is_some_and(|e| e.n_proc_per_node.is_some());
        if kind.kind == "PyTorchJob" && !elastic_nproc {
            self.nproc_per_node.get_or_insert_with(|| "auto".to_owned());
        }
    }

    /// Name of the job.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace of the job.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The replicas of one type.
    #[must_use]
    pub fn replica(&self, replica_type: &str) -> Option<&ReplicaSpec> {
        self.replicas
            .iter()
            .find(|(t, _)| t == replica_type)
            .map(|(_, spec)| spec)
    }

    /// Number of Pods when all run.
    #[must_use]
    pub fn total_replicas(&self) -> i32 {
        self.replicas
            .iter()
            .map(|(_, spec)| spec.replicas.unwrap_or(1))
            .sum()
    }

    /// Whether a replica carries the role `master`.
    #[must_use]
    pub fn is_master_role(&self, replica_type: &str, index: i32) -> bool {
        use super::kind::Framework::{Jax, Paddle, PyTorch, TensorFlow, XGBoost};
        match self.kind.framework {
            XGBoost | Paddle => replica_type == "Master",
            Jax => index == 0,
            PyTorch if self.replica("Master").is_some() => replica_type == "Master",
            TensorFlow if self.replica("Chief").is_some() || self.replica("Master").is_some() => {
                replica_type == "Chief" || replica_type == "Master"
            }
            PyTorch | TensorFlow => replica_type == "Worker" && index == 0,
        }
    }

    /// The reference by which Pods and Services are owned.
    #[must_use]
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: self.kind.kind.to_owned(),
            name: self.name().to_owned(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Number of the framework's port in a Pod of this type.
#[must_use]
pub fn port_of(kind: &Kind, spec: &ReplicaSpec) -> Option<i32> {
    let pod = spec.template.spec.as_ref()?;
    let container = pod.containers.iter().find(|c| c.name == kind.container)?;
    let ports = container.ports.as_ref()?;
    ports
        .iter()
        .find(|p| p.name.as_deref() == Some(kind.port_name))
        .map(|p| p.container_port)
}

fn set_default_port(kind: &Kind, pod: &mut PodSpec) {
    let index = pod
        .containers
        .iter()
        .position(|c| c.name == kind.container)
        .unwrap_or(0);
    let Some(container): Option<&mut Container> = pod.containers.get_mut(index) else {
        return;
    };
    let ports = container.ports.get_or_insert_default();
    if !ports.iter().any(|p| p.name.as_deref() == Some(kind.port_name)) {
        ports.push(ContainerPort {
            name: Some(kind.port_name.to_owned()),
            container_port: kind.port,
            ..ContainerPort::default()
        });
    }
}

/// `<job>-<type>-<index>`: the name of a Pod, and of the Service that resolves to it.
#[must_use]
pub fn replica_name(job: &str, replica_type: &str, index: i32) -> String {
    format!("{job}-{}-{index}", replica_type.to_lowercase()).replace('/', "-")
}
