//! Objects of the artifacts service: fetched before the command runs, stored after it.
//!
//! Ferroflow itself may be restarted while a step runs, so a request that finds no server, or one that is not ready
//! yet, is made again until [`PATIENCE`] is over.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferroflow_telemetry::Place;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::http::{Body, Client, Url};

/// How long the platform may be away.
const PATIENCE: Duration = Duration::from_secs(900);
/// Answers that are no objects are small.
const MAX_TEXT: u64 = 64 * 1024 * 1024;
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why an object could not be fetched or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The service refused.
    #[error("{action} {uri}: {status} {text}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// With which object.
        uri: String,
        /// The HTTP status.
        status: u16,
        /// What the service said.
        text: String,
    },
    /// The service did not answer, or the file system refused.
    #[error("{action} {uri}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which object.
        uri: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is known about a stored object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    pub size: u64,
    /// SHA-256 of the bytes in hex.
    #[serde(default)]
    pub sha256: String,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    objects: Vec<Listed>,
    #[serde(default)]
    next_page_token: String,
}

#[derive(Deserialize)]
struct Listed {
    key: String,
}

/// The artifacts service, on behalf of one attempt.
#[derive(Debug)]
pub struct Store {
    client: Client,
    base: String,
    authorization: String,
    patience: Duration,
}

impl Store {
    /// The service at `url`.
    ///
    /// # Errors
    /// If the URL is not plain http.
    pub fn new(url: &str, token: &str) -> io::Result<Self> {
        let url = Url::parse(url)?;
        Ok(Self {
            client: Client::new(&url.authority),
            base: url.path.trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {token}"),
            patience: PATIENCE,
        })
    }

    /// From now on, each request is a span in this place.
    pub fn trace(&mut self, place: Place) {
        self.client.trace(place);
    }

    /// The same service over a connection of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        let client = self.client.fresh();
        Self {
            client,
            base: self.base.clone(),
            authorization: self.authorization.clone(),
            patience: self.patience,
        }
    }

    /// Fetches an object, or every object below it, to a path. Nothing is there when nothing is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fetch(&mut self, uri: &str, to: &Path) -> Result<(), StoreError> {
        if self.fetch_object(uri, to)? {
            return Ok(());
        }
        let mut token = String::new();
        loop {
            let folder = format!("{}/", uri.trim_end_matches('/'));
            let path = format!(
                "{}/artifacts/v1/list?uri={}&page_size=1000&page_token={}",
                self.base,
                utf8_percent_encode(&folder, SEGMENT),
                utf8_percent_encode(&token, SEGMENT)
            );
            let (status, text) = self.text("listing", uri, "GET", &path, &[], Body::Empty)?;
            if status == 404 {
                return Ok(());
            }
            let bad = |error: serde_json::Error| refused("listing", uri, status, &error.to_string());
            check("listing", uri, status, &text)?;
            let listing: Listing = serde_json::from_slice(&text).map_err(bad)?;
            let key = split(&folder).map_or("", |(_, key)| key);
            for object in listing.objects {
                let Some(rest) = object.key.strip_prefix(key).filter(|rest| is_inside(rest)) else {
                    continue;
                };
                self.fetch_object(&format!("{folder}{rest}"), &to.join(rest))?;
            }
            token = listing.next_page_token;
            if token.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether there was such an object.
    fn fetch_object(&mut self, uri: &str, to: &Path) -> Result<bool, StoreError> {
        let failed = |source| StoreError::Io {
            action: "fetching",
            uri: uri.to_owned(),
            source,
        };
        let path = self.object_path(uri);
        let authorization = self.authorization.clone();
        let deadline = Instant::now() + self.patience;
        loop {
            let sent = self
                .client
                .send("GET", &path, &[("authorization", &authorization)], Body::Empty);
            let result = match sent {
                Ok(answer) if answer.status == 404 => return Ok(false),
                Ok(answer) if answer.status == 200 => {
                    if let Some(parent) = to.parent() {
                        fs::create_dir_all(parent).map_err(failed)?;
                    }
                    let mut file = File::create(to).map_err(failed)?;
                    answer.copy_to(&mut file).map(|_| ())
                }
                Ok(answer) if answer.status >= 500 => {
                    Err(io::Error::other(format!("status {}", answer.status)))
                }
                Ok(answer) => {
                    let status = answer.status;
                    let text = answer.bytes(MAX_TEXT).unwrap_or_default();
                    return Err(refused("fetching", uri, status, &String::from_utf8_lossy(&text)));
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => return Ok(true),
                Err(error) => pause(deadline, error).map_err(failed)?,
            }
        }
    }

    /// Stores a file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_file(&mut self, uri: &str, file: &Path) -> Result<Stored, StoreError> {
        let path = self.object_path(uri);
        let (status, text) = self.text("storing", uri, "PUT", &path, &[], Body::File(file))?;
        check("storing", uri, status, &text)?;
        serde_json::from_slice(&text).map_err(|error| refused("storing", uri, status, &error.to_string()))
    }

    /// Creates an object; whether it was created, since one that exists stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create(&mut self, uri: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let path = self.object_path(uri);
        let headers = [("if-none-match", "*"), ("content-type", "application/json")];
        let (status, text) = self.text("creating", uri, "PUT", &path, &headers, Body::Bytes(bytes))?;
        if status == 412 {
            return Ok(false);
        }
        check("creating", uri, status, &text)?;
        Ok(true)
    }

    fn object_path(&self, uri: &str) -> String {
        let (bucket, key) = split(uri).unwrap_or(("", uri));
        let key: Vec<String> = key
            .split('/')
            .map(|part| utf8_percent_encode(part, SEGMENT).to_string())
            .collect();
        format!("{}/artifacts/v1/objects/{bucket}/{}", self.base, key.join("/"))
    }

    fn text(
        &mut self,
        action: &'static str,
        uri: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<(u16, Vec<u8>), StoreError> {
        let authorization = self.authorization.clone();
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let deadline = Instant::now() + self.patience;
        loop {
            let sent = self.client.send(method, path, &all, body).and_then(|answer| {
                let status = answer.status;
                let text = answer.bytes(MAX_TEXT)?;
                Ok((status, text))
            });
            let error = match sent {
                Ok((status, text)) if status < 500 || status == 501 => return Ok((status, text)),
                Ok((status, text)) => {
                    io::Error::other(format!("status {status}: {}", String::from_utf8_lossy(&text)))
                }
                Err(error) => error,
            };
            pause(deadline, error).map_err(|source| StoreError::Io {
                action,
                uri: uri.to_owned(),
                source,
            })?;
        }
    }
}

