//! From an HTTP request to an answer: authentication, authorization, dispatch.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use k8s_openapi::api::authentication::v1::UserInfo;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::Instrument as _;

use crate::auth::rbac::Attributes;
use crate::auth::{self, groups, username};
use crate::error::{ApiError, ApiResult, GroupResource};
use crate::field_error::FieldError;
use crate::registry::{Resource, Snapshot};
use crate::request::{Accept, Form, Query, RequestInfo};
use crate::server::{ApiServer, Inner};

/// The largest body that is read.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// A request for a known resource.
pub(crate) struct Ctx {
    pub user: UserInfo,
    pub info: RequestInfo,
    pub query: Query,
    pub accept: Accept,
    pub res: Arc<Resource>,
    pub snapshot: Arc<Snapshot>,
    pub defs: Arc<crate::definitions::Definitions>,
    pub user_agent: String,
    pub content_type: String,
    pub warnings: Mutex<Vec<String>>,
}

impl Ctx {
    pub fn gr(&self) -> GroupResource {
        self.res.gr()
    }
    pub fn ns(&self) -> &str {
        if self.res.namespaced {
            &self.info.namespace
        } else {
            ""
        }
    }
    pub fn dry_run(&self) -> ApiResult<bool> {
        match self.query.get("dryRun") {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let kind = match self.info.verb.as_str() {
                    "create" => "CreateOptions",
                    "update" => "UpdateOptions",
                    "patch" => "PatchOptions",
                    _ => "DeleteOptions",
                };
                let error = FieldError::not_supported("dryRun", serde_json::json!([other]), &["All"]);
                Err(ApiError::invalid("meta.k8s.io", kind, "", &[error]))
            }
        }
    }
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
    /// The same request for other parameters, as subresources and collections need it.
    pub fn with(&self, res: &Arc<Resource>, verb: &str, namespace: &str, name: &str) -> Self {
        Self {
            user: self.user.clone(),
            info: RequestInfo {
                verb: verb.into(),
                group: res.group.clone(),
                version: res.version.clone(),
                resource: res.plural.clone(),
                namespace: namespace.into(),
                name: name.into(),
                ..RequestInfo::default()
            },
            query: self.query.clone(),
            accept: Accept {
                form: Form::Object,
                yaml: false,
                discovery_v2: false,
            },
            res: res.clone(),
            snapshot: self.snapshot.clone(),
            defs: self.defs.clone(),
            user_agent: self.user_agent.clone(),
            content_type: self.content_type.clone(),
            warnings: Mutex::new(Vec::new()),
        }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

/// Handles any request.
pub(crate) async fn handle(server: ApiServer, request: Request) -> Response {
    let traced = tracing::enabled!(tracing::Level::DEBUG).then(|| {
        (
            std::time::Instant::now(),
            request.method().clone(),
            request.uri().clone(),
        )
    });
    let response = match route(server, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    if let Some((started, method, uri)) = traced {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(%method, %uri, code = response.status().as_u16(), micros, "request");
    }
    response
}

fn authenticate(inner: &Inner, request: &Request) -> ApiResult<UserInfo> {
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer ").or_else(|| v.strip_prefix("bearer ")))
        .map(|t| t.trim().to_owned())
        .or_else(|| websocket_token(request.headers()));
    if let Some(token) = bearer.filter(|t| !t.is_empty()) {
        let (user, audiences) = inner.authenticate(&token).ok_or_else(ApiError::unauthorized)?;
        if !audiences.iter().any(|a| a == auth::tokens::ISSUER) {
            return Err(ApiError::unauthorized());
        }
        return Ok(user);
    }
    if let Some(user) = request.extensions().get::<UserInfo>() {
        return Ok(user.clone());
    }
    Ok(auth::anonymous())
}

/// Browsers cannot set headers of a websocket and send the token as a subprotocol.
fn websocket_token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let encoded = header_text(headers, "sec-websocket-protocol")
        .split(',')
        .find_map(|p| {
            p.trim()
                .strip_prefix("base64url.bearer.authorization.k8s.io.")
                .map(str::to_owned)
        })?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .ok()?;
    String::from_utf8(bytes).ok()
}

fn impersonate(inner: &Inner, headers: &HeaderMap, user: UserInfo) -> ApiResult<UserInfo> {
    let name = header_text(headers, "impersonate-user");
    if name.is_empty() {
        return Ok(user);
    }
    let wanted_groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok().map(str::to_owned))
        .collect();
    let check = |group: &str, resource: &str, namespace: &str, name: &str| {
        let a = Attributes {
            verb: "impersonate",
            group,
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        authorize(inner, &user, &a)
    };
    if let Some((ns, account)) = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|r| r.split_once(':'))
    {
        check("", "serviceaccounts", ns, account)?;
        let mut out = auth::service_account(ns, account);
        if !wanted_groups.is_empty() {
            out.groups = Some(wanted_groups.clone());
        }
        for group in &wanted_groups {
            check("", "groups", "", group)?;
        }
        return Ok(out);
    }
    check("", "users", "", name)?;
    for group in &wanted_groups {
        check("", "groups", "", group)?;
    }
    let groups: Vec<&str> = wanted_groups.iter().map(String::as_str).collect();
    Ok(if name == auth::ANONYMOUS {
        auth::anonymous()
    } else {
        auth::user(name, &groups)
    })
}

