//! One port for everything that a service answers: gRPC, REST, health and metrics.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use ferroflow_telemetry::Metrics;
use http::{HeaderMap, StatusCode, header};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Puts the routes together: gRPC by content type, the rest by path. `missing` names the parts that are not ready.
pub(crate) fn router(
    grpc: Router,
    rest: Option<Router>,
    missing: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static,
    metrics: Metrics,
) -> Router {
    let rest = rest.unwrap_or_default();
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(move || async move { readyz(&missing()) }))
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move { metrics.response(&headers).await }),
        )
        .fallback(move |request: Request| {
            let to = if is_grpc(&request) {
                grpc.clone()
            } else {
                rest.clone()
            };
            async move {
                let Ok(response) = to.oneshot(request).await;
                response
            }
        })
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn readyz(missing: &[String]) -> Response {
    if missing.is_empty() {
        return "ok".into_response();
    }
    let body = serde_json::json!({ "ready": false, "missing": missing });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

/// Serves HTTP/1.1 and HTTP/2 without TLS until `cancel`, then lets open requests end.
///
/// # Errors
/// If accepting fails.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use ferroflow_telemetry::Readiness;

    async fn ask(router: &Router, path: &str, kind: Option<&str>) -> (StatusCode, String) {
        let mut request = Request::builder().uri(path);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let response = router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn one_port_tells_calls_apart() {
        let readiness = Readiness::default();
        let probe = readiness.register("part");
        let answers = |text: &'static str| Router::new().fallback(move || async move { text });
        let missing = move || readiness.missing();
        let router = router(
            answers("grpc"),
            Some(answers("rest")),
            missing,
            Metrics::default(),
        );
        assert_eq!(ask(&router, "/a.B/C", Some("application/grpc")).await.1, "grpc");
        assert_eq!(ask(&router, "/apis/x", Some("application/json")).await.1, "rest");
        assert_eq!(ask(&router, "/apis/x", None).await.1, "rest");
        let (status, body) = ask(&router, "/readyz", None).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("part"), "{body}");
        probe.ready();
        assert_eq!(
            ask(&router, "/readyz", None).await,
            (StatusCode::OK, "ok".to_owned())
        );
        assert_eq!(ask(&router, "/healthz", None).await.0, StatusCode::OK);
    }
}
