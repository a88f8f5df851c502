//! The kubelet's HTTPS API: logs, exec, attach, port-forward and facts, for the API server and for those who may.

mod access;
mod channels;
mod forward;
mod logs;
mod pairs;
mod relay;
mod remote;
mod spdy;
mod streams;
mod upgrade;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router, middleware};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::agent::Agent;
use crate::agent::pods::Entry;

/// A client that does not finish its handshake is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(crate) struct Kubelet {
    pub agent: Arc<Agent>,
    pub access: access::Access,
}

/// Plain text and a status code, as the kubelet answers.
pub(crate) struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn internal(error: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl Kubelet {
    fn entry(&self, namespace: &str, pod: &str) -> Result<Arc<Entry>, Refusal> {
        let missing = || {
            Refusal(
                StatusCode::NOT_FOUND,
                format!("pod \"{pod}\" not found in namespace {namespace}"),
            )
        };
        self.agent.pods.named(namespace, pod).ok_or_else(missing)
    }
}

/// The Pod's container of this name, or a refusal that names it.
fn check_container(pod: &Pod, container: &str) -> Result<(), Refusal> {
    let spec = pod.spec.as_ref();
    let mut all = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    if all.any(|known| known.name == container) {
        Ok(())
    } else {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{name}\""),
        ))
    }
}

fn router(agent: Arc<Agent>) -> Router {
    let kubelet = Arc::new(Kubelet {
        access: access::Access::new(agent.client.clone(), &agent.config.node_name),
        agent,
    });
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(remote::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(remote::exec_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(remote::attach))
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            any(remote::attach_uid),
        )
        .route("/portForward/{namespace}/{pod}", any(forward::serve))
        .route("/portForward/{namespace}/{pod}/{uid}", any(forward::serve_uid))
        .route("/pods", get(pods))
        .route("/runningpods/", get(pods))
        .route("/stats/summary", get(summary))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(kubelet.clone(), access::check))
        // Whether the agent is alive is no secret.
        .route("/healthz", get(|| async { "ok" }))
        .fallback(|Path(path): Path<String>| async move {
            (StatusCode::NOT_FOUND, format!("no such path: {path}"))
        })
        .with_state(kubelet)
}

/// Serves until cancelled; open streams end with it.
pub(crate) async fn serve(agent: Arc<Agent>, listener: TcpListener, cancel: CancellationToken) {
    let mut tls = rustls::ServerConfig::clone(&agent.config.tls);
    // Upgrades need HTTP/1.1.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let router = router(agent);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the kubelet API cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, cancel) = (acceptor.clone(), router.clone(), cancel.clone());
        connections.spawn(async move {
            let serving = async {
                drop(stream.set_nodelay(true));
                let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => stream,
                    _ => return,
                };
                let certified = stream.get_ref().1.peer_certificates();
                let certified = certified
                    .and_then(|chain| chain.first())
                    .and_then(|certificate| access::Certified::of(certificate));
                let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
                    let router = router.clone();
                    if let Some(subject) = certified.clone() {
                        request.extensions_mut().insert(subject);
                    }
                    async move { Ok::<_, Infallible>(router.oneshot(request).await.into_response()) }
                });
                let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    debug!(error, "a connection of the kubelet API ended badly");
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serving => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn pods(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    let items: Vec<Value> = kubelet
        .agent
        .pods
        .all()
        .iter()
        .filter_map(|entry| serde_json::to_value(entry.pod()?.as_ref()).ok())
        .collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

async fn summary(State(kubelet): State<Arc<Kubelet>>) -> Json<Value> {
    let pods: Vec<Value> = kubelet
        .agent
        .pods
        .all()
        .iter()
        .filter_map(|entry| {
            let pod = entry.pod()?;
            let containers = entry.state.borrow().as_ref()?.containers.clone();
            let containers: Vec<Value> = containers
                .iter()
                .map(|container| json!({"name": container.name}))
                .collect();
            let meta = &pod.metadata;
            let reference = json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid});
            Some(json!({"podRef": reference, "startTime": meta.creation_timestamp, "containers": containers}))
        })
        .collect();
    Json(json!({"node": {"nodeName": kubelet.agent.config.node_name}, "pods": pods}))
}

async fn metrics(State(kubelet): State<Arc<Kubelet>>) -> String {
    let entries = kubelet.agent.pods.all();
    let states: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.state.borrow().clone())
        .collect();
    let running_pods = states.iter().filter(|state| state.finished.is_none()).count();
    let containers = states.iter().flat_map(|state| &state.containers);
    let running = containers.clone().filter(|container| container.running()).count();
    let restarts: u32 = containers.map(|container| container.restarts).sum();
    format!(
        "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {running_pods}\n\
         # TYPE kubelet_running_containers gauge\nkubelet_running_containers {running}\n\
         # TYPE kubelet_container_restarts gauge\nkubelet_container_restarts {restarts}\n\
         # TYPE kubelet_known_pods gauge\nkubelet_known_pods {}\n",
        entries.len()
    )
}
