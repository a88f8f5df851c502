//! URIs of objects.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::BlobError;

/// The URI of an object or folder, split into the root that [`crate::open`] takes and the key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The lower-case scheme; `minio` and `s3a` have become `s3`.
    pub scheme: String,
    /// Bucket or container; empty for `file` and `memory`.
    pub bucket: String,
    /// Key without a leading slash; a folder may end with one.
    pub key: String,
    /// The URL of the bucket.
    pub root: String,
}

impl Location {
    /// Splits a URI. The key of `s3`, `minio` and `gs` is taken literally (`%` and `#` are characters like others), as
    /// their clients do; that of the others is percent-decoded.
    pub fn parse(uri: &str) -> Result<Self, BlobError> {
        let bad = |reason: &str| BlobError::Url {
            url: uri.to_owned(),
            reason: reason.to_owned(),
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| {
            bad("it has no scheme; write s3://bucket/key, gs://, az://, abfs:// or file:///path")
        })?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "minio" | "s3a" | "s3" => "s3".to_owned(),
            other => other.to_owned(),
        };
        match scheme.as_str() {
            "s3" | "gs" => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(bad("the bucket is missing"));
                }
                let root = format!("{scheme}://{bucket}");
                Ok(Self {
                    scheme,
                    bucket: bucket.to_owned(),
                    key: key.to_owned(),
                    root,
                })
            }
            "file" | "memory" => {
                let url = parse_url(uri)?;
                let path = decode(url.path(), uri)?;
                let root = format!("{scheme}:///");
                Ok(Self {
                    scheme,
                    bucket: String::new(),
                    key: path.trim_start_matches('/').to_owned(),
                    root,
                })
            }
            "az" | "azure" | "adl" | "abfs" | "abfss" => {
                let url = parse_url(uri)?;
                let authority = url.authority().to_owned();
                let bucket = authority.split('@').next().unwrap_or_default().to_owned();
                let key = decode(url.path(), uri)?.trim_start_matches('/').to_owned();
                Ok(Self {
                    root: format!("{scheme}://{authority}"),
                    scheme,
                    bucket,
                    key,
                })
            }
            "http" | "https" => {
                let url = parse_url(uri)?;
                let host = url.host_str().unwrap_or_default();
                let path = decode(url.path(), uri)?;
                let path = path.trim_start_matches('/');
                let origin = url.origin().ascii_serialization();
                let azure = [".blob.core.windows.net", ".dfs.core.windows.net"];
                if azure.iter().any(|suffix| host.ends_with(suffix)) {
                    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                    let root = format!("{origin}/{bucket}");
                    return Ok(Self {
                        scheme,
                        bucket: bucket.to_owned(),
                        key: key.to_owned(),
                        root,
                    });
                }
                Ok(Self {
                    scheme,
                    bucket: String::new(),
                    key: path.to_owned(),
                    root: origin,
                })
            }
            other => Err(bad(&format!(
                "scheme {other:?} is not known; use s3, minio, gs, az, abfs, abfss, https, file or memory"
            ))),
        }
    }
}

fn decode(path: &str, uri: &str) -> Result<String, BlobError> {
    percent_decode_str(path)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| BlobError::Url {
            url: uri.to_owned(),
            reason: "the path is not UTF-8".to_owned(),
        })
}

/// Parses a URL, with the aliases of S3 replaced.
pub(crate) fn parse_url(url: &str) -> Result<Url, BlobError> {
    let plain = ["minio://", "s3a://"]
        .iter()
        .find_map(|alias| url.strip_prefix(alias));
    let text = plain.map_or_else(|| url.to_owned(), |rest| format!("s3://{rest}"));
    Url::parse(&text).map_err(|error| BlobError::Url {
        url: url.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_splits_into_bucket_and_key() {
        let cases = [
            ("s3://b/k/x", "s3", "b", "k/x", "s3://b"),
            (
                "minio://mlpipeline/v2/a%2Fb#1?c",
                "s3",
                "mlpipeline",
                "v2/a%2Fb#1?c",
                "s3://mlpipeline",
            ),
            ("gs://b", "gs", "b", "", "gs://b"),
            ("file:///tmp/a%20b/c", "file", "", "tmp/a b/c", "file:///"),
            (
                "abfss://c@acc.dfs.core.windows.net/k/",
                "abfss",
                "c",
                "k/",
                "abfss://c@acc.dfs.core.windows.net",
            ),
            (
                "https://acc.blob.core.windows.net/c/k",
                "https",
                "c",
                "k",
                "https://acc.blob.core.windows.net/c",
            ),
            (
                "https://models.example/x/model.json",
                "https",
                "",
                "x/model.json",
                "https://models.example",
            ),
        ];
        for (uri, scheme, bucket, key, root) in cases {
            let location = Location::parse(uri).unwrap();
            assert_eq!(
                (
                    location.scheme.as_str(),
                    location.bucket.as_str(),
                    location.key.as_str(),
                    location.root.as_str()
                ),
                (scheme, bucket, key, root),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_is_not_a_uri_says_what_would_be() {
        let error = Location::parse("mlpipeline/x").unwrap_err().to_string();
        assert!(error.contains("s3://bucket/key"), "{error}");
        let error = Location::parse("ftp://x/y").unwrap_err().to_string();
        assert!(error.contains("scheme \"ftp\" is not known"), "{error}");
    }
}
