//! The cluster's names and addresses for processes outside Pods, the gateway for one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::names::Name;
use crate::view::ClusterView;

/// Says where a Service's or Pod's name leads. Cheap to clone; all clones see [`Resolver::update`].
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    view: Arc<RwLock<Arc<ClusterView>>>,
}

impl Resolver {
    /// Knows nothing until it is updated.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what is known.
    pub fn update(&self, view: ClusterView) {
        *self.view.write() = Arc::new(view);
    }

    /// Addresses to connect to for a host and port: ready endpoints for a Service's name or ClusterIP, the Pod's for a Pod's name
    /// (`pod.service[.namespace]`). Empty for a Service without ready endpoints or without that port. `None` for a host
    /// that is none of the cluster's. Names without a namespace are of `default`.
    pub fn resolve(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let view = self.view.read().clone();
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            let service = view.services.values().find(|s| s.cluster_ip == Some(ip))?;
            return Some(
                service
                    .ports
                    .iter()
                    .filter(|p| p.port == port)
                    .flat_map(|p| p.endpoints.clone())
                    .collect(),
            );
        }
        Name::candidates(host, "default")
            .iter()
            .find_map(|name| resolve_name(&view, name, port))
    }

    /// The Pod that has an address: (namespace, name). A Pod that has ended has none.
    pub fn pod_at(&self, ip: Ipv4Addr) -> Option<(String, String)> {
        self.view
            .read()
            .pods
            .iter()
            .find(|(_, pod)| pod.ip == ip)
            .map(|(key, _)| key.clone())
    }
}

fn resolve_name(view: &ClusterView, name: &Name, port: u16) -> Option<Vec<SocketAddr>> {
    if name.pod.is_some() {
        let found: Vec<SocketAddr> = view
            .names()
            .into_iter()
            .filter(|(n, _)| n == name)
            .map(|(_, ip)| SocketAddr::new(ip.into(), port))
            .collect();
        return (!found.is_empty()).then_some(found);
    }
    let service = view
        .services
        .get(&(name.namespace.clone(), name.service.clone()))?;
    if service.cluster_ip.is_none() {
        // the name of a headless service is its pods' addresses; the port is the caller's
        return Some(
            service
                .endpoints
                .iter()
                .map(|(ip, _)| SocketAddr::new((*ip).into(), port))
                .collect(),
        );
    }
    Some(
        service
            .ports
            .iter()
            .filter(|p| p.port == port)
            .flat_map(|p| p.endpoints.clone())
            .collect(),
    )
}

impl ClusterView {
    /// A resolver that knows this view.
    pub fn resolver(&self) -> Resolver {
        let resolver = Resolver::new();
        resolver.update(self.clone());
        resolver
    }
}

#[cfg(test)]
mod tests {
    use crate::names::tests::cluster;

    #[test]
    fn hosts_lead_to_endpoints() {
        let resolver = cluster().resolver();
        let at = |host: &str, port| {
            resolver
                .resolve(host, port)
                .map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            at("ml-pipeline.kubeflow.svc.cluster.local", 80).as_deref(),
            Some("127.0.0.1:8080")
        );
        assert_eq!(at("ml-pipeline.kubeflow", 80).as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(at("127.96.0.6", 80).as_deref(), Some("127.20.0.3:8080"));
        assert_eq!(at("web.team.svc", 81).as_deref(), Some(""));
        assert_eq!(at("workers.team", 9999).as_deref(), Some("127.20.0.1:9999"));
        assert_eq!(at("w-1.workers.team.svc", 5).as_deref(), Some("127.20.0.2:5"));
        let pod = |ip: &str| resolver.pod_at(ip.parse().unwrap());
        assert_eq!(pod("127.20.0.2"), Some(("team".to_owned(), "w-1".to_owned())));
        assert_eq!(pod("127.20.0.9"), None);
        assert_eq!(at("example.com", 80), None);
        assert_eq!(at("web", 80), None);
    }
}
