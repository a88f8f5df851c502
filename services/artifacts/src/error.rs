//! Errors of the service, before they become HTTP, S3 or gRPC.

use ferroflow_blob::BlobError;
use ferroflow_db::DbError;
use ferroflow_kernel::{Code, Error};

/// What can go wrong with a request for objects.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The bytes' own error.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Refused, or failed, for any other reason.
    #[error(transparent)]
    Service(#[from] Error),
    /// The bucket does not exist, as far as the caller may know.
    #[error("bucket {0:?} does not exist; the first object written to it makes it")]
    NoSuchBucket(String),
    /// A bucket that still holds objects cannot be deleted.
    #[error("bucket {0:?} is not empty; delete its objects first")]
    BucketNotEmpty(String),
    /// The upload in parts does not exist, or was completed or aborted.
    #[error("upload {0:?} does not exist; it was never begun, or was completed or aborted")]
    NoSuchUpload(String),
    /// A part that was not uploaded, or is not the one that was named.
    #[error("part {0} was not uploaded, or has another entity tag than the one named")]
    InvalidPart(i64),
    /// A condition such as `If-Match` does not hold.
    #[error("the condition {0} does not hold")]
    Precondition(&'static str),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Service(Error::internal(error))
    }
}

impl Failure {
    /// The same, in the vocabulary of every service.
    pub fn into_error(self) -> Error {
        let text = self.to_string();
        match self {
            Self::Service(error) => error,
            Self::Blob(error) => Error::new(blob_code(&error), text),
            Self::NoSuchBucket(_) | Self::NoSuchUpload(_) => Error::new(Code::NotFound, text),
            Self::BucketNotEmpty(_) | Self::Precondition(_) => Error::new(Code::FailedPrecondition, text),
            Self::InvalidPart(_) => Error::new(Code::InvalidArgument, text),
        }
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        failure.into_error().into()
    }
}

fn blob_code(error: &BlobError) -> Code {
    match error {
        BlobError::NotFound { .. } => Code::NotFound,
        BlobError::AlreadyExists { .. } => Code::AlreadyExists,
        BlobError::InvalidKey { .. }
        | BlobError::InvalidRange { .. }
        | BlobError::Mismatch { .. }
        | BlobError::Body { .. }
        | BlobError::Url { .. } => Code::InvalidArgument,
        BlobError::Conflict { .. } => Code::FailedPrecondition,
        BlobError::TooLarge { .. } | BlobError::NoSpace { .. } => Code::ResourceExhausted,
        BlobError::Denied { .. } => Code::Unavailable,
        BlobError::Backend { .. } => Code::Internal,
    }
}
