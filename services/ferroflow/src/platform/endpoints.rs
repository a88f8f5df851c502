//! The Service names that SDKs have built in, pointed at the listeners of this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferroflow_kernel::PLATFORM_NAMESPACE;
use kube::Client;
use serde_json::{Value, json};

use super::bootstrap::ensure;

/// A Service of the platform: its name, the service behind it, and the name and number of each port.
type Known = (&'static str, &'static str, &'static [(&'static str, u16)]);

/// The platform's own Services.
const SERVICES: &[Known] = &[
    ("ml-pipeline", "gateway", &[("http", 8888), ("grpc", 8887)]),
    ("ml-pipeline-ui", "gateway", &[("http", 80)]),
    ("metadata-grpc-service", "gateway", &[("grpc-api", 8080)]),
    ("katib-db-manager", "gateway", &[("api", 6789)]),
    ("ferroflow", "gateway", &[("http", 80)]),
    ("artifacts", "artifacts", &[("http", 80)]),
    ("minio-service", "artifacts", &[("http", 9000)]),
];

/// One Service whose ports lead to a listener outside the cluster network.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    name: &'static str,
    ports: &'static [(&'static str, u16)],
    to: SocketAddr,
}

/// Where a Pod finds the collector of this machine, whose localhost is not the Pod's.
pub(crate) const COLLECTOR: &str = "http://otel-collector.kubeflow:4317";

/// The address of a collector on this machine's loopback; none for one elsewhere, which Pods reach as they are told.
pub(crate) fn loopback(url: &str) -> Option<SocketAddr> {
    let url: http::Uri = url.parse().ok()?;
    let port = url.port_u16().unwrap_or(4317);
    let ip = match url.host()?.trim_matches(['[', ']']) {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse::<IpAddr>().ok()?,
    };
    ip.is_loopback().then(|| SocketAddr::new(ip, port))
}

/// The platform's own Services, led to the gateway and, for S3 at `/`, to a listener of its own; and the collector of this machine.
pub(crate) fn fronts(gateway: SocketAddr, s3: SocketAddr, collector: &str) -> Vec<Front> {
    let collector = loopback(collector).map(|to| Front {
        name: "otel-collector",
        ports: &[("otlp-grpc", 4317)],
        to,
    });
    let front = |(name, _, ports): &Known| Front {
        name,
        ports,
        to: if *name == "minio-service" { s3 } else { gateway },
    };
    SERVICES.iter().map(front).chain(collector).collect()
}

/// The Services of a cluster, each with the Pods of one of our services behind it: what SDKs call, and how services call each other.
pub(crate) fn cluster_services() -> Vec<Value> {
    let mut all: Vec<Value> = SERVICES
        .iter()
        .filter(|(name, ..)| *name != "artifacts")
        .map(|(name, behind, ports)| selecting(name, behind, ports, ""))
        .collect();
    for (service, webhooks) in [
        ("gateway", false),
        ("pipelines", false),
        ("metadata", false),
        ("artifacts", false),
        ("tuning", true),
        ("training", true),
        ("serving", true),
        ("notebooks", false),
        ("profiles", false),
    ] {
        // launchers and S3 clients call the artifacts service at port 80
        let mut ports = vec![("http", 8080)];
        if service == "artifacts" {
            ports.push(("http-artifacts", 80));
        }
        all.push(selecting(
            service,
            service,
            &ports,
            if webhooks { "webhooks" } else { "" },
        ));
    }
    all
}

fn selecting(name: &str, behind: &str, ports: &[(&str, u16)], webhooks: &str) -> Value {
    let mut list: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port, "targetPort": "http", "protocol": "TCP"}))
        .collect();
    if !webhooks.is_empty() {
        list.push(json!({"name": webhooks, "port": 443, "targetPort": webhooks, "protocol": "TCP"}));
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": PLATFORM_NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "ferroflow", "app.kubernetes.io/component": behind},
        },
        "spec": {
            "selector": {"app.kubernetes.io/part-of": "ferroflow", "app.kubernetes.io/component": behind},
            "ports": list,
        },
    })
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
        .map(|(name, port)| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": front.name, "namespace": PLATFORM_NAMESPACE},
        "spec": {"ports": ports},
    })
}

fn slice(front: &Front) -> Value {
    let ports: Vec<Value> = front
        .ports
        .iter()
        .map(|(name, _)| json!({"name": name, "port": front.to.port(), "protocol": "TCP"}))
        .collect();
    let address = if front.to.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        front.to.ip()
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-ferroflow", front.name), "namespace": PLATFORM_NAMESPACE,
            "labels": {"kubernetes.io/service-name": front.name, "endpointslice.kubernetes.io/managed-by": "ferroflow"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    })
}
