//! `Status` answers with Kubernetes' reasons, details and texts.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::field_error::{FieldError, aggregate};

/// `group` and `resource` (plural) of a kind of object, printed as `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

impl GroupResource {
    pub fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// A failed request: an HTTP code and a `Status` body.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub code: StatusCode,
    pub body: Box<Value>,
    pub retry_after: Option<u32>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A Status with reason and details; empty details are left out.
    pub fn new(code: u16, reason: &str, message: impl Into<String>, details: Value) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message.into(),
        });
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        if details.as_object().is_some_and(|d| !d.is_empty()) {
            body["details"] = details;
        }
        body["code"] = code.into();
        Self {
            code: StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Box::new(body),
            retry_after: None,
        }
    }

    /// An answer that Kubernetes gives with details that say nothing.
    #[must_use]
    pub fn with_empty_details(mut self) -> Self {
        self.body["details"] = json!({});
        self
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    fn details(gr: &GroupResource, name: &str) -> Value {
        let mut d = serde_json::Map::new();
        if !name.is_empty() {
            d.insert("name".into(), name.into());
        }
        if !gr.group.is_empty() {
            d.insert("group".into(), gr.group.as_str().into());
        }
        if !gr.resource.is_empty() {
            d.insert("kind".into(), gr.resource.as_str().into());
        }
        Value::Object(d)
    }

    pub fn not_found(gr: &GroupResource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{gr} {name:?} not found"),
            Self::details(gr, name),
        )
    }
    pub fn already_exists(gr: &GroupResource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{gr} {name:?} already exists"),
            Self::details(gr, name),
        )
    }
    pub fn conflict(gr: &GroupResource, name: &str, text: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {gr} {name:?}: {text}");
        Self::new(409, "Conflict", message, Self::details(gr, name))
    }
    /// The optimistic lock was lost.
    pub fn modified(gr: &GroupResource, name: &str) -> Self {
        Self::conflict(
            gr,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    /// `Invalid` with one cause per field error. `kind` is the kind, not the plural.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let gk = GroupResource::new(group, kind);
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.field}))
            .collect();
        let mut details = Self::details(&gk, name);
        details["causes"] = Value::Array(causes);
        let message = if errors.is_empty() {
            format!("{gk} {name:?} is invalid")
        } else {
            format!("{gk} {name:?} is invalid: {}", aggregate(errors))
        };
        Self::new(422, "Invalid", message, details)
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, json!({}))
    }
    pub fn forbidden(gr: &GroupResource, name: &str, text: impl std::fmt::Display) -> Self {
        let message = if gr.resource.is_empty() {
            format!("forbidden: {text}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {text}")
        } else {
            format!("{gr} {name:?} is forbidden: {text}")
        };
        Self::new(403, "Forbidden", message, Self::details(gr, name))
    }
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized", json!({}))
    }
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            json!({}),
        )
    }
    /// The server has no such resource.
    pub fn no_resource() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
            json!({}),
        )
    }
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message, json!({}))
    }
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message, json!({}))
    }
    pub fn internal(text: impl std::fmt::Display) -> Self {
        let text = text.to_string();
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {text}"),
            json!({"causes": [{"message": text}]}),
        )
    }
    pub fn service_unavailable(text: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", text, json!({}))
    }
    pub fn not_implemented(text: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", text, json!({}))
    }
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32, details: Value) -> Self {
        let mut e = Self::new(429, "TooManyRequests", message, details);
        if retry_after > 0 {
            e.body["details"]["retryAfterSeconds"] = retry_after.into();
        }
        e.retry_after = Some(retry_after);
        e
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}
impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (
            self.code,
            [(header::CONTENT_TYPE, "application/json")],
            self.body.to_string(),
        )
            .into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
