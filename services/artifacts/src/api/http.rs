//! Streaming HTTP: `/artifacts/v1/objects/<bucket>/<key>`, listings, archives, signed URLs and credentials.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use ferroflow_blob::{BlobError, Mode};
use ferroflow_kernel::{Code, Error};
use ferroflow_rpc::rest_error;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use super::credentials::{MintRequest, Service};
use super::{archive, body, uri, wire};
use crate::domain::signed_url::{OBJECTS, SignedUrl};
use crate::error::Failure;
use crate::objects::{Actor, Limit, Write};

const SHA256: HeaderName = HeaderName::from_static("x-ferroflow-sha256");
const NAMESPACE: HeaderName = HeaderName::from_static("x-ferroflow-namespace");
const METADATA: &str = "x-ferroflow-meta-";
/// Objects that the listing of a whole prefix gives at most.
const MOST_LISTED: usize = 10_000;

/// Pages that an artifact brings run in an origin of their own: they may compute and draw, but reach neither the
/// dashboard's cookies nor its API.
const SANDBOX: &str = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' https: blob:; \
style-src 'unsafe-inline' https:; img-src data: blob: https:; font-src data: https:; connect-src data: blob:";

pub(crate) fn router(service: Service) -> Router {
    Router::new()
        .route("/artifacts/v1/objects/{*path}", any(object))
        .route("/artifacts/v1/list", get(list))
        .route("/artifacts/v1/buckets", get(buckets))
        .route("/artifacts/v1/archive/{*path}", get(archive))
        .route("/artifacts/v1/sign", post(sign))
        .route("/artifacts/v1/credentials", post(credentials))
        .with_state(service)
}

