//! Operations on stored objects.

pub mod decode;
pub mod delete;
pub mod patch;
pub mod read;
pub mod watch;
pub mod write;

use serde_json::Value;

use crate::error::ApiResult;
use crate::handler::Ctx;
use crate::registry::{Resource, api_version, events};
use crate::store::{Key, Obj};

pub(crate) fn key(res: &Resource, namespace: &str, name: &str) -> Key {
    Key {
        resource: res.storage.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A stored object in the requested version.
pub(crate) fn present(res: &Resource, obj: &Obj) -> Value {
    let mut value = obj.to_value();
    convert(res, &mut value);
    value
}

/// Whether the stored JSON is what a list of the version shows.
pub(crate) fn is_stored_form(res: &Resource, obj: &Obj) -> bool {
    if res.custom().is_none() {
        return res.group != "events.k8s.io";
    }
    obj.look(|value| {
        let version = value["apiVersion"].as_str().and_then(|v| v.split_once('/'));
        version.is_some_and(|(_, v)| v == res.version)
    })
}

/// The stored JSON with the kind, which built-in objects are stored (and listed) without.
pub(crate) fn with_kind(res: &Resource, stored: &[u8], out: &mut bytes::BytesMut) {
    use bytes::BufMut as _;
    if res.custom().is_some() || stored.len() < 3 {
        out.put_slice(stored);
        return;
    }
    out.put_slice(
        format!(
            "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
            res.api_version(),
            res.kind
        )
        .as_bytes(),
    );
    out.put_slice(&stored[1..]);
}

pub(crate) fn convert(res: &Resource, value: &mut Value) {
    if res.group == "events.k8s.io" {
        if value["apiVersion"] != "events.k8s.io/v1" {
            events::from_core(value);
            value["kind"] = "Event".into();
        }
        return;
    }
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), res.api_version().into());
        map.insert("kind".into(), res.kind.as_str().into());
    }
}

/// The form in which the object is stored.
pub(crate) fn to_storage(res: &Resource, mut value: Value) -> Value {
    if res.group == "events.k8s.io" {
        events::to_core(&mut value);
    }
    if let Some(custom) = res.custom() {
        value["apiVersion"] = api_version(&res.group, &custom.storage_version).into();
    } else if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    value
}

/// Fills in the defaults of the kind.
pub(crate) fn default(ctx: &Ctx, obj: &mut Value) {
    default_for(&ctx.res, obj);
}

pub(crate) fn default_for(res: &Resource, obj: &mut Value) {
    if let Some(rules) = res.rules() {
        if res.is("apiextensions.k8s.io", "customresourcedefinitions") {
            crate::crd::default(obj);
        }
        rules.default(obj);
    } else if let Some(schema) = res.custom().and_then(|c| c.schema.as_ref()) {
        schema.apply_defaults(obj);
    }
}

/// Removes an object's empty collections of metadata, which Kubernetes does not print.
pub(crate) fn tidy_meta(obj: &mut Value) {
    if let Some(meta) = obj.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.retain(|_, v| match v {
            Value::Null => false,
            Value::Array(a) => !a.is_empty(),
            Value::Object(m) => !m.is_empty(),
            Value::String(s) => !s.is_empty(),
            _ => true,
        });
        meta.remove("selfLink");
    }
}

pub(crate) fn text<'a>(v: &'a Value, field: &str) -> &'a str {
    v.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `Ok` unless there are field errors.
pub(crate) fn valid(res: &Resource, name: &str, errors: &[crate::field_error::FieldError]) -> ApiResult<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(crate::error::ApiError::invalid(
        &res.group, &res.kind, name, errors,
    ))
}
