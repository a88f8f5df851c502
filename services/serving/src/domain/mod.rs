//! Decisions of the serving service, as pure functions of what is wanted and what is seen.

mod legacy;
mod select;
mod status;
mod storage;
mod validate;
mod workload;

pub use legacy::{LEGACY_FORMATS, with_defaults};
pub use select::{Failure, FailureReason, Selected, known_formats, select};
pub use status::{Observed, status};
pub use storage::{Source, source};
pub use validate::validate;
pub use workload::{deployment, services};

/// What does not depend on the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingConfig {
    /// Domain of model URLs: `http://<name>.<namespace>.<domain>`.
    pub domain: String,
    /// Port of model URLs, where it is not 80.
    pub port: Option<u16>,
    /// DNS suffix inside the cluster.
    pub cluster_domain: String,
    /// Image that fetches models and serves them natively.
    pub modelserver_image: String,
    /// Image whose content is mounted into Python runtimes to bring the model server.
    pub launcher_image: String,
    /// Environment of the storage initializer (endpoint and credentials that every model may use).
    pub storage_env: Vec<(String, String)>,
}

impl Default for ServingConfig {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            domain: "localhost".into(),
            port: None,
            cluster_domain: "cluster.local".into(),
            modelserver_image: format!("ghcr.io/ferroflow/modelserver:v{version}"),
            launcher_image: format!("ghcr.io/ferroflow/launcher:v{version}"),
            storage_env: Vec::new(),
        }
    }
}

impl ServingConfig {
    /// URL from outside the cluster.
    pub fn url(&self, name: &str, namespace: &str) -> String {
        let port = self
            .port
            .filter(|port| *port != 80)
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        format!("http://{name}.{namespace}.{}{port}", self.domain)
    }

    /// URL for Pods.
    pub fn address(&self, service: &str, namespace: &str) -> String {
        format!("http://{service}.{namespace}.svc.{}", self.cluster_domain)
    }
}

/// Label that names the InferenceService of a Pod.
pub const SERVICE_LABEL: &str = "serving.kserve.io/inferenceservice";
/// Container that answers requests.
pub const MAIN_CONTAINER: &str = "kserve-container";
/// Init container that fetches the model.
pub const STORAGE_INITIALIZER: &str = "storage-initializer";
/// Where the model's files are in the Pod.
pub const MODEL_DIR: &str = "/mnt/models";
