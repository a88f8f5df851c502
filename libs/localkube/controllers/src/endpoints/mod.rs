//! Endpoints and EndpointSlices of Services that select Pods; those without a selector are left to their authors.

mod build;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::DeleteParams;

use crate::context::Context;
use crate::informer::{Key, already_exists, namespace_terminating};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "endpoints-controller";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    let workers = context.config.workers;
    queue
        .drive(COMPONENT, workers, cancel, move |key| {
            let context = context.clone();
            async move { reconcile(&context, &key).await }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue = Queue::new();
    let services = queue.clone();
    context.services.listen(move |change| {
        if let Some(service) = change.latest() {
            services.add(Key::of(&**service));
        }
    });
    let affected = queue.clone();
    let cache = context.services.clone();
    context.pods.listen(move |change| {
        let relevant = |pod: &Arc<Pod>| {
            let status = pod.status.as_ref();
            (
                pod.metadata.labels.clone(),
                status.and_then(|status| status.pod_ip.clone()),
                pods::ready(pod),
                pods::terminating(pod),
                pods::finished(pod),
            )
        };
        if change.old.as_ref().map(relevant) == change.new.as_ref().map(relevant) {
            return;
        }
        for pod in change.old.iter().chain(&change.new) {
            for service in cache.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                if selector(&service)
                    .is_some_and(|selector| pods::selects(&selector, pod.metadata.labels.as_ref()))
                {
                    affected.add(Key::of(&*service));
                }
            }
        }
    });
    let owned = queue.clone();
    context.endpoint_slices.listen(move |change| {
        if let Some(slice) = change.latest()
            && let Some(name) = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(SERVICE_NAME))
        {
            owned.add(Key::new(
                slice.metadata.namespace.clone().unwrap_or_default(),
                name,
            ));
        }
    });
    let same_name = queue.clone();
    context.endpoints.listen(move |change| {
        if let Some(endpoints) = change.latest() {
            same_name.add(Key::of(&**endpoints));
        }
    });
    queue
}

fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.clone().filter(|labels| !labels.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then_some(LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    })
}

async fn reconcile(context: &Context, key: &Key) -> anyhow::Result<()> {
    let Some(service) = context.services.get(key) else {
        // Slices are owned by the Service and collected; Endpoints are only named like it.
        if let Some(endpoints) = context.endpoints.get(key)
            && endpoints
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key("endpoints.kubernetes.io/managed-by"))
        {
            context
                .endpoints
                .delete(&endpoints, DeleteParams::background())
                .await?;
        }
        return Ok(());
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let Some(selector) = selector(&service) else {
        return Ok(());
    };
    let all: Vec<Arc<Pod>> = context
        .pods
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|pod| pods::selects(&selector, pod.metadata.labels.as_ref()))
        .collect();
    match write_endpoints(context, &service, &all)
        .await
        .and(write_slices(context, &service, &all).await)
    {
        Err(error) if namespace_terminating(&error) => Ok(()),
        other => Ok(other?),
    }
}

fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

async fn write_endpoints(context: &Context, service: &Service, all: &[Arc<Pod>]) -> kube::Result<()> {
    let subsets = build::subsets(service, all);
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(
        "endpoints.kubernetes.io/managed-by".to_owned(),
        "endpoint-controller".to_owned(),
    );
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    match context.endpoints.get(&Key::of(service)) {
        None => {
            let made = Endpoints {
                metadata: ObjectMeta {
                    name: service.metadata.name.clone(),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                },
                subsets,
            };
            match context
                .endpoints
                .create(service.metadata.namespace.as_deref().unwrap_or_default(), &made)
                .await
            {
                Err(error) if !already_exists(&error) => Err(error),
                _ => Ok(()),
            }
        }
        Some(found) if found.subsets == subsets && found.metadata.labels.as_ref() == Some(&labels) => Ok(()),
        Some(found) => {
            let mut changed = (*found).clone();
            changed.subsets = subsets;
            changed.metadata.labels = Some(labels);
            context.endpoints.replace(&changed).await.map(|_| ())
        }
    }
}

async fn write_slices(context: &Context, service: &Service, all: &[Arc<Pod>]) -> kube::Result<()> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut wanted: Vec<(Option<Vec<_>>, Vec<Endpoint>)> = Vec::new();
    for (ports, endpoints) in build::slices(service, all) {
        let ports: Vec<_> = ports.iter().map(build::Port::slice_port).collect();
        for chunk in endpoints.chunks(build::SLICE_SIZE) {
            wanted.push(((!ports.is_empty()).then(|| ports.clone()), chunk.to_vec()));
        }
    }
    if wanted.is_empty() {
        wanted.push((None, Vec::new()));
    }
    let mut existing: Vec<Arc<EndpointSlice>> = context
        .endpoint_slices
        .owned_by(service.metadata.uid.as_deref().unwrap_or_default())
        .into_iter()
        .filter(|slice| {
            slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(MANAGED_BY))
                .map(String::as_str)
                == Some(MANAGER)
        })
        .collect();
    for (ports, endpoints) in wanted {
        // The slice with the same ports is kept, or else any that nothing else needs.
        let at = existing
            .iter()
            .position(|slice| slice.ports == ports)
            .or_else(|| (!existing.is_empty()).then_some(0));
        match at.map(|at| existing.remove(at)) {
            Some(found)
                if found.ports == ports
                    && found.endpoints == endpoints
                    && found.metadata.labels.as_ref() == Some(&labels) => {}
            Some(found) => {
                let mut changed = (*found).clone();
                changed.ports = ports;
                changed.endpoints = endpoints;
                changed.metadata.labels = Some(labels.clone());
                context.endpoint_slices.replace(&changed).await?;
            }
            None => {
                let mut owner = pods::controller_reference(service);
                owner.block_owner_deletion = Some(true);
                let made = EndpointSlice {
                    metadata: ObjectMeta {
                        generate_name: Some(format!("{name}-")),
                        namespace: Some(namespace.clone()),
                        labels: Some(labels.clone()),
                        owner_references: Some(vec![owner]),
                        ..ObjectMeta::default()
                    },
                    address_type: "IPv4".to_owned(),
                    endpoints,
                    ports,
                };
                context.endpoint_slices.create(&namespace, &made).await?;
            }
        }
    }
    for surplus in existing {
        context
            .endpoint_slices
            .delete(&surplus, DeleteParams::background())
            .await?;
    }
    Ok(())
}
