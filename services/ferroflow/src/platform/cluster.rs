//! The adapters of one service on a cluster: the Kubernetes API of KUBECONFIG or of the Pod that it runs in, the other services
//! by URL, rows in PostgreSQL, events over NATS.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use ferroflow_auth::{CallerKey, KeyError};
use ferroflow_bus::{EventBus, MemoryBus, NatsBus};
use ferroflow_db::DbOptions;
use ferroflow_kernel::{Clock, PLATFORM_NAMESPACE, SystemClock};
use ferroflow_rpc::Transport;
use ferroflow_telemetry::{Metrics, Readiness};

use super::services::Adapters;
use crate::data_dir::DataDir;
use crate::failure::usage;
use crate::settings::Settings;

/// The adapters of one service.
pub(crate) struct ClusterAdapters {
    settings: Settings,
    client: kube::Client,
    key: CallerKey,
    bus: Arc<dyn EventBus>,
    readiness: Readiness,
    metrics: Metrics,
    /// Where rows are SQLite's.
    data: Option<DataDir>,
}

impl ClusterAdapters {
    /// Connects what `service` needs.
    ///
    /// # Errors
    /// If something that it needs is not set or does not answer.
    pub(crate) async fn connect(settings: &Settings, service: &str) -> anyhow::Result<Self> {
        let has_rows = matches!(service, "pipelines" | "metadata" | "artifacts" | "tuning");
        let data = if has_rows && settings.database.is_empty() {
            Some(DataDir::open(&settings.data_dir.join(service))?)
        } else {
            None
        };
        if service == "artifacts" && settings.artifacts.is_empty() {
            return Err(usage(
                "artifacts: is not set; write --artifacts s3://bucket/folder, gs://..., az://... or file:///folder",
            ));
        }
        Ok(Self {
            key: caller_key(&settings.caller_key)?,
            client: client().await?,
            bus: bus(settings, service).await?,
            settings: settings.clone(),
            readiness: Readiness::default(),
            metrics: Metrics::of_process(),
            data,
        })
    }

    /// The one client of the process.
    pub(crate) fn kube(&self) -> kube::Client {
        self.client.clone()
    }
}

/// The API server that KUBECONFIG names, or that of the cluster that this Pod is in.
pub(crate) async fn config() -> anyhow::Result<kube::Config> {
    kube::Config::infer().await.map_err(|error| {
        let error = error.to_string();
        let why = error.lines().next().unwrap_or_default();
        usage(format!(
            "no Kubernetes API: {why}; set KUBECONFIG, or run inside a cluster"
        ))
    })
}

async fn client() -> anyhow::Result<kube::Client> {
    let mut config = config().await?;
    PLATFORM_NAMESPACE.clone_into(&mut config.default_namespace);
    kube::Client::try_from(config).context("using the kubeconfig")
}

fn caller_key(file: &Path) -> anyhow::Result<CallerKey> {
    if file.as_os_str().is_empty() {
        return Err(usage(
            "caller_key: is not set; write --caller-key FILE, the same file for every service; make one with head -c 32 /dev/urandom",
        ));
    }
    CallerKey::load(file).map_err(|error| match error {
        KeyError::Io { .. } => usage(format!("{error}; make one with head -c 32 /dev/urandom")),
        KeyError::Short { .. } => usage(error.to_string()),
    })
}

/// No service of Ferroflow consumes events yet, so without a server they only do not leave this process.
async fn bus(settings: &Settings, service: &str) -> anyhow::Result<Arc<dyn EventBus>> {
    if settings.events.is_empty() {
        if service == "pipelines" {
            tracing::warn!(
                "events are published to nobody; write --events nats://host:4222 if somebody listens"
            );
        }
        return Ok(Arc::new(MemoryBus::default()));
    }
    let bus = NatsBus::connect(&settings.events).await;
    Ok(Arc::new(
        bus.with_context(|| format!("events at {}", settings.events))?,
    ))
}

impl Adapters for ClusterAdapters {
    fn client(&self, _: &str) -> kube::Client {
        self.client.clone()
    }

    fn database(&self, service: &str) -> DbOptions {
        match &self.data {
            Some(data) => DbOptions::sqlite(&data.path("rows.db"), service),
            None => DbOptions::url(&self.settings.database, service),
        }
    }

    fn transport(&self, from: &str, to: &str) -> anyhow::Result<Transport> {
        let url = self.settings.url_of(to);
        Transport::channel(&url, self.key.clone(), from).with_context(|| format!("service {to} at {url}"))
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    fn key(&self) -> CallerKey {
        self.key.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn collector(&self) -> Option<String> {
        Some(self.settings.otlp_endpoint.clone()).filter(|url| !url.is_empty())
    }

    fn artifacts(&self) -> String {
        self.settings.artifacts.clone()
    }

    fn models(&self) -> (String, u16) {
        // the URL was checked with the other settings
        self.settings
            .public()
            .unwrap_or_else(|_| ("localhost".to_owned(), 80))
    }
}