/// A failure as an HTTP response.
pub(crate) fn failed(failure: Failure) -> Response {
    let status = match &failure {
        Failure::Blob(BlobError::AlreadyExists { .. }) | Failure::Precondition(_) => {
            Some(StatusCode::PRECONDITION_FAILED)
        }
        Failure::Blob(BlobError::InvalidRange { .. }) => Some(StatusCode::RANGE_NOT_SATISFIABLE),
        Failure::Blob(BlobError::TooLarge { .. }) => Some(StatusCode::PAYLOAD_TOO_LARGE),
        Failure::Blob(BlobError::NoSpace { .. }) => Some(StatusCode::INSUFFICIENT_STORAGE),
        Failure::Blob(BlobError::Conflict { .. }) | Failure::BucketNotEmpty(_) => Some(StatusCode::CONFLICT),
        _ => None,
    };
    let size = match &failure {
        Failure::Blob(BlobError::InvalidRange { size, .. }) => Some(*size),
        _ => None,
    };
    let mut response = rest_error(&failure.into_error());
    if let Some(status) = status {
        *response.status_mut() = status;
    }
    if let Some(value) = size.and_then(|size| HeaderValue::try_from(format!("bytes */{size}")).ok()) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

async fn object(State(service): State<Service>, request: Request) -> Response {
    serve_object(&service, request).await.unwrap_or_else(failed)
}

async fn serve_object(service: &Service, request: Request) -> Result<Response, Failure> {
    let (parts, payload) = request.into_parts();
    let path = parts.uri.path().strip_prefix(OBJECTS).unwrap_or_default();
    let (bucket, key) = uri::split(path)?;
    let query = uri::query(parts.uri.query());
    if key.is_empty() && parts.method == Method::GET {
        let actor = service.actor(&parts)?;
        let prefix = query.get("prefix").map(String::as_str).unwrap_or_default();
        return everything(service, &actor, &bucket, prefix).await;
    }
    let actor = match query.get("signature") {
        Some(signature) => signed(service, parts.method.as_str(), &bucket, &key, &query, signature)?,
        None => service.actor(&parts)?,
    };
    match parts.method {
        Method::GET | Method::HEAD => {
            let head = parts.method == Method::HEAD;
            read(
                service,
                &actor,
                &bucket,
                &key,
                &parts.headers,
                head,
                query.contains_key("download"),
            )
            .await
        }
        Method::PUT => {
            let write = write_of(&parts.headers)?;
            let create = write.mode == Mode::CreateOnly;
            let existed = !create && service.objects.head(&actor, &bucket, &key).await.is_ok();
            let bytes = body::incoming(payload, &key);
            let object = service.objects.put(&actor, &bucket, &key, bytes, write).await?;
            let status = if existed {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            let etag = format!("\"{}\"", object.etag);
            Ok((status, [(header::ETAG, etag)], Json(wire::json_of(&object))).into_response())
        }
        Method::DELETE => {
            service.objects.delete(&actor, &bucket, &key).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Ok((
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD, PUT, DELETE")],
        )
            .into_response()),
    }
}

/// The actor of a signed URL.
fn signed(
    service: &Service,
    method: &str,
    bucket: &str,
    key: &str,
    query: &std::collections::BTreeMap<String, String>,
    signature: &str,
) -> Result<Actor, Error> {
    let value = |name: &str| query.get(name).cloned().unwrap_or_default();
    let expires = value("expires");
    let url = SignedUrl {
        method: value("method"),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        namespace: value("namespace"),
        expires: expires
            .parse()
            .map_err(|_| Error::field("expires", format!("{expires:?} is not a number")))?,
    };
    url.check(signature, method, &service.credentials, service.now())?;
    let namespace = url.namespace;
    let principal = ferroflow_auth::Principal {
        user: "system:signed-url".to_owned(),
        groups: Vec::new(),
    };
    let caller = ferroflow_auth::Caller {
        principal,
        namespace: namespace.clone(),
    };
    Ok(Actor {
        caller,
        limit: Limit::Signed(namespace),
    })
}

fn write_of(headers: &HeaderMap) -> Result<Write, Error> {
    let mode = match wire::text(headers, header::IF_NONE_MATCH) {
        Some("*") => Mode::CreateOnly,
        None => Mode::Overwrite,
        Some(other) => {
            return Err(Error::field(
                "If-None-Match",
                format!("{other:?} is not supported here; only * is"),
            ));
        }
    };
    if headers.contains_key(header::IF_MATCH) {
        return Err(Error::unimplemented("writing with If-Match"));
    }
    let size = wire::text(headers, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(METADATA)?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    Ok(Write {
        mode,
        content_type: wire::text(headers, header::CONTENT_TYPE).map(str::to_owned),
        sha256: wire::text(headers, SHA256).map(str::to_owned),
        size,
        metadata: metadata.collect(),
        namespace: wire::text(headers, NAMESPACE).map(str::to_owned),
    })
}

async fn read(
    service: &Service,
    actor: &Actor,
    bucket: &str,
    key: &str,
    headers: &HeaderMap,
    head: bool,
    download: bool,
) -> Result<Response, Failure> {
    let range = wire::range(headers);
    let conditional = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ]
    .iter()
    .any(|name| headers.contains_key(name));
    let mut response = Response::builder();
    let (object, length, payload) = if head || conditional {
        let object = service.objects.head(actor, bucket, key).await?;
        if let wire::Condition::NotModified = wire::read_condition(headers, &object)? {
            let etag = format!("\"{}\"", object.etag);
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
        }
        if head {
            let size = object.size;
            (object, size, Body::empty())
        } else {
            let (object, reading) = service.objects.get(actor, bucket, key, range).await?;
            response = partial(response, range.is_some(), &reading);
            (
                object,
                reading.range.end - reading.range.start,
                body::outgoing(reading.body),
            )
        }
    } else {
        let (object, reading) = service.objects.get(actor, bucket, key, range).await?;
        response = partial(response, range.is_some(), &reading);
        (
            object,
            reading.range.end - reading.range.start,
            body::outgoing(reading.body),
        )
    };
    response = response
        .header(header::CONTENT_LENGTH, length)
        .header(header::CONTENT_TYPE, &object.content_type)
        .header(header::ETAG, format!("\"{}\"", object.etag))
        .header(header::LAST_MODIFIED, wire::http_date(object.last_modified))
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CACHE_CONTROL, "private, no-cache")
        .header(header::CONTENT_SECURITY_POLICY, SANDBOX)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if !object.sha256.is_empty() {
        response = response.header(SHA256, &object.sha256);
    }
    if download {
        let name = key.rsplit('/').next().unwrap_or_default();
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        response = response.header(
            header::CONTENT_DISPOSITION,
            format!("attachment; filename*=UTF-8''{name}"),
        );
    }
    for (name, value) in &object.metadata {
        response = response.header(format!("{METADATA}{name}"), value);
    }
    response
        .body(payload)
        .map_err(|error| Error::internal(error).into())
}

fn partial(
    response: http::response::Builder,
    asked: bool,
    reading: &ferroflow_blob::Reading,
) -> http::response::Builder {
    if !asked {
        return response;
    }
    let (range, size) = (&reading.range, reading.info.size);
    response.status(StatusCode::PARTIAL_CONTENT).header(
        header::CONTENT_RANGE,
        format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)),
    )
}

