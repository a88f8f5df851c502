//! Keeps each profile's namespace as the profile says.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_api::crd::profiles::Profile;
use ferroflow_reconcile::ensure;
use ferroflow_telemetry::Probe;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::desired;

pub(crate) async fn run(client: Client, probe: Probe, cancel: CancellationToken) {
    let owned = watcher::Config::default();
    let controller = Controller::new(Api::<Profile>::all(client.clone()), owned.clone())
        .watches(
            Api::<RoleBinding>::all(client.clone()),
            owned.clone(),
            |binding| owner_of(&binding),
        )
        .watches(Api::<ServiceAccount>::all(client.clone()), owned, |account| {
            owner_of(&account)
        })
        .graceful_shutdown_on(cancel.cancelled_owned());
    probe.ready();
    controller
        .run(
            reconcile,
            |_, error, _| {
                tracing::warn!(%error, "profile is tried again");
                Action::requeue(Duration::from_secs(5))
            },
            Arc::new(client),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

/// The profile of a child. `Controller::owns` would look for it in the child's namespace and reconcile it twice at once.
fn owner_of(child: &impl Resource) -> Option<ObjectRef<Profile>> {
    let owners = child.meta().owner_references.iter().flatten();
    let name = owners
        .into_iter()
        .find(|owner| owner.kind == "Profile")?
        .name
        .clone();
    Some(ObjectRef::new(&name))
}

async fn reconcile(profile: Arc<Profile>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if profile.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let result = apply(&profile, &client).await;
    let condition = match &result {
        Ok(()) => serde_json::json!({"type": "Successful", "status": "True", "message": ""}),
        Err(error) => serde_json::json!({"type": "Failed", "status": "True", "message": error.to_string()}),
    };
    let status = serde_json::json!({"status": {"conditions": [condition]}});
    if !ferroflow_reconcile::contains(
        &serde_json::to_value(&*profile).map_err(kube::Error::SerdeError)?,
        &status,
    ) {
        let api: Api<Profile> = Api::all((*client).clone());
        api.patch_status(
            &profile.name_any(),
            &PatchParams::default(),
            &Patch::Merge(status),
        )
        .await?;
    }
    result.map(|()| Action::await_change())
}

async fn apply(profile: &Profile, client: &Client) -> Result<(), kube::Error> {
    let name = profile.name_any();
    ensure(
        &Api::<Namespace>::all(client.clone()),
        &desired::namespace(profile),
    )
    .await?;
    for account in desired::service_accounts(profile) {
        ensure(
            &Api::<ServiceAccount>::namespaced(client.clone(), &name),
            &account,
        )
        .await?;
    }
    for binding in desired::role_bindings(profile) {
        ensure(&Api::<RoleBinding>::namespaced(client.clone(), &name), &binding).await?;
    }
    if let Some(quota) = desired::quota(profile) {
        ensure(&Api::<ResourceQuota>::namespaced(client.clone(), &name), &quota).await?;
    }
    Ok(())
}
