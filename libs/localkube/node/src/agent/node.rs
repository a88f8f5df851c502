//! The Node object and its heartbeat.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Namespace, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::NodeConfig;
use crate::os::{Capacity, Cgroups, Isolation};

const LEASES: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const HEARTBEAT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// Says by which means limits are held, or why they are not.
const LIMITS: &str = "ferroflow.io/limits";

/// What the Node tells of its machine.
#[derive(Debug)]
pub struct Machine<'a> {
    pub kubelet_port: u16,
    pub capacity: Capacity,
    pub isolation: &'a Isolation,
    pub cgroups: &'a Cgroups,
}

/// Makes or updates the Node; tries until it works or `cancel` is called.
pub async fn register(
    client: &kube::Client,
    config: &NodeConfig,
    machine: &Machine<'_>,
    cancel: &CancellationToken,
) {
    while let Err(error) = try_register(client, config, machine).await {
        warn!(%error, node = config.node_name, "cannot register the node");
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn try_register(client: &kube::Client, config: &NodeConfig, machine: &Machine<'_>) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
        ("kubernetes.io/os".to_owned(), std::env::consts::OS.to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
    ]);
    labels.extend(config.labels.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(LIMITS.to_owned(), machine.cgroups.to_string())])),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    match nodes.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = serde_json::json!({"metadata": {
                "labels": node.metadata.labels,
                "annotations": node.metadata.annotations,
            }});
            nodes
                .patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
        }
        Err(error) => return Err(error),
    }
    let status = status(config, machine, Timestamp::now());
    nodes
        .patch_status(
            &config.node_name,
            &PatchParams::default(),
            &Patch::Merge(serde_json::json!({"status": status})),
        )
        .await?;
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn resources(config: &NodeConfig, capacity: Capacity) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(capacity.cores.to_string())),
        (
            "memory".to_owned(),
            Quantity(format!("{}Ki", capacity.memory_bytes >> 10)),
        ),
        (
            "ephemeral-storage".to_owned(),
            Quantity(capacity.disk_bytes.to_string()),
        ),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ])
}

fn status(config: &NodeConfig, machine: &Machine<'_>, now: Timestamp) -> NodeStatus {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let mut ready = vec!["kubelet is posting ready status".to_owned()];
    ready.extend(machine.isolation.notes.iter().cloned());
    if let Cgroups::None { why } = machine.cgroups {
        ready.push(format!("limits of memory and cpu are not held: {why}"));
    }
    let address = |kind: &str, value: &str| NodeAddress {
        type_: kind.to_owned(),
        address: value.to_owned(),
    };
    NodeStatus {
        capacity: Some(resources(config, machine.capacity)),
        allocatable: Some(resources(config, machine.capacity)),
        conditions: Some(vec![
            condition(
                "MemoryPressure",
                "False",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            condition(
                "DiskPressure",
                "False",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ),
            condition(
                "PIDPressure",
                "False",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
            condition("Ready", "True", "KubeletReady", &ready.join("; ")),
        ]),
        addresses: Some(vec![
            address("InternalIP", &config.node_ip.to_string()),
            address("Hostname", &config.node_name),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(machine.kubelet_port),
            }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            operating_system: std::env::consts::OS.to_owned(),
            kubelet_version: format!("v1.35.0-ferroflow.{}", env!("CARGO_PKG_VERSION")),
            container_runtime_version: format!("ferroflow://{}", env!("CARGO_PKG_VERSION")),
            os_image: "host".to_owned(),
            boot_id: crate::os::boot_id().unwrap_or_default(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

/// Renews the node's Lease until cancelled.
pub async fn heartbeat(client: kube::Client, config: NodeConfig, cancel: CancellationToken) {
    loop {
        if let Err(error) = beat(&client, &config).await {
            warn!(%error, node = config.node_name, "cannot renew the node's lease");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }
}

async fn beat(client: &kube::Client, config: &NodeConfig) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let now = MicroTime(Timestamp::now());
    let patch = serde_json::json!({"spec": {"renewTime": now}});
    match leases
        .patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(LEASES.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    // There already, usually.
    drop(namespaces.create(&PostParams::default(), &namespace).await);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            namespace: Some(LEASES.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(config.node_name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await?;
    Ok(())
}
