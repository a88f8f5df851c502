//! Bytes by URL: one small trait over a local folder, S3, Google Cloud Storage, Azure Blob and memory.
//!
//! [`open`] takes the URL of a *root* (`file:///data/artifacts`, `s3://bucket/prefix`, `gs://bucket`,
//! `abfss://container@account.dfs.core.windows.net`, `memory:///`) and gives a [`Blob`] whose keys are relative to it;
//! [`resolve`] takes the URI of one object and gives the blob of its bucket and the key in it. `minio://` is an alias of
//! `s3://`.
//!
//! Invariants that every adapter keeps, and that `tests/conformance.rs` checks on all of them:
//! - an object appears whole or not at all, also when the process is killed while it writes;
//! - [`Mode::CreateOnly`] has exactly one winner, whoever races;
//! - listings are in the byte order of the keys, and a page starts strictly after [`ListQuery::after`];
//! - the SHA-256 is computed from the bytes as they pass, and an object that was promised with another digest or size is
//!   not written.
//!
//! To add a backend: implement [`Blob`], add it to [`open`] and to the conformance suite.

mod digest;
mod error;
mod folder;
mod folder_list;
mod key;
mod location;
mod remote;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

pub use digest::Digest;
pub use error::BlobError;
pub use folder::{Folder, Sync};
pub use key::{MAX_KEY_BYTES, STAGING, check_key, check_prefix};
pub use location::Location;

/// The bytes of an object as they come; an error ends the stream.
pub type ByteStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// Whether a write may replace an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Replace what is there.
    #[default]
    Overwrite,
    /// Fail with [`BlobError::AlreadyExists`] when the object exists.
    CreateOnly,
}

/// How to write an object.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// May an existing object be replaced?
    pub mode: Mode,
    /// The media type, kept by the backends that can (a local folder cannot).
    pub content_type: Option<String>,
    /// The SHA-256 in lower-case hexadecimal that the bytes must have.
    pub sha256: Option<String>,
    /// The number of bytes that must come.
    pub size: Option<u64>,
}

/// What a write stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// The backend's entity tag: changes whenever the object is written again. Without quotes.
    pub etag: Option<String>,
}

/// An object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The key, relative to the root that was opened.
    pub key: String,
    /// Number of bytes.
    pub size: u64,
    /// The backend's entity tag, without quotes.
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: jiff::Timestamp,
}

/// A part of an object, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first to the last byte, both included; the last may lie behind the end.
    Bounded(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// This many bytes at the end.
    Last(u64),
}

