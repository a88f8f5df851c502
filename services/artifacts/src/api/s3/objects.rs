//! Operations on objects.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use ferroflow_blob::{BlobError, Mode};
use ferroflow_kernel::Error;
use http::{Method, StatusCode, header};

use super::Call;
use super::chunked::as_fault;
use super::fault::{Fault, FaultCode};
use super::xml::{Delete, Element, read as read_xml};
use crate::api::{body, uri, wire};
use crate::error::Failure;
use crate::objects::{Object, Write};

const METADATA: &str = "x-amz-meta-";

/// A failure, with a fault that came through the body taken out of it.
pub(super) fn unwrap(failure: Failure) -> Fault {
    match failure {
        Failure::Blob(error) => as_fault(error),
        other => other.into(),
    }
}

pub(super) fn xml(document: String) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], document).into_response()
}

pub(super) fn metadata(call: &Call) -> BTreeMap<String, String> {
    let pairs = call.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(METADATA)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    pairs.collect()
}

pub(super) fn mode(call: &Call) -> Result<Mode, Fault> {
    if call.headers.contains_key(header::IF_MATCH) {
        return Err(Fault::not_implemented("writing with If-Match"));
    }
    match call.header("if-none-match") {
        None => Ok(Mode::Overwrite),
        Some("*") => Ok(Mode::CreateOnly),
        Some(_) => Err(Fault::not_implemented("writing with If-None-Match other than *")),
    }
}

/// `GetObject` and `HeadObject`.
pub(super) async fn read(call: &Call) -> Result<Response, Fault> {
    let objects = &call.service.objects;
    let missing = |failure: Failure| async move {
        if matches!(failure, Failure::Blob(BlobError::NotFound { .. })) {
            objects.check_bucket_exists(&call.actor, &call.bucket).await?;
        }
        Err::<(), Fault>(failure.into())
    };
    let conditional = [
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
    ];
    let conditional = conditional.iter().any(|name| call.headers.contains_key(*name));
    let range = wire::range(&call.headers);
    let head = call.method == Method::HEAD;
    let mut response = Response::builder();
    if head || conditional {
        let object = match objects.head(&call.actor, &call.bucket, &call.key).await {
            Ok(object) => object,
            Err(failure) => {
                return missing(failure)
                    .await
                    .map(|()| StatusCode::NOT_FOUND.into_response());
            }
        };
        if let wire::Condition::NotModified = wire::read_condition(&call.headers, &object)? {
            let etag = format!("\"{}\"", object.etag);
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
        }
        if head {
            let mut size = object.size;
            if let Some(range) = range {
                let key = call.key.clone();
                let range = range.within(size).ok_or(BlobError::InvalidRange { key, size })?;
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, text);
                size = range.end - range.start;
            }
            return finish(call, response, &object, size, Body::empty());
        }
    }
    let (object, reading) = match objects.get(&call.actor, &call.bucket, &call.key, range).await {
        Ok(found) => found,
        Err(failure) => {
            return missing(failure)
                .await
                .map(|()| StatusCode::NOT_FOUND.into_response());
        }
    };
    let length = reading.range.end - reading.range.start;
    if range.is_some() {
        let text = format!(
            "bytes {}-{}/{}",
            reading.range.start,
            reading.range.end - 1,
            reading.info.size
        );
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, text);
    }
    finish(call, response, &object, length, body::outgoing(reading.body))
}

fn finish(
    call: &Call,
    mut response: http::response::Builder,
    object: &Object,
    length: u64,
    payload: Body,
) -> Result<Response, Fault> {
    let content_type = call
        .param("response-content-type")
        .unwrap_or(&object.content_type);
    response = response
        .header(header::CONTENT_LENGTH, length)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ETAG, format!("\"{}\"", object.etag))
        .header(header::LAST_MODIFIED, wire::http_date(object.last_modified))
        .header(header::ACCEPT_RANGES, "bytes")
        // a browser that is given a presigned url must not run what it finds in the origin of this endpoint
        .header(header::CONTENT_SECURITY_POLICY, "sandbox")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(disposition) = call.param("response-content-disposition") {
        response = response.header(header::CONTENT_DISPOSITION, disposition);
    }
    for (name, value) in &object.metadata {
        response = response.header(format!("{METADATA}{name}"), value);
    }
    response
        .body(payload)
        .map_err(|error| Error::invalid(format!("a response header: {error}")).into())
}

