//! The gateway itself: every request passes guard, authentication and routing here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Json, Router};
use ferroflow_auth::{CALLER_HEADER, Caller, CallerKey, Principal};
use ferroflow_kernel::{Code, DEFAULT_NAMESPACE, Error};
use ferroflow_rpc::rest_error;
use ferroflow_telemetry::{Metrics, Readiness};
use http::{HeaderValue, StatusCode, Uri, header, uri};
use k8s_openapi::api::authentication::v1::UserInfo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::{Layer as _, ServiceExt as _};
use tracing::Instrument as _;

use crate::authenticate::Authenticator;
use crate::dashboard;
use crate::guard::{self, HostRules};
use crate::observe::{self, Counters};
use crate::peer::Peer;
use crate::route::{RouteTable, Target, WorkloadKind};
use crate::session::COOKIE;
use crate::upstream::{Addresses, Proxy, Upstream};

/// What a gateway is made of.
#[derive(Debug)]
pub struct GatewayDeps {
    /// Where requests go.
    pub routes: RouteTable,
    /// Which Hosts are ours.
    pub hosts: HostRules,
    /// Who calls.
    pub authenticator: Arc<Authenticator>,
    /// Where Services are.
    pub addresses: Arc<dyn Addresses>,
    /// Signs caller tokens.
    pub key: CallerKey,
    /// What `/readyz` tells.
    pub readiness: Readiness,
    /// What `/metrics` tells.
    pub metrics: Metrics,
}

/// The public server. Clones share it.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deps: GatewayDeps,
    proxy: Proxy,
    counters: Counters,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(deps: GatewayDeps) -> Self {
        {
            let counters = Counters::new(&deps.metrics);
            Self(Arc::new(Inner {
                deps,
                proxy: Proxy::new(),
                counters,
            }))
        }
    }

    /// Serves HTTP/1.1, h2c, gRPC and grpc-web on `listener` until `cancel`.
    ///
    /// # Errors
    /// If accepting fails.
    pub async fn serve(self, listener: TcpListener, cancel: CancellationToken) -> std::io::Result<()> {
        let router = Router::new().fallback(handle).with_state(self);
        let service = router.into_make_service_with_connect_info::<Peer>();
        axum::serve(listener, service)
            .with_graceful_shutdown(cancel.cancelled_owned())
            .await
    }
}

