//! Paths that are not resources: discovery, version, health, OpenAPI, keys.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::auth::tokens::ISSUER;
use crate::error::{ApiError, ApiResult};
use crate::handler::json_answer;
use crate::registry::{Resource, Snapshot, api_version};
use crate::request::{Accept, Query, RequestInfo};
use crate::server::ApiServer;
use crate::subresources::reviews::{AUTHENTICATION, AUTHORIZATION};

/// The Kubernetes version whose behaviour is followed.
pub const VERSION: &str = "v1.35.4";
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn text(body: &str) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body.to_owned(),
    )
        .into_response()
}

/// Serves a non-resource path.
pub(crate) fn serve(
    server: &ApiServer,
    info: &RequestInfo,
    query: &Query,
    request: &Request,
) -> ApiResult<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let snapshot = server.inner.registry.snapshot();
    let accept = Accept::parse(request.headers());
    let v2 = accept.is_some_and(|a| a.discovery_v2);
    let parts: Vec<&str> = info.path.split('/').filter(|p| !p.is_empty()).collect();
    let ok = |v: &Value| Ok(json_answer(accept.is_some_and(|a| a.yaml), StatusCode::OK, v));
    match parts.as_slice() {
        [] => ok(
            &json!({"paths": ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez",
            "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]}),
        ),
        ["api"] if v2 => Ok(aggregated(&snapshot, true)),
        ["api"] => ok(&json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "localhost"}]})),
        ["apis"] if v2 => Ok(aggregated(&snapshot, false)),
        ["apis"] => {
            let groups: Vec<Value> = named_groups(&snapshot).map(|(g, v)| group_json(g, v)).collect();
            ok(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => ok(&resource_list(&snapshot, "", "v1")),
        ["apis", group] => match named_groups(&snapshot).find(|(g, _)| g == group) {
            Some((g, v)) => {
                let mut value = group_json(g, v);
                value["kind"] = "APIGroup".into();
                value["apiVersion"] = "v1".into();
                ok(&value)
            }
            None => not_found(),
        },
        ["apis", group, version] if snapshot.has_group_version(group, version) && !group.is_empty() => {
            ok(&resource_list(&snapshot, group, version))
        }
        ["version"] => ok(
            &json!({"major": "1", "minor": "35", "emulationMajor": "1", "emulationMinor": "35",
            "minCompatibilityMajor": "1", "minCompatibilityMinor": "34", "gitVersion": VERSION,
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)}),
        ),
        ["healthz" | "livez" | "readyz", ..] => Ok(text("ok")),
        ["openapi", rest @ ..] => crate::openapi::serve(server, rest, query, request),
        [".well-known", "openid-configuration"] => ok(&json!({"issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]})),
        ["openid", "v1", "jwks"] => ok(&json!({"keys": [server.inner.keys.jwk]})),
        _ => not_found(),
    }
}

fn not_found() -> ApiResult<Response> {
    Ok((
        StatusCode::NOT_FOUND,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        "404 page not found\n",
    )
        .into_response())
}

fn named_groups(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &[String])> {
    snapshot
        .groups
        .iter()
        .filter(|(g, _)| !g.is_empty())
        .map(|(g, v)| (g.as_str(), v.as_slice()))
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v}))
        .collect();
    let preferred = all.first().cloned().unwrap_or(Value::Null);
    json!({"name": group, "versions": all, "preferredVersion": preferred})
}

/// Reviews are resources without objects: plural, singular, kind, namespaced.
fn reviews(group: &str) -> Vec<(&'static str, &'static str, bool)> {
    match group {
        "authentication.k8s.io" => AUTHENTICATION.iter().map(|(p, k)| (*p, *k, false)).collect(),
        "authorization.k8s.io" => AUTHORIZATION.to_vec(),
        _ => Vec::new(),
    }
}

fn verbs(res: &Resource) -> Vec<&'static str> {
    if res.custom().is_some() {
        return vec![
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "create",
            "update",
            "watch",
        ];
    }
    VERBS
        .iter()
        .copied()
        .filter(|v| !(*v == "deletecollection" && res.is("", "namespaces")))
        .collect()
}

