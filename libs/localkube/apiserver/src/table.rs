//! `meta.k8s.io/v1` Tables and PartialObjectMetadata.

use serde_json::{Value, json};

use crate::handler::Ctx;
use crate::kinds::Column;
use crate::registry::Behaviour;
use crate::times;

/// An object reduced to its metadata.
pub(crate) fn partial(obj: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]})
}

/// A table of objects; `columns` says whether its columns are described.
pub(crate) fn table(ctx: &Ctx, objects: &[&Value], meta: &Value, columns: bool) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let definitions: Vec<Value> = if columns {
        all_columns(ctx).iter().map(Column::to_json).collect()
    } else {
        Vec::new()
    };
    let include = ctx.query.get("includeObject").unwrap_or("Metadata");
    let rows: Vec<Value> = objects
        .iter()
        .map(|obj| {
            let object = match include {
                "None" => Value::Null,
                "Object" => (*obj).clone(),
                _ => partial(obj),
            };
            json!({"cells": cells(ctx, obj, now), "object": object})
        })
        .collect();
    let mut list_meta = json!({});
    for field in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(v) = meta.get(field) {
            list_meta[field] = v.clone();
        }
    }
    let definitions = if columns {
        Value::Array(definitions)
    } else {
        Value::Null
    };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta, "columnDefinitions": definitions, "rows": rows})
}

fn all_columns(ctx: &Ctx) -> Vec<Column> {
    match &ctx.res.behaviour {
        Behaviour::Builtin { rules, .. } => rules.columns(),
        Behaviour::Custom(custom) => {
            let mut out = vec![Column::name()];
            if custom.columns.is_empty() {
                out.push(Column::new("Age", "date", 0));
            } else {
                out.extend(custom.columns.iter().map(|(c, _)| c.clone()));
            }
            out
        }
    }
}

fn cells(ctx: &Ctx, obj: &Value, now: i64) -> Vec<Value> {
    match &ctx.res.behaviour {
        Behaviour::Builtin { rules, .. } => rules.cells(obj, now),
        Behaviour::Custom(custom) => {
            let mut out = vec![obj["metadata"]["name"].clone()];
            if custom.columns.is_empty() {
                out.push(times::age(obj["metadata"]["creationTimestamp"].as_str(), now).into());
            }
            for (column, path) in &custom.columns {
                out.push(match path.first(obj) {
                    None => Value::Null,
                    Some(v) => cell(&column.kind, v, now),
                });
            }
            out
        }
    }
}

fn cell(kind: &str, v: &Value, now: i64) -> Value {
    match (kind, v) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) | ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
            v.clone()
        }
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(n)) => n.as_i64().map_or(Value::Null, Value::from),
        ("date", Value::String(s)) => times::age(Some(s), now).into(),
        _ => Value::Null,
    }
}
