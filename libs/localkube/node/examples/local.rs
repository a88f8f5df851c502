//! An API server and a node agent in one process, to try them with kubectl; a small stand-in for `ferroflow up`.
//!
//!     cargo run -p localkube-node --example local -- DATA_DIR
//!
//! Prints the kubeconfig's path once the node is ready. The folder must not be below `/tmp`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use localkube_apiserver::{ApiServer, ApiServerConfig, serve_https, user};
use localkube_node::NodeConfig;
use localkube_runtimes::{Runtimes, RuntimesConfig};
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("shim") => localkube_node::shim_main(),
        Some("pip" | "uv" | "python-entry") => localkube_runtimes::pip_main(),
        _ => tokio::runtime::Runtime::new()?.block_on(up()),
    }
}

async fn up() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let Some(dir) = std::env::args().nth(1).map(PathBuf::from) else {
        anyhow::bail!("usage: local DATA_DIR");
    };
    std::fs::create_dir_all(&dir)?;
    let dir = dir.canonicalize()?;
    let server = ApiServer::open(ApiServerConfig::new(dir.join("api"))).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    server.publish_endpoint(address).await?;
    let names: Vec<String> = ["localhost", "127.0.0.1", "127.96.0.1", "kubernetes.default.svc"]
        .map(String::from)
        .to_vec();
    let tls = server.serving_config(&names)?;
    let client = server.client(user("ferroflow-node", &["system:masters"]), "default");
    furnish(&client, server.ca_pem()).await?;
    let token = server.static_token(&user("ferroflow-admin", &["system:masters"]))?;
    let kubeconfig = server.kubeconfig(&format!("https://127.0.0.1:{}", address.port()), &token);
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve_https(
        listener,
        tls.clone(),
        server.router(),
        cancel.clone(),
    ));

    let executable = std::env::current_exe()?;
    let mut runtimes = RuntimesConfig::new(executable.clone());
    runtimes.cache_dir = dir.join("cache");
    let shared = runtimes.cache_dir.clone();
    let runtimes = Runtimes::open(runtimes, client.clone()).await?;
    let mut config = NodeConfig::new(
        "local",
        dir.join("node"),
        executable,
        tls.into(),
        "127.96.0.1:443",
        server.ca_pem(),
    );
    config.shared_paths.push(shared);
    config.cpus = Some(8);
    config.hidden_paths.push(dir.join("api"));
    std::fs::write(dir.join("kubeconfig.new"), kubeconfig)?;
    std::fs::rename(dir.join("kubeconfig.new"), dir.join("kubeconfig"))?;
    println!("export KUBECONFIG={}", dir.join("kubeconfig").display());
    let stop = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    localkube_node::run(client, runtimes, config, cancel).await?;
    serving.await?;
    server.shutdown().await;
    Ok(())
}

/// What controllers would make in a namespace.
async fn furnish(client: &kube::Client, ca: &str) -> anyhow::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let account = serde_json::from_value(serde_json::json!({"metadata": {"name": "default"}}))?;
    let map = serde_json::from_value(
        serde_json::json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ca}}),
    )?;
    // There already after a restart.
    drop(accounts.create(&PostParams::default(), &account).await);
    drop(maps.create(&PostParams::default(), &map).await);
    Ok(())
}
