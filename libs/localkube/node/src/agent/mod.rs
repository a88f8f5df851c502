//! The node agent: follows the Pods that are bound to its Node and keeps one actor for each.

mod env;
mod events;
mod network;
mod node;
pub(crate) mod pods;
mod quantity;
mod queue;
mod refresh;
mod repeats;
mod start;
mod status;
mod volumes;
mod worker;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use localkube_runtimes::Runtimes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::nursery::Nursery;
use crate::os::{self, Cgroups, Isolation};
use crate::plan::LogLimits;
use events::Recorder;
use network::Network;
use pods::Registry;
use queue::{Demand, Queue};
use volumes::Builder;

/// What the agent is told by whoever starts it.
#[derive(Clone)]
pub struct NodeConfig {
    pub node_name: String,
    /// Pods, logs and volumes; on a file system that can carry overlays
    pub root_dir: PathBuf,
    /// becomes a shim when it is called `shim`
    pub executable: PathBuf,
    /// where the kubelet API listens; port 0 takes a free one
    pub listen: SocketAddr,
    /// of the kubelet API
    pub tls: Arc<rustls::ServerConfig>,
    /// `host:port` of the HTTPS endpoint that Pods are told
    pub api_endpoint: String,
    /// the authority that signed that endpoint's certificate
    pub ca_pem: String,
    /// the address that Pods report as `hostIP`, and at which the API server finds the kubelet API
    pub node_ip: IpAddr,
    /// where Pods get their addresses; none: from 127/8, which only an API server of this machine takes
    pub pod_cidr: Option<localkube_podnet::PodCidr>,
    pub labels: BTreeMap<String, String>,
    pub max_pods: usize,
    /// instead of what the machine has
    pub cpus: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// folders that containers see, and may write to, at their real paths
    pub shared_paths: Vec<PathBuf>,
    /// folders that containers find empty, but for what is shared or mounted inside (where keys are kept, say)
    pub hidden_paths: Vec<PathBuf>,
    pub logs: LogLimits,
}

impl NodeConfig {
    pub fn new(
        node_name: impl Into<String>,
        root_dir: PathBuf,
        executable: PathBuf,
        tls: Arc<rustls::ServerConfig>,
        api_endpoint: impl Into<String>,
        ca_pem: impl Into<String>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            root_dir,
            executable,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls,
            api_endpoint: api_endpoint.into(),
            ca_pem: ca_pem.into(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pod_cidr: None,
            labels: BTreeMap::new(),
            max_pods: 110,
            cpus: None,
            memory_bytes: None,
            shared_paths: Vec::new(),
            hidden_paths: Vec::new(),
            logs: LogLimits::default(),
        }
    }
}

/// What the actors share.
pub(crate) struct Agent {
    pub client: kube::Client,
    pub config: NodeConfig,
    pub isolation: Isolation,
    pub cgroups: Cgroups,
    pub boot_id: String,
    pub capacity: os::Capacity,
    pub nursery: Nursery,
    pub network: Network,
    pub volumes: Builder,
    pub runtimes: Runtimes,
    pub recorder: Recorder,
    pub queue: Queue,
    /// Pods that are being set up at the same time
    pub starts: Semaphore,
    pub pods: Registry,
    pub tasks: TaskTracker,
}

impl Agent {
    pub fn folder(&self, uid: &str) -> PathBuf {
        pods_folder(&self.config.root_dir).join(uid)
    }
}

fn pods_folder(root: &Path) -> PathBuf {
    root.join("pods")
}

