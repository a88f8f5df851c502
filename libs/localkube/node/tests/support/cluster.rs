//! An API server and a node agent in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use localkube_apiserver::{ApiServer, ApiServerConfig, serve_https, user};
use localkube_node::NodeConfig;
use localkube_runtimes::{Runtimes, RuntimesConfig};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub client: kube::Client,
    pub server: ApiServer,
    folder: PathBuf,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

impl Cluster {
    /// Starts both over the state in `dir`, and waits until the node is ready.
    pub async fn start(dir: &Path, executable: &Path) -> anyhow::Result<Self> {
        let server = ApiServer::open(ApiServerConfig::new(dir.join("api"))).await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        server.publish_endpoint(address).await?;
        let names: Vec<String> = ["localhost", "127.0.0.1", "127.96.0.1", "kubernetes.default.svc"]
            .map(String::from)
            .to_vec();
        let tls = server.serving_config(&names)?;
        let client = server.client(user("test", &["system:masters"]), "default");
        furnish(&client, server.ca_pem()).await;
        let cancel = CancellationToken::new();
        let (router, stop, https) = (server.router(), cancel.clone(), tls.clone());
        let serving = tokio::spawn(async move {
            serve_https(listener, https, router, stop).await;
            anyhow::Ok(())
        });
        let mut runtimes = RuntimesConfig::new(executable.to_owned());
        runtimes.cache_dir = dir.join("cache");
        let cache: PathBuf = runtimes.cache_dir.clone();
        let runtimes = Runtimes::open(runtimes, client.clone()).await?;
        let mut config = NodeConfig::new(
            "test-node",
            dir.join("node"),
            executable.to_owned(),
            Arc::new(tls),
            "127.96.0.1:443",
            server.ca_pem(),
        );
        config.shared_paths.push(cache);
        config.cpus = Some(8);
        let agent = tokio::spawn(localkube_node::run(
            client.clone(),
            runtimes,
            config,
            cancel.clone(),
        ));
        let nodes: Api<Node> = Api::all(client.clone());
        let ready = kube::runtime::wait::await_condition(nodes, "test-node", |node: Option<&Node>| {
            node.and_then(|node| node.status.as_ref())
                .is_some_and(|status| status.conditions.is_some())
        });
        tokio::time::timeout(std::time::Duration::from_secs(30), ready).await??;
        Ok(Self {
            client,
            server,
            folder: dir.join("node/pods"),
            cancel,
            tasks: vec![serving, agent],
        })
    }

    /// Removes all Pods, which would live on otherwise, and stops both.
    pub async fn stop(self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        drop(
            pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
                .await,
        );
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let left = || std::fs::read_dir(&self.folder).into_iter().flatten().count();
        while left() > 0 && std::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.cancel.cancel();
        for task in self.tasks {
            if let Ok(Err(error)) = task.await {
                eprintln!("cluster: {error:#}");
            }
        }
        self.server.shutdown().await;
    }
}

/// What controllers would make in a namespace; there already after a restart.
async fn furnish(client: &kube::Client, ca: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    if let (Ok(account), Ok(map)) = (
        serde_json::from_value(json!({"metadata": {"name": "default"}})),
        serde_json::from_value(json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ca}})),
    ) {
        drop(accounts.create(&PostParams::default(), &account).await);
        drop(maps.create(&PostParams::default(), &map).await);
    }
}
