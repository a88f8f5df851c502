//! The Service names that SDKs have built in, pointed at the listeners of this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferroflow_kernel::PLATFORM_NAMESPACE;
use kube::Client;
use serde_json::{Value, json};

use super::bootstrap::ensure;

/// One Service whose ports lead to listeners outside the cluster network.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pub namespace: &'static str,
    pub name: &'static str,
    /// Name and number of each port, and the listener behind it.
    pub ports: Vec<(&'static str, u16, SocketAddr)>,
}

/// The platform's own Services.
pub(crate) fn fronts(gateway: SocketAddr, s3: SocketAddr) -> Vec<Front> {
    let front = |name, ports| Front {
        namespace: PLATFORM_NAMESPACE,
        name,
        ports,
    };
    vec![
        front(
            "ml-pipeline",
            vec![("http", 8888, gateway), ("grpc", 8887, gateway)],
        ),
        front("ml-pipeline-ui", vec![("http", 80, gateway)]),
        front("metadata-grpc-service", vec![("grpc-api", 8080, gateway)]),
        front("katib-db-manager", vec![("api", 6789, gateway)]),
        front("artifacts", vec![("http", 80, gateway)]),
        front("minio-service", vec![("http", 9000, s3)]),
        front("ferroflow", vec![("http", 80, gateway)]),
    ]
}

/// Makes the Services and points them at this process's listeners.
pub(crate) async fn publish(client: &Client, fronts: &[Front]) -> anyhow::Result<()> {
    for front in fronts {
        ensure(client, &service(front)).await?;
        ensure(client, &slice(front)).await?;
    }
    Ok(())
}

fn service(front: &Front) -> Value {
    let ports: Vec<Value> = front
        .ports
        .iter()
        .map(|(name, port, _)| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": front.name, "namespace": front.namespace},
        "spec": {"ports": ports},
    })
}

fn slice(front: &Front) -> Value {
    let ports: Vec<Value> = front
        .ports
        .iter()
        .map(|(name, _, to)| json!({"name": name, "port": to.port(), "protocol": "TCP"}))
        .collect();
    let address = front
        .ports
        .first()
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, _, to)| to.ip());
    let address = if address.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-ferroflow", front.name), "namespace": front.namespace,
            "labels": {"kubernetes.io/service-name": front.name, "endpointslice.kubernetes.io/managed-by": "ferroflow"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    })
}