/// Runs the agent until `cancel`. Pods go on without it, and the next agent takes them up again.
pub async fn run(
    client: kube::Client,
    runtimes: Runtimes,
    config: NodeConfig,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let agent = open(client.clone(), runtimes, config).await?;
    let listener = tokio::net::TcpListener::bind(agent.config.listen)
        .await
        .with_context(|| {
            format!(
                "kubelet address {} cannot be used; choose another",
                agent.config.listen
            )
        })?;
    let port = listener.local_addr()?.port();
    let stop = cancel.child_token();
    let server = tokio::spawn(crate::kubelet::serve(agent.clone(), listener, stop.clone()));
    let network = tokio::spawn(agent.network.clone().run(client.clone(), stop.clone()));
    let refresh = tokio::spawn(refresh::run(agent.clone(), stop.clone()));
    let machine = node::Machine {
        kubelet_port: port,
        capacity: agent.capacity,
        isolation: &agent.isolation,
        cgroups: &agent.cgroups,
    };
    node::register(&client, &agent.config, &machine, &stop).await;
    let heartbeat = tokio::spawn(node::heartbeat(client, agent.config.clone(), stop.clone()));
    info!(node = agent.config.node_name, port, isolation = ?agent.isolation, "node agent is ready");

    tokio::select! {
        () = cancel.cancelled() => {}
        () = follow(&agent) => {}
    }
    stop.cancel();
    for task in [server, network, refresh, heartbeat] {
        if let Err(error) = task.await {
            warn!(%error, "a task of the node agent failed");
        }
    }
    agent.pods.stop();
    agent.tasks.close();
    agent.tasks.wait().await;
    Ok(())
}

async fn open(client: kube::Client, runtimes: Runtimes, config: NodeConfig) -> anyhow::Result<Arc<Agent>> {
    let root = &config.root_dir;
    std::fs::create_dir_all(pods_folder(root)).with_context(|| format!("node folder {}", root.display()))?;
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
    }
    let scratch = root.join("probe");
    std::fs::create_dir_all(&scratch)?;
    let isolation = tokio::task::spawn_blocking(move || os::probe(&scratch)).await?;
    for note in &isolation.notes {
        warn!(note, "containers are isolated less than they could be");
    }
    // Before the nursery starts: it and the shims belong where this process is put.
    let cgroups = tokio::task::spawn_blocking(os::probe_cgroups).await?;
    match &cgroups {
        Cgroups::None { why } => warn!(why, "limits of memory and cpu are not held"),
        held => info!(by = %held, "limits of memory and cpu are held"),
    }
    let mut capacity = os::capacity(root)?;
    capacity.cores = config.cpus.unwrap_or(capacity.cores);
    capacity.memory_bytes = config.memory_bytes.unwrap_or(capacity.memory_bytes);
    let whole = Demand {
        cpu: capacity.cores as f64,
        memory: capacity.memory_bytes as f64,
    };
    Ok(Arc::new(Agent {
        isolation,
        cgroups,
        boot_id: os::boot_id()?,
        nursery: Nursery::start(&config.executable)
            .with_context(|| format!("cannot start {} as shim", config.executable.display()))?,
        network: Network::open(&root.join("network"), config.pod_cidr)?,
        volumes: Builder {
            client: client.clone(),
            runtimes: runtimes.clone(),
        },
        recorder: Recorder::start(client.clone(), config.node_name.clone()),
        queue: Queue::new(whole, config.max_pods),
        starts: Semaphore::new(usize::try_from(capacity.cores).unwrap_or(1) * 2),
        pods: Registry::default(),
        tasks: TaskTracker::new(),
        capacity,
        client,
        runtimes,
        config,
    }))
}

/// Hands each change of a Pod to its actor.
async fn follow(agent: &Arc<Agent>) {
    let pods: Api<Pod> = Api::all(agent.client.clone());
    let selector = format!("spec.nodeName={}", agent.config.node_name);
    let stream = watcher(pods, watcher::Config::default().fields(&selector)).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed = HashSet::new();
    let mut swept = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                present(agent, pod);
            }
            Ok(watcher::Event::InitDone) => {
                agent.pods.retain(&listed);
                if !swept {
                    swept = true;
                    agent.tasks.spawn(worker::sweep(agent.clone(), listed.clone()));
                }
            }
            Ok(watcher::Event::Apply(pod)) => present(agent, pod),
            Ok(watcher::Event::Delete(pod)) => {
                if let Some(uid) = &pod.metadata.uid {
                    agent.pods.gone(uid);
                }
            }
            Err(error) => warn!(%error, "cannot follow the Pods of this node; trying again"),
        }
    }
}

fn present(agent: &Arc<Agent>, mut pod: Pod) {
    // nothing here reads them, and they are a third of a Pod
    pod.metadata.managed_fields = None;
    let pod = Arc::new(pod);
    if let Some(handle) = agent.pods.present(&pod) {
        tracing::debug!(uid = handle.uid, "new Pod");
        agent.tasks.spawn(worker::run(agent.clone(), handle));
    }
}
