//! Spans of calls, with the attributes that OpenTelemetry's conventions give them.

use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// `package.Service` and `Method` of a gRPC path.
pub(crate) fn names(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or((path, ""))
}

/// The code of an answer without a body, or of one that begins well.
pub(crate) fn code(headers: &HeaderMap) -> tonic::Code {
    headers
        .get("grpc-status")
        .map_or(tonic::Code::Ok, |value| tonic::Code::from_bytes(value.as_bytes()))
}

/// The span of a gRPC call; `kind` is `client` or `server`.
pub(crate) fn grpc_span(kind: &'static str, service: &str, path: &str) -> Span {
    let (rpc_service, method) = names(path);
    tracing::info_span!(
        "rpc",
        otel.kind = kind,
        otel.name = path.trim_start_matches('/'),
        otel.status_code = Empty,
        ferroflow.service = service,
        rpc.system = "grpc",
        rpc.service = rpc_service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
    )
}

/// Tells a span how its call ended.
pub(crate) fn finish_grpc(span: &Span, kind: &str, code: tonic::Code) {
    use tonic::Code;
    span.record("rpc.grpc.status_code", i32::from(code));
    let fault = match kind {
        "client" => code != Code::Ok,
        // what the caller did wrong is no fault of the server
        _ => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
    };
    if fault {
        span.record("otel.status_code", "ERROR");
    }
}

/// REST routes of a service, each request in a span of its own.
pub fn observe_rest(service: &'static str, routes: axum::Router) -> axum::Router {
    routes.layer(from_fn(move |request, next| observe(service, request, next)))
}

async fn observe(service: &'static str, request: Request, next: Next) -> Response {
    let method = request.method().as_str();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
        otel.status_code = Empty,
        ferroflow.service = service,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    ferroflow_telemetry::set_parent(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let status: StatusCode = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_services_and_methods() {
        assert_eq!(names("/a.b.C/Do"), ("a.b.C", "Do"));
        assert_eq!(names("nonsense"), ("nonsense", ""));
    }

    #[test]
    fn an_answer_without_a_status_has_begun_well() {
        let mut headers = HeaderMap::new();
        assert_eq!(code(&headers), tonic::Code::Ok);
        headers.insert("grpc-status", "5".parse().unwrap());
        assert_eq!(code(&headers), tonic::Code::NotFound);
    }
}