/// `PutObject`.
pub(super) async fn put(call: &Call, payload: Body) -> Result<Response, Fault> {
    call.service
        .objects
        .check_bucket_exists(&call.actor, &call.bucket)
        .await?;
    let mode = mode(call)?;
    let (stream, sha256, size) = call.decoded(payload)?;
    let write = Write {
        mode,
        content_type: call.header("content-type").map(str::to_owned),
        sha256,
        size,
        metadata: metadata(call),
        namespace: None,
    };
    let objects = &call.service.objects;
    let object = objects
        .put(&call.actor, &call.bucket, &call.key, stream, write)
        .await
        .map_err(unwrap)?;
    Ok([(header::ETAG, format!("\"{}\"", object.etag))].into_response())
}

/// Bucket and key of `x-amz-copy-source`.
pub(super) fn copy_source(call: &Call) -> Result<(String, String), Fault> {
    let text = call.header("x-amz-copy-source").unwrap_or_default();
    let (path, version) = text.split_once("?versionId=").unwrap_or((text, ""));
    if !version.is_empty() && version != "null" {
        return Err(Fault::not_implemented("copying a version"));
    }
    let (bucket, key) = uri::split(path)?;
    if key.is_empty() {
        let text = format!("x-amz-copy-source {text:?} is not /bucket/key");
        return Err(Fault::new(FaultCode::InvalidArgument, text));
    }
    Ok((bucket, key))
}

/// `CopyObject`.
pub(super) async fn copy(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .check_bucket_exists(&call.actor, &call.bucket)
        .await?;
    let (bucket, key) = copy_source(call)?;
    let replace = call
        .header("x-amz-metadata-directive")
        .is_some_and(|text| text.eq_ignore_ascii_case("replace"));
    let write = replace.then(|| Write {
        content_type: call.header("content-type").map(str::to_owned),
        metadata: metadata(call),
        ..Write::default()
    });
    let (from, to) = (
        (bucket.as_str(), key.as_str()),
        (call.bucket.as_str(), call.key.as_str()),
    );
    let object = call
        .service
        .objects
        .copy(&call.actor, from, to, write, mode(call)?)
        .await?;
    Ok(xml(Element::answer("CopyObjectResult", |result| {
        result.text("ETag", format!("\"{}\"", object.etag));
        result.text("LastModified", format!("{:.3}", object.last_modified));
    })))
}

/// `DeleteObject`.
pub(super) async fn delete(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .delete(&call.actor, &call.bucket, &call.key)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DeleteObjects`.
pub(super) async fn delete_many(call: &Call, body: &[u8]) -> Result<Response, Fault> {
    let asked: Delete = read_xml(body)?;
    if asked.objects.len() > 1000 {
        return Err(Fault::new(
            FaultCode::MalformedXML,
            "more than 1000 objects at once",
        ));
    }
    let mut results = Vec::new();
    for object in asked.objects {
        let result = call
            .service
            .objects
            .delete(&call.actor, &call.bucket, &object.key)
            .await;
        results.push((object.key, result.map_err(Fault::from)));
    }
    Ok(xml(Element::answer("DeleteResult", |answer| {
        for (key, result) in &results {
            match result {
                Ok(()) if asked.quiet => {}
                Ok(()) => answer.child("Deleted", |deleted| deleted.text("Key", key)),
                Err(fault) => answer.child("Error", |error| {
                    error.text("Key", key);
                    error.text("Code", format!("{:?}", fault.code));
                    error.text("Message", &fault.message);
                }),
            }
        }
    })))
}
