//! ConfigMaps, Secrets and tokens that running Pods have mounted are kept current.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Agent, start};

/// Tokens live at least ten minutes; each is replaced well before its end.
const TOKENS: Duration = Duration::from_secs(450);

pub async fn run(agent: Arc<Agent>, cancel: CancellationToken) {
    let tokens = async {
        loop {
            tokio::time::sleep(TOKENS).await;
            refresh(&agent, |volume| {
                volume.projected.as_ref().is_some_and(|projected| {
                    projected
                        .sources
                        .iter()
                        .flatten()
                        .any(|source| source.service_account_token.is_some())
                })
            })
            .await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = follow::<ConfigMap>(&agent, names_config_map) => {}
        () = follow::<Secret>(&agent, names_secret) => {}
        () = tokens => {}
    }
}

type Volume = k8s_openapi::api::core::v1::Volume;

fn names_config_map(volume: &Volume, name: &str) -> bool {
    let projected = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    volume.config_map.as_ref().is_some_and(|map| map.name == name)
        || projected
            .filter_map(|source| source.config_map.as_ref())
            .any(|map| map.name == name)
}

fn names_secret(volume: &Volume, name: &str) -> bool {
    let projected = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    volume
        .secret
        .as_ref()
        .is_some_and(|secret| secret.secret_name.as_deref() == Some(name))
        || projected
            .filter_map(|source| source.secret.as_ref())
            .any(|secret| secret.name == name)
}

async fn follow<K>(agent: &Arc<Agent>, names: fn(&Volume, &str) -> bool)
where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let stream = watcher(Api::<K>::all(agent.client.clone()), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let Ok(watcher::Event::Apply(object)) = event else {
            continue;
        };
        let (Some(name), namespace) = (object.meta().name.clone(), object.meta().namespace.clone()) else {
            continue;
        };
        refresh_in(agent, namespace.as_deref(), |volume| names(volume, &name)).await;
    }
}

async fn refresh(agent: &Arc<Agent>, wanted: impl Fn(&Volume) -> bool) {
    refresh_in(agent, None, wanted).await;
}

async fn refresh_in(agent: &Arc<Agent>, namespace: Option<&str>, wanted: impl Fn(&Volume) -> bool) {
    for entry in agent.pods.all() {
        let Some(pod) = entry.pod() else { continue };
        let runs = entry
            .state
            .borrow()
            .as_ref()
            .is_some_and(|state| state.finished.is_none());
        let here = namespace.is_none() || pod.metadata.namespace.as_deref() == namespace;
        if runs
            && here
            && mounts_any(&pod, &wanted)
            && let Err(error) = start::refresh_volumes(agent, &pod).await
        {
            warn!(error, pod = pod.metadata.name, "cannot refresh a Pod's volumes");
        }
    }
}

fn mounts_any(pod: &Pod, wanted: impl Fn(&Volume) -> bool) -> bool {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .any(wanted)
}
