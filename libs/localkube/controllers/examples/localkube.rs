//! A whole localkube without a node: API server over HTTPS and all controllers, for the conformance suite.
//! `localkube DATA_DIR` prints one line of JSON (`url`, `token`, `ca`) when it serves.

use std::path::PathBuf;

use localkube_apiserver::{ApiServer, ApiServerConfig, serve_https, user};
use localkube_controllers::ControllerConfig;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let Some(dir) = std::env::args().nth(1).map(PathBuf::from) else {
        anyhow::bail!("usage: localkube DATA_DIR");
    };
    let server = ApiServer::open(ApiServerConfig::new(&dir)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    server.publish_endpoint(address).await?;
    let tls = server.serving_config(&[
        "localhost".into(),
        "127.0.0.1".into(),
        "kubernetes.default.svc".into(),
    ])?;
    let token = server.static_token(&user("admin", &["system:masters"]))?;
    let ca = dir.join("ca.crt");
    std::fs::write(&ca, server.ca_pem())?;
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(serve_https(listener, tls, server.router(), cancel.clone()));
    let client = server.client(
        user("system:kube-controller-manager", &["system:masters"]),
        "default",
    );
    let config = ControllerConfig::new(server.ca_pem(), dir.join("volumes"));
    let controllers = tokio::spawn(localkube_controllers::run(client, config, cancel.clone()));
    let line =
        serde_json::json!({"url": format!("https://127.0.0.1:{}", address.port()), "token": token, "ca": ca});
    println!("{line}");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    cancel.cancel();
    controllers.await??;
    serving.await?;
    server.shutdown().await;
    Ok(())
}
