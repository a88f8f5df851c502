use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use ferroflow_auth::{CALLER_HEADER, Caller, CallerKey};
use http::{HeaderValue, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt as _};
use tracing::Instrument as _;

use crate::observe::{code, finish_grpc, grpc_span};

/// The deadline of a call that sets none.
const DEADLINE: Duration = Duration::from_secs(30);

/// Routes of a service of the same process that may be built later than its clients, since services call each other in cycles.
#[derive(Debug, Clone, Default)]
pub struct LateRoutes(Arc<OnceLock<axum::Router>>);

impl LateRoutes {
    /// Binds the routes; the first call counts.
    pub fn bind(&self, routes: Routes) {
        let _second = self.0.set(routes.prepare().into_axum_router());
    }
}

/// The way to one service.
#[derive(Debug, Clone)]
pub struct Transport {
    way: Way,
    key: CallerKey,
    service: Arc<str>,
}

#[derive(Debug, Clone)]
enum Way {
    InProcess(LateRoutes),
    Channel(Channel),
}

impl Transport {
    /// To a service of the same process. `from` is the service that calls.
    pub fn in_process(routes: LateRoutes, key: CallerKey, from: &str) -> Self {
        Self {
            way: Way::InProcess(routes),
            key,
            service: Arc::from(from),
        }
    }

    /// To a service at `http://host:port`; connects on the first call and again when the connection is lost.
    ///
    /// # Errors
    /// If the text is not a URL.
    pub fn channel(url: &str, key: CallerKey, from: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        Ok(Self {
            way: Way::Channel(endpoint.connect_lazy()),
            key,
            service: Arc::from(from),
        })
    }

    /// A connection for a generated client, on which every call carries `caller`, a deadline and the trace.
    pub fn call_as(&self, caller: &Caller) -> CallAs {
        CallAs {
            transport: self.clone(),
            caller: caller.clone(),
        }
    }
}

/// A [`Transport`] on behalf of one caller. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct CallAs {
    transport: Transport,
    caller: Caller,
}

impl Service<Request<Body>> for CallAs {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Transport { way, key, service } = self.transport.clone();
        let token = key.sign(&self.caller, &service).map_err(Status::from);
        let span = grpc_span("client", &service, request.uri().path());
        let call = async move {
            let mut value = HeaderValue::try_from(token?).map_err(|e| Status::internal(e.to_string()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(CALLER_HEADER, value);
            ferroflow_telemetry::inject(request.headers_mut());
            let deadline = grpc_timeout(request.headers()).unwrap_or(DEADLINE);
            if !request.headers().contains_key("grpc-timeout")
                && let Ok(value) = HeaderValue::try_from(format!("{}m", DEADLINE.as_millis()))
            {
                request.headers_mut().insert("grpc-timeout", value);
            }
            let answer = tokio::time::timeout(deadline, send(way, request)).await;
            answer.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!(
                    "no answer within {deadline:?}"
                )))
            })
        };
        Box::pin(async move {
            let answer = call.instrument(span.clone()).await;
            let code = answer
                .as_ref()
                .map_or_else(Status::code, |answer| code(answer.headers()));
            finish_grpc(&span, "client", code);
            answer
        })
    }
}

async fn send(way: Way, request: Request<Body>) -> Result<Response<Body>, Status> {
    match way {
        Way::InProcess(routes) => {
            let router = routes
                .0
                .get()
                .cloned()
                .ok_or_else(|| Status::unavailable("the service is still starting"))?;
            let answer: Result<_, Infallible> = router.oneshot(request).await;
            let Ok(response) = answer;
            Ok(response.map(Body::new))
        }
        // tonic knows which errors are timeouts and which are refused connections
        Way::Channel(channel) => channel
            .oneshot(request)
            .await
            .map_err(|error| Status::from_error(error.into())),
    }
}

/// Reads the `grpc-timeout` header: at most eight digits and a unit of `HMSmun`.
pub(crate) fn grpc_timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = if digits.len() <= 8 {
        digits.parse().ok()?
    } else {
        return None;
    };
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}
