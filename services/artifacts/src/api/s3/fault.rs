//! Errors in S3's spelling.

use axum::response::{IntoResponse, Response};
use ferroflow_blob::BlobError;
use ferroflow_kernel::Code;
use http::{StatusCode, header};

use super::xml::Element;
use crate::error::Failure;

macro_rules! codes {
    ($($name:ident => $status:ident),* $(,)?) => {
        /// The codes that this endpoint answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum FaultCode { $($name),* }

        impl FaultCode {
            fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),* }
            }
        }
    };
}

codes! {
    AccessDenied => FORBIDDEN,
    AuthorizationHeaderMalformed => BAD_REQUEST,
    AuthorizationQueryParametersError => BAD_REQUEST,
    BadDigest => BAD_REQUEST,
    BucketNotEmpty => CONFLICT,
    EntityTooLarge => BAD_REQUEST,
    IncompleteBody => BAD_REQUEST,
    InternalError => INTERNAL_SERVER_ERROR,
    InvalidAccessKeyId => FORBIDDEN,
    InvalidArgument => BAD_REQUEST,
    InvalidBucketName => BAD_REQUEST,
    InvalidPart => BAD_REQUEST,
    InvalidRange => RANGE_NOT_SATISFIABLE,
    InvalidRequest => BAD_REQUEST,
    KeyTooLongError => BAD_REQUEST,
    MalformedXML => BAD_REQUEST,
    MethodNotAllowed => METHOD_NOT_ALLOWED,
    NoSuchBucket => NOT_FOUND,
    NoSuchKey => NOT_FOUND,
    NoSuchUpload => NOT_FOUND,
    NotImplemented => NOT_IMPLEMENTED,
    OperationAborted => CONFLICT,
    PreconditionFailed => PRECONDITION_FAILED,
    RequestTimeTooSkewed => FORBIDDEN,
    ServiceUnavailable => SERVICE_UNAVAILABLE,
    SignatureDoesNotMatch => FORBIDDEN,
    XAmzContentSHA256Mismatch => BAD_REQUEST,
}

/// An error that S3 clients understand.
#[derive(Debug, thiserror::Error)]
#[error("{code:?}: {message}")]
pub(crate) struct Fault {
    pub code: FaultCode,
    pub message: String,
}

impl Fault {
    pub(crate) fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(
            FaultCode::NotImplemented,
            format!("{what} is not implemented; see docs/status.md"),
        )
    }

    /// The response; `HEAD` carries the status alone.
    pub(crate) fn response(&self, resource: &str, head: bool) -> Response {
        if self.code == FaultCode::InternalError {
            tracing::error!(message = self.message, resource, "s3 request failed");
        }
        if head {
            return self.code.status().into_response();
        }
        let body = Element::document("Error", "", |error| {
            error.text("Code", self.code.name());
            error.text("Message", &self.message);
            error.text("Resource", resource);
        });
        (
            self.code.status(),
            [(header::CONTENT_TYPE, "application/xml")],
            body,
        )
            .into_response()
    }
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        Failure::Blob(error).into()
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        let code = match failure {
            Failure::NoSuchBucket(_) => FaultCode::NoSuchBucket,
            Failure::BucketNotEmpty(_) => FaultCode::BucketNotEmpty,
            Failure::NoSuchUpload(_) => FaultCode::NoSuchUpload,
            Failure::InvalidPart(_) => FaultCode::InvalidPart,
            Failure::Precondition(_) => FaultCode::PreconditionFailed,
            Failure::Blob(error) => match error {
                BlobError::NotFound { .. } => FaultCode::NoSuchKey,
                BlobError::AlreadyExists { .. } => FaultCode::PreconditionFailed,
                BlobError::InvalidKey { key, .. } if key.len() > ferroflow_blob::MAX_KEY_BYTES => {
                    FaultCode::KeyTooLongError
                }
                BlobError::InvalidKey { .. } | BlobError::Url { .. } => FaultCode::InvalidArgument,
                BlobError::InvalidRange { .. } => FaultCode::InvalidRange,
                BlobError::Mismatch { what: "sha256", .. } => FaultCode::XAmzContentSHA256Mismatch,
                BlobError::Mismatch { what: "size", .. } | BlobError::Body { .. } => {
                    FaultCode::IncompleteBody
                }
                BlobError::Mismatch { .. } => FaultCode::BadDigest,
                BlobError::Conflict { .. } => FaultCode::OperationAborted,
                BlobError::TooLarge { .. } => FaultCode::EntityTooLarge,
                BlobError::NoSpace { .. } | BlobError::Denied { .. } => FaultCode::ServiceUnavailable,
                BlobError::Backend { .. } => FaultCode::InternalError,
            },
            Failure::Service(error) => match error.code() {
                Code::PermissionDenied | Code::Unauthenticated => FaultCode::AccessDenied,
                Code::NotFound => FaultCode::NoSuchKey,
                Code::InvalidArgument if error.violations().iter().any(|v| v.field == "bucket") => {
                    FaultCode::InvalidBucketName
                }
                Code::InvalidArgument => FaultCode::InvalidArgument,
                Code::AlreadyExists | Code::FailedPrecondition => FaultCode::PreconditionFailed,
                Code::Unimplemented => FaultCode::NotImplemented,
                Code::Aborted => FaultCode::OperationAborted,
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                    FaultCode::ServiceUnavailable
                }
                Code::Internal => FaultCode::InternalError,
            },
        };
        Self { code, message }
    }
}
