//! What the gateway tells about requests: counts and latencies for Prometheus, and the span that everything behind it belongs to.

use std::time::Duration;

use axum::extract::Request;
use ferroflow_telemetry::{Metrics, latency_buckets};
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use tracing::Span;
use tracing::field::Empty;

use crate::route::{Target, WorkloadKind};

/// Requests that were answered before it was known where they go.
pub(crate) const UNROUTED: &str = "none";
/// Questions whether it is alive and ready.
pub(crate) const PROBE: &str = "probe";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Requests by where they went, and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    requests: Family<Answer, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

/// Counts a request as in flight while it lives.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(latency_buckets())),
            in_flight: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "ferroflow_gateway_requests",
                "Requests by kind of route and HTTP status",
                own.requests.clone(),
            );
            registry.register_with_unit(
                "ferroflow_gateway_request_duration",
                "Time to the head of the answer by kind of route",
                Unit::Seconds,
                own.seconds.clone(),
            );
            registry.register(
                "ferroflow_gateway_requests_in_flight",
                "Requests whose answer has not begun",
                own.in_flight.clone(),
            );
        });
        own
    }

    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn count(&self, route: &str, status: StatusCode, took: Duration) {
        let route = route.to_owned();
        self.seconds
            .get_or_create(&Route { route: route.clone() })
            .observe(took.as_secs_f64());
        let code = status.as_u16();
        self.requests.get_or_create(&Answer { route, code }).inc();
    }
}

/// The kind of route of a target: as many as there are routes, whatever clients send.
pub(crate) fn class<'a>(target: &Target<'a>) -> &'a str {
    match target {
        Target::Route(route) => &route.key,
        Target::Workload {
            kind: WorkloadKind::Model,
            ..
        } => "model",
        Target::Workload {
            kind: WorkloadKind::Notebook,
            ..
        } => "notebook",
        Target::UnknownGrpc => "unknown",
        Target::Dashboard => "dashboard",
    }
}

/// The span of a request, a child of the client's own where it sent one. Probes and scrapes have none.
pub(crate) fn span(request: &Request) -> Span {
    if matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") {
        return Span::none();
    }
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = request.method().as_str(),
        otel.status_code = Empty,
        ferroflow.service = "gateway",
        http.request.method = request.method().as_str(),
        url.path = Empty,
        http.route = Empty,
        http.response.status_code = Empty,
    );
    ferroflow_telemetry::set_parent(&span, request.headers());
    span
}

/// What is known once it is clear where a request goes. The path of an open route is left out: it may hold a secret.
pub(crate) fn routed(target: &Target<'_>, request: &Request) {
    let span = Span::current();
    if span.is_disabled() {
        return;
    }
    let route = class(target);
    span.record("otel.name", format!("{} {route}", request.method()));
    span.record("http.route", route);
    if !matches!(target, Target::Route(route) if route.open) {
        span.record("url.path", request.uri().path());
    }
}

/// What is known once the answer is.
pub(crate) fn finish(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::default();
        let counters = Counters::new(&metrics);
        let flying = counters.begin();
        counters.count("/kube", StatusCode::OK, Duration::from_millis(3));
        counters.count("/kube", StatusCode::NOT_FOUND, Duration::from_millis(1));
        let text = metrics.render();
        for line in [
            "ferroflow_gateway_requests_total{route=\"/kube\",code=\"200\"} 1",
            "ferroflow_gateway_requests_total{route=\"/kube\",code=\"404\"} 1",
            "ferroflow_gateway_request_duration_seconds_count{route=\"/kube\"} 2",
            "ferroflow_gateway_requests_in_flight 1",
        ] {
            assert!(text.contains(line), "no {line} in {text}");
        }
        drop(flying);
        assert!(
            metrics
                .render()
                .contains("ferroflow_gateway_requests_in_flight 0")
        );
    }
}
