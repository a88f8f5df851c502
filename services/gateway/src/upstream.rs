//! Carries a request to a service of this process, to a URL, or to a Pod, and joins the two connections when the answer is an upgrade.

use std::net::SocketAddr;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use ferroflow_kernel::{Code, Error};
use http::{HeaderMap, Uri, header, uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tower::ServiceExt as _;

/// A service behind the gateway.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// In this process.
    InProcess(axum::Router),
    /// At `http://host:port`.
    Url(Uri),
}

/// Finds addresses of Services and owners of addresses, as DNS and the network do inside a cluster.
#[async_trait]
pub trait Addresses: Send + Sync + std::fmt::Debug {
    /// Addresses of the ready endpoints of a Service's port; none where there is no such Service.
    async fn of_service(&self, namespace: &str, service: &str, port: u16) -> Option<Vec<SocketAddr>>;
}

/// Sends requests on over TCP; keeps connections alive.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    client: Client<HttpConnector, Body>,
    /// gRPC needs HTTP/2, which a service without TLS is known to speak.
    http2: Client<HttpConnector, Body>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(std::time::Duration::from_secs(5)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(std::time::Duration::from_secs(60))
            .build(connector.clone());
        let http2 = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Some(std::time::Duration::from_secs(20)))
            .build(connector);
        Self { client, http2 }
    }

    pub(crate) async fn send(&self, upstream: &Upstream, request: Request) -> Result<Response, Error> {
        match upstream {
            Upstream::InProcess(router) => {
                let Ok(response) = router.clone().oneshot(request).await;
                Ok(response)
            }
            Upstream::Url(base) => {
                let authority = base.authority().map(ToString::to_string).unwrap_or_default();
                if is_grpc(request.headers()) {
                    self.call(&authority, request).await
                } else {
                    self.forward(&authority, request).await
                }
            }
        }
    }

    /// Carries a gRPC call to `host:port`; both directions stream, and trailers come through.
    async fn call(&self, authority: &str, mut request: Request) -> Result<Response, Error> {
        lead_to(&mut request, authority)?;
        *request.version_mut() = http::Version::HTTP_2;
        remove_hop_headers(request.headers_mut());
        request.headers_mut().remove(header::HOST);
        request
            .headers_mut()
            .insert(header::TE, http::HeaderValue::from_static("trailers"));
        let response =
            self.http2.request(request).await.map_err(|error| {
                Error::new(Code::Unavailable, format!("no answer from {authority}: {error}"))
            })?;
        Ok(response.map(Body::new))
    }

    /// Sends a request to `host:port`.
    pub(crate) async fn forward(&self, authority: &str, mut request: Request) -> Result<Response, Error> {
        lead_to(&mut request, authority)?;
        *request.version_mut() = http::Version::HTTP_11;
        let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        if upgrade.is_none() {
            remove_hop_headers(request.headers_mut());
        }
        let mut response =
            self.client.request(request).await.map_err(|error| {
                Error::new(Code::Unavailable, format!("no answer from {authority}: {error}"))
            })?;
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS
            && let Some(ours) = upgrade
        {
            let theirs = hyper::upgrade::on(&mut response);
            tokio::spawn(async move {
                if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
                    ferroflow_tunnel::join(TokioIo::new(ours), TokioIo::new(theirs)).await;
                }
            });
        } else {
            remove_hop_headers(response.headers_mut());
        }
        Ok(response.map(Body::new))
    }
}

/// Whether this is gRPC itself, which grpc-web is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
    })
}

fn lead_to(request: &mut Request, authority: &str) -> Result<(), Error> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", uri::PathAndQuery::as_str)
        .to_owned();
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(path)
        .build();
    *request.uri_mut() = uri.map_err(Error::internal)?;
    Ok(())
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let lists_upgrade = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|v| {
            v.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case("upgrade"))
        })
    };
    headers.contains_key(header::UPGRADE) && headers.get_all(header::CONNECTION).iter().any(lists_upgrade)
}

fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}
