//! What every namespace has: the `default` ServiceAccount and the CA of the API server.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::Context;
use crate::informer::{Key, already_exists, namespace_terminating};
use crate::queue::Queue;

const COMPONENT: &str = "namespace-defaults";
const CA_NAME: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const CA_NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or \
     kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<String>) {
    let cancel = context.cancel.clone();
    queue
        .drive(COMPONENT, 4, cancel, move |namespace| {
            let context = context.clone();
            async move { ensure(&context, &namespace).await }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<String> {
    let queue = Queue::new();
    let namespaces = queue.clone();
    context.namespaces.listen(move |change| {
        if let Some(namespace) = &change.new {
            namespaces.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    let accounts = queue.clone();
    context.service_accounts.listen(move |change| {
        if let (None, Some(old)) = (&change.new, &change.old) {
            accounts.add(old.metadata.namespace.clone().unwrap_or_default());
        }
    });
    let maps = queue.clone();
    context.config_maps.listen(move |change| {
        if let Some(map) = change.latest()
            && map.metadata.name.as_deref() == Some(CA_NAME)
        {
            maps.add(map.metadata.namespace.clone().unwrap_or_default());
        }
    });
    queue
}

async fn ensure(context: &Context, namespace: &str) -> anyhow::Result<()> {
    let Some(found) = context.namespaces.get(&Key::new("", namespace)) else {
        return Ok(());
    };
    if found.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let named = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    if context
        .service_accounts
        .get(&Key::new(namespace, "default"))
        .is_none()
    {
        let account = ServiceAccount {
            metadata: named("default"),
            ..ServiceAccount::default()
        };
        tolerate(context.service_accounts.create(namespace, &account).await)?;
    }
    let data = Some([(CA_KEY.to_owned(), context.config.ca_pem.clone())].into());
    match context.config_maps.get(&Key::new(namespace, CA_NAME)) {
        Some(map) if map.data == data => {}
        Some(map) => {
            let mut changed = (*map).clone();
            changed.data = data;
            context.config_maps.replace(&changed).await?;
        }
        None => {
            let mut map = ConfigMap {
                metadata: named(CA_NAME),
                data,
                ..ConfigMap::default()
            };
            map.metadata.annotations =
                Some([("kubernetes.io/description".to_owned(), CA_NOTE.to_owned())].into());
            tolerate(context.config_maps.create(namespace, &map).await)?;
        }
    }
    Ok(())
}

fn tolerate<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if already_exists(&error) || namespace_terminating(&error) => Ok(()),
        Err(error) => Err(error),
    }
}
