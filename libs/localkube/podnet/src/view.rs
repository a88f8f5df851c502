//! Services, EndpointSlices and Pods of the cluster, turned into what the network needs. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::table::{Protocol, ServiceKey, ServiceTable};

/// What the cluster's objects say about names, addresses and endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    pub(crate) services: BTreeMap<(String, String), ServiceView>,
    /// Pods with an address: (namespace, name) to its address.
    pub(crate) pods: BTreeMap<(String, String), PodView>,
}

/// One Service; the key in [`ClusterView`] is (namespace, name).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceView {
    /// `None` for a headless Service.
    pub cluster_ip: Option<Ipv4Addr>,
    pub ports: Vec<PortView>,
    /// Addresses of ready endpoints, with the hostname that an endpoint has.
    pub endpoints: BTreeSet<(Ipv4Addr, Option<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortView {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    pub endpoints: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodView {
    pub ip: Ipv4Addr,
    pub hostname: String,
    pub subdomain: Option<String>,
}

impl ClusterView {
    /// Reads the objects; endpoints come from EndpointSlices alone, as in kube-proxy.
    pub fn new<S, E, P>(services: &[S], slices: &[E], pods: &[P]) -> Self
    where
        S: Borrow<Service>,
        E: Borrow<EndpointSlice>,
        P: Borrow<Pod>,
    {
        let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.iter().map(Borrow::borrow) {
            let name = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("kubernetes.io/service-name"));
            if let (Some(name), Some(namespace)) = (name, &slice.metadata.namespace) {
                by_service
                    .entry((namespace.clone(), name.clone()))
                    .or_default()
                    .push(slice);
            }
        }
        let mut view = Self::default();
        for service in services.iter().map(Borrow::borrow) {
            let (Some(name), Some(namespace), Some(spec)) =
                (&service.metadata.name, &service.metadata.namespace, &service.spec)
            else {
                continue;
            };
            if spec.type_.as_deref() == Some("ExternalName") {
                continue;
            }
            let key = (namespace.clone(), name.clone());
            let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
            let any = spec.publish_not_ready_addresses.unwrap_or(false);
            let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
            let ports = spec.ports.iter().flatten().filter_map(|p| {
                let name = p.name.clone().unwrap_or_default();
                let protocol = protocol(p.protocol.as_deref())?;
                let mut endpoints = endpoints_of_port(slices, &name, protocol, any);
                endpoints.sort();
                endpoints.dedup();
                Some(PortView {
                    port: u16::try_from(p.port).ok()?,
                    protocol,
                    endpoints,
                    name,
                })
            });
            let endpoints = slices
                .iter()
                .flat_map(|s| ready(s, any))
                .flat_map(addresses_with_hostname);
            view.services.insert(
                key,
                ServiceView {
                    cluster_ip,
                    ports: ports.collect(),
                    endpoints: endpoints.collect(),
                },
            );
        }
        for pod in pods.iter().map(Borrow::borrow) {
            let ip = pod
                .status
                .as_ref()
                .and_then(|s| s.pod_ip.as_deref())
                .and_then(|ip| ip.parse().ok());
            let over = pod
                .status
                .as_ref()
                .and_then(|s| s.phase.as_deref())
                .is_some_and(|p| matches!(p, "Succeeded" | "Failed"));
            let host_network = pod.spec.as_ref().is_some_and(|s| s.host_network.unwrap_or(false));
            if let (Some(ip), Some(name), Some(namespace), false, false) = (
                ip,
                &pod.metadata.name,
                &pod.metadata.namespace,
                over,
                host_network,
            ) {
                let spec = pod.spec.as_ref();
                let hostname = spec
                    .and_then(|s| s.hostname.clone())
                    .unwrap_or_else(|| name.clone());
                let subdomain = spec.and_then(|s| s.subdomain.clone());
                view.pods.insert(
                    (namespace.clone(), name.clone()),
                    PodView {
                        ip,
                        hostname,
                        subdomain,
                    },
                );
            }
        }
        view
    }

    /// Where connects to Services' addresses lead.
    pub fn table(&self) -> ServiceTable {
        let mut table = ServiceTable::default();
        for service in self.services.values() {
            let Some(ip) = service.cluster_ip else { continue };
            for port in &service.ports {
                table.insert(
                    ServiceKey {
                        protocol: port.protocol,
                        address: SocketAddrV4::new(ip, port.port),
                    },
                    port.endpoints.clone(),
                );
            }
        }
        table
    }
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// `any`: the Service publishes addresses that are not ready, too.
fn ready(slice: &EndpointSlice, any: bool) -> impl Iterator<Item = &Endpoint> {
    slice
        .endpoints
        .iter()
        .filter(move |e| any || e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true))
}

fn endpoints_of_port(slices: &[&EndpointSlice], name: &str, wanted: Protocol, any: bool) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    for slice in slices {
        for port in slice.ports.iter().flatten() {
            let same = port.name.as_deref().unwrap_or_default() == name
                && protocol(port.protocol.as_deref()) == Some(wanted);
            let Some(number) = port.port.and_then(|p| u16::try_from(p).ok()).filter(|_| same) else {
                continue;
            };
            for address in ready(slice, any).flat_map(|e| &e.addresses) {
                out.extend(
                    address
                        .parse::<Ipv4Addr>()
                        .map(|ip| SocketAddr::new(ip.into(), number)),
                );
            }
        }
    }
    out
}

fn addresses_with_hostname(endpoint: &Endpoint) -> impl Iterator<Item = (Ipv4Addr, Option<String>)> {
    endpoint
        .addresses
        .iter()
        .filter_map(|a| Some((a.parse().ok()?, endpoint.hostname.clone())))
}
