//! The subset of S3 that data tools use: objects, ranges, conditions, copies, listings, uploads in parts, buckets.
//! Path style only. Signature version 4 in the header or the query; what else a request may be known by is in
//! [`identify`].

mod buckets;
mod checksum;
mod chunked;
mod fault;
mod multipart;
mod objects;
mod sigv2;
mod sigv4;
mod xml;

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::response::Response;
use bytes::Bytes;
use ferroflow_blob::ByteStream;
use http::request::Parts;
use http::{HeaderMap, Method};

use self::checksum::Checksum;
use self::chunked::{ChunkSigner, Decoder};
use self::fault::{Fault, FaultCode};
use self::sigv4::{Payload, Signature};
use super::credentials::Service;
use super::{body, uri};
use crate::domain::grant::CredentialKey;
use crate::objects::{Actor, Limit};

/// Bodies that are XML.
const XML_LIMIT: usize = 4 * 1024 * 1024;

#[derive(Clone)]
struct Endpoint {
    service: Service,
    /// What comes before the bucket in the path, as the client signed it.
    prefix: &'static str,
}

/// The endpoint below a path such as `/s3`, or at the root with an empty one.
pub(crate) fn router(service: Service, prefix: &'static str) -> Router {
    Router::new()
        .fallback(handle)
        .with_state(Endpoint { service, prefix })
}

/// A verified signature, and the key that also signs chunks.
type Signed = (Signature, Vec<u8>);

/// A request, authenticated and taken apart.
struct Call {
    service: Service,
    actor: Actor,
    method: Method,
    headers: HeaderMap,
    query: BTreeMap<String, String>,
    bucket: String,
    key: String,
    signature: Option<Signed>,
}

async fn handle(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let (mut parts, payload) = request.into_parts();
    if let Some(OriginalUri(whole)) = parts.extensions.get::<OriginalUri>() {
        parts.uri = whole.clone();
    }
    let head = parts.method == Method::HEAD;
    let path = parts.uri.path().to_owned();
    match serve(endpoint, parts, payload).await {
        Ok(response) => response,
        Err(fault) => fault.response(&path, head),
    }
}

async fn serve(endpoint: Endpoint, parts: Parts, payload: Body) -> Result<Response, Fault> {
    let Endpoint { service, prefix } = endpoint;
    let path = parts.uri.path().strip_prefix(prefix).unwrap_or_default();
    let (actor, signature) = identify(&service, &parts, path)?;
    let (bucket, key) = uri::split(path)?;
    let query = uri::query(parts.uri.query());
    let (method, headers) = (parts.method, parts.headers);
    let call = Call {
        service,
        actor,
        method,
        headers,
        query,
        bucket,
        key,
        signature,
    };
    if call.bucket.is_empty() {
        return match call.method {
            Method::GET => buckets::list_all(&call).await,
            _ => Err(Fault::new(
                FaultCode::MethodNotAllowed,
                "only GET lists buckets; name a bucket in the path",
            )),
        };
    }
    if call.key.is_empty() {
        call.on_bucket(payload).await
    } else {
        call.on_object(payload).await
    }
}

/// Who sends the request. A signature must be made with a key of ours and verify, and limits the caller to its grant; whoever
/// else the gateway names does not make a wrong one good. Only a request without any signature is its caller's own.
fn identify(service: &Service, parts: &Parts, path: &str) -> Result<(Actor, Option<Signed>), Fault> {
    if let Some(access_key) = sigv2::access_key(parts) {
        check_known(&access_key)?;
        sigv2::verify(
            parts,
            path,
            &service.credentials.secret(&access_key),
            service.now(),
        )?;
        let grant = service.credentials.read(&access_key, service.now())?;
        return Ok((
            Actor {
                caller: grant.caller(),
                limit: Limit::Grant(grant),
            },
            None,
        ));
    }
    let signature = Signature::of(parts)?;
    let Some(signature) = signature else {
        return Ok((service.actor(parts)?, None));
    };
    check_known(&signature.access_key)?;
    let secret = service.credentials.secret(&signature.access_key);
    signature.verify(parts, parts.uri.path(), &secret, service.now())?;
    let grant = service.credentials.read(&signature.access_key, service.now())?;
    let actor = Actor {
        caller: grant.caller(),
        limit: Limit::Grant(grant),
    };
    let key = signature.signing_key(&secret);
    Ok((actor, Some((signature, key))))
}

fn check_known(access_key: &str) -> Result<(), Fault> {
    if CredentialKey::is_ours(access_key) {
        return Ok(());
    }
    let text = format!(
        "access key {access_key:?} is not one of this installation; get one from POST /artifacts/v1/credentials, or, on your own \
         machine, send unsigned requests"
    );
    Err(Fault::new(FaultCode::InvalidAccessKeyId, text))
}

