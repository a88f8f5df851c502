//! Requests that are passed on: to the kubelet API of a node, to Services, to Pods. Upgraded connections are tunnelled as they are.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::error::{ApiError, ApiResult, GroupResource};
use crate::handler::Ctx;
use crate::objects::text;
use crate::server::ApiServer;

const DIAL: Duration = Duration::from_secs(10);
/// What the API server calls itself towards kubelets.
const KUBELET_CLIENT: &str = "system:kube-apiserver-kubelet-client";

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a request goes.
struct Target {
    tls: bool,
    host: String,
    port: u16,
    path_and_query: String,
    kubelet: bool,
}

async fn connect(server: &ApiServer, target: &Target) -> Result<Box<dyn Stream>, String> {
    let dial = TcpStream::connect((target.host.as_str(), target.port));
    let stream = tokio::time::timeout(DIAL, dial)
        .await
        .map_err(|_| format!("dial tcp {}:{}: i/o timeout", target.host, target.port))?
        .map_err(|e| format!("dial tcp {}:{}: connect: {e}", target.host, target.port))?;
    let _ = stream.set_nodelay(true);
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let config = server.inner.keys.client_config().map_err(|e| e.to_string())?;
    let name = rustls::pki_types::ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|e| format!("tls: {e}"))?;
    Ok(Box::new(stream))
}

/// Sends the request to the target; an upgrade on both sides becomes a tunnel.
async fn forward(server: &ApiServer, ctx: &Ctx, target: Target, request: Request) -> ApiResult<Response> {
    let failed = |e: String| ApiError::service_unavailable(format!("error trying to reach service: {e}"));
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let upgrades = parts.headers.contains_key(header::UPGRADE);
    let stream = connect(server, &target).await.map_err(failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(e.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let mut headers = HeaderMap::new();
    for (name, value) in &parts.headers {
        let hop = matches!(
            name.as_str(),
            "connection" | "upgrade" | "keep-alive" | "te" | "transfer-encoding" | "proxy-connection"
        );
        if name == header::AUTHORIZATION
            || name == header::HOST
            || name == header::CONTENT_LENGTH
            || (hop && !upgrades)
        {
            continue;
        }
        headers.append(name, value.clone());
    }
    let host = HeaderValue::from_str(&format!("{}:{}", target.host, target.port))
        .map_err(|e| failed(e.to_string()))?;
    headers.insert(header::HOST, host);
    if upgrades {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if target.kubelet {
        let user = crate::auth::user(KUBELET_CLIENT, &[crate::auth::MASTERS]);
        let token = server
            .inner
            .tokens
            .issue_static(&user)
            .map_err(ApiError::internal)?;
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(ApiError::internal)?;
        headers.insert(header::AUTHORIZATION, value);
    }
    let uri: Uri = target
        .path_and_query
        .parse()
        .map_err(|e: http::uri::InvalidUri| ApiError::bad_request(e.to_string()))?;
    // What comes after the head of an upgrade is no body.
    let body = if upgrades { Body::empty() } else { body };
    let mut out = http::Request::new(body);
    *out.method_mut() = parts.method;
    *out.uri_mut() = uri;
    *out.headers_mut() = headers;
    let mut answer = sender
        .send_request(out)
        .await
        .map_err(|e| failed(e.to_string()))?;
    let _ = ctx;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = upgrade else {
            return Err(ApiError::bad_request(
                "unable to upgrade: the connection cannot be upgraded",
            ));
        };
        let far = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(near), Ok(far)) = tokio::join!(upgrade, far) else {
                return;
            };
            ferroflow_tunnel::join(TokioIo::new(near), TokioIo::new(far)).await;
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        return Ok(response);
    }
    let (mut head, incoming) = answer.into_parts();
    head.headers.remove(header::CONNECTION);
    head.headers.remove(header::TRANSFER_ENCODING);
    let mut response = Response::new(Body::new(incoming));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Address and port of a node's kubelet.
fn kubelet(server: &ApiServer, node: &str) -> ApiResult<(String, u16)> {
    let found = server
        .inner
        .store
        .get("/nodes", "", node)
        .ok_or_else(|| ApiError::not_found(&GroupResource::new("", "nodes"), node))?;
    let status = &found.value()["status"];
    let addresses = status["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let address = ["InternalIP", "ExternalIP", "Hostname"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| text(a, "type") == *kind))
        .map(|a| text(a, "address").to_owned());
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|p| u16::try_from(p).ok());
    match address {
        Some(address) => Ok((address, port.filter(|p| *p > 0).unwrap_or(10250))),
        None => Err(ApiError::internal(format!(
            "no preferred addresses found; known addresses: {}",
            status["addresses"]
        ))),
    }
}

/// The container that a request means.
fn container(ctx: &Ctx, pod: &Value, name: &str) -> ApiResult<String> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let names = |list: &str| -> Vec<String> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| text(c, "name").to_owned())
            .collect()
    };
    if let Some(asked) = ctx.query.non_empty("container") {
        if lists.iter().any(|l| names(l).iter().any(|n| n == asked)) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )));
    }
    let main = names("containers");
    if let [only] = main.as_slice() {
        return Ok(only.clone());
    }
    let default = text(
        &pod["metadata"]["annotations"],
        "kubectl.kubernetes.io/default-container",
    );
    if ctx.info.subresource != "log" && main.iter().any(|n| n == default) {
        return Ok(default.to_owned());
    }
    let init = names("initContainers");
    let mut text = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        main.join(" ")
    );
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(ApiError::bad_request(text))
}

