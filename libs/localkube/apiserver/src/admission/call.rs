//! The transport of webhooks: in process, or HTTPS to a Service or URL.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::objects::text;
use crate::server::ApiServer;

const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct CallError(pub String);

fn failed(e: impl std::fmt::Display) -> CallError {
    CallError(e.to_string())
}

/// Posts a review and returns the answer, within the webhook's time limit.
pub(crate) async fn post(server: &ApiServer, hook: &Value, review: &Value) -> Result<Value, CallError> {
    let seconds = hook["timeoutSeconds"]
        .as_u64()
        .filter(|s| (1..=30).contains(s))
        .unwrap_or(10);
    let url = url_of(hook, seconds);
    match tokio::time::timeout(Duration::from_secs(seconds), send(server, hook, review, seconds)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError(why))) => Err(CallError(format!("Post {url:?}: {why}"))),
        Err(_) => Err(CallError(format!("Post {url:?}: context deadline exceeded"))),
    }
}

fn url_of(hook: &Value, seconds: u64) -> String {
    let config = &hook["clientConfig"];
    let service = &config["service"];
    if service.is_object() {
        let port = service["port"].as_u64().unwrap_or(443);
        format!(
            "https://{}.{}.svc:{port}{}?timeout={seconds}s",
            text(service, "name"),
            text(service, "namespace"),
            path_of(service)
        )
    } else {
        format!("{}?timeout={seconds}s", text(config, "url"))
    }
}

fn path_of(service: &Value) -> String {
    let path = text(service, "path");
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

async fn send(server: &ApiServer, hook: &Value, review: &Value, seconds: u64) -> Result<Value, CallError> {
    let config = &hook["clientConfig"];
    let service = &config["service"];
    let body = Bytes::from(review.to_string());
    if service.is_object() {
        let place = (
            text(service, "namespace").to_owned(),
            text(service, "name").to_owned(),
        );
        let path = format!("{}?timeout={seconds}s", path_of(service));
        let backend = server.inner.backends.read().get(&place).cloned();
        if let Some(router) = backend {
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .map_err(failed)?;
            let response = match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, body) = response.into_parts();
            return read(parts.status, body).await;
        }
        let port = service["port"].as_u64().unwrap_or(443);
        let (host, number) = crate::proxy::service_endpoint(server, &place.0, &place.1, &port.to_string())
            .map_err(|e| CallError(e.message().to_owned()))?;
        let name = format!("{}.{}.svc", place.1, place.0);
        return https(server, config, &host, number, &name, &path, body).await;
    }
    let url: http::Uri = format!("{}?timeout={seconds}s", text(config, "url"))
        .parse()
        .map_err(failed)?;
    let host = url.host().unwrap_or_default().to_owned();
    let port = url.port_u16().unwrap_or(443);
    let path = url
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str)
        .to_owned();
    https(server, config, &host, port, &host, &path, body).await
}

async fn https(
    server: &ApiServer,
    config: &Value,
    host: &str,
    port: u16,
    name: &str,
    path: &str,
    body: Bytes,
) -> Result<Value, CallError> {
    let mut roots = rustls::RootCertStore::empty();
    let bundle = base64::engine::general_purpose::STANDARD
        .decode(text(config, "caBundle"))
        .map_err(failed)?;
    if bundle.is_empty() {
        roots.add(server.inner.keys.ca_der().clone()).map_err(failed)?;
    } else {
        for cert in CertificateDer::pem_slice_iter(&bundle) {
            roots.add(cert.map_err(failed)?).map_err(failed)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect((host, port))
        .await
        .map_err(|e| failed(format!("dial tcp {host}:{port}: connect: {e}")))?;
    let server_name = ServerName::try_from(name.to_owned()).map_err(failed)?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(server_name, stream)
        .await
        .map_err(failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let driving = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, name)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(failed)?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let (parts, incoming) = response.into_parts();
    let answer = read(parts.status, Body::new(incoming)).await;
    driving.abort();
    answer
}

async fn read(status: http::StatusCode, body: Body) -> Result<Value, CallError> {
    let bytes = http_body_util::Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(failed)?
        .to_bytes();
    if !status.is_success() {
        return Err(CallError(format!(
            "unexpected response {}: {}",
            status.as_u16(),
            String::from_utf8_lossy(&bytes).trim()
        )));
    }
    serde_json::from_slice(&bytes).map_err(|e| CallError(format!("couldn't decode the answer: {e}")))
}
