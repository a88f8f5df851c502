//! Where Services and Pods are, from watches of the Kubernetes API: the same on a laptop and on a cluster.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use ferroflow_auth::Principal;
use ferroflow_gateway::{Addresses, Workload};
use ferroflow_telemetry::Readiness;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pods::Pods;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Answers from caches that watches keep current.
#[derive(Clone)]
pub(crate) struct ClusterAddresses {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    pods: Pods,
}

impl std::fmt::Debug for ClusterAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterAddresses(..)")
    }
}

impl ClusterAddresses {
    /// Starts the watches; they run until `cancel`.
    pub(crate) fn start(
        client: &Client,
        readiness: &Readiness,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let (services, writer) = reflector::store();
        let watch = watcher(Api::<Service>::all(client.clone()), watcher::Config::default());
        spawn(tasks, cancel, reflector::reflector(writer, watch.modify(strip)));
        let (slices, writer) = reflector::store();
        let watch = watcher(
            Api::<EndpointSlice>::all(client.clone()),
            watcher::Config::default(),
        );
        spawn(tasks, cancel, reflector::reflector(writer, watch.modify(strip)));
        let pods = Pods::default();
        let watch = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
        let seen = pods.clone();
        spawn(tasks, cancel, watch.inspect_ok(move |event| seen.observe(event)));
        let own = Self {
            services,
            slices,
            pods,
        };
        let (probe, waiting) = (readiness.register("gateway: addresses of services"), own.clone());
        tasks.spawn(async move {
            let all = (
                waiting.services.wait_until_ready(),
                waiting.slices.wait_until_ready(),
                waiting.pods.listed(),
            );
            if let (Ok(()), Ok(()), ()) = tokio::join!(all.0, all.1, all.2) {
                probe.ready();
            }
        });
        own
    }
}

fn strip<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn spawn<T: Send + 'static>(
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    stream: impl Stream<Item = Result<T, watcher::Error>> + Send + 'static,
) {
    let cancel = cancel.clone();
    tasks.spawn(async move {
        let watch = stream.default_backoff().for_each(|event| {
            if let Err(error) = event {
                tracing::warn!(%error, "watch is tried again");
            }
            std::future::ready(())
        });
        tokio::select! {
            () = watch => {}
            () = cancel.cancelled() => {}
        }
    });
}

#[async_trait]
impl Addresses for ClusterAddresses {
    async fn of_service(&self, namespace: &str, service: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let found = self.services.get(&ObjectRef::new(service).within(namespace))?;
        let ports = found
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_ref())
            .into_iter()
            .flatten();
        let Some(wanted) = ports.into_iter().find(|p| p.port == i32::from(port)) else {
            return Some(Vec::new());
        };
        let name = wanted.name.clone().unwrap_or_default();
        let mut addresses = Vec::new();
        for slice in self.slices.state() {
            let belongs = slice.namespace().as_deref() == Some(namespace)
                && slice
                    .labels()
                    .get(SERVICE_NAME)
                    .is_some_and(|owner| owner == service);
            if belongs {
                collect(&slice, &name, &mut addresses);
            }
        }
        Some(addresses)
    }
}

fn collect(slice: &EndpointSlice, port_name: &str, addresses: &mut Vec<SocketAddr>) {
    let ports = slice.ports.iter().flatten();
    let port = ports
        .filter(|p| p.name.as_deref().unwrap_or_default() == port_name)
        .find_map(|p| p.port);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
        return;
    };
    for endpoint in &slice.endpoints {
        if endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true) {
            let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            addresses.extend(ips.map(|ip| SocketAddr::new(ip, port)));
        }
    }
}

#[async_trait]
impl Workload for ClusterAddresses {
    async fn service_account_at(&self, address: IpAddr) -> Option<Principal> {
        self.pods.at(address.to_canonical())
    }
}
