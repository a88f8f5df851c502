//! Request bodies within bounds.

use super::Limits;
use crate::protocol::{Fault, InferError};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, EXPECT};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::io::Read;

/// A refused body is still read (and dropped) up to here, since most clients look at the answer only after sending all.
const DRAIN_BYTES: u64 = 4 << 30;

/// Reads the whole body, or refuses it by its announced length, or when it grows beyond the limit.
pub async fn read(headers: &HeaderMap, body: Incoming, limits: &Limits) -> Result<Bytes, InferError> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limits.body as u64) {
        // With `Expect: 100-continue` the client has not begun to send.
        if !headers.contains_key(EXPECT) {
            let _as_far_as_it_came = tokio::time::timeout(limits.read, drain(body, 0)).await;
        }
        return Err(too_large(announced, limits.body));
    }
    let Ok(read) = tokio::time::timeout(limits.read, collect(body, announced, limits)).await else {
        let text = format!(
            "the request body did not arrive within {} s",
            limits.read.as_secs()
        );
        return Err(InferError::bad(text));
    };
    decode(headers, read?, limits.body)
}

async fn collect(mut body: Incoming, announced: Option<u64>, limits: &Limits) -> Result<Bytes, InferError> {
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| InferError::bad(format!("the request body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.as_ref().map_or(whole.len(), Bytes::len);
        if length + data.len() > limits.body {
            drain(body, (length + data.len()) as u64).await;
            return Err(too_large(None, limits.body));
        }
        // One frame is the common case, and is taken as it is.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(before) => {
                let announced = announced
                    .and_then(|length| usize::try_from(length).ok())
                    .unwrap_or(0);
                whole.reserve(announced.max(before.len() + data.len()));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

fn too_large(announced: Option<u64>, limit: usize) -> InferError {
    let found = announced.map_or_else(|| "is larger".to_owned(), |length| format!("has {length} bytes"));
    InferError::new(
        Fault::TooLarge,
        format!(
            "the request body {found}, the limit is {limit}; send fewer rows at a time or raise --max_request_bytes"
        ),
    )
}

async fn drain(mut body: Incoming, mut seen: u64) {
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > DRAIN_BYTES {
            return;
        }
    }
}

fn decode(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, InferError> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else {
        return Ok(body);
    };
    let unpacked = match encoding.as_bytes() {
        b"identity" => return Ok(body),
        b"gzip" | b"x-gzip" => unpack(flate2::read::GzDecoder::new(&body[..]), limit),
        b"deflate" => unpack(flate2::read::ZlibDecoder::new(&body[..]), limit),
        other => {
            let other = String::from_utf8_lossy(other);
            let text = format!("content-encoding {other:?} is not one of gzip, deflate, identity");
            return Err(InferError::new(Fault::UnsupportedMedia, text));
        }
    };
    let unpacked =
        unpacked.map_err(|error| InferError::bad(format!("the request body does not unpack: {error}")))?;
    if unpacked.len() > limit {
        return Err(too_large(None, limit));
    }
    Ok(unpacked.into())
}

/// Unpacks up to one byte beyond the limit, so that a small bomb stays small.
fn unpack(reader: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

/// The header that tells where JSON ends and tensors begin.
pub fn json_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let Some(value) = headers.get("inference-header-content-length") else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| {
        InferError::bad("header \"Inference-Header-Content-Length\": is not a number of bytes")
    })
}
