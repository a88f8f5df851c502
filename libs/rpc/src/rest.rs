//! Errors of REST routes, in grpc-gateway's shape.

use axum::Json;
use axum::response::{IntoResponse, Response};
use ferroflow_kernel::Error;

/// `{"code": 5, "message": "...", "details": []}`: what grpc-gateway v2 answers.
#[derive(Debug, Clone)]
pub struct ErrorBody(pub Error);

impl From<Error> for ErrorBody {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        rest_error(&self.0)
    }
}

/// The response for an error.
pub fn rest_error(error: &Error) -> Response {
    let code = error.code();
    if code == ferroflow_kernel::Code::Internal {
        tracing::error!(%error, "request failed");
    }
    let details: Vec<_> = error
        .violations()
        .iter()
        .map(|v| serde_json::json!({"field": v.field, "description": v.message}))
        .collect();
    let body = serde_json::json!({
        "code": i32::from(code.grpc()),
        "message": error.message(),
        "error": error.message(),
        "details": details,
    });
    (code.http_status(), Json(body)).into_response()
}
