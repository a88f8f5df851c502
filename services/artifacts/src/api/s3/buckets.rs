//! Operations on buckets, listings among them.

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, StatusCode, header};
use percent_encoding::utf8_percent_encode;

use super::Call;
use super::fault::{Fault, FaultCode};
use super::objects::xml;
use super::xml::Element;
use crate::domain::signed_url::PATH;

const REGION: &str = "us-east-1";

/// `ListBuckets`.
pub(super) async fn list_all(call: &Call) -> Result<Response, Fault> {
    let buckets = call.service.objects.buckets(&call.actor).await?;
    let user = &call.actor.caller.principal.user;
    Ok(xml(Element::answer("ListAllMyBucketsResult", |result| {
        result.child("Owner", |owner| {
            owner.text("ID", user);
            owner.text("DisplayName", user);
        });
        result.child("Buckets", |list| {
            for (name, made) in &buckets {
                list.child("Bucket", |bucket| {
                    bucket.text("Name", name);
                    bucket.text("CreationDate", format!("{made:.3}"));
                });
            }
        });
    })))
}

/// `HeadBucket`.
pub(super) async fn head(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .check_bucket_exists(&call.actor, &call.bucket)
        .await?;
    Ok([(HeaderName::from_static("x-amz-bucket-region"), REGION)].into_response())
}

/// `GetBucketLocation`: an empty constraint is `us-east-1`.
pub(super) async fn location(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .check_bucket_exists(&call.actor, &call.bucket)
        .await?;
    Ok(xml(Element::answer("LocationConstraint", |_| {})))
}

/// `GetBucketVersioning`: never configured.
pub(super) async fn versioning(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .check_bucket_exists(&call.actor, &call.bucket)
        .await?;
    Ok(xml(Element::answer("VersioningConfiguration", |_| {})))
}

/// `CreateBucket`.
pub(super) async fn create(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .make_bucket(&call.actor, &call.bucket)
        .await?;
    Ok([(header::LOCATION, format!("/{}", call.bucket))].into_response())
}

/// `DeleteBucket`.
pub(super) async fn delete(call: &Call) -> Result<Response, Fault> {
    call.service
        .objects
        .delete_bucket(&call.actor, &call.bucket)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `ListObjectsV2`, and version 1 without `list-type=2`.
pub(super) async fn list(call: &Call) -> Result<Response, Fault> {
    let bad = |text: &str| Fault::new(FaultCode::InvalidArgument, text);
    let second = call.param("list-type") == Some("2");
    let prefix = call.param("prefix").unwrap_or_default();
    let delimiter = call.param("delimiter").unwrap_or_default();
    let folders = match delimiter {
        "" => false,
        "/" => true,
        _ => return Err(Fault::not_implemented("a delimiter other than /")),
    };
    let most: usize = match call.param("max-keys") {
        None => 1000,
        Some(text) => text.parse().map_err(|_| bad("max-keys is not a number"))?,
    };
    let most = most.min(1000);
    let token = call.param("continuation-token");
    let after = match token {
        Some(token) => {
            let decoded = URL_SAFE_NO_PAD
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            Some(decoded.ok_or_else(|| bad("the continuation token is not one of this list"))?)
        }
        None => call
            .param(if second { "start-after" } else { "marker" })
            .map(str::to_owned),
    };
    let objects = &call.service.objects;
    objects.check_bucket_exists(&call.actor, &call.bucket).await?;
    let page = objects
        .list(&call.actor, &call.bucket, prefix, folders, after, most)
        .await?;
    let encoded = call.param("encoding-type") == Some("url");
    let key = |text: &str| {
        if encoded {
            utf8_percent_encode(text, PATH).to_string()
        } else {
            text.to_owned()
        }
    };
    let document = Element::answer("ListBucketResult", |result| {
        result.text("Name", &call.bucket);
        result.text("Prefix", key(prefix));
        result.value("MaxKeys", most);
        if !delimiter.is_empty() {
            result.text("Delimiter", key(delimiter));
        }
        if encoded {
            result.text("EncodingType", "url");
        }
        result.value("IsTruncated", page.next.is_some());
        if second {
            result.value("KeyCount", page.objects.len() + page.prefixes.len());
            if let Some(token) = token {
                result.text("ContinuationToken", token);
            }
            if let Some(start) = call.param("start-after") {
                result.text("StartAfter", key(start));
            }
            if let Some(next) = &page.next {
                result.text("NextContinuationToken", URL_SAFE_NO_PAD.encode(next));
            }
        } else {
            result.text("Marker", key(call.param("marker").unwrap_or_default()));
            if let Some(next) = &page.next {
                result.text("NextMarker", key(next));
            }
        }
        for object in &page.objects {
            result.child("Contents", |entry| {
                entry.text("Key", key(&object.key));
                entry.text("LastModified", format!("{:.3}", object.last_modified));
                entry.text("ETag", format!("\"{}\"", object.etag));
                entry.value("Size", object.size);
                entry.text("StorageClass", "STANDARD");
            });
        }
        for folder in &page.prefixes {
            result.child("CommonPrefixes", |entry| entry.text("Prefix", key(folder)));
        }
    });
    Ok(xml(document))
}
