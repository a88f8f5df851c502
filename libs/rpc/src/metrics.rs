//! Counts gRPC calls for Prometheus, under the names that gRPC's own middlewares use, so that existing dashboards show them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use ferroflow_telemetry::Metrics;
use http_body::{Frame, SizeHint};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use tonic::Code;
use tonic::service::{Routes, RoutesBuilder};

use crate::observe::{code, names};

const BUCKETS: [f64; 9] = [0.000_5, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0];
/// Stands for what no service has: clients could make up any number of names.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    grpc_service: String,
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

/// Calls by service, method and code, and how long they took. Clones share it.
#[derive(Debug, Clone)]
pub struct GrpcMetrics {
    handled: Family<Handled, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
}

impl GrpcMetrics {
    /// Registers the metrics; once a process.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            handled: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        };
        metrics.register(|registry| {
            registry.register(
                "grpc_server_handled",
                "Calls that ended, by method and code",
                own.handled.clone(),
            );
            registry.register_with_unit(
                "grpc_server_handling",
                "Time from the start of a call to the end of its answer",
                Unit::Seconds,
                own.seconds.clone(),
            );
        });
        own
    }

    /// The same routes, counted.
    #[must_use]
    pub fn observe(&self, mut routes: Routes) -> Routes {
        let metrics = self.clone();
        let router = std::mem::take(routes.axum_router_mut());
        let router = router.layer(from_fn(move |request: Request, next: Next| {
            let metrics = metrics.clone();
            async move {
                let call = Call {
                    metrics,
                    path: request.uri().path().to_owned(),
                    started: Instant::now(),
                    ended: false,
                };
                call.watch(next.run(request).await)
            }
        }));
        RoutesBuilder::from(router).routes()
    }
}

/// A call under way; one that is dropped was given up by its caller.
struct Call {
    metrics: GrpcMetrics,
    path: String,
    started: Instant,
    ended: bool,
}

impl Call {
    fn watch(mut self, response: axum::response::Response) -> axum::response::Response {
        if response.headers().contains_key("grpc-status") {
            self.end(code(response.headers()));
            return response;
        }
        response.map(|body| Body::new(Watched { body, call: self }))
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (service, method) = match code {
            // neither has reached a method, so its name is whatever the client made up
            Code::Unimplemented | Code::Unauthenticated => (UNKNOWN, UNKNOWN),
            _ => names(&self.path),
        };
        let (grpc_service, grpc_method) = (service.to_owned(), method.to_owned());
        self.metrics
            .seconds
            .get_or_create(&Method {
                grpc_service: grpc_service.clone(),
                grpc_method: grpc_method.clone(),
            })
            .observe(self.started.elapsed().as_secs_f64());
        let handled = Handled {
            grpc_service,
            grpc_method,
            grpc_code: name(code),
        };
        self.metrics.handled.get_or_create(&handled).inc();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// The body of an answer, until its trailers tell how the call ended.
struct Watched {
    body: Body,
    call: Call,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.end(code(trailers));
                }
            }
            Poll::Ready(Some(Err(_))) => self.call.end(Code::Internal),
            Poll::Ready(None) => self.call.end(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The code's name as gRPC's Go implementation writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
