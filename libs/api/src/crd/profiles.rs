//! Profiles of group `kubeflow.org`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use k8s_openapi::api::rbac::v1::Subject;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A namespace that belongs to somebody.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubeflow.org",
    version = "v1",
    kind = "Profile",
    plural = "profiles",
    status = "ProfileStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Who owns the namespace.
    #[serde(default)]
    pub owner: Subject,
    /// Cloud identity plugins; kept, and applied by a later version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Value>,
    /// What all workloads of the namespace may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_quota_spec: Option<ResourceQuotaSpec>,
}

/// How far a profile is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// `type`, `status` and `message`, as Kubeflow writes them.
    #[serde(default)]
    pub conditions: Vec<BTreeMap<String, String>>,
}
