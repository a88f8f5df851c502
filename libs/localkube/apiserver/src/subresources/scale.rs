//! The scale subresource of Deployments, ReplicaSets, StatefulSets and custom resources.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::{Ctx, json_answer};
use crate::jsonpath::JsonPath;
use crate::kinds::ScalePaths;
use crate::objects::patch::{PatchType, apply};
use crate::objects::write::{Part, update};
use crate::objects::{decode, read, text};
use crate::server::ApiServer;

fn selector_text(v: Option<&Value>) -> Option<String> {
    match v? {
        Value::String(s) => Some(s.clone()),
        Value::Object(o) => {
            let mut parts: Vec<String> = Vec::new();
            let plain = o.contains_key("matchLabels") || o.contains_key("matchExpressions");
            let labels = if plain {
                o.get("matchLabels").and_then(Value::as_object)
            } else {
                Some(o)
            };
            for (k, v) in labels.into_iter().flatten() {
                parts.push(format!("{k}={}", v.as_str().unwrap_or_default()));
            }
            for e in o
                .get("matchExpressions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let values: Vec<&str> = e["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let key = text(e, "key");
                parts.push(match text(e, "operator") {
                    "In" => format!("{key} in ({})", values.join(",")),
                    "NotIn" => format!("{key} notin ({})", values.join(",")),
                    "Exists" => key.to_owned(),
                    _ => format!("!{key}"),
                });
            }
            parts.sort();
            Some(parts.join(","))
        }
        _ => None,
    }
}

/// The Scale of an object.
fn scale_of(obj: &Value, paths: &ScalePaths) -> Value {
    let number = |p: &str| JsonPath::parse(p).first(obj).and_then(Value::as_i64).unwrap_or(0);
    let m = &obj["metadata"];
    let mut meta = json!({"name": m["name"], "uid": m["uid"],
        "resourceVersion": m["resourceVersion"], "creationTimestamp": m["creationTimestamp"]});
    if !m["namespace"].is_null() {
        meta["namespace"] = m["namespace"].clone();
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    if let Some(selector) = paths
        .selector
        .as_deref()
        .and_then(|p| selector_text(JsonPath::parse(p).first(obj)))
        .filter(|s| !s.is_empty())
    {
        status["selector"] = selector.into();
    }
    let replicas = number(&paths.spec_replicas);
    let spec = if replicas == 0 {
        json!({})
    } else {
        json!({"replicas": replicas})
    };
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status})
}

pub(crate) async fn serve(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let Some(paths) = ctx.res.scale.clone() else {
        return Err(ApiError::no_resource());
    };
    let name = ctx.info.name.clone();
    if ctx.info.verb == "get" {
        let obj = read::get(server, ctx, &name)?;
        return Ok(json_answer(
            ctx.accept.yaml,
            StatusCode::OK,
            &scale_of(&obj, &paths),
        ));
    }
    let kind = if ctx.info.verb == "patch" {
        Some(PatchType::of(ctx)?)
    } else {
        None
    };
    let given = decode::parse(
        if kind.is_some() {
            "application/json"
        } else {
            &ctx.content_type
        },
        body,
    )?;
    let obj = update(server, ctx, &name, Part::Main, |old| {
        let wanted = match kind {
            None => given.clone(),
            Some(PatchType::Apply | PatchType::Strategic) => {
                let mut scale = scale_of(old, &paths);
                crate::patch::merge(&mut scale, &given);
                scale
            }
            Some(kind) => apply(ctx, kind, &scale_of(old, &paths), &given)?,
        };
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let e = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            return Err(ApiError::invalid("autoscaling", "Scale", &name, &[e]));
        }
        let asked = text(&wanted["metadata"], "resourceVersion");
        let mut new = old.clone();
        if !asked.is_empty() {
            new["metadata"]["resourceVersion"] = asked.into();
        }
        JsonPath::parse(&paths.spec_replicas).set(&mut new, replicas.into());
        Ok(new)
    })
    .await?;
    Ok(json_answer(
        ctx.accept.yaml,
        StatusCode::OK,
        &scale_of(&obj, &paths),
    ))
}
