//! Sets the process up: structured logs to standard error, and spans to an OTLP collector when an endpoint is given.

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::finished::{Ids, SCOPE};
use crate::json::JsonLogs;

/// How long the last spans may take to reach the collector when the process ends.
const FLUSH: Duration = Duration::from_secs(2);

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text an event, for people.
    #[default]
    Text,
    /// One JSON object an event, for collectors.
    Json,
}

/// What to set up.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// `service.name` of the spans.
    pub service: String,
    /// Filter in the form of `RUST_LOG`, for example `info,ferroflow_pipelines=debug`.
    pub filter: String,
    /// How logs look.
    pub format: LogFormat,
    /// `http://host:4317` of an OTLP gRPC collector.
    pub otlp_endpoint: Option<String>,
}

/// Flushes what is buffered when it is dropped.
#[derive(Debug, Default)]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH)
        {
            tracing::warn!(%error, "spans may be lost");
        }
    }
}

/// Sets up logs and traces for the whole process; called once, by `main`.
///
/// # Errors
/// If the filter is not a filter, the endpoint not a URL, or a subscriber is set already.
pub fn init(options: &TelemetryOptions) -> anyhow::Result<TelemetryGuard> {
    let filter = EnvFilter::try_new(&options.filter).map_err(|e| {
        anyhow::anyhow!(
            "log filter {:?}: {e}; write it like info,ferroflow_pipelines=debug",
            options.filter
        )
    })?;
    let logs = match options.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .with_target(false)
            .compact()
            .boxed(),
        LogFormat::Json => JsonLogs::new(std::io::stderr).boxed(),
    };
    let provider = tracer(options)?;
    // without a tracer, spans of libraries and services cost next to nothing
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO))
    });
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    if let Some(provider) = &provider {
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(traces)
        .try_init()?;
    Ok(TelemetryGuard(provider))
}

/// A tracer that exports where there is a collector; one that only gives ids to log lines where these are JSON.
fn tracer(options: &TelemetryOptions) -> anyhow::Result<Option<SdkTracerProvider>> {
    let mut builder = SdkTracerProvider::builder()
        .with_id_generator(Ids::default())
        .with_resource(
            Resource::builder()
                .with_service_name(options.service.clone())
                .with_attribute(opentelemetry::KeyValue::new(
                    "service.version",
                    env!("CARGO_PKG_VERSION"),
                ))
                .build(),
        );
    match &options.otlp_endpoint {
        Some(endpoint) => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint.as_str())
                .build()?;
            builder = builder.with_batch_exporter(exporter);
        }
        None if options.format == LogFormat::Json => {}
        None => return Ok(None),
    }
    Ok(Some(builder.build()))
}

/// Our own spans; libraries have very many, which tell nothing to those who use Ferroflow.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    *metadata.level() <= Level::INFO && (target.starts_with("ferroflow") || target.starts_with("localkube"))
}