impl Call {
    fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    async fn on_bucket(self, payload: Body) -> Result<Response, Fault> {
        const NOT_HERE: [&str; 19] = [
            "acl",
            "tagging",
            "policy",
            "policyStatus",
            "cors",
            "lifecycle",
            "encryption",
            "website",
            "logging",
            "notification",
            "replication",
            "object-lock",
            "versions",
            "inventory",
            "analytics",
            "metrics",
            "accelerate",
            "ownershipControls",
            "publicAccessBlock",
        ];
        if let Some(name) = NOT_HERE.iter().find(|name| self.has(name)) {
            return Err(Fault::not_implemented(&format!("?{name} of buckets")));
        }
        match self.method {
            Method::GET if self.has("location") => buckets::location(&self).await,
            Method::GET if self.has("versioning") => buckets::versioning(&self).await,
            Method::GET if self.has("uploads") => multipart::list_uploads(&self).await,
            Method::GET => buckets::list(&self).await,
            Method::HEAD => buckets::head(&self).await,
            Method::PUT if self.query.is_empty() => buckets::create(&self).await,
            Method::DELETE => buckets::delete(&self).await,
            Method::POST if self.has("delete") => {
                let body = self.small_body(payload).await?;
                objects::delete_many(&self, &body).await
            }
            _ => Err(Fault::not_implemented(&format!(
                "{} of a bucket with this query",
                self.method
            ))),
        }
    }

    async fn on_object(self, payload: Body) -> Result<Response, Fault> {
        const NOT_HERE: [&str; 8] = [
            "acl",
            "tagging",
            "retention",
            "legal-hold",
            "torrent",
            "restore",
            "select",
            "attributes",
        ];
        if let Some(name) = NOT_HERE.iter().find(|name| self.has(name)) {
            return Err(Fault::not_implemented(&format!("?{name} of objects")));
        }
        let copy = self.headers.contains_key("x-amz-copy-source");
        match self.method {
            Method::GET if self.has("uploadId") => multipart::list_parts(&self).await,
            Method::GET | Method::HEAD => objects::read(&self).await,
            Method::PUT if self.has("uploadId") && copy => multipart::copy_part(&self).await,
            Method::PUT if self.has("uploadId") => multipart::put_part(&self, payload).await,
            Method::PUT if copy => objects::copy(&self).await,
            Method::PUT => objects::put(&self, payload).await,
            Method::POST if self.has("uploads") => multipart::begin(&self).await,
            Method::POST if self.has("uploadId") => {
                let body = self.small_body(payload).await?;
                multipart::complete(&self, &body).await
            }
            Method::DELETE if self.has("uploadId") => multipart::abort(&self).await,
            Method::DELETE => objects::delete(&self).await,
            _ => Err(Fault::not_implemented(&format!(
                "{} of an object with this query",
                self.method
            ))),
        }
    }

    /// The body, decoded and with its checksums checked as it passes; and the SHA-256 that it was signed with.
    fn decoded(&self, payload: Body) -> Result<(ByteStream, Option<String>, Option<u64>), Fault> {
        let raw = body::incoming(payload, &self.key);
        let checksums = Checksum::announced(&self.headers);
        let number = |name: &str| self.header(name).and_then(|text| text.parse().ok());
        match sigv4::payload_of(&self.headers)? {
            Payload::Chunked { signed, trailer } => {
                // an unsigned request has no key to check chunks with
                let signer = self
                    .signature
                    .as_ref()
                    .filter(|_| signed)
                    .map(|(signature, key)| ChunkSigner {
                        key: key.clone(),
                        time: signature.time.clone(),
                        scope: signature.scope.clone(),
                        previous: signature.signature.clone(),
                    });
                let size = number("x-amz-decoded-content-length");
                Ok((
                    chunked::decode(raw, Decoder::new(signer, trailer, checksums)),
                    None,
                    size,
                ))
            }
            Payload::Sha256(hash) => Ok((
                chunked::checked(raw, checksums),
                Some(hash),
                number("content-length"),
            )),
            Payload::Unsigned => Ok((chunked::checked(raw, checksums), None, number("content-length"))),
        }
    }

    /// A body that is XML.
    async fn small_body(&self, payload: Body) -> Result<Bytes, Fault> {
        use futures::TryStreamExt;
        let (stream, hash, _) = self.decoded(payload)?;
        let pieces = stream.try_fold(Vec::new(), |mut all: Vec<u8>, piece| async move {
            if all.len() + piece.len() > XML_LIMIT {
                let fault = Fault::new(FaultCode::EntityTooLarge, "the body has more than 4 MiB");
                return Err(chunked::as_blob_error(fault));
            }
            all.extend_from_slice(&piece);
            Ok(all)
        });
        let bytes = pieces.await.map_err(chunked::as_fault)?;
        if let Some(hash) = hash {
            let mut digest = ferroflow_blob::Digest::new();
            digest.update(&bytes);
            if digest.finish() != hash {
                let text = "the body is not the one that was signed";
                return Err(Fault::new(FaultCode::XAmzContentSHA256Mismatch, text));
            }
        }
        Ok(bytes.into())
    }
}
