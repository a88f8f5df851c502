//! Where a model comes from.

use std::fmt::Write;

/// A storage URI by what has to be done for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An init container copies it.
    Fetch(String),
    /// A claim is mounted: its name and the path in it.
    Claim(String, String),
}

const PREFIXES: [&str; 9] = [
    "gs://", "s3://", "minio://", "pvc://", "file://", "https://", "http://", "abfs://", "abfss://",
];

/// Reads a storage URI. The error is KServe's own text.
pub fn source(uri: &str) -> Result<Source, String> {
    if let Some(rest) = uri.strip_prefix("pvc://") {
        let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !claim.is_empty() {
            return Ok(Source::Claim(claim.to_owned(), path.trim_matches('/').to_owned()));
        }
    }
    if uri.starts_with('/') {
        return Ok(Source::Fetch(format!("file://{uri}")));
    }
    let known = PREFIXES
        .iter()
        .any(|prefix| uri.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()));
    if known {
        return Ok(Source::Fetch(uri.to_owned()));
    }
    let mut text = String::from("storageUri, must be one of: [");
    let _infallible = write!(
        text,
        "{}] or match https://{{}}.blob.core.windows.net/{{}}/{{}} or be an absolute local path. StorageUri [{uri}] is not supported",
        PREFIXES.join(", ")
    );
    Err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_told_apart() {
        assert_eq!(source("s3://b/k"), Ok(Source::Fetch("s3://b/k".into())));
        assert_eq!(
            source("pvc://claim/a/b/"),
            Ok(Source::Claim("claim".into(), "a/b".into()))
        );
        assert_eq!(source("/data/m"), Ok(Source::Fetch("file:///data/m".into())));
        let error = source("ftp://x").unwrap_err();
        assert!(
            error.starts_with("storageUri, must be one of: [gs://, s3://")
                && error.ends_with("StorageUri [ftp://x] is not supported"),
            "{error}"
        );
        assert!(source("s3://").is_err() && source("").is_err() && source("pvc://").is_err());
    }
}
