//! OpenAPI documents, as much as kubectl needs: schemas, and the parameters that patches accept.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::registry::{Resource, Snapshot, api_version};
use crate::request::Query;
use crate::server::ApiServer;

/// Documents that have been made.
#[derive(Default)]
pub struct Documents {
    made: Mutex<HashMap<String, Bytes>>,
}

impl Documents {
    /// Custom resources changed.
    pub fn forget_custom(&self) {
        self.made.lock().clear();
    }
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// What kubectl asks for when version 3 does not describe a kind.
const ASKED_V2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as kube-apiserver names it in its answer, since no media type may hold an `@`.
const SERVED_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `openapi.v2.Document` (gnostic) with `swagger: "2.0"`, an `info` and no paths: kubectl then finds no schema to check against, and says
/// itself that there is no such kind.
const EMPTY_V2: &[u8] = b"\x0a\x032.0\x12\x12\x0a\x0aKubernetes\x12\x04v1.0\x42\x00";

/// Serves `/openapi/...`.
pub(crate) fn serve(
    server: &ApiServer,
    rest: &[&str],
    _query: &Query,
    request: &Request,
) -> ApiResult<Response> {
    let snapshot = server.inner.registry.snapshot();
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("*/*");
    if rest == ["v2"] && accept.contains(ASKED_V2) {
        return Ok(([(header::CONTENT_TYPE, SERVED_V2)], EMPTY_V2).into_response());
    }
    if !accept.contains("json") && !accept.contains("*/*") {
        return Ok((StatusCode::NOT_ACCEPTABLE, "only application/json is served\n").into_response());
    }
    let json = |bytes: Bytes| Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response());
    match rest {
        ["v2"] => json(cached(server, "v2", || v2(&snapshot))),
        ["v3"] => {
            let mut paths = BTreeMap::new();
            for (group, versions) in &snapshot.groups {
                for version in versions {
                    let path = path_of(group, version);
                    let hash = hash(&snapshot, group, version);
                    paths.insert(
                        path.clone(),
                        json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
                    );
                }
            }
            json(Bytes::from(json!({"paths": paths}).to_string()))
        }
        ["v3", "api", version] => document(server, &snapshot, "", version),
        ["v3", "apis", group, version] => document(server, &snapshot, group, version),
        _ => Err(ApiError::no_resource()),
    }
}

/// Changes when the document does.
fn hash(snapshot: &Snapshot, group: &str, version: &str) -> String {
    use sha2::Digest as _;
    let mut h = sha2::Sha256::new();
    h.update(crate::discovery::VERSION);
    for r in snapshot.in_group_version(group, version) {
        h.update(&r.plural);
        if let Some(custom) = r.custom() {
            h.update(custom.source.to_string());
        }
    }
    h.finalize().iter().take(12).map(|b| format!("{b:02X}")).collect()
}

fn cached(server: &ApiServer, name: &str, make: impl FnOnce() -> Value) -> Bytes {
    if let Some(found) = server.inner.openapi.made.lock().get(name) {
        return found.clone();
    }
    let made = Bytes::from(make().to_string());
    server
        .inner
        .openapi
        .made
        .lock()
        .insert(name.to_owned(), made.clone());
    made
}