/// Waits before the next try, or gives the error when time is up.
fn pause(deadline: Instant, error: io::Error) -> io::Result<()> {
    // Those never become better by waiting.
    if matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::StorageFull
    ) || Instant::now() >= deadline
    {
        return Err(error);
    }
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn check(action: &'static str, uri: &str, status: u16, text: &[u8]) -> Result<(), StoreError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    Err(refused(action, uri, status, &String::from_utf8_lossy(text)))
}

fn refused(action: &'static str, uri: &str, status: u16, text: &str) -> StoreError {
    let parsed: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = parsed
        .as_ref()
        .and_then(|v| v.get("message")?.as_str())
        .unwrap_or(text);
    StoreError::Refused {
        action,
        uri: uri.to_owned(),
        status,
        text: message.trim().chars().take(500).collect(),
    }
}

/// Bucket and key of a URI that lies in an object store.
pub fn split(uri: &str) -> Option<(&str, &str)> {
    let rest = ["s3://", "gs://", "minio://"]
        .iter()
        .find_map(|scheme| uri.strip_prefix(scheme))?;
    rest.split_once('/')
}

/// Where the SDK expects the bytes of a URI in the container's file system.
pub fn local_path(uri: &str) -> PathBuf {
    for (scheme, folder) in [("s3://", "/s3/"), ("gs://", "/gcs/"), ("minio://", "/minio/")] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return PathBuf::from(format!("{folder}{rest}"));
        }
    }
    PathBuf::from(uri)
}

/// Whether a key below a folder stays below it as a path.
fn is_inside(rest: &str) -> bool {
    !rest.is_empty() && !rest.starts_with('/') && rest.split('/').all(|part| part != ".." && part != ".")
}

/// The size comes as a number or, from proto JSON, as text.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_buckets_keys_and_paths() {
        assert_eq!(split("s3://b/k/l"), Some(("b", "k/l")));
        assert_eq!(split("minio://b/k"), Some(("b", "k")));
        assert_eq!(split("/local/file"), None);
        assert_eq!(local_path("gs://b/k"), Path::new("/gcs/b/k"));
        let store = Store::new("http://artifacts.kubeflow/base/", "t").unwrap();
        assert_eq!(
            store.object_path("s3://b/a b/ü"),
            "/base/artifacts/v1/objects/b/a%20b/%C3%BC"
        );
    }

    #[test]
    fn a_key_cannot_leave_its_folder() {
        assert!(is_inside("a/b.txt"));
        for bad in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(!is_inside(bad), "{bad}");
        }
    }
}
