//! `ferroflow serve <service>`: one service against a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use ferroflow_kernel::PLATFORM_NAMESPACE;
use ferroflow_reconcile::lease::{self, LeaseConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::ClusterAdapters;
use super::services::{self, Adapters as _, Part};
use super::{gateway, one_port, webhook_port};
use crate::cli::{Service, print};
use crate::settings::{ServeFlags, Settings};
use crate::up;

/// Runs one service.
pub(crate) fn run(service: Service, flags: &ServeFlags) -> anyhow::Result<()> {
    let settings = Settings::serve(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(service, &settings));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn serve(service: Service, settings: &Settings) -> anyhow::Result<()> {
    let name = service.name();
    let _telemetry = up::telemetry(settings, name)?;
    let _other = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let adapters = ClusterAdapters::connect(settings, name).await?;
    let listener = up::bind(&settings.bind, settings.port, "--port").await?;
    let address = listener.local_addr()?;
    let cancel = CancellationToken::new();
    up::stop_on_signal(cancel.clone())?;
    crate::memory::give_back_now_and_then();
    let mut tasks = Tasks::new();
    if service == Service::Gateway {
        let gateway = gateway::build(settings, &adapters, &tasks.tracker, &cancel)?;
        let serving = gateway.serve(listener, cancel.clone());
        tasks.spawn(async move { Ok(serving.await?) });
    } else {
        let part = services::one(name, &adapters, &cancel).await?;
        start(part, settings, &adapters, listener, &cancel, &mut tasks).await?;
    }
    print(&format!("ferroflow {name} listens at {address}\n"))?;
    let ended = tasks.wait(&cancel).await;
    cancel.cancel();
    if tokio::time::timeout(up::STOP_WITHIN, tasks.stop()).await.is_err() {
        tracing::warn!("some parts did not stop in time; the next start goes on from what they had saved");
    }
    ended
}

/// Starts what a service answers, and what it does by itself.
async fn start(
    part: Part,
    settings: &Settings,
    adapters: &ClusterAdapters,
    listener: TcpListener,
    cancel: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let (key, readiness) = (adapters.key(), adapters.readiness());
    let works = Arc::new(AtomicBool::new(!part.singleton));
    let (leads, missing) = (works.clone(), move || match works.load(Ordering::Acquire) {
        true => readiness.missing(),
        // while another process leads, this one answers and has nothing else to be ready for
        false => Vec::new(),
    });
    let router = one_port::router(part.grpc(), part.rest(&key), missing, adapters.metrics());
    if let Some(webhooks) = part.webhooks.clone() {
        let (listener, tls) = webhook_port::open(settings).await?;
        tracing::info!(address = %listener.local_addr()?, "webhooks are served");
        let cancel = cancel.clone();
        tasks.spawn(async move {
            webhook_port::serve(listener, tls, webhooks, cancel).await;
            Ok(())
        });
    }
    tasks.spawn(one_port::serve(listener, router, cancel.clone()));
    if part.singleton {
        let lease = LeaseConfig::new(PLATFORM_NAMESPACE, &format!("ferroflow-{}", part.name));
        let work = async move {
            leads.store(true, Ordering::Release);
            part.run.await
        };
        tasks.spawn(lease::hold(adapters.kube(), lease, cancel.clone(), work));
    } else {
        tasks.spawn(part.run);
    }
    Ok(())
}

/// What runs; the first that ends with an error ends the process.
struct Tasks {
    tracker: TaskTracker,
    failed: mpsc::Sender<anyhow::Error>,
    failures: mpsc::Receiver<anyhow::Error>,
}

impl Tasks {
    fn new() -> Self {
        let (failed, failures) = mpsc::channel(8);
        Self {
            tracker: TaskTracker::new(),
            failed,
            failures,
        }
    }

    fn spawn(&mut self, run: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let failed = self.failed.clone();
        self.tracker.spawn(async move {
            if let Err(error) = run.await {
                let _full = failed.try_send(error);
            }
        });
    }

    async fn wait(&mut self, cancel: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            error = self.failures.recv() => Err(error.context("every part ended")?),
        }
    }

    async fn stop(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
