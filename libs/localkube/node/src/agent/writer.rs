//! Writes a Pod's status, always the latest, and deletes the Pod when its end is told.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What the API should hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub status: Option<Arc<Value>>,
    /// the Pod has ended and its deletion was asked for
    pub delete: bool,
}

/// Runs until the Pod is gone there or the actor drops its side.
pub async fn run(
    client: kube::Client,
    namespace: String,
    name: String,
    uid: String,
    mut wanted: watch::Receiver<Wanted>,
) {
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let mut written = Wanted::default();
    let mut retry = FIRST_RETRY;
    loop {
        let now = wanted.borrow_and_update().clone();
        match write(&pods, &name, &uid, &now, &written).await {
            Ok(()) => {
                tracing::debug!(uid, "status is written");
                written = now;
                retry = FIRST_RETRY;
            }
            // Not found, or another Pod of this name: nothing of ours is left to write.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                written = now;
            }
            Err(error) => {
                warn!(%error, namespace, name, "cannot write a Pod's status; trying again");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
                if wanted.has_changed().is_err() {
                    return;
                }
                continue;
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn write(
    pods: &Api<Pod>,
    name: &str,
    uid: &str,
    wanted: &Wanted,
    written: &Wanted,
) -> kube::Result<()> {
    if let Some(status) = &wanted.status
        && wanted.status != written.status
    {
        // The uid is a precondition: a Pod that was made anew under this name is not touched.
        let patch = json!({"metadata": {"uid": uid}, "status": status});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    if wanted.delete && !written.delete {
        let only_this = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        };
        pods.delete(
            name,
            &DeleteParams::default().grace_period(0).preconditions(only_this),
        )
        .await?;
    }
    Ok(())
}
