//! Runs the controllers and the scheduler against the API server of a kubeconfig:
//! `controllers CA_FILE VOLUMES_DIR`, with the kubeconfig in `KUBECONFIG`.

use localkube_controllers::ControllerConfig;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let (Some(ca_file), Some(volumes)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: controllers CA_FILE VOLUMES_DIR");
    };
    let client = kube::Client::try_default().await?;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    localkube_controllers::run(
        client,
        ControllerConfig::new(std::fs::read_to_string(ca_file)?, volumes),
        cancel,
    )
    .await
}
