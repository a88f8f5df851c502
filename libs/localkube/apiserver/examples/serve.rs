//! Serves a fresh API server over HTTPS on a free port and writes a kubeconfig.
//!
//!     cargo run -p localkube-apiserver --example serve -- [DATA_DIR]

use std::path::PathBuf;

use localkube_apiserver::{ApiServer, ApiServerConfig, serve_https, user};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let given = std::env::args().nth(1).map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let dir = given.unwrap_or_else(|| temporary.path().to_owned());
    let server = ApiServer::open(ApiServerConfig::new(&dir)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    server.publish_endpoint(address).await?;
    let tls = server.serving_config(&[
        "localhost".into(),
        "127.0.0.1".into(),
        "kubernetes.default.svc".into(),
    ])?;
    let token = server.static_token(&user("ferroflow-admin", &["system:masters"]))?;
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        server.kubeconfig(&format!("https://127.0.0.1:{}", address.port()), &token),
    )?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve_https(listener, tls, server.router(), cancel.clone()));
    tokio::signal::ctrl_c().await?;
    cancel.cancel();
    serving.await?;
    server.shutdown().await;
    Ok(())
}
