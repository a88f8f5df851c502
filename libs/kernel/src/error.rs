//! One small set of error codes, mapped to gRPC and HTTP in one place.

use std::fmt;

/// What went wrong, in the vocabulary of gRPC. The mapping to HTTP is [`Code::http_status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Code {
    /// The request can never succeed as it is written.
    InvalidArgument,
    /// The named thing does not exist, or the caller may not know that it does.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// Who calls is not known.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The thing is in a state that does not allow this.
    FailedPrecondition,
    /// Somebody else changed the thing meanwhile; read it again and retry.
    Aborted,
    /// A quota, queue or size limit is reached.
    ResourceExhausted,
    /// Known, and not built yet.
    Unimplemented,
    /// A dependency does not answer; the same call may go through later.
    Unavailable,
    /// The time allowed for the call ran out.
    DeadlineExceeded,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// The HTTP status of this code, as grpc-gateway maps it.
    pub fn http_status(self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Code::InvalidArgument | Code::FailedPrecondition => S::BAD_REQUEST,
            Code::NotFound => S::NOT_FOUND,
            Code::AlreadyExists | Code::Aborted => S::CONFLICT,
            Code::Unauthenticated => S::UNAUTHORIZED,
            Code::PermissionDenied => S::FORBIDDEN,
            Code::ResourceExhausted => S::TOO_MANY_REQUESTS,
            Code::Unimplemented => S::NOT_IMPLEMENTED,
            Code::Unavailable => S::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => S::GATEWAY_TIMEOUT,
            Code::Internal => S::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC code.
    pub fn grpc(self) -> tonic::Code {
        match self {
            Code::InvalidArgument => tonic::Code::InvalidArgument,
            Code::NotFound => tonic::Code::NotFound,
            Code::AlreadyExists => tonic::Code::AlreadyExists,
            Code::Unauthenticated => tonic::Code::Unauthenticated,
            Code::PermissionDenied => tonic::Code::PermissionDenied,
            Code::FailedPrecondition => tonic::Code::FailedPrecondition,
            Code::Aborted => tonic::Code::Aborted,
            Code::ResourceExhausted => tonic::Code::ResourceExhausted,
            Code::Unimplemented => tonic::Code::Unimplemented,
            Code::Unavailable => tonic::Code::Unavailable,
            Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Code::Internal => tonic::Code::Internal,
        }
    }

    fn from_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::Unauthenticated => Code::Unauthenticated,
            tonic::Code::PermissionDenied => Code::PermissionDenied,
            tonic::Code::FailedPrecondition => Code::FailedPrecondition,
            tonic::Code::Aborted => Code::Aborted,
            tonic::Code::ResourceExhausted => Code::ResourceExhausted,
            tonic::Code::Unimplemented => Code::Unimplemented,
            tonic::Code::Unavailable | tonic::Code::Cancelled => Code::Unavailable,
            tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
            tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => {
                Code::Internal
            }
        }
    }
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldViolation {
    /// Path of the field, for example `spec.parameters[2].feasibleSpace.min`.
    pub field: String,
    /// What is wrong with which value, and what to do.
    pub message: String,
}

/// The error of every service. Its text says what was wrong, with what, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    code: Code,
    message: String,
    violations: Vec<FieldViolation>,
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// An error of any code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            violations: Vec::new(),
        }
    }

    /// A bad field: the text becomes `field: message`.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        Self {
            code: Code::InvalidArgument,
            message: format!("{field}: {message}"),
            violations: vec![FieldViolation { field, message }],
        }
    }

    /// A request that can never succeed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// `kind` of that `name` does not exist.
    pub fn not_found(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{kind} {name} not found"))
    }

    /// `kind` of that `name` exists already.
    pub fn already_exists(kind: &str, name: impl fmt::Display) -> Self {
        Self::new(Code::AlreadyExists, format!("{kind} {name} already exists"))
    }

    /// A fault of ours, with the error that caused it.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Code::Internal, message.to_string())
    }

    /// A known feature that is not built yet.
    pub fn unimplemented(what: impl fmt::Display) -> Self {
        Self::new(
            Code::Unimplemented,
            format!("{what} is not implemented yet; see docs/status.md"),
        )
    }

    /// The caller may not do this.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The bad fields, if the error is about fields.
    pub fn violations(&self) -> &[FieldViolation] {
        &self.violations
    }

    /// The same error with `context: ` in front of its text.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.code.grpc(), error.message)
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::new(Code::from_grpc(status.code()), status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_error_names_the_field_in_its_text() {
        let error = Error::field("spec.min", "4 is greater than max 2; swap them");
        assert_eq!(error.to_string(), "spec.min: 4 is greater than max 2; swap them");
        assert_eq!(error.violations()[0].field, "spec.min");
        assert_eq!(error.code().http_status(), 400);
    }

    #[test]
    fn grpc_status_keeps_code_and_text_both_ways() {
        let status: tonic::Status = Error::not_found("run", "r1").into();
        assert_eq!(status.code(), tonic::Code::NotFound);
        let back: Error = status.into();
        assert_eq!(
            (back.code(), back.message()),
            (Code::NotFound, "run r1 not found")
        );
    }
}
