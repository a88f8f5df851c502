//! `ferroflow up`: everything in one process.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ferroflow_telemetry::{LogFormat, TelemetryOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::print;
use crate::data_dir::{self, DataDir};
use crate::failure::usage;
use crate::platform::Laptop;
use crate::settings::{LogForm, Settings, UpFlags};

/// How long the parts may take to stop before the process ends anyway; nothing is lost then, as after a crash.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn run(flags: &UpFlags) -> anyhow::Result<()> {
    let started = Instant::now();
    let settings = Settings::up(flags)?;
    let data = DataDir::open(&settings.data_dir)?;
    data_dir::cache(&settings.cache_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(settings, data, started));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Sets up logs and traces as the settings say.
pub(crate) fn telemetry(
    settings: &Settings,
    service: &str,
) -> anyhow::Result<ferroflow_telemetry::TelemetryGuard> {
    let options = TelemetryOptions {
        service: service.to_owned(),
        filter: settings.log.clone(),
        format: if settings.log_format == LogForm::Json {
            LogFormat::Json
        } else {
            LogFormat::Text
        },
        otlp_endpoint: Some(settings.otlp_endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
    };
    ferroflow_telemetry::init(&options).map_err(|error| usage(error.to_string()))
}

async fn serve(settings: Settings, data: DataDir, started: Instant) -> anyhow::Result<()> {
    let _telemetry = telemetry(&settings, "ferroflow")?;
    let _other = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = bind(&settings.bind, settings.port, "--port").await?;
    let address = listener.local_addr()?;
    let cancel = CancellationToken::new();
    stop_on_signal(cancel.clone())?;
    crate::memory::give_back_now_and_then();
    let mut laptop = Laptop::start(&settings, data, listener, cancel.clone()).await?;
    tokio::select! {
        () = laptop.readiness.wait() => announce(&settings, address, started)?,
        () = cancel.cancelled() => {}
    }
    let failed = laptop.wait(&cancel).await;
    cancel.cancel();
    if tokio::time::timeout(STOP_WITHIN, laptop.stop()).await.is_err() {
        tracing::warn!("some parts did not stop in time; the next start goes on from what they had saved");
    }
    failed
}

/// Listens; `flag` is what chooses another port.
pub(crate) async fn bind(address: &str, port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let ip: std::net::IpAddr = address
        .parse()
        .with_context(|| format!("bind address {address:?}"))?;
    TcpListener::bind(SocketAddr::new(ip, port)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => usage(format!(
            "port {port} on {address} is taken by another program; choose another with {flag}, or {flag} 0 for a free one"
        )),
        std::io::ErrorKind::PermissionDenied => usage(format!(
            "port {port} on {address} is not allowed for this user; choose one above 1023 with {flag}"
        )),
        _ => usage(format!("cannot listen on {address}:{port}: {error}; choose another with --bind and {flag}")),
    })
}

fn announce(settings: &Settings, address: SocketAddr, started: Instant) -> anyhow::Result<()> {
    let url = url(address);
    let folder = settings.data_dir.display();
    let ready = started.elapsed().as_secs_f64();
    if std::io::stdout().is_terminal() {
        print(&format!(
            "ferroflow is ready in {ready:.2} s\n\n  dashboard  {url}\n  kubectl    kubectl --kubeconfig {folder}/kubeconfig get pods -A\n  state      {folder}\n\nCtrl-C stops it. Pods that run go on, and the next `ferroflow up` takes them up again; end them with kubectl delete.\n"
        ))
    } else {
        print(&format!("ferroflow is ready at {url} in {ready:.2} s\n"))
    }
}

/// The URL under which a browser on this machine finds the gateway.
pub(crate) fn url(address: SocketAddr) -> String {
    let host = if address.ip().is_unspecified() || address.ip().is_loopback() {
        "localhost".to_owned()
    } else {
        address.ip().to_string()
    };
    format!("http://{host}:{}", address.port())
}

pub(crate) fn stop_on_signal(cancel: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        cancel.cancel();
        interrupt.recv().await;
        tracing::warn!("stopped at once; nothing that was acknowledged is lost");
        std::process::exit(130);
    });
    Ok(())
}