async fn everything(
    service: &Service,
    actor: &Actor,
    bucket: &str,
    prefix: &str,
) -> Result<Response, Failure> {
    let mut objects = Vec::new();
    let mut after = None;
    loop {
        let page = service
            .objects
            .list(actor, bucket, prefix, false, after, 1000)
            .await?;
        objects.extend(page.objects.iter().map(wire::json_of));
        after = page.next;
        if after.is_none() {
            return Ok(Json(json!({"objects": objects})).into_response());
        }
        if objects.len() >= MOST_LISTED {
            let text = format!(
                "more than {MOST_LISTED} objects below s3://{bucket}/{prefix}; use /artifacts/v1/list"
            );
            return Err(Error::new(Code::ResourceExhausted, text).into());
        }
    }
}

#[derive(Deserialize)]
struct ListQuery {
    uri: String,
    #[serde(default)]
    delimiter: String,
    page_size: Option<usize>,
    #[serde(default)]
    page_token: String,
}

async fn list(State(service): State<Service>, request: Request) -> Response {
    let answer = async {
        let (parts, _) = request.into_parts();
        let actor = service.actor(&parts)?;
        let query = parts.uri.query().unwrap_or_default();
        let query: ListQuery = axum::extract::Query::try_from_uri(&parts.uri)
            .map(|query| query.0)
            .map_err(|error| {
                Error::invalid(format!("query {query:?}: {error}; give uri=s3://bucket/prefix"))
            })?;
        let (bucket, prefix) = uri::bucket(&query.uri)?;
        let folders = delimiter(&query.delimiter)?;
        let limit = page_size(query.page_size)?;
        let after = page_start(&query.page_token, &bucket, &prefix, folders)?;
        let page = service
            .objects
            .list(&actor, &bucket, &prefix, folders, after, limit)
            .await?;
        let objects: Vec<Value> = page.objects.iter().map(wire::json_of).collect();
        let next = page
            .next
            .map(|after| page_token(&bucket, &prefix, folders, after))
            .unwrap_or_default();
        Ok::<_, Failure>(
            json!({"objects": objects, "common_prefixes": page.prefixes, "next_page_token": next}),
        )
    };
    answer
        .await
        .map_or_else(failed, |value| Json(value).into_response())
}

/// Whether to join folders.
pub(crate) fn delimiter(text: &str) -> Result<bool, Error> {
    match text {
        "" => Ok(false),
        "/" => Ok(true),
        other => Err(Error::field(
            "delimiter",
            format!("{other:?} is not supported; use / or nothing"),
        )),
    }
}

/// The page's size.
pub(crate) fn page_size(asked: Option<usize>) -> Result<usize, Error> {
    match asked {
        None | Some(0) => Ok(1000),
        Some(size) if size <= 1000 => Ok(size),
        Some(size) => Err(Error::field("page_size", format!("{size} is more than 1000"))),
    }
}

