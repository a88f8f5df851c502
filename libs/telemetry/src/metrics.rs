//! Prometheus metrics of one process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// How long figures that must be asked for may take; the others are answered anyway.
const ASK: Duration = Duration::from_secs(2);

type Refresh = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The metrics of a process, handed to whoever registers some. Clones share it.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    refreshes: Mutex<Vec<Arc<Refresh>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Metrics {
    /// Metrics that already tell about the process itself: memory, processor time, files, start.
    pub fn of_process() -> Self {
        let own = Self::default();
        own.register(crate::process::register);
        own
    }

    /// Registers metrics: `metrics.register(|registry| registry.register("runs", "Runs started", counter.clone()))`.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what is to be done before each scrape, to bring figures up to date that nobody counts as they change.
    pub fn before_scrape<F>(&self, refresh: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let refresh: Refresh = Box::new(move || refresh().boxed());
        let mut refreshes = self.0.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        refreshes.push(Arc::new(refresh));
    }

    /// The figures in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# encoding failed: {error}\n"),
        }
    }

    /// The answer to `GET /metrics`: OpenMetrics for those who accept it, as Prometheus does, and Prometheus' older text for all others.
    pub async fn response(&self, request: &HeaderMap) -> Response {
        let refreshes = {
            let refreshes = self.0.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
            refreshes.clone()
        };
        let asked = futures::future::join_all(refreshes.iter().map(|refresh| refresh()));
        if tokio::time::timeout(ASK, asked).await.is_err() {
            tracing::warn!("some figures of /metrics are old, since they could not be read within {ASK:?}");
        }
        let text = self.render();
        let accepts = request
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        if accepts
            .into_iter()
            .any(|value| value.contains("application/openmetrics-text"))
        {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            return ([(CONTENT_TYPE, kind)], text).into_response();
        }
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(CONTENT_TYPE, kind)], classic(&text)).into_response()
    }
}

/// OpenMetrics text as Prometheus' text format 0.0.4: there a counter's family has the name of its samples, and neither units nor an
/// end are told.
fn classic(text: &str) -> String {
    let mut kinds = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        }
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let told = line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(keyword, rest)| Some((keyword, rest.split_once(' ')?)));
        let suffix = match told {
            Some((_, (name, _))) if kinds.get(name) == Some(&"counter") => "_total",
            Some((_, (name, _))) if kinds.get(name) == Some(&"info") => "_info",
            _ => "",
        };
        match told {
            Some((keyword, (name, rest))) => {
                let rest = if rest == "info" && keyword == "TYPE" {
                    "gauge"
                } else {
                    rest
                };
                out.push_str(&format!("# {keyword} {name}{suffix} {rest}\n"));
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Upper bounds of the buckets of latencies: from 0.5 ms to 65 s, each twice the one before.
pub fn latency_buckets() -> impl Iterator<Item = f64> {
    prometheus_client::metrics::histogram::exponential_buckets(0.0005, 2.0, 18)
}

/// A gauge with one label whose values are counted anew at each scrape; what `count` does not name has no sample.
pub fn counts(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    count: impl Fn() -> Vec<(String, usize)> + Send + Sync + 'static,
) -> Box<dyn Collector> {
    Box::new(Counts {
        name,
        help,
        label,
        count: Box::new(count),
    })
}

type Count = Box<dyn Fn() -> Vec<(String, usize)> + Send + Sync>;

struct Counts {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    count: Count,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counts({})", self.name)
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (value, count) in (self.count)() {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[(self.label, value)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    use super::*;

    fn sample() -> Metrics {
        let metrics = Metrics::default();
        let steps: Counter = Counter::default();
        steps.inc();
        let took = Histogram::new([0.1, 1.0]);
        took.observe(0.5);
        metrics.register(|registry| {
            registry.register("steps", "Steps", steps);
            registry.register_with_unit("took", "Time", Unit::Seconds, took);
            registry.register_collector(counts("pods", "Pods", "state", || {
                vec![("running".to_owned(), 2)]
            }));
        });
        metrics
    }

    #[test]
    fn openmetrics_is_whole() {
        let text = sample().render();
        assert!(text.contains("# TYPE steps counter\nsteps_total 1\n"), "{text}");
        assert!(text.contains("# UNIT took_seconds seconds\n"), "{text}");
        assert!(
            text.contains("# TYPE pods gauge\npods{state=\"running\"} 2\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn the_format_is_what_the_client_accepts() {
        let metrics = sample();
        let mut accept = HeaderMap::new();
        let old = metrics.response(&accept).await;
        assert_eq!(
            old.headers()[CONTENT_TYPE],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        let both = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        accept.insert(ACCEPT, both.parse().unwrap());
        let new = metrics.response(&accept).await;
        assert!(
            new.headers()[CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("application/openmetrics-text")
        );
    }

    #[test]
    fn the_older_text_names_counters_by_their_samples() {
        let text = classic(&sample().render());
        assert!(
            text.contains("# HELP steps_total Steps.\n# TYPE steps_total counter\nsteps_total 1\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE took_seconds histogram\n"), "{text}");
        assert!(!text.contains("UNIT") && !text.contains("EOF"), "{text}");
    }

    #[tokio::test]
    async fn figures_are_brought_up_to_date_before_a_scrape() {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelSet)]
        struct State {
            state: &'static str,
        }
        let metrics = Metrics::default();
        let runs: Family<State, Gauge> = Family::default();
        metrics.register(|registry| registry.register("runs", "Runs", runs.clone()));
        metrics.before_scrape(move || {
            let runs = runs.clone();
            async move {
                runs.get_or_create(&State { state: "running" }).set(7);
            }
        });
        let answer = metrics.response(&HeaderMap::new()).await;
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.contains("runs{state=\"running\"} 7"), "{text}");
    }
}