async fn handle(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
) -> Response {
    let (grpc, started) = (is_grpc(&request), Instant::now());
    let _in_flight = gateway.0.counters.begin();
    let span = observe::span(&request);
    span.in_scope(|| ferroflow_telemetry::inject(request.headers_mut()));
    let mut route = observe::UNROUTED.to_owned();
    let response = gateway
        .respond(peer, request, grpc, &mut route)
        .instrument(span.clone())
        .await
        .unwrap_or_else(|error| {
            if grpc {
                Status::from(error).into_http()
            } else {
                span.in_scope(|| rest_error(&error))
            }
        });
    observe::finish(&span, response.status());
    gateway
        .0
        .counters
        .count(&route, response.status(), started.elapsed());
    response
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn is_grpc_web(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web"))
}

impl Gateway {
    /// `class` is told which kind of route the request takes, once that is known.
    async fn respond(
        &self,
        peer: Peer,
        mut request: Request,
        grpc: bool,
        class: &mut String,
    ) -> Result<Response, Error> {
        let deps = &self.0.deps;
        request.headers_mut().remove(CALLER_HEADER);
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/healthz" | "/readyz" => {
                observe::PROBE.clone_into(class);
                return Ok(if path == "/healthz" {
                    "ok".into_response()
                } else {
                    self.readyz()
                });
            }
            _ => {}
        }
        let host = host(&request);
        if let Some(reason) = guard::refuse(&deps.hosts, request.method(), host.as_deref(), request.headers())
        {
            return Err(Error::denied(reason));
        }
        let host = host.unwrap_or_default();
        if path == "/login" {
            return Ok(self.login(request.uri()));
        }
        let whole = request
            .uri()
            .path_and_query()
            .map_or("/", uri::PathAndQuery::as_str)
            .to_owned();
        let target = deps.routes.decide(&host, if grpc { &path } else { &whole }, grpc);
        observe::class(&target).clone_into(class);
        observe::routed(&target, &request);
        if let Target::Route(route) = &target
            && route.open
        {
            strip(&mut request, &route.strip)?;
            if let Ok(principal) = deps.authenticator.principal(request.headers(), peer).await {
                self.identify(&mut request, principal)?;
            }
            return self.0.proxy.send(&route.upstream, request).await;
        }
        let principal = deps.authenticator.principal(request.headers(), peer).await?;
        match target {
            Target::Route(route) => {
                strip(&mut request, &route.strip)?;
                request.headers_mut().remove(header::AUTHORIZATION);
                self.identify(&mut request, principal)?;
                if grpc && is_grpc_web(&request) {
                    return Ok(self.grpc_web(&route.upstream, request).await);
                }
                self.0.proxy.send(&route.upstream, request).await
            }
            Target::Workload {
                kind,
                namespace,
                service,
                port,
                path,
            } => {
                self.workload(request, &principal, kind, &namespace, &service, port, &path)
                    .await
            }
            Target::UnknownGrpc => Err(Error::unimplemented(format!("gRPC method {path}"))),
            Target::Dashboard => match path.as_str() {
                "/metrics" => Ok(deps.metrics.response(request.headers()).await),
                "/apis/ferroflow/v1/session" => Ok(session(&principal)),
                _ if path.starts_with("/apis/") || path.starts_with("/api/") => Err(Error::new(
                    Code::NotFound,
                    format!("no API at {path}; see docs/status.md for what is served"),
                )),
                _ => Ok(dashboard::file(&path)),
            },
        }
    }

    /// Translates grpc-web to gRPC on the way to the service and back.
    async fn grpc_web(&self, upstream: &Upstream, request: Request) -> Response {
        let (proxy, upstream) = (self.0.proxy.clone(), upstream.clone());
        let send = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let (proxy, upstream) = (proxy.clone(), upstream.clone());
            async move {
                let sent = proxy.send(&upstream, request.map(Body::new)).await;
                let response = sent.unwrap_or_else(|error| Status::from(error).into_http());
                Ok::<_, Infallible>(response.map(tonic::body::Body::new))
            }
        });
        let service = tonic_web::GrpcWebLayer::new().layer(send);
        let Ok(response) = service.oneshot(request.map(tonic::body::Body::new)).await;
        response.map(Body::new)
    }

    fn readyz(&self) -> Response {
        let missing = self.0.deps.readiness.missing();
        if missing.is_empty() {
            return "ok".into_response();
        }
        let body = serde_json::json!({ "ready": false, "missing": missing });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    }

    fn login(&self, uri: &Uri) -> Response {
        let link = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .find(|(name, _)| name == "link")
            .map(|(_, value)| value.into_owned());
        match link.and_then(|link| self.0.deps.authenticator.sessions.open(&link)) {
            Some(session) => {
                let cookie = format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
                ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
            }
            None => (
                StatusCode::FORBIDDEN,
                "this link was used or is too old; ferroflow status prints a new one",
            )
                .into_response(),
        }
    }

    /// Tells the service who calls: in the header for gRPC and REST, in the extension for the Kubernetes API.
    fn identify(&self, request: &mut Request, principal: Principal) -> Result<(), Error> {
        request.extensions_mut().insert(UserInfo {
            username: Some(principal.user.clone()),
            groups: Some(principal.groups.clone()),
            ..Default::default()
        });
        let token = self.0.deps.key.sign(&Caller::new(principal), "gateway")?;
        let mut value = HeaderValue::try_from(token).map_err(Error::internal)?;
        value.set_sensitive(true);
        request.headers_mut().insert(CALLER_HEADER, value);
        Ok(())
    }

    async fn workload(
        &self,
        mut request: Request,
        principal: &Principal,
        kind: WorkloadKind,
        namespace: &str,
        service: &str,
        port: u16,
        path: &str,
    ) -> Result<Response, Error> {
        let deps = &self.0.deps;
        let (group, resource) = match kind {
            WorkloadKind::Model => ("serving.kserve.io", "inferenceservices"),
            WorkloadKind::Notebook => ("kubeflow.org", "notebooks"),
        };
        let review = ferroflow_auth::AccessReview::new(namespace, "get", group, resource);
        deps.authenticator.authorize(principal, &review).await?;
        let addresses = deps.addresses.of_service(namespace, service, port).await;
        let Some(addresses) = addresses else {
            let list = format!("kubectl get {resource} -n {namespace}");
            return Err(Error::new(
                Code::NotFound,
                format!("nothing is served at {service} in namespace {namespace}; {list} shows what is"),
            ));
        };
        let Some(address) = addresses.first() else {
            return Err(Error::new(
                Code::Unavailable,
                format!(
                    "service {service} in namespace {namespace} has no ready Pod; see kubectl get pods -n {namespace}"
                ),
            ));
        };
        *request.uri_mut() = path
            .parse()
            .map_err(|e| Error::invalid(format!("path {path:?}: {e}")))?;
        // a workload is user code: it learns who calls, but gets neither the session nor a token
        request.headers_mut().remove(header::AUTHORIZATION);
        keep_foreign_cookies(&mut request);
        if let Ok(user) = HeaderValue::try_from(principal.user.as_str()) {
            request.headers_mut().insert("kubeflow-userid", user);
        }
        self.0.proxy.forward(&address.to_string(), request).await
    }
}

fn session(principal: &Principal) -> Response {
    Json(serde_json::json!({
        "user": principal.user,
        "groups": principal.groups,
        "namespace": Caller::new(principal.clone()).namespace,
        "defaultNamespace": DEFAULT_NAMESPACE,
        "version": ferroflow_kernel::VERSION,
    }))
    .into_response()
}

fn host(request: &Request) -> Option<String> {
    let header = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    header
        .map(str::to_owned)
        .or_else(|| request.uri().authority().map(ToString::to_string))
}

fn strip(request: &mut Request, prefix: &str) -> Result<(), Error> {
    if prefix.is_empty() {
        return Ok(());
    }
    let whole = request
        .uri()
        .path_and_query()
        .map_or("/", uri::PathAndQuery::as_str);
    let rest = whole.strip_prefix(prefix).unwrap_or(whole);
    let rest = if rest.starts_with('/') {
        rest.to_owned()
    } else {
        format!("/{rest}")
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(rest.parse().map_err(|e| Error::invalid(format!("path: {e}")))?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(Error::internal)?;
    Ok(())
}

fn keep_foreign_cookies(request: &mut Request) {
    let Some(cookies) = request
        .headers()
        .get(header::COOKIE)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let kept: Vec<&str> = cookies
        .split(';')
        .map(str::trim)
        .filter(|c| !c.starts_with(COOKIE))
        .collect();
    let kept = kept.join("; ");
    request.headers_mut().remove(header::COOKIE);
    if let Ok(value) = HeaderValue::try_from(kept)
        && !value.is_empty()
    {
        request.headers_mut().insert(header::COOKIE, value);
    }
}
