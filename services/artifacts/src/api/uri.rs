//! Paths and URIs of objects.

use std::collections::BTreeMap;

use ferroflow_blob::Location;
use ferroflow_kernel::Error;
use percent_encoding::percent_decode_str;

/// Bucket and key of `s3://bucket/key`.
pub(crate) fn object(uri: &str) -> Result<(String, String), Error> {
    let location = bucket(uri)?;
    if location.1.is_empty() {
        return Err(Error::field(
            "uri",
            format!("{uri:?} names a bucket, not an object; add the key"),
        ));
    }
    Ok(location)
}

/// Bucket and prefix of `s3://bucket/prefix`; the prefix may be empty.
pub(crate) fn bucket(uri: &str) -> Result<(String, String), Error> {
    let location = Location::parse(uri).map_err(|error| Error::field("uri", error.to_string()))?;
    if location.bucket.is_empty() {
        return Err(Error::field(
            "uri",
            format!("{uri:?} names no bucket; use s3://bucket/key"),
        ));
    }
    Ok((location.bucket, location.key))
}

/// Splits `/bucket/key` of a request, percent-decoded. Either may be empty.
pub(crate) fn split(path: &str) -> Result<(String, String), Error> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    Ok((decode(bucket)?, decode(key)?))
}

fn decode(text: &str) -> Result<String, Error> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::invalid(format!("path {text:?} is not UTF-8")))
}

/// The pairs of a query, decoded; of names that come twice the last counts.
pub(crate) fn query(query: Option<&str>) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .collect()
}
