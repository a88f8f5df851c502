//! Logs, traces, metrics and readiness.
//!
//! - `init`: logs to standard error, spans to an OTLP collector
//! - `propagation`, [`TraceContext`]: a trace goes on in another service, in another process, after a restart
//! - [`record`]: spans that outlive the process that began them; [`Recorder`]: spans of a short program
//! - [`Metrics`]: what Prometheus scrapes

mod context;
mod finished;
mod init;
mod json;
mod metrics;
mod process;
mod propagation;
mod readiness;
mod recorder;

pub use context::TraceContext;
pub use finished::{FinishedSpan, record};
pub use init::{LogFormat, TelemetryGuard, TelemetryOptions, init};
pub use metrics::{Metrics, counts, latency_buckets};
pub use opentelemetry::{KeyValue, Value};
pub use propagation::{inject, set_parent};
pub use readiness::{Probe, Readiness};
pub use recorder::{LiveSpan, Place, Recorder};
