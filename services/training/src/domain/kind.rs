//! What differs between the kinds of training job.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of training job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Kind of the resource, and first part of the reasons of its conditions.
    pub kind: &'static str,
    /// Plural name of the resource.
    pub plural: &'static str,
    /// Field of the spec that holds the replicas.
    pub replica_field: &'static str,
    /// Replica types, in the order in which their state decides the job's.
    pub replica_types: &'static [&'static str],
    /// Container that trains; the others are helpers.
    pub container: &'static str,
    /// Name of its port.
    pub port_name: &'static str,
    /// Number of its port where the job names none.
    pub port: i32,
    /// Restart policy where the job names none.
    pub restart_policy: &'static str,
    /// Value of the label `training.kubeflow.org/operator-name`.
    pub controller: &'static str,
    /// What the environment and the success rule follow.
    pub framework: Framework,
}

/// Frameworks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framework {
    /// XGBoost and LightGBM.
    XGBoost,
    /// PyTorch.
    PyTorch,
    /// TensorFlow.
    TensorFlow,
    /// JAX.
    Jax,
    /// PaddlePaddle.
    Paddle,
}

/// Every kind that this service runs.
pub const KINDS: [Kind; 5] = [
    Kind {
        kind: "XGBoostJob",
        plural: "xgboostjobs",
        replica_field: "xgbReplicaSpecs",
        replica_types: &["Master", "Worker"],
        container: "xgboost",
        port_name: "xgboostjob-port",
        port: 9999,
        restart_policy: "Never",
        controller: "xgboostjob-controller",
        framework: Framework::XGBoost,
    },
    Kind {
        kind: "PyTorchJob",
        plural: "pytorchjobs",
        replica_field: "pytorchReplicaSpecs",
        replica_types: &["Master", "Worker"],
        container: "pytorch",
        port_name: "pytorchjob-port",
        port: 23456,
        restart_policy: "OnFailure",
        controller: "pytorchjob-controller",
        framework: Framework::PyTorch,
    },
    Kind {
        kind: "TFJob",
        plural: "tfjobs",
        replica_field: "tfReplicaSpecs",
        replica_types: &["Chief", "Evaluator", "Master", "PS", "Worker"],
        container: "tensorflow",
        port_name: "tfjob-port",
        port: 2222,
        restart_policy: "Never",
        controller: "tfjob-controller",
        framework: Framework::TensorFlow,
    },
    Kind {
        kind: "JAXJob",
        plural: "jaxjobs",
        replica_field: "jaxReplicaSpecs",
        replica_types: &["Worker"],
        container: "jax",
        port_name: "jaxjob-port",
        port: 6666,
        restart_policy: "Never",
        controller: "jaxjob-controller",
        framework: Framework::Jax,
    },
    Kind {
        kind: "PaddleJob",
        plural: "paddlejobs",
        replica_field: "paddleReplicaSpecs",
        replica_types: &["Master", "Worker"],
        container: "paddle",
        port_name: "master",
        port: 36543,
        restart_policy: "OnFailure",
        controller: "paddlejob-controller",
        framework: Framework::Paddle,
    },
];

/// API version of every kind.
pub const API_VERSION: &str = "kubeflow.org/v1";

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(kind: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.kind == kind)
    }

    /// For the dynamic API.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("kubeflow.org", "v1", self.kind),
            self.plural,
        )
    }
}
