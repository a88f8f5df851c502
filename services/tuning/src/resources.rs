//! From an API version and a kind to the resource: a trial may be of any kind, and so may the owners of its Pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};
use parking_lot::Mutex;

/// Groups whose plural names follow from the kind; the API server is not asked about them.
const REGULAR: [&str; 6] = ["", "apps", "batch", "kubeflow.org", "argoproj.io", "tekton.dev"];

/// Resources by kind; what the API server said is kept.
#[derive(Clone)]
pub struct Resources {
    client: Client,
    known: Arc<Mutex<BTreeMap<(String, String), ApiResource>>>,
}

impl Resources {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// The resource of a kind.
    ///
    /// # Errors
    /// If the API server does not know it.
    pub async fn of(&self, api_version: &str, kind: &str) -> Result<ApiResource, kube::Error> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        if REGULAR.contains(&group) {
            return Ok(ApiResource::from_gvk(&gvk));
        }
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.known.lock().get(&key).cloned();
        if let Some(resource) = known {
            return Ok(resource);
        }
        let (resource, _) = kube::discovery::pinned_kind(&self.client, &gvk).await?;
        self.known.lock().insert(key, resource.clone());
        Ok(resource)
    }
}