/// Refuses what the user may not do, in Kubernetes' words.
pub(crate) fn authorize(inner: &Inner, user: &UserInfo, a: &Attributes<'_>) -> ApiResult<()> {
    if inner.rbac().allows(user, a).is_some() {
        return Ok(());
    }
    let name = username(user);
    if let Some(path) = a.path {
        return Err(ApiError::forbidden(
            &GroupResource::default(),
            "",
            format!("User {name:?} cannot {} path {path:?}", a.verb),
        )
        .with_empty_details());
    }
    let resource = if a.subresource.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}/{}", a.resource, a.subresource)
    };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    let _ = groups(user);
    Err(ApiError::forbidden(
        &GroupResource::new(a.group, a.resource),
        a.name,
        format!(
            "User {name:?} cannot {} resource {resource:?} in API group {:?} {place}",
            a.verb, a.group
        ),
    ))
}

pub(crate) async fn read_body(body: Body) -> ApiResult<Bytes> {
    let limited = http_body_util::Limited::new(body, MAX_BODY);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.downcast_ref::<http_body_util::LengthLimitError>().is_some() => Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {MAX_BODY}"),
            serde_json::json!({}),
        )),
        Err(e) => Err(ApiError::bad_request(format!("the body cannot be read: {e}"))),
    }
}

async fn route(server: ApiServer, request: Request) -> ApiResult<Response> {
    let inner = server.inner.clone();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri(), &query);
    let user = authenticate(&inner, &request)?;
    let user = impersonate(&inner, request.headers(), user)?;

    let attributes = if info.non_resource {
        Attributes {
            verb: &info.verb,
            path: Some(&info.path),
            ..Attributes::default()
        }
    } else {
        Attributes {
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: None,
        }
    };
    authorize(&inner, &user, &attributes)?;
    if info.non_resource {
        return crate::discovery::serve(&server, &info, &query, &request);
    }

    let snapshot = inner.registry.snapshot();
    let request = if snapshot.has_group_version(&info.group, &info.version) {
        protobuf_to_json(&inner, request).await?
    } else {
        request
    };
    if let Some(response) = crate::subresources::reviews::serve(&server, &user, &info, request.method()) {
        let body = read_body(request.into_body()).await?;
        return crate::subresources::reviews::answer(&server, &user, &info, response, &body);
    }
    let res = snapshot.get(&info.group, &info.version, &info.resource).cloned();
    let Some(res) = res else {
        if info.group.is_empty() && info.resource == "bindings" && request.method() == Method::POST {
            let pods = snapshot
                .get("", "v1", "pods")
                .cloned()
                .ok_or_else(ApiError::no_resource)?;
            let ctx = make_ctx(&inner, user, info, query, &request, pods, snapshot)?;
            let body = read_body(request.into_body()).await?;
            return crate::subresources::pods::bind(&server, &ctx, &body).await;
        }
        if !snapshot.groups.iter().any(|(g, _)| *g == info.group) {
            return Ok((
                StatusCode::NOT_FOUND,
                [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
                "404 page not found\n",
            )
                .into_response());
        }
        return Err(ApiError::no_resource().with_empty_details());
    };
    if res.namespaced && info.namespace.is_empty() && !matches!(info.verb.as_str(), "list" | "watch") {
        return Err(ApiError::method_not_allowed());
    }
    if !res.namespaced && !info.namespace.is_empty() && info.resource != "namespaces" {
        return Ok((StatusCode::NOT_FOUND, "404 page not found\n").into_response());
    }
    let ctx = make_ctx(&inner, user, info, query, &request, res, snapshot)?;
    if let Some(custom) = ctx.res.custom()
        && let Some(text) = &custom.deprecation
    {
        ctx.warn(text.clone());
    }
    let ctx = Arc::new(ctx);
    let mut response = dispatch(&server, &ctx, request).await?;
    for text in ctx.warnings.lock().iter() {
        let quoted = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(response)
}

/// Go clients send protobuf; everything behind this works on JSON.
async fn protobuf_to_json(inner: &Inner, request: Request) -> ApiResult<Request> {
    if !header_text(request.headers(), "content-type").starts_with(crate::protobuf::MEDIA_TYPE)
        || request.headers().contains_key(header::UPGRADE)
    {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let body = read_body(body).await?;
    let mut json = Vec::new();
    if !body.is_empty() {
        let value = inner.protobuf.decode(&inner.definitions, &body).ok_or_else(|| {
            ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
            )
        })?;
        json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    }
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Request::from_parts(parts, Body::from(json)))
}

