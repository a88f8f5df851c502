//! Uploads in parts.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use ferroflow_blob::{ByteRange, PutOptions};
use http::{StatusCode, header};

use super::Call;
use super::fault::{Fault, FaultCode};
use super::objects::{copy_source, metadata, mode, unwrap, xml};
use super::xml::{Complete, Element, read as read_xml};
use crate::objects::Write;

fn upload_id(call: &Call) -> &str {
    call.query.get("uploadId").map_or("", String::as_str)
}

fn part_number(call: &Call) -> Result<i64, Fault> {
    let number = call.param("partNumber").and_then(|text| text.parse().ok());
    number
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| {
            Fault::new(
                FaultCode::InvalidArgument,
                "partNumber must be a number from 1 to 10000",
            )
        })
}

/// `CreateMultipartUpload`.
pub(super) async fn begin(call: &Call) -> Result<Response, Fault> {
    let objects = &call.service.objects;
    objects.check_bucket_exists(&call.actor, &call.bucket).await?;
    let content_type = call.header("content-type").map(str::to_owned);
    let upload = objects
        .begin_upload(&call.actor, &call.bucket, &call.key, content_type, metadata(call))
        .await?;
    Ok(xml(Element::answer("InitiateMultipartUploadResult", |result| {
        result.text("Bucket", &call.bucket);
        result.text("Key", &call.key);
        result.text("UploadId", &upload.id);
    })))
}

/// `UploadPart`.
pub(super) async fn put_part(call: &Call, payload: Body) -> Result<Response, Fault> {
    let number = part_number(call)?;
    let (stream, sha256, size) = call.decoded(payload)?;
    let options = PutOptions {
        sha256,
        size,
        ..PutOptions::default()
    };
    let place = (call.bucket.as_str(), call.key.as_str(), upload_id(call));
    let part = call
        .service
        .objects
        .put_part(&call.actor, place, number, stream, options)
        .await
        .map_err(unwrap)?;
    Ok([(header::ETAG, format!("\"{}\"", part.sha256))].into_response())
}

/// `UploadPartCopy`.
pub(super) async fn copy_part(call: &Call) -> Result<Response, Fault> {
    let number = part_number(call)?;
    let (bucket, key) = copy_source(call)?;
    let range = match call.header("x-amz-copy-source-range") {
        None => None,
        Some(text) => {
            let parsed = text.strip_prefix("bytes=").and_then(|text| {
                let (first, last) = text.split_once('-')?;
                Some(ByteRange::Bounded(first.parse().ok()?, last.parse().ok()?))
            });
            let bad = || {
                Fault::new(
                    FaultCode::InvalidArgument,
                    format!("range {text:?} is not bytes=first-last"),
                )
            };
            Some(parsed.ok_or_else(bad)?)
        }
    };
    let objects = &call.service.objects;
    let (_, reading) = objects.get(&call.actor, &bucket, &key, range).await?;
    let place = (call.bucket.as_str(), call.key.as_str(), upload_id(call));
    let part = objects
        .put_part(&call.actor, place, number, reading.body, PutOptions::default())
        .await?;
    Ok(xml(Element::answer("CopyPartResult", |result| {
        result.text("ETag", format!("\"{}\"", part.sha256));
        result.text("LastModified", format!("{:.3}", call.service.now()));
    })))
}

/// `ListParts`.
pub(super) async fn list_parts(call: &Call) -> Result<Response, Fault> {
    let id = upload_id(call);
    let parts = call
        .service
        .objects
        .parts(&call.actor, &call.bucket, &call.key, id)
        .await?;
    let after: i64 = call
        .param("part-number-marker")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let most: usize = call
        .param("max-parts")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000)
        .min(1000);
    let rest: Vec<_> = parts.iter().filter(|part| part.number > after).collect();
    let shown = &rest[..rest.len().min(most)];
    Ok(xml(Element::answer("ListPartsResult", |result| {
        result.text("Bucket", &call.bucket);
        result.text("Key", &call.key);
        result.text("UploadId", id);
        result.value("PartNumberMarker", after);
        result.value("MaxParts", most);
        result.value("IsTruncated", shown.len() < rest.len());
        if let Some(last) = shown.last() {
            result.value("NextPartNumberMarker", last.number);
        }
        for part in shown {
            result.child("Part", |entry| {
                entry.value("PartNumber", part.number);
                entry.text("ETag", format!("\"{}\"", part.sha256));
                entry.value("Size", part.size);
            });
        }
    })))
}

/// `ListMultipartUploads`.
pub(super) async fn list_uploads(call: &Call) -> Result<Response, Fault> {
    let objects = &call.service.objects;
    objects.check_bucket_exists(&call.actor, &call.bucket).await?;
    let prefix = call.param("prefix").unwrap_or_default();
    let uploads = objects.open_uploads(&call.actor, &call.bucket).await?;
    Ok(xml(Element::answer("ListMultipartUploadsResult", |result| {
        result.text("Bucket", &call.bucket);
        result.text("Prefix", prefix);
        result.value("MaxUploads", 1000);
        result.value("IsTruncated", false);
        for upload in uploads.iter().filter(|upload| upload.key.starts_with(prefix)) {
            result.child("Upload", |entry| {
                entry.text("Key", &upload.key);
                entry.text("UploadId", &upload.id);
                entry.text("Initiated", format!("{:.3}", upload.made));
            });
        }
    })))
}

/// `CompleteMultipartUpload`.
pub(super) async fn complete(call: &Call, body: &[u8]) -> Result<Response, Fault> {
    let asked: Complete = read_xml(body)?;
    if asked.parts.is_empty() {
        return Err(Fault::new(FaultCode::MalformedXML, "no part is named"));
    }
    let named: Vec<(i64, String)> = asked
        .parts
        .into_iter()
        .map(|part| (part.number, part.etag.trim_matches('"').to_owned()))
        .collect();
    let place = (call.bucket.as_str(), call.key.as_str(), upload_id(call));
    let write = Write {
        mode: mode(call)?,
        ..Write::default()
    };
    let object = call
        .service
        .objects
        .complete_upload(&call.actor, place, &named, write)
        .await?;
    Ok(xml(Element::answer("CompleteMultipartUploadResult", |result| {
        result.text("Location", format!("/{}/{}", call.bucket, call.key));
        result.text("Bucket", &call.bucket);
        result.text("Key", &call.key);
        result.text("ETag", format!("\"{}\"", object.etag));
    })))
}

/// `AbortMultipartUpload`.
pub(super) async fn abort(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .abort_upload(&call.actor, &call.bucket, &call.key, upload_id(call))
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