/// Tells clients that the stored version changed.
fn storage_version_hash(res: &Resource) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let version = res
        .custom()
        .map_or(res.version.as_str(), |c| c.storage_version.as_str());
    let (group, version) = if res.group == "events.k8s.io" {
        ("", "v1")
    } else {
        (res.group.as_str(), version)
    };
    let digest = sha2::Sha256::digest(format!("{group}/{version}/{}", res.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn resource_list(snapshot: &Snapshot, group: &str, version: &str) -> Value {
    let mut out = Vec::new();
    if group.is_empty() {
        out.push(json!({"name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"]}));
    }
    for (plural, kind, namespaced) in reviews(group) {
        out.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}));
    }
    for r in snapshot.in_group_version(group, version) {
        let mut entry = json!({"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs(r)});
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        entry["storageVersionHash"] = storage_version_hash(r).into();
        out.push(entry);
        let mut sub = |name: &str, group: &str, version: &str, kind: &str, verbs: &[&str]| {
            let mut entry = json!({"name": format!("{}/{name}", r.plural), "singularName": "", "namespaced": r.namespaced, "kind": kind, "verbs": verbs});
            if group != r.group || version != r.version {
                if !group.is_empty() {
                    entry["group"] = group.into();
                }
                entry["version"] = version.into();
            }
            out.push(entry);
        };
        for s in r.extra_subresources() {
            sub(s.name, s.group, s.version, s.kind, &s.verbs);
        }
        if r.custom().is_some() && r.status {
            sub(
                "status",
                &r.group,
                &r.version,
                &r.kind,
                &["get", "patch", "update"],
            );
        }
        if r.scale.is_some() {
            sub("scale", "autoscaling", "v1", "Scale", &["get", "patch", "update"]);
        }
        if r.custom().is_none() && r.status {
            sub(
                "status",
                &r.group,
                &r.version,
                &r.kind,
                &["get", "patch", "update"],
            );
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": out})
}

/// `APIGroupDiscoveryList` of the core group or of all others.
fn aggregated(snapshot: &Snapshot, core: bool) -> Response {
    let kind_of =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let items: Vec<Value> = snapshot
        .groups
        .iter()
        .filter(|(g, _)| g.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let mut resources: Vec<Value> = reviews(group)
                        .into_iter()
                        .map(|(plural, kind, namespaced)| {
                            json!({"resource": plural, "responseKind": kind_of(group, version, kind), "verbs": ["create"],
                                "scope": if namespaced { "Namespaced" } else { "Cluster" }, "singularResource": kind.to_lowercase()})
                        })
                        .collect();
                    if core {
                        resources.push(json!({"resource": "bindings", "responseKind": kind_of("", "v1", "Binding"),
                            "scope": "Namespaced", "singularResource": "binding", "verbs": ["create"]}));
                    }
                    for r in snapshot.in_group_version(group, version) {
                        let mut subs: Vec<Value> = r
                            .extra_subresources()
                            .into_iter()
                            .map(|s| json!({"subresource": s.name, "responseKind": kind_of(s.group, s.version, s.kind), "verbs": s.verbs}))
                            .collect();
                        if r.scale.is_some() {
                            subs.push(json!({"subresource": "scale", "responseKind": kind_of("autoscaling", "v1", "Scale"), "verbs": ["get", "patch", "update"]}));
                        }
                        if r.status {
                            subs.push(json!({"subresource": "status", "responseKind": kind_of(group, version, &r.kind), "verbs": ["get", "patch", "update"]}));
                        }
                        let mut entry = json!({"resource": r.plural, "responseKind": kind_of(group, version, &r.kind),
                            "scope": if r.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": r.singular, "verbs": verbs(r)});
                        if !r.short_names.is_empty() {
                            entry["shortNames"] = json!(r.short_names);
                        }
                        if !r.categories.is_empty() {
                            entry["categories"] = json!(r.categories);
                        }
                        if !subs.is_empty() {
                            entry["subresources"] = Value::Array(subs);
                        }
                        resources.push(entry);
                    }
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let meta = if group.is_empty() { json!({"creationTimestamp": null}) } else { json!({"name": group, "creationTimestamp": null}) };
            json!({"metadata": meta, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    (
        [(
            header::CONTENT_TYPE,
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        )],
        list.to_string(),
    )
        .into_response()
}
