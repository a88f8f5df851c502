//! A Kubernetes of one machine in one process: API server, controllers and a node agent.
//!
//! - `apiserver`: objects, watches, admission, RBAC.
//! - `controllers`: what kube-controller-manager and kube-scheduler do.
//! - `node`: runs Pods as supervised processes; `podnet` gives them addresses, `runtimes` what their images stand for.
//!
//! [`LocalKube::open`] puts them together, [`join()`] adds this machine to the cluster of another API server; everything else talks to it through [`kube::Client`].

mod join;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Client;
use localkube_apiserver::{ApiServer, ApiServerConfig, serve_https};
use localkube_controllers::ControllerConfig;
use localkube_node::NodeConfig;
use localkube_runtimes::{Runtimes, RuntimesConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use join::{JoinConfig, join, own_address};
pub use localkube_podnet::PodCidr;

/// How a [`LocalKube`] is set up.
#[derive(Debug, Clone)]
pub struct LocalKubeConfig {
    /// Folder of the API server's objects and keys and of the node's Pods and volumes.
    pub data_dir: PathBuf,
    /// Folder of Python environments, shared between installations.
    pub cache_dir: PathBuf,
    /// The program that becomes shim, launcher, model server and pip when it is called by these names.
    pub executable: PathBuf,
    /// Name of the one Node.
    pub node_name: String,
    /// Folders that containers see at their real paths.
    pub shared_paths: Vec<PathBuf>,
}

/// A running Kubernetes of one machine.
#[derive(Clone)]
pub struct LocalKube {
    server: ApiServer,
    address: SocketAddr,
}

impl LocalKube {
    /// Opens the API server and serves it over HTTPS on `listener`. Controllers and node start with [`LocalKube::run`].
    ///
    /// # Errors
    /// If the data folder cannot be used.
    pub async fn open(
        config: &LocalKubeConfig,
        listener: TcpListener,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let server = ApiServer::open(ApiServerConfig::new(config.data_dir.join("api"))).await?;
        let address = listener.local_addr()?;
        let names = [
            "localhost",
            "127.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            &ApiServerConfig::new("").service_cidr.address(1).to_string(),
        ];
        let tls = server.serving_config(&names.map(str::to_owned))?;
        tasks.spawn(serve_https(listener, tls, server.router(), cancel.clone()));
        server.publish_endpoint(address).await?;
        Ok(Self { server, address })
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// A client of this process that acts as `user`.
    pub fn client(&self, user: UserInfo, namespace: &str) -> Client {
        self.server.client(user, namespace)
    }

    /// Runs controllers and node agent until `cancel`.
    ///
    /// # Errors
    /// If one of them ends by itself.
    pub async fn run(self, config: LocalKubeConfig, cancel: CancellationToken) -> anyhow::Result<()> {
        let controllers = {
            let user = system("system:kube-controller-manager", "system:masters");
            let volumes = config.data_dir.join("volumes");
            let settings = ControllerConfig::new(self.server.ca_pem(), volumes);
            localkube_controllers::run(self.client(user, "default"), settings, cancel.clone())
        };
        let node = self.node(config, cancel.clone());
        let (controllers, node) = tokio::join!(async { controllers.await.context("controllers") }, async {
            node.await.context("node agent")
        });
        self.server.shutdown().await;
        controllers.and(node)
    }

    async fn node(&self, config: LocalKubeConfig, cancel: CancellationToken) -> anyhow::Result<()> {
        let user = system(&format!("system:node:{}", config.node_name), "system:masters");
        let client = self.client(user, "default");
        let mut runtimes = RuntimesConfig::new(config.executable.clone());
        runtimes.cache_dir = config.cache_dir.clone();
        let runtimes = Runtimes::open(runtimes, client.clone()).await?;
        let names = [
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            config.node_name.clone(),
        ];
        let tls = self.server.serving_config(&names)?;
        let mut settings = NodeConfig::new(
            config.node_name,
            config.data_dir.join("node"),
            config.executable,
            std::sync::Arc::new(tls),
            // Pods reach the API by its Service address; the Pod network leads it to the real listener
            format!("{}:443", ApiServerConfig::new("").service_cidr.address(1)),
            self.server.ca_pem(),
        );
        settings.shared_paths = config.shared_paths;
        settings.shared_paths.push(config.cache_dir);
        localkube_node::run(client, runtimes, settings, cancel).await
    }

    /// `https://127.0.0.1:port` of the API.
    pub fn url(&self) -> String {
        let ip = if self.address.ip().is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            self.address.ip()
        };
        format!("https://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Where the API is served over HTTPS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig by which `user` reaches this API.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn kubeconfig(&self, user: &UserInfo) -> anyhow::Result<String> {
        Ok(self
            .server
            .kubeconfig(&self.url(), &self.server.static_token(user)?))
    }
}

fn system(name: &str, group: &str) -> UserInfo {
    UserInfo {
        username: Some(name.to_owned()),
        groups: Some(vec![group.to_owned(), "system:authenticated".to_owned()]),
        ..Default::default()
    }
}