fn make_ctx(
    inner: &Inner,
    user: UserInfo,
    info: RequestInfo,
    query: Query,
    request: &Request,
    res: Arc<Resource>,
    snapshot: Arc<Snapshot>,
) -> ApiResult<Ctx> {
    let streaming = matches!(
        info.subresource.as_str(),
        "log" | "exec" | "attach" | "portforward" | "proxy"
    );
    let accept = match Accept::parse(request.headers()) {
        Some(accept) => accept,
        None if streaming => Accept {
            form: Form::Object,
            yaml: false,
            discovery_v2: false,
        },
        None => {
            return Err(ApiError::new(
                406,
                "NotAcceptable",
                "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
                serde_json::json!({}),
            )
            .with_empty_details());
        }
    };
    Ok(Ctx {
        user,
        info,
        query,
        accept,
        res,
        snapshot,
        defs: inner.definitions.clone(),
        user_agent: header_text(request.headers(), "user-agent").to_owned(),
        content_type: header_text(request.headers(), "content-type")
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
        warnings: Mutex::new(Vec::new()),
    })
}

async fn dispatch(server: &ApiServer, ctx: &Arc<Ctx>, request: Request) -> ApiResult<Response> {
    match ctx.info.subresource.as_str() {
        "log" | "exec" | "attach" | "portforward" if ctx.res.is("", "pods") => {
            return crate::proxy::pods(server, ctx, request).await;
        }
        "proxy" if ctx.res.group.is_empty() => return crate::proxy::http(server, ctx, request).await,
        _ => {}
    }
    match ctx.info.verb.as_str() {
        "create" | "update" | "patch" | "delete" | "deletecollection" => {
            // A write that has begun is done to its end, also when nobody waits for the answer any more.
            let (server, ctx) = (server.clone(), ctx.clone());
            let write = async move { write(&server, &ctx, request).await };
            tokio::spawn(write.in_current_span())
                .await
                .unwrap_or_else(|error| Err(ApiError::internal(error)))
        }
        _ if !ctx.info.subresource.is_empty() => crate::subresources::serve(server, ctx, request).await,
        "watch" => crate::objects::watch::watch(server, ctx),
        "list" => crate::objects::read::list(server, ctx),
        "get" => {
            let value = crate::objects::read::get(server, ctx, &ctx.info.name)?;
            Ok(answer(ctx, StatusCode::OK, value))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn write(server: &ApiServer, ctx: &Ctx, request: Request) -> ApiResult<Response> {
    if !ctx.info.subresource.is_empty() {
        return crate::subresources::serve(server, ctx, request).await;
    }
    match ctx.info.verb.as_str() {
        "create" => {
            if !ctx.info.name.is_empty() {
                return Err(ApiError::method_not_allowed().with_empty_details());
            }
            let body = read_body(request.into_body()).await?;
            let obj = crate::objects::decode::body(ctx, &body)?;
            let value = crate::objects::write::create(server, ctx, obj).await?;
            Ok(answer(ctx, StatusCode::CREATED, value))
        }
        "update" => {
            let body = read_body(request.into_body()).await?;
            let (value, created) = crate::objects::write::replace(server, ctx, &body).await?;
            Ok(answer(
                ctx,
                if created {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                },
                value,
            ))
        }
        "patch" => {
            let body = read_body(request.into_body()).await?;
            let (value, created) = crate::objects::patch::patch(server, ctx, &body).await?;
            Ok(answer(
                ctx,
                if created {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                },
                value,
            ))
        }
        "delete" => {
            let body = read_body(request.into_body()).await?;
            crate::objects::delete::one(server, ctx, &body).await
        }
        "deletecollection" => {
            let body = read_body(request.into_body()).await?;
            crate::objects::delete::collection(server, ctx, &body).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// One object in the form that was asked for.
pub(crate) fn answer(ctx: &Ctx, code: StatusCode, value: Value) -> Response {
    let value = match ctx.accept.form {
        Form::Table if value["kind"] != "Status" => {
            crate::table::table(ctx, &[&value], &value["metadata"], true)
        }
        Form::Metadata if value["kind"] != "Status" => crate::table::partial(&value),
        _ => value,
    };
    json_answer(ctx.accept.yaml, code, &value)
}

pub(crate) fn json_answer(yaml: bool, code: StatusCode, value: &Value) -> Response {
    if yaml && let Ok(text) = serde_saphyr::to_string(value) {
        return (code, [(header::CONTENT_TYPE, "application/yaml")], text).into_response();
    }
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    (code, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}
