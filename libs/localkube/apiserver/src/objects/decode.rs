//! Bodies to objects: JSON or YAML, kind checks, unknown fields.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::registry::{Behaviour, Resource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Parses JSON, or YAML where the content type says so.
pub(crate) fn parse(content_type: &str, body: &[u8]) -> ApiResult<Value> {
    if content_type.ends_with("yaml") {
        return serde_saphyr::from_slice(body)
            .map_err(|e| ApiError::bad_request(format!("error converting YAML to JSON: {e}")));
    }
    // Without a content type, and with that of plain HTML forms by curl -d, it is JSON that is meant.
    if !matches!(
        content_type,
        "" | "application/json" | "application/x-www-form-urlencoded"
    ) {
        return Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ));
    }
    serde_json::from_slice(body).map_err(|e| {
        let start: String = String::from_utf8_lossy(body).chars().take(512).collect();
        ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: {} ({start})",
            go_json_error(&e, body)
        ))
    })
}

/// What Go's decoder says about text that is no JSON.
pub(crate) fn go_json_error(e: &serde_json::Error, body: &[u8]) -> String {
    if e.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let line_start = body
        .split_inclusive(|b| *b == b'\n')
        .take(e.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = line_start + e.column().saturating_sub(1);
    let found = body.get(at).map_or(' ', |b| char::from(*b));
    let text = e.to_string();
    let place = if text.starts_with("key must be a string") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character '{found}' {place}")
}

/// Parses the body as an object of the request's resource; type errors and unknown fields are handled by [`fields`].
pub(crate) fn body(ctx: &Ctx, body: &[u8]) -> ApiResult<Value> {
    let mut obj = parse(&ctx.content_type, body).map_err(|e| unrecognized(&ctx.res, &e))?;
    known_kind(ctx, &obj)?;
    kind(&ctx.res, &mut obj)?;
    fields(ctx, &ctx.res, &mut obj)?;
    Ok(obj)
}

fn unrecognized(res: &Resource, e: &ApiError) -> ApiError {
    if e.code.as_u16() != 400 {
        return e.clone();
    }
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {}",
        res.kind,
        e.message()
    ))
}

/// An object of another built-in kind.
fn known_kind(ctx: &Ctx, obj: &Value) -> ApiResult<()> {
    let (given, kind) = (
        obj["apiVersion"].as_str().unwrap_or_default(),
        obj["kind"].as_str().unwrap_or_default(),
    );
    let (group, version) = crate::registry::split_api_version(given);
    if kind == ctx.res.kind || ctx.res.custom().is_some() {
        return Ok(());
    }
    let Some(other) = ctx
        .snapshot
        .by_kind(group, version, kind)
        .filter(|r| r.custom().is_none())
    else {
        return Ok(());
    };
    let package = |group: &str| {
        if group.is_empty() {
            "core".to_owned()
        } else {
            group.split('.').next().unwrap_or_default().to_owned()
        }
    };
    Err(ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: converting ({version}.{}) to ({}.{}): unknown conversion",
        ctx.res.kind,
        other.kind,
        package(&ctx.res.group),
        ctx.res.kind
    )))
}

/// The kind of the object must be the resource's; absent ones are filled in.
pub(crate) fn kind(res: &Resource, obj: &mut Value) -> ApiResult<()> {
    let Some(map) = obj.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            res.kind,
            match obj {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Null => "null",
                _ => "value",
            }
        )));
    };
    let wanted = res.api_version();
    let given = map
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let kind = map
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !kind.is_empty() && kind != res.kind {
        let (group, version) =
            crate::registry::split_api_version(if given.is_empty() { &wanted } else { &given });
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is registered for version {:?} in scheme",
            res.kind,
            crate::registry::api_version(group, version)
        )));
    }
    if !given.is_empty() && given != wanted {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({wanted})"
        )));
    }
    map.insert("apiVersion".into(), wanted.into());
    map.insert("kind".into(), res.kind.as_str().into());
    Ok(())
}

/// Checks types and drops unknown fields; their paths.
pub(crate) fn unknown_fields(ctx: &Ctx, res: &Resource, obj: &mut Value) -> ApiResult<Vec<String>> {
    raw_fields(ctx, res, obj).map_err(|text| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {text}",
            res.kind, res.version, res.kind
        ))
    })
}

/// Checks types, drops unknown fields and reacts to them as `fieldValidation` says.
pub(crate) fn fields(ctx: &Ctx, res: &Resource, obj: &mut Value) -> ApiResult<()> {
    let handled = |text: &str| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {text}",
            res.kind, res.version, res.kind
        ))
    };
    let unknown = raw_fields(ctx, res, obj).map_err(|e| handled(&e))?;
    if unknown.is_empty() {
        return Ok(());
    }
    match ctx.query.get("fieldValidation").unwrap_or("Warn") {
        "Strict" => {
            let list: Vec<String> = unknown.iter().map(|u| format!("unknown field {u:?}")).collect();
            Err(handled(&format!("strict decoding error: {}", list.join(", "))))
        }
        "Ignore" => Ok(()),
        _ => {
            for u in unknown {
                ctx.warn(format!("unknown field {u:?}"));
            }
            Ok(())
        }
    }
}

fn raw_fields(ctx: &Ctx, res: &Resource, obj: &mut Value) -> Result<Vec<String>, String> {
    match &res.behaviour {
        Behaviour::Builtin { definition, .. } => match definition {
            Some(name) => ctx.defs.decode(name, obj),
            None => Ok(Vec::new()),
        },
        Behaviour::Custom(custom) => {
            let mut unknown = Vec::new();
            if let Some(meta) = obj.get_mut("metadata") {
                if meta.is_null() {
                    *meta = Value::Object(serde_json::Map::new());
                }
                let found = ctx.defs.decode(META, meta).map_err(|e| {
                    e.replace(
                        "Go struct field ObjectMeta.",
                        "Go struct field ObjectMeta.metadata.",
                    )
                })?;
                unknown.extend(found.into_iter().map(|f| format!("metadata.{f}")));
            }
            if let Some(schema) = &custom.schema {
                schema.prune(obj, true, "", &mut unknown);
                schema.drop_invalid_nulls(obj);
            }
            Ok(unknown)
        }
    }
}
