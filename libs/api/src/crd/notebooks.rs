//! Notebooks of group `kubeflow.org`.

use k8s_openapi::api::core::v1::{ContainerState, PodSpec};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A notebook server.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "Notebook",
    plural = "notebooks",
    namespaced,
    status = "NotebookStatus",
    schema = "disabled"
)]
pub struct NotebookSpec {
    /// The Pod to run.
    #[serde(default)]
    pub template: NotebookTemplate,
}

/// Template of a notebook's Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NotebookTemplate {
    /// The Pod's specification.
    #[serde(default)]
    pub spec: PodSpec,
}

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotebookStatus {
    /// Conditions of the Pod.
    #[serde(default)]
    pub conditions: Vec<Value>,
    /// Ready replicas of the StatefulSet: 0 or 1.
    #[serde(default)]
    pub ready_replicas: i32,
    /// State of the notebook's container.
    #[serde(default)]
    pub container_state: ContainerState,
}
