//! Keeps each notebook's StatefulSet and Service as the notebook says, and its status as they are.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_api::crd::notebooks::Notebook;
use ferroflow_reconcile::ensure;
use ferroflow_telemetry::Probe;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::desired;

pub(crate) async fn run(client: Client, probe: Probe, cancel: CancellationToken) {
    let any = watcher::Config::default();
    let pods = any.clone().labels("notebook-name");
    let controller = Controller::new(Api::<Notebook>::all(client.clone()), any.clone())
        .owns(Api::<StatefulSet>::all(client.clone()), any.clone())
        .owns(Api::<Service>::all(client.clone()), any)
        .watches(Api::<Pod>::all(client.clone()), pods, |pod| {
            let name = pod.labels().get("notebook-name")?.clone();
            Some(ObjectRef::new(&name).within(&pod.namespace()?))
        })
        .graceful_shutdown_on(cancel.cancelled_owned());
    probe.ready();
    controller
        .run(
            reconcile,
            |_, error, _| {
                tracing::warn!(%error, "notebook is tried again");
                Action::requeue(Duration::from_secs(5))
            },
            Arc::new(client),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(notebook: Arc<Notebook>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if notebook.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (client, namespace, name) = (
        (*client).clone(),
        notebook.namespace().unwrap_or_default(),
        notebook.name_any(),
    );
    let set = ensure(
        &Api::<StatefulSet>::namespaced(client.clone(), &namespace),
        &desired::stateful_set(&notebook),
    )
    .await?;
    ensure(
        &Api::<Service>::namespaced(client.clone(), &namespace),
        &desired::service(&notebook),
    )
    .await?;
    let pod = Api::<Pod>::namespaced(client.clone(), &namespace)
        .get_opt(&format!("{name}-0"))
        .await?;
    let status = desired::status(&notebook, &set, pod.as_ref());
    if notebook.status.as_ref() != Some(&status) {
        let api: Api<Notebook> = Api::namespaced(client, &namespace);
        let patch = serde_json::json!({ "status": status });
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Ok(Action::await_change())
}