fn list_name(bucket: &str, prefix: &str, folders: bool) -> String {
    format!("{bucket}/{prefix} {folders}")
}

/// Text of the next page's token.
pub(crate) fn page_token(bucket: &str, prefix: &str, folders: bool, after: String) -> String {
    let query = list_name(bucket, prefix, folders);
    ferroflow_kernel::PageToken {
        query,
        after: Value::Null,
        after_id: after,
    }
    .encode()
}

/// Where a page starts.
pub(crate) fn page_start(
    token: &str,
    bucket: &str,
    prefix: &str,
    folders: bool,
) -> Result<Option<String>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let token = ferroflow_kernel::PageToken::decode(token, &list_name(bucket, prefix, folders))?;
    Ok(Some(token.after_id))
}

async fn buckets(State(service): State<Service>, request: Request) -> Response {
    let answer = async {
        let (parts, _) = request.into_parts();
        let actor = service.actor(&parts)?;
        let buckets = service.objects.buckets(&actor).await?;
        let buckets: Vec<Value> = buckets
            .iter()
            .map(|(name, made)| json!({"name": name, "created": made.to_string()}))
            .collect();
        Ok::<_, Failure>(json!({"buckets": buckets}))
    };
    answer
        .await
        .map_or_else(failed, |value| Json(value).into_response())
}

async fn archive(State(service): State<Service>, request: Request) -> Response {
    let answer = async {
        let (parts, _) = request.into_parts();
        let actor = service.actor(&parts)?;
        let path = parts
            .uri
            .path()
            .strip_prefix("/artifacts/v1/archive")
            .unwrap_or_default();
        let (bucket, prefix) = uri::split(path)?;
        archive::respond(&service.objects, actor, &bucket, &prefix).await
    };
    answer.await.unwrap_or_else(failed)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SignBody {
    uri: String,
    method: String,
    ttl_seconds: Option<i64>,
}

async fn sign(State(service): State<Service>, request: Request) -> Response {
    let answer = async {
        let (parts, payload) = request.into_parts();
        let actor = service.actor(&parts)?;
        let asked: SignBody = read_json(payload).await?;
        let ttl = asked.ttl_seconds.map(SignedDuration::from_secs);
        let (path, expires) = service.sign(&actor, &asked.uri, &asked.method, ttl).await?;
        Ok::<_, Failure>(json!({"path": path, "expires_at": expires.to_string()}))
    };
    answer
        .await
        .map_or_else(failed, |value| Json(value).into_response())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CredentialsBody {
    namespace: String,
    principal: String,
    read_prefixes: Vec<String>,
    write_prefixes: Vec<String>,
    read_only: bool,
    ttl_seconds: Option<i64>,
}

async fn credentials(State(service): State<Service>, request: Request) -> Response {
    let answer = async {
        let (parts, payload) = request.into_parts();
        let actor = service.actor(&parts)?;
        let asked: CredentialsBody = read_json(payload).await?;
        let request = MintRequest {
            namespace: asked.namespace,
            principal: asked.principal,
            read: asked.read_prefixes,
            write: asked.write_prefixes,
            read_only: asked.read_only,
            ttl: asked.ttl_seconds.map(SignedDuration::from_secs),
        };
        let minted = service.mint(&actor, request).await?;
        let bearer = format!("{}.{}", minted.access_key, minted.secret);
        Ok::<_, Failure>(json!({
            "access_key_id": minted.access_key,
            "secret_access_key": minted.secret,
            "bearer_token": bearer,
            "expires_at": minted.expires.to_string(),
            "endpoint_url": &*service.s3_endpoint,
            "region": "us-east-1",
        }))
    };
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    answer
        .await
        .map_or_else(failed, |value| (no_store, Json(value)).into_response())
}

async fn read_json<T: serde::de::DeserializeOwned + Default>(payload: Body) -> Result<T, Error> {
    let bytes = body::small(payload, 64 * 1024).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("the body is not as expected: {error}")))
}
