//! Sets the process up: structured logs to standard error, and spans to an OTLP collector when an endpoint is given.

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

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
            && let Err(error) = provider.shutdown()
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
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let logs = match options.format {
        LogFormat::Text => text.with_target(false).compact().boxed(),
        LogFormat::Json => text.json().boxed(),
    };
    let mut provider = None;
    let mut traces = None;
    if let Some(endpoint) = &options.otlp_endpoint {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.as_str())
            .build()?;
        let built = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(
                Resource::builder()
                    .with_service_name(options.service.clone())
                    .build(),
            )
            .build();
        traces = Some(tracing_opentelemetry::layer().with_tracer(built.tracer("ferroflow")));
        provider = Some(built);
    }
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(traces)
        .try_init()?;
    Ok(TelemetryGuard(provider))
}
