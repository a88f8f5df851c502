use std::any::Any;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use ferroflow_auth::{CallerKey, VerifyLayer};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use crate::observe::{code, finish_grpc, grpc_span};
use crate::transport::grpc_timeout;

/// No call lives longer than this, whatever deadline it brings.
const LONGEST: Duration = Duration::from_secs(3600);

/// Puts the gRPC services of one Ferroflow service together with health, reflection and the layers that every call
/// passes: panic guard, span, deadline, caller verification.
pub struct ServerBuilder {
    name: &'static str,
    key: CallerKey,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl ServerBuilder {
    /// A server of the Ferroflow service `name`.
    pub fn new(name: &'static str, key: CallerKey) -> Self {
        Self {
            name,
            key,
            routes: RoutesBuilder::default(),
            names: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Adds a generated service.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "no arithmetic, as everybody sees")]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Describes the services to reflection: `ferroflow_api::FILE_DESCRIPTOR_SET`.
    #[must_use]
    pub fn describe(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Names of the gRPC services, by which the gateway routes.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// The routes, to be bound in process ([`crate::LateRoutes`]) and served on a port.
    pub fn build(mut self) -> Routes {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names = self.names.clone();
        // the reporter only takes a lock that nobody else has yet, so this ends at once
        tokio::spawn(async move {
            for name in names {
                reporter
                    .set_service_status(name, tonic_health::ServingStatus::Serving)
                    .await;
            }
        });
        self.routes.add_service(health);
        if !self.descriptors.is_empty() {
            let mut reflection = tonic_reflection::server::Builder::configure();
            for set in self.descriptors {
                reflection = reflection.register_encoded_file_descriptor_set(set);
            }
            for name in &self.names {
                reflection = reflection.with_service_name(*name);
            }
            match reflection.build_v1() {
                Ok(service) => {
                    self.routes.add_service(service);
                }
                Err(error) => tracing::error!(service = self.name, %error, "reflection is off"),
            }
        }
        let name = self.name;
        let mut routes = self.routes.routes();
        let router = std::mem::take(routes.axum_router_mut());
        let router = router
            .layer(VerifyLayer::new(self.key))
            .layer(from_fn(move |request: Request, next: Next| {
                observe(name, request, next)
            }))
            .layer(CatchPanicLayer::custom(panicked));
        RoutesBuilder::from(router).routes()
    }
}

async fn observe(service: &'static str, request: Request, next: Next) -> axum::response::Response {
    let span = grpc_span("server", service, request.uri().path());
    ferroflow_telemetry::set_parent(&span, request.headers());
    let deadline = grpc_timeout(request.headers()).unwrap_or(LONGEST).min(LONGEST);
    let answer = tokio::time::timeout(deadline, next.run(request))
        .instrument(span.clone())
        .await;
    let answer = answer.unwrap_or_else(|_| {
        Status::deadline_exceeded("the call's deadline has passed").into_http::<axum::body::Body>()
    });
    finish_grpc(&span, "server", code(answer.headers()));
    answer
}

fn panicked(_: Box<dyn Any + Send>) -> http::Response<axum::body::Body> {
    tracing::error!("a call panicked");
    Status::internal("the call failed by a fault of ferroflow; its log says more").into_http()
}
