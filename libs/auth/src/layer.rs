//! The tower layer that turns a caller token into a [`Caller`], the same for gRPC and REST.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use ferroflow_kernel::Error;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tower::{Layer, Service};

use crate::{Caller, CallerKey};

/// The header that carries a caller token. The gateway removes it from whatever comes from outside.
pub const CALLER_HEADER: &str = "ferroflow-caller";

/// Verifies caller tokens. Requests without a good one are answered `Unauthenticated`, but for health and reflection.
#[derive(Debug, Clone)]
pub struct VerifyLayer {
    key: CallerKey,
    required: bool,
}

impl VerifyLayer {
    /// Verifies with `key`.
    pub fn new(key: CallerKey) -> Self {
        Self { key, required: true }
    }

    /// Verifies a token where there is one and lets requests without pass: for services that know credentials of their own
    /// (signed URLs, SigV4) and refuse by themselves.
    pub fn optional(key: CallerKey) -> Self {
        Self { key, required: false }
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = VerifyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyService {
            inner,
            key: self.key.clone(),
            required: self.required,
        }
    }
}

/// See [`VerifyLayer`].
#[derive(Debug, Clone)]
pub struct VerifyService<S> {
    inner: S,
    key: CallerKey,
    required: bool,
}

fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

impl<S, B, R> Service<Request<B>> for VerifyService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // a `Caller` in the extensions was put there by code of this process, never by the network
        if request.extensions().get::<Caller>().is_none() {
            let token = request
                .headers()
                .get(CALLER_HEADER)
                .and_then(|value| value.to_str().ok());
            match token.map(|token| self.key.verify(token)) {
                Some(Ok(caller)) => {
                    request.extensions_mut().insert(caller);
                }
                Some(Err(error)) => return refuse(&request, &error),
                None if !self.required || is_open(request.uri().path()) => {}
                None => {
                    let text = "the request carries no caller token; send it through the gateway";
                    return refuse(
                        &request,
                        &Error::new(ferroflow_kernel::Code::Unauthenticated, text),
                    );
                }
            }
        }
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move { inner.call(request).await })
    }
}

type Refused<R, E> = Pin<Box<dyn Future<Output = Result<Response<R>, E>> + Send>>;

fn refuse<B, R: Default, E>(request: &Request<B>, error: &Error) -> Refused<R, E> {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(is_grpc);
    let mut head = Response::new(());
    if grpc {
        head = tonic::Status::from(error.clone()).into_http::<()>();
    } else {
        *head.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Box::pin(async move { Ok(head.map(|()| R::default())) })
}
