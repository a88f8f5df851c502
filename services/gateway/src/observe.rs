//! What the gateway counts for Prometheus.

use std::time::Duration;

use ferroflow_telemetry::Metrics;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    code: u16,
}

/// Requests by status and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    requests: Family<Answer, Counter>,
    seconds: Histogram,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            // from 0.5 ms to 16 s
            seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
        };
        metrics.register(|registry| {
            registry.register(
                "ferroflow_gateway_requests",
                "Requests by HTTP status",
                own.requests.clone(),
            );
            registry.register(
                "ferroflow_gateway_request_seconds",
                "Time to the head of the answer",
                own.seconds.clone(),
            );
        });
        own
    }

    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        self.requests
            .get_or_create(&Answer {
                code: status.as_u16(),
            })
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }
}
