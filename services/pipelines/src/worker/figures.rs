//! What the scheduler tells Prometheus.

use std::sync::Arc;

use ferroflow_telemetry::{Metrics, counts};
use jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::Shared;

/// Upper bounds in seconds: a step takes from a tenth of a second to a day.
const BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 21_600.0, 86_400.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    state: &'static str,
}

/// What has ended since this process started. Clones share it.
#[derive(Debug, Clone)]
pub struct Figures {
    runs: Family<Ended, Counter>,
    attempts: Family<Ended, Counter>,
    seconds: Family<Ended, Histogram, fn() -> Histogram>,
}

impl Figures {
    /// Registers the figures; once a process.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            runs: Family::default(),
            attempts: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        metrics.register(|registry| {
            registry.register(
                "pipeline_runs_ended",
                "Runs that ended, by state",
                own.runs.clone(),
            );
            registry.register(
                "pipeline_attempts_ended",
                "Attempts of steps that ended, by state",
                own.attempts.clone(),
            );
            registry.register_with_unit(
                "pipeline_attempt_duration",
                "Time from the decision to start an attempt to the news of its end",
                Unit::Seconds,
                own.seconds.clone(),
            );
        });
        own
    }

    /// Adds what the scheduler has at work now.
    pub(super) fn observe(metrics: &Metrics, shared: &Arc<Shared>) {
        let shared = Arc::downgrade(shared);
        metrics.register(|registry| {
            registry.register_collector(counts(
                "pipeline_at_work",
                "Runs under way, their attempts under way, and the attempts that may be at the same time",
                "what",
                move || {
                    shared
                        .upgrade()
                        .map(|shared| at_work(&shared))
                        .unwrap_or_default()
                },
            ));
        });
    }

    pub(super) fn run_ended(&self, state: &'static str) {
        self.runs.get_or_create(&Ended { state }).inc();
    }

    pub(super) fn attempt_ended(&self, state: &'static str, took: SignedDuration) {
        self.attempts.get_or_create(&Ended { state }).inc();
        self.seconds
            .get_or_create(&Ended { state })
            .observe(took.as_secs_f64().max(0.0));
    }
}

fn at_work(shared: &Shared) -> Vec<(String, usize)> {
    let (runs, attempts, most) = shared.at_work();
    vec![
        ("runs".to_owned(), runs),
        ("attempts".to_owned(), attempts),
        ("attempts_at_most".to_owned(), most),
    ]
}
