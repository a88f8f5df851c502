//! Which addresses a Service has: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as CorePort, EndpointSubset, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// Endpoints in one EndpointSlice.
pub const SLICE_SIZE: usize = 100;

/// A resolved port of a Service: (name, number, protocol, application protocol).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    name: Option<String>,
    number: i32,
    protocol: String,
    application: Option<String>,
}

impl Port {
    /// As EndpointSlices say it.
    #[must_use]
    pub fn slice_port(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone().unwrap_or_default()),
            port: Some(self.number),
            protocol: Some(self.protocol.clone()),
            app_protocol: self.application.clone(),
        }
    }

    fn core_port(&self) -> CorePort {
        CorePort {
            name: self.name.clone(),
            port: self.number,
            protocol: Some(self.protocol.clone()),
            app_protocol: self.application.clone(),
        }
    }
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|one| one.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|own| {
                    own.name.as_deref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|own| own.container_port)
        }
    }
}

/// The ports of a Service as one Pod serves them; a named port that the Pod lacks is left out.
#[must_use]
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let all = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    all.iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone(),
                number: number(port, pod)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                application: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// Whether a Pod is an endpoint at all: it has an address and did not end.
#[must_use]
pub fn counts(pod: &Pod) -> bool {
    address(pod).is_some() && !pods::finished(pod)
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|name| same && !name.is_empty())
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true)
}

/// The endpoints of EndpointSlices, grouped by the ports they serve.
#[must_use]
pub fn slices(service: &Service, all: &[Arc<Pod>]) -> BTreeMap<Vec<Port>, Vec<Endpoint>> {
    let mut groups: BTreeMap<Vec<Port>, Vec<Endpoint>> = BTreeMap::new();
    for pod in all.iter().filter(|pod| counts(pod)) {
        let serving = pods::ready(pod);
        let terminating = pods::terminating(pod);
        let endpoint = Endpoint {
            addresses: address(pod).map(str::to_owned).into_iter().collect(),
            conditions: Some(EndpointConditions {
                ready: Some(publishes_not_ready(service) || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
            ..Endpoint::default()
        };
        groups.entry(ports(service, pod)).or_default().push(endpoint);
    }
    groups
}

/// The subsets of the older Endpoints object.
#[must_use]
pub fn subsets(service: &Service, all: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let tolerant = publishes_not_ready(service);
    for pod in all.iter().filter(|pod| counts(pod)) {
        if pods::terminating(pod) && !tolerant {
            continue;
        }
        let own = ports(service, pod);
        let no_ports = service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_ref())
            .is_none_or(Vec::is_empty);
        if own.is_empty() && !(headless && no_ports) {
            continue;
        }
        let one = EndpointAddress {
            ip: address(pod).unwrap_or_default().to_owned(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
        };
        let (ready, not_ready) = groups.entry(own).or_default();
        if tolerant || pods::ready(pod) {
            ready.push(one);
        } else {
            not_ready.push(one);
        }
    }
    let some = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!list.is_empty()).then_some(list)
    };
    groups
        .into_iter()
        .map(|(ports, (ready, not_ready))| EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: (!ports.is_empty()).then(|| ports.iter().map(Port::core_port).collect()),
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})).unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}]}]},
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn named_ports_differ_by_pod() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let groups = slices(
            &service,
            &[
                pod("a", "127.0.0.1", true, 8080),
                pod("b", "127.0.0.2", true, 9090),
            ],
        );
        assert_eq!(
            groups.keys().map(|ports| ports[0].number).collect::<Vec<_>>(),
            [8080, 9090]
        );
    }

    #[test]
    fn not_ready_addresses_are_apart() {
        let service = service(json!({"ports": [{"port": 80, "targetPort": 8080}]}));
        let sets = subsets(
            &service,
            &[pod("a", "127.0.0.1", true, 1), pod("b", "127.0.0.2", false, 1)],
        );
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].addresses.as_ref().unwrap()[0].ip, "127.0.0.1");
        assert_eq!(sets[0].not_ready_addresses.as_ref().unwrap()[0].ip, "127.0.0.2");
    }

    #[test]
    fn a_pod_without_an_address_is_none() {
        let service = service(json!({"ports": [{"port": 80}]}));
        assert!(slices(&service, &[pod("a", "", true, 1)]).is_empty());
    }
}
