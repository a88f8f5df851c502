//! Headers and JSON shared by the faces: ranges, conditions, entity tags, objects.

use ferroflow_blob::ByteRange;
use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};

use crate::error::Failure;
use crate::objects::Object;

/// An object as JSON.
pub(crate) fn json_of(object: &Object) -> Value {
    json!({
        "bucket": object.bucket,
        "key": object.key,
        "uri": uri_of(object),
        "namespace": object.namespace,
        "size": object.size,
        "content_type": object.content_type,
        "etag": object.etag,
        "sha256": object.sha256,
        "last_modified": object.last_modified.to_string(),
        "metadata": object.metadata,
    })
}

/// `s3://bucket/key`.
pub(crate) fn uri_of(object: &Object) -> String {
    format!("s3://{}/{}", object.bucket, object.key)
}

/// A text header.
pub(crate) fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The single range of a `Range` header; several ranges, and what cannot be read, mean the whole object (RFC 9110).
pub(crate) fn range(headers: &HeaderMap) -> Option<ByteRange> {
    let spec = text(headers, header::RANGE)?.strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Some(ByteRange::Bounded(first, last)),
        (Ok(first), Err(_)) if last.is_empty() => Some(ByteRange::From(first)),
        (Err(_), Ok(last)) if first.is_empty() => Some(ByteRange::Last(last)),
        _ => None,
    }
}

/// A time as HTTP headers write it.
pub(crate) fn http_date(time: Timestamp) -> String {
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap_or_default()
}

fn names(list: &str, etag: &str) -> bool {
    let plain = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    list.split(',').any(|tag| tag.trim() == "*" || plain(tag) == etag)
}

/// What the conditions of a read say.
pub(crate) enum Condition {
    /// Answer the object.
    Proceed,
    /// The reader has it already.
    NotModified,
}

/// Checks `If-Match`, `If-None-Match`, `If-Modified-Since` and `If-Unmodified-Since` against an object that is read.
pub(crate) fn read_condition(headers: &HeaderMap, object: &Object) -> Result<Condition, Failure> {
    let modified = object.last_modified.as_second();
    let date = |name| {
        let text = text(headers, name)?;
        jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|time| time.timestamp().as_second())
    };
    if let Some(list) = text(headers, header::IF_MATCH) {
        if !names(list, &object.etag) {
            return Err(Failure::Precondition("If-Match"));
        }
    } else if date(header::IF_UNMODIFIED_SINCE).is_some_and(|date| modified > date) {
        return Err(Failure::Precondition("If-Unmodified-Since"));
    }
    if let Some(list) = text(headers, header::IF_NONE_MATCH) {
        if names(list, &object.etag) {
            return Ok(Condition::NotModified);
        }
    } else if date(header::IF_MODIFIED_SINCE).is_some_and(|date| modified <= date) {
        return Ok(Condition::NotModified);
    }
    Ok(Condition::Proceed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranged(value: &str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value.parse().unwrap());
        range(&headers)
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        assert_eq!(ranged("bytes=0-99"), Some(ByteRange::Bounded(0, 99)));
        assert_eq!(ranged("bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(ranged("bytes=-5"), Some(ByteRange::Last(5)));
        for ignored in [
            "bytes=9-1",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=",
            "bytes=-",
            "bytes=x-1",
        ] {
            assert_eq!(ranged(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn entity_tags_match_in_lists_and_weakly() {
        assert!(names("\"a\", \"b\"", "b") && names("W/\"a\"", "a") && names("*", "x") && names("a", "a"));
        assert!(!names("\"ab\"", "a"));
    }
}
