//! The in-process client.

use http::header;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::UserInfo;
use tower::BoxError;

use crate::handler::handle;
use crate::server::ApiServer;

impl ApiServer {
    /// A client in this process that acts as the user. Requests that upgrade their connection (exec, attach, port-forward) go over
    /// an in-memory duplex, since there is no connection otherwise.
    pub fn client(&self, user: UserInfo, default_namespace: &str) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let server = server.clone();
            let user = user.clone();
            async move { call(server, user, request).await }
        });
        kube::Client::new(service, default_namespace)
    }
}

async fn call(
    server: ApiServer,
    user: UserInfo,
    request: http::Request<kube::client::Body>,
) -> Result<http::Response<axum::body::Body>, BoxError> {
    let mut request = request.map(axum::body::Body::new);
    if !request.headers().contains_key(header::UPGRADE) {
        request.extensions_mut().insert(user);
        return Ok(handle(server, request).await);
    }
    let (near, far) = tokio::io::duplex(64 * 1024);
    let tasks = server.inner.tasks.clone();
    let stop = server.inner.stop.clone();
    let service = hyper::service::service_fn(move |incoming: http::Request<hyper::body::Incoming>| {
        let server = server.clone();
        let mut request = incoming.map(axum::body::Body::new);
        request.extensions_mut().insert(user.clone());
        async move { Ok::<_, std::convert::Infallible>(handle(server, request).await) }
    });
    let stopped = stop.clone();
    tasks.spawn(async move {
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .with_upgrades();
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::debug!(%error, "an in-process connection ended");
            },
            () = stopped.cancelled() => {}
        }
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tasks.spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "an in-process connection ended");
            },
            () = stop.cancelled() => {}
        }
    });
    if !request.headers().contains_key(header::HOST) {
        request
            .headers_mut()
            .insert(header::HOST, http::HeaderValue::from_static("localhost"));
    }
    let response = sender.send_request(request).await?;
    Ok(response.map(axum::body::Body::new))
}