/// `pods/log`, `exec`, `attach`, `portforward`.
pub(crate) async fn pods(server: &ApiServer, ctx: &Ctx, request: Request) -> ApiResult<Response> {
    let name = &ctx.info.name;
    let sub = ctx.info.subresource.as_str();
    let pod = crate::objects::read::get(server, ctx, name);
    let pod = match pod {
        Ok(pod) => pod,
        // The resourceVersion of the query does not apply to subresources.
        Err(e) => return Err(e),
    };
    let encode = |s: &str| utf8_percent_encode(s, NON_ALPHANUMERIC).to_string();
    let ns = ctx.ns();
    let target_container = if sub == "portforward" {
        String::new()
    } else {
        container(ctx, &pod, name)?
    };
    let node = text(&pod["spec"], "nodeName");
    if node.is_empty() {
        if sub == "log" {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let mut query: Vec<String> = Vec::new();
    let path = match sub {
        "log" => {
            for key in [
                "follow",
                "previous",
                "timestamps",
                "sinceSeconds",
                "sinceTime",
                "tailLines",
                "limitBytes",
                "stream",
            ] {
                if let Some(v) = ctx.query.non_empty(key) {
                    query.push(format!("{key}={}", encode(v)));
                }
            }
            format!("/containerLogs/{ns}/{name}/{target_container}")
        }
        "exec" | "attach" => {
            for (key, theirs) in [
                ("stdin", "input"),
                ("stdout", "output"),
                ("stderr", "error"),
                ("tty", "tty"),
            ] {
                if ctx.query.flag(key) {
                    query.push(format!("{theirs}=1"));
                }
            }
            for (k, v) in &ctx.query.0 {
                if k == "command" {
                    query.push(format!("command={}", encode(v)));
                }
            }
            format!("/{sub}/{ns}/{name}/{target_container}")
        }
        _ => {
            for (k, v) in &ctx.query.0 {
                if k == "ports" || k == "port" {
                    query.push(format!("port={}", encode(v)));
                }
            }
            format!("/portForward/{ns}/{name}")
        }
    };
    let (host, port) = kubelet(server, node)?;
    let path_and_query = if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    };
    let target = Target {
        tls: true,
        host,
        port,
        path_and_query,
        kubelet: true,
    };
    let response = forward(server, ctx, target, request).await?;
    if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    if sub != "log" {
        return Ok(response);
    }
    // A kubelet's plain text becomes a Status.
    let code = response.status().as_u16();
    let body = crate::handler::read_body(response.into_body()).await?;
    let message = String::from_utf8_lossy(&body).trim().to_owned();
    let reason = match code {
        400 => "BadRequest",
        404 => "NotFound",
        _ => "InternalError",
    };
    Err(ApiError::new(code, reason, message, serde_json::json!({})))
}

/// `[scheme:]name[:port]`.
fn split_name(name: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [scheme @ ("http" | "https" | ""), name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", name, ""),
    }
}

/// `services/proxy`, `pods/proxy`, `nodes/proxy`.
pub(crate) async fn http(server: &ApiServer, ctx: &Ctx, request: Request) -> ApiResult<Response> {
    let (scheme, name, port) = split_name(&ctx.info.name);
    let rest = if ctx.info.rest.is_empty() {
        "/"
    } else {
        ctx.info.rest.as_str()
    };
    let path_and_query = match request.uri().query() {
        Some(q) => format!("{rest}?{q}"),
        None => rest.to_owned(),
    };
    let ns = ctx.ns();
    let target = match ctx.res.plural.as_str() {
        "services" => {
            let backend = server
                .inner
                .backends
                .read()
                .get(&(ns.to_owned(), name.to_owned()))
                .cloned();
            if let Some(router) = backend {
                return in_process(ctx, router, &path_and_query, request).await;
            }
            let (host, port) = service_endpoint(server, ns, name, port)?;
            Target {
                tls: scheme == "https",
                host,
                port,
                path_and_query,
                kubelet: false,
            }
        }
        "pods" => {
            let pod = server
                .inner
                .store
                .get("/pods", ns, name)
                .ok_or_else(|| ApiError::not_found(&ctx.gr(), name))?;
            let pod = pod.value();
            let host = text(&pod["status"], "podIP").to_owned();
            if host.is_empty() {
                return Err(ApiError::service_unavailable(format!(
                    "no endpoints available for pod {name:?}"
                )));
            }
            let first = pod["spec"]["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .find_map(|c| c["ports"][0]["containerPort"].as_u64());
            let number = if port.is_empty() {
                first.unwrap_or(80)
            } else {
                port.parse().unwrap_or(0)
            };
            let port = u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "invalid port {port:?} of pod {name:?}; give a number from 1 to 65535"
                ))
            })?;
            Target {
                tls: scheme == "https",
                host,
                port,
                path_and_query,
                kubelet: false,
            }
        }
        _ => {
            let (host, port) = kubelet(server, name)?;
            Target {
                tls: true,
                host,
                port,
                path_and_query,
                kubelet: true,
            }
        }
    };
    forward(server, ctx, target, request).await
}