fn document(server: &ApiServer, snapshot: &Snapshot, group: &str, version: &str) -> ApiResult<Response> {
    if !snapshot.has_group_version(group, version) {
        return Err(ApiError::no_resource());
    }
    let name = path_of(group, version);
    let bytes = cached(server, &name, || {
        let (schemas, paths) = parts(snapshot, Some((group, version)), "#/components/schemas/");
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": crate::discovery::VERSION},
            "paths": paths, "components": {"schemas": schemas}})
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

fn v2(snapshot: &Snapshot) -> Value {
    let (definitions, paths) = parts(snapshot, None, "#/definitions/");
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": crate::discovery::VERSION}, "paths": paths, "definitions": definitions})
}

/// Schemas and paths of one group version, or of all.
fn parts(snapshot: &Snapshot, only: Option<(&str, &str)>, prefix: &str) -> (Value, Value) {
    let all = crate::definitions::document();
    let mut schemas = Map::new();
    let mut paths = Map::new();
    let chosen: Vec<&Arc<Resource>> = snapshot
        .all()
        .iter()
        .filter(|r| only.is_none_or(|(g, v)| r.group == g && r.version == v))
        .collect();
    for res in chosen {
        let name = match &res.behaviour {
            crate::registry::Behaviour::Builtin {
                definition: Some(name),
                ..
            } => {
                take(&all, name, prefix, &mut schemas);
                name.clone()
            }
            crate::registry::Behaviour::Custom(custom) => {
                let mut reversed: Vec<&str> = res.group.split('.').collect();
                reversed.reverse();
                let name = format!("{}.{}.{}", reversed.join("."), res.version, res.kind);
                take(
                    &all,
                    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                    prefix,
                    &mut schemas,
                );
                let mut schema = custom.source.clone();
                if !schema.is_object() {
                    schema = json!({"type": "object"});
                }
                schema["x-kubernetes-group-version-kind"] =
                    json!([{"group": res.group, "version": res.version, "kind": res.kind}]);
                schema["properties"]["apiVersion"] = json!({"type": "string", "description": "APIVersion defines the versioned schema of this representation of an object."});
                schema["properties"]["kind"] = json!({"type": "string", "description": "Kind is a string value representing the REST resource this object represents."});
                schema["properties"]["metadata"] = json!({"allOf": [{"$ref": format!("{prefix}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")}], "default": {}, "description": "Standard object's metadata."});
                schemas.insert(name.clone(), schema);
                name
            }
            crate::registry::Behaviour::Builtin { definition: None, .. } => continue,
        };
        add_paths(res, &name, prefix, &mut paths);
    }
    (Value::Object(schemas), Value::Object(paths))
}

/// Copies a definition and what it refers to, with references rewritten.
fn take(all: &Value, name: &str, prefix: &str, out: &mut Map<String, Value>) {
    if out.contains_key(name) {
        return;
    }
    let Some(definition) = all.get(name) else { return };
    let mut copy = definition.clone();
    let mut refs = Vec::new();
    rewrite(&mut copy, prefix, &mut refs);
    out.insert(name.to_owned(), copy);
    for r in refs {
        take(all, &r, prefix, out);
    }
}

fn rewrite(v: &mut Value, prefix: &str, refs: &mut Vec<String>) {
    match v {
        Value::Object(map) => {
            if let Some(Value::String(r)) = map.get_mut("$ref") {
                let name = r.rsplit('/').next().unwrap_or_default().to_owned();
                *r = format!("{prefix}{name}");
                refs.push(name);
            }
            map.values_mut().for_each(|c| rewrite(c, prefix, refs));
        }
        Value::Array(list) => list.iter_mut().for_each(|c| rewrite(c, prefix, refs)),
        _ => {}
    }
}

fn add_paths(res: &Resource, schema: &str, prefix: &str, paths: &mut Map<String, Value>) {
    let base = if res.group.is_empty() {
        format!("/api/{}", res.version)
    } else {
        format!("/apis/{}", api_version(&res.group, &res.version))
    };
    let collection = if res.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", res.plural)
    } else {
        format!("{base}/{}", res.plural)
    };
    let gvk = json!({"group": res.group, "version": res.version, "kind": res.kind});
    let query = |name: &str, kind: &str| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    let write = || {
        json!([
            query("dryRun", "string"),
            query("fieldManager", "string"),
            query("fieldValidation", "string")
        ])
    };
    let reference = json!({"$ref": format!("{prefix}{schema}")});
    let operation = |action: &str, parameters: Value| {
        json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}})
    };
    let list = json!([
        query("labelSelector", "string"),
        query("fieldSelector", "string"),
        query("limit", "integer"),
        query("continue", "string"),
        query("watch", "boolean"),
        query("resourceVersion", "string"),
        query("resourceVersionMatch", "string"),
        query("timeoutSeconds", "integer"),
        query("allowWatchBookmarks", "boolean"),
        query("sendInitialEvents", "boolean")
    ]);
    let mut patch_parameters = write();
    if let Some(p) = patch_parameters.as_array_mut() {
        p.push(query("force", "boolean"));
    }
    let mut patch = operation("patch", patch_parameters);
    patch["requestBody"] = json!({"content": {"application/apply-patch+yaml": {}, "application/json-patch+json": {}, "application/merge-patch+json": {}}});
    paths.insert(
        collection.clone(),
        json!({"get": operation("list", list), "post": operation("post", write()), "delete": operation("deletecollection", json!([]))}),
    );
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({"get": operation("get", json!([])), "put": operation("put", write()), "patch": patch, "delete": operation("delete", json!([query("dryRun", "string")]))}),
    );
}
