//! Logs, traces, metrics and readiness.

mod init;
mod metrics;
mod propagation;
mod readiness;

pub use init::{LogFormat, TelemetryGuard, TelemetryOptions, init};
pub use metrics::Metrics;
pub use propagation::{inject, set_parent};
pub use readiness::{Probe, Readiness};