async fn in_process(
    ctx: &Ctx,
    router: axum::Router,
    path_and_query: &str,
    request: Request,
) -> ApiResult<Response> {
    let (mut parts, body) = request.into_parts();
    parts.uri = path_and_query
        .parse()
        .map_err(|e: http::uri::InvalidUri| ApiError::bad_request(e.to_string()))?;
    parts.headers.remove(header::AUTHORIZATION);
    parts.extensions.insert(ctx.user.clone());
    match router.oneshot(Request::from_parts(parts, body)).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// A ready endpoint of a Service's port.
pub(crate) fn service_endpoint(
    server: &ApiServer,
    ns: &str,
    name: &str,
    port: &str,
) -> ApiResult<(String, u16)> {
    let service = server
        .inner
        .store
        .get("/services", ns, name)
        .ok_or_else(|| ApiError::not_found(&GroupResource::new("", "services"), name))?;
    let ports = service.value()["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let chosen = if port.is_empty() {
        ports.first()
    } else {
        ports
            .iter()
            .find(|p| text(p, "name") == port || p["port"].as_u64().is_some_and(|n| n.to_string() == port))
    };
    let unavailable =
        || ApiError::service_unavailable(format!("no endpoints available for service {name:?}"));
    let chosen = chosen.ok_or_else(|| {
        let port = if port.parse::<u16>().is_ok() {
            port.to_owned()
        } else {
            format!("{port:?}")
        };
        ApiError::service_unavailable(format!("no service port {port} found for service {name:?}"))
    })?;
    let port_name = text(chosen, "name");
    let mut found: Vec<(String, u16)> = Vec::new();
    let mut any = server.inner.store.get("/endpoints", ns, name).is_some();
    for slice in server
        .inner
        .store
        .list("discovery.k8s.io/endpointslices", Some(ns), None)
        .1
    {
        let slice = slice.value();
        if text(&slice["metadata"]["labels"], "kubernetes.io/service-name") != name {
            continue;
        }
        any = true;
        let port = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| text(p, "name") == port_name)
            .and_then(|p| p["port"].as_u64())
            .and_then(|p| u16::try_from(p).ok());
        let Some(port) = port else { continue };
        for e in slice["endpoints"].as_array().into_iter().flatten() {
            if e["conditions"]["ready"].as_bool().unwrap_or(true) {
                found.extend(
                    e["addresses"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|a| a.as_str().map(|a| (a.to_owned(), port))),
                );
            }
        }
    }
    if found.is_empty()
        && let Some(endpoints) = server.inner.store.get("/endpoints", ns, name)
    {
        for subset in endpoints.value()["subsets"].as_array().into_iter().flatten() {
            let port = subset["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| text(p, "name") == port_name)
                .and_then(|p| p["port"].as_u64())
                .and_then(|p| u16::try_from(p).ok());
            let Some(port) = port else { continue };
            for a in subset["addresses"].as_array().into_iter().flatten() {
                found.push((text(a, "ip").to_owned(), port));
            }
        }
    }
    if found.is_empty() {
        let missing = || ApiError::not_found(&GroupResource::new("", "services"), name);
        return Err(if any { unavailable() } else { missing() });
    }
    Ok(found.swap_remove(rand::random_range(0..found.len())))
}
