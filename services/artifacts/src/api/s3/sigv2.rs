//! Presigned URLs of AWS Signature Version 2: boto3 still makes them unless it is told `signature_version="s3v4"`.
//! Only in the query, only until they expire; signed headers of version 2 are refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::request::Parts;
use jiff::Timestamp;
use sha1::Sha1;

use super::fault::{Fault, FaultCode};
use crate::api::uri;
use crate::domain::grant::same;

/// Query parameters that are part of the resource.
const SIGNED: [&str; 14] = [
    "acl",
    "location",
    "partNumber",
    "policy",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
];

/// The access key of a presigned URL of version 2; `None` when the request is none.
pub(super) fn access_key(parts: &Parts) -> Option<String> {
    let query = uri::query(parts.uri.query());
    query
        .get("AWSAccessKeyId")
        .filter(|_| query.contains_key("Signature"))
        .cloned()
}

/// Checks a presigned URL of version 2; `path` is `/bucket/key`, without the endpoint's own path.
pub(super) fn verify(parts: &Parts, path: &str, secret: &str, now: Timestamp) -> Result<(), Fault> {
    let query = uri::query(parts.uri.query());
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let expires = value("Expires");
    if expires
        .parse::<i64>()
        .map_or(true, |expires| expires <= now.as_second())
    {
        return Err(Fault::new(
            FaultCode::AccessDenied,
            "the url has expired; sign a new one",
        ));
    }
    let mut resource = path.to_owned();
    let mut separator = '?';
    for (name, value) in query.iter().filter(|(name, _)| SIGNED.contains(&name.as_str())) {
        resource.push(separator);
        resource.push_str(name);
        if !value.is_empty() {
            resource.push('=');
            resource.push_str(value);
        }
        separator = '&';
    }
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut amz: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default().trim()))
        .collect();
    amz.sort_unstable();
    let amz: String = amz
        .into_iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let (md5, kind) = (header("content-md5"), header("content-type"));
    let expected = |kind: &str| {
        let text = format!("{}\n{md5}\n{kind}\n{expires}\n{amz}{resource}", parts.method);
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
            return String::new();
        };
        mac.update(text.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    };
    let signature = value("Signature").as_bytes();
    // HTTP clients add a content type of their own to an upload, which the signer did not know
    if same(expected(kind).as_bytes(), signature) || same(expected("").as_bytes(), signature) {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::SignatureDoesNotMatch,
        "the signature does not match this url; sign a new one",
    ))
}