impl ByteRange {
    /// The half-open range in an object of `size` bytes; `None` when nothing of it exists.
    pub fn within(self, size: u64) -> Option<std::ops::Range<u64>> {
        let range = match self {
            Self::Bounded(first, last) if first <= last => first..last.saturating_add(1).min(size),
            Self::Bounded(..) => return None,
            Self::From(first) => first..size,
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// An object that is being read.
pub struct Reading {
    /// The whole object's description.
    pub info: ObjectInfo,
    /// The bytes that `body` carries.
    pub range: std::ops::Range<u64>,
    /// The media type, where the backend knows it.
    pub content_type: Option<String>,
    /// The bytes.
    pub body: ByteStream,
}

impl Reading {
    /// All bytes at once; an object above `limit` bytes is [`BlobError::TooLarge`].
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes, BlobError> {
        let expected = self.range.end - self.range.start;
        if expected > limit {
            return Err(BlobError::TooLarge {
                key: self.info.key,
                size: expected,
                limit,
            });
        }
        let mut all = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        while let Some(chunk) = self.body.next().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(Bytes::from(all))
    }
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Keys must begin with this text (it need not end at a `/`).
    pub prefix: String,
    /// Join what lies below the next `/` after the prefix into one common prefix.
    pub folders: bool,
    /// Only what comes after this key, or after this common prefix.
    pub after: Option<String>,
    /// At most this many entries (objects and common prefixes together).
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects in the order of their keys.
    pub objects: Vec<ObjectInfo>,
    /// Common prefixes, each ending in `/`, in order.
    pub prefixes: Vec<String>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<String>,
}

/// A place for objects. Cheap to share.
#[async_trait]
pub trait Blob: Send + std::marker::Sync + std::fmt::Debug {
    /// Writes one object from a stream, whole or not at all.
    async fn put(&self, key: &str, body: ByteStream, options: PutOptions) -> Result<Stored, BlobError>;
    /// Opens one object, or a part of it, for reading.
    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Reading, BlobError>;
    /// Describes one object.
    async fn head(&self, key: &str) -> Result<ObjectInfo, BlobError>;
    /// Deletes one object; one that does not exist is no error.
    async fn delete(&self, key: &str) -> Result<(), BlobError>;
    /// One page of what is there.
    async fn list(&self, query: ListQuery) -> Result<ListPage, BlobError>;
    /// Copies one object within this blob.
    async fn copy(&self, from: &str, to: &str, mode: Mode) -> Result<(), BlobError>;
    /// Removes what interrupted writes left behind longer than `older_than` ago; returns how many.
    async fn clean(&self, older_than: Duration) -> Result<usize, BlobError>;
}

/// Writes bytes that are already in memory.
pub async fn put_bytes(
    blob: &dyn Blob,
    key: &str,
    bytes: impl Into<Bytes>,
    options: PutOptions,
) -> Result<Stored, BlobError> {
    let bytes = bytes.into();
    blob.put(
        key,
        futures::stream::once(async move { Ok(bytes) }).boxed(),
        options,
    )
    .await
}

/// Every object below a prefix, page by page.
pub fn list_all(blob: Arc<dyn Blob>, prefix: &str) -> BoxStream<'static, Result<ObjectInfo, BlobError>> {
    let first = ListQuery {
        prefix: prefix.to_owned(),
        limit: 1000,
        ..ListQuery::default()
    };
    futures::stream::try_unfold(Some(first), move |query| {
        let blob = blob.clone();
        async move {
            let Some(query) = query else { return Ok(None) };
            let page = blob.list(query.clone()).await?;
            let next = page.next.map(|after| ListQuery {
                after: Some(after),
                ..query
            });
            Ok(Some((
                futures::stream::iter(page.objects.into_iter().map(Ok)),
                next,
            )))
        }
    })
    .map(|page: Result<_, BlobError>| match page {
        Ok(objects) => objects.left_stream(),
        Err(error) => futures::stream::once(async move { Err(error) }).right_stream(),
    })
    .flatten()
    .boxed()
}

/// Credentials, endpoints and the like, by the names that `object_store` gives them (`aws_access_key_id`,
/// `aws_endpoint`, `aws_allow_http`, `google_service_account`, `azure_storage_account_name`, ...). Unknown names are
/// passed over.
#[derive(Clone, Default)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// No options: the backend's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the usual variables of the three clouds say (`AWS_*`, `GOOGLE_*`, `AZURE_*`), given the environment.
    /// An `http://` endpoint is then allowed, as boto3 does.
    pub fn from_env(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut options = Self::new();
        for (name, value) in environment {
            let lower = name.to_ascii_lowercase();
            let taken = ["aws_", "google_", "azure_"]
                .iter()
                .any(|prefix| lower.starts_with(prefix));
            if taken && !value.is_empty() {
                let lower = match lower.as_str() {
                    "aws_endpoint_url" | "aws_endpoint_url_s3" => "aws_endpoint".to_owned(),
                    _ => lower,
                };
                options = options.set(&lower, &value);
            }
        }
        options
    }

    /// Sets one option.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_ascii_lowercase(), value.to_owned());
        if name.eq_ignore_ascii_case("aws_endpoint") && value.starts_with("http://") {
            self.0
                .entry("aws_allow_http".to_owned())
                .or_insert_with(|| "true".to_owned());
        }
        self
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl std::fmt::Debug for Options {
    /// Names only: values are often secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Opens the root that a URL names. Nothing is contacted yet; a local folder is created when the first object is written.
pub fn open(url: &str, options: &Options) -> Result<Arc<dyn Blob>, BlobError> {
    let url = location::parse_url(url)?;
    if url.scheme() == "file" {
        let path = url.to_file_path().map_err(|()| BlobError::Url {
            url: url.to_string(),
            reason: "a file URL needs an absolute path, such as file:///data/artifacts".to_owned(),
        })?;
        return Ok(Arc::new(Folder::new(path, Sync::Always)));
    }
    Ok(Arc::new(remote::Remote::open(&url, options)?))
}

/// Opens the bucket (or, for `file`, the file system) that holds the object or folder a URI names, and gives the key in it.
pub fn resolve(uri: &str, options: &Options) -> Result<(Arc<dyn Blob>, String), BlobError> {
    let location = Location::parse(uri)?;
    Ok((open(&location.root, options)?, location.key))
}
