//! What can go wrong with bytes.

/// An error of a [`crate::Blob`].
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such object.
    #[error("object {key:?} does not exist")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },
    /// A create-only write found an object.
    #[error("object {key:?} exists already")]
    AlreadyExists {
        /// The key that was to be written.
        key: String,
    },
    /// A key that no backend, or not this one, can hold.
    #[error("key {key:?} is invalid: {reason}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object is where a folder is needed, or the other way round (local folders only).
    #[error("key {key:?} cannot be stored in a folder: {reason}")]
    Conflict {
        /// The key.
        key: String,
        /// What is in the way.
        reason: String,
    },
    /// The range lies outside the object.
    #[error("range lies outside object {key:?} of {size} bytes")]
    InvalidRange {
        /// The key.
        key: String,
        /// The object's size.
        size: u64,
    },
    /// The bytes are not those that were promised.
    #[error("{what} of {key:?} is {actual}, but {expected} was announced; nothing was written")]
    Mismatch {
        /// The key.
        key: String,
        /// `sha256` or `size`.
        what: &'static str,
        /// What was announced.
        expected: String,
        /// What came.
        actual: String,
    },
    /// More bytes than the caller takes at once.
    #[error("object {key:?} has {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// The key.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The sender of the bytes stopped before the end.
    #[error("the body of {key:?} ended early: {reason}")]
    Body {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A URL that names no place for objects.
    #[error("url {url:?} names no object storage: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The backend refused the credentials.
    #[error("access to {key:?} denied by the object storage: {reason}")]
    Denied {
        /// The key.
        key: String,
        /// The backend's text.
        reason: String,
    },
    /// The disk is full or a quota is reached.
    #[error("no space left to write {key:?}")]
    NoSpace {
        /// The key.
        key: String,
    },
    /// Anything else that the backend said.
    #[error("object storage failed on {key:?}: {source}")]
    Backend {
        /// The key.
        key: String,
        /// The backend's error.
        source: Box<dyn std::error::Error + Send + std::marker::Sync>,
    },
}

impl BlobError {
    /// Wraps an error of the backend.
    pub fn backend(
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + std::marker::Sync>>,
    ) -> Self {
        Self::Backend {
            key: key.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn io(key: &str, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let key = key.to_owned();
        match error.kind() {
            // not a directory: a file lies where the key needs a folder, so the object cannot exist
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::NotFound { key },
            ErrorKind::AlreadyExists => Self::AlreadyExists { key },
            ErrorKind::PermissionDenied => Self::Denied {
                key,
                reason: error.to_string(),
            },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace { key },
            ErrorKind::InvalidFilename => Self::InvalidKey {
                key,
                reason: "a part between slashes is longer than 255 bytes".to_owned(),
            },
            _ => Self::Backend {
                key,
                source: Box::new(error),
            },
        }
    }
}
