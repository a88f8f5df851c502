//! Get and list.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::{BufMut as _, BytesMut};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{decode, is_stored_form, present, text};
use crate::error::{ApiError, ApiResult};
use crate::fields;
use crate::handler::{Ctx, json_answer};
use crate::request::Form;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::server::ApiServer;
use crate::store::Obj;

pub(crate) fn get(server: &ApiServer, ctx: &Ctx, name: &str) -> ApiResult<Value> {
    check_version_is_known(server, ctx)?;
    let obj = server
        .inner
        .store
        .get(&ctx.res.storage, ctx.ns(), name)
        .ok_or_else(|| ApiError::not_found(&ctx.gr(), name))?;
    Ok(present(&ctx.res, &obj))
}

fn check_version_is_known(server: &ApiServer, ctx: &Ctx) -> ApiResult<()> {
    let Some(asked) = ctx.query.non_empty("resourceVersion") else {
        return Ok(());
    };
    let asked: u64 = parse_version(asked)?;
    let current = server.inner.store.rv();
    if asked > current {
        return Err(too_large(asked, current));
    }
    Ok(())
}

pub(crate) fn parse_version(text: &str) -> ApiResult<u64> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "invalid resource version {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

pub(crate) fn too_large(asked: u64, current: u64) -> ApiError {
    let mut e = ApiError::new(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {asked}, current: {current}"),
        json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1}),
    );
    e.retry_after = Some(1);
    e
}

/// Label and field selectors of a request.
pub(crate) struct Filter {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    pub fn of(ctx: &Ctx) -> ApiResult<Self> {
        let labels = LabelSelector::parse(ctx.query.get("labelSelector").unwrap_or_default())
            .map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields = FieldSelector::parse(ctx.query.get("fieldSelector").unwrap_or_default())
            .map_err(ApiError::bad_request)?;
        for term in &fields.0 {
            if fields::value(&ctx.res, &Value::Null, &term.field).is_none() {
                return Err(fields::unsupported(&ctx.res, &term.field));
            }
        }
        Ok(Self { labels, fields })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.0.is_empty() && self.fields.0.is_empty()
    }

    pub fn matches(&self, ctx: &Ctx, value: &Value) -> bool {
        self.labels.matches(value["metadata"]["labels"].as_object())
            && self.fields.0.iter().all(|t| {
                let got = fields::value(&ctx.res, value, &t.field).unwrap_or_default();
                (got == t.value) == t.equal
            })
    }
}

/// Where the next page begins: version of the first page, then the last key given.
fn encode_continue(rv: u64, namespace: &str, name: &str) -> String {
    let text = json!({"v": "meta.k8s.io/v1", "rv": rv, "ns": namespace, "start": name}).to_string();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

fn decode_continue(token: &str) -> ApiResult<(u64, String, String)> {
    let bad = |why: &str| {
        ApiError::bad_request(format!(
            "invalid continue token: continue key is not valid: {why}"
        ))
    };
    // The last bits of a token that was cut are not checked, as in Go.
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
    );
    let bytes = engine.decode(token).map_err(|e| match e {
        base64::DecodeError::InvalidByte(at, _) => bad(&format!("illegal base64 data at input byte {at}")),
        _ => bad(&format!("illegal base64 data at input byte {}", token.len())),
    })?;
    let v: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&decode::go_json_error(&e, &bytes)))?;
    let rv = v["rv"]
        .as_u64()
        .ok_or_else(|| bad("incorrect encoded start resourceVersion"))?;
    Ok((rv, text(&v, "ns").to_owned(), text(&v, "start").to_owned()))
}

pub(crate) fn list(server: &ApiServer, ctx: &Ctx) -> ApiResult<Response> {
    let filter = Filter::of(ctx)?;
    check_version_is_known(server, ctx)?;
    if let Some(text) = ctx.query.non_empty("limit")
        && text.parse::<i64>().is_err()
    {
        return Err(ApiError::bad_request(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        )));
    }
    let limit = ctx
        .query
        .number("limit")
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0);
    let (first_rv, after) = match ctx.query.non_empty("continue") {
        None => (None, None),
        Some(token) => {
            if ctx.query.non_empty("resourceVersion").is_some_and(|v| v != "0") {
                return Err(ApiError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let (rv, ns, name) = decode_continue(token)?;
            (Some(rv), Some((ns, name)))
        }
    };
    let namespace = (!ctx.ns().is_empty()).then(|| ctx.ns());
    let (rv, objects) = server.inner.store.list(&ctx.res.storage, namespace, after);
    let rv = first_rv.unwrap_or(rv);
    let mut chosen: Vec<Arc<Obj>> = Vec::new();
    let mut rest = 0;
    let whole = filter.is_empty();
    for obj in objects {
        let keep = whole || {
            if ctx.res.group == "events.k8s.io" {
                filter.matches(ctx, &present(&ctx.res, &obj))
            } else {
                obj.look(|value| filter.matches(ctx, value))
            }
        };
        if !keep {
            continue;
        }
        if limit.is_some_and(|l| chosen.len() >= l) {
            rest += 1;
        } else {
            chosen.push(obj);
        }
    }
    let mut meta = json!({"resourceVersion": rv.to_string()});
    if ctx.res.custom().is_some() {
        meta["continue"] = "".into();
    }
    if rest > 0
        && let Some(last) = chosen.last()
    {
        let token = last.look(|last| {
            let m = &last["metadata"];
            encode_continue(rv, text(m, "namespace"), text(m, "name"))
        });
        meta["continue"] = token.into();
        if whole {
            meta["remainingItemCount"] = rest.into();
        }
    }
    Ok(list_answer(ctx, &chosen, &meta))
}

/// An object as an item of a list: built-in ones without their kind.
pub(crate) fn item(res: &crate::registry::Resource, obj: &Obj) -> Value {
    let mut value = present(res, obj);
    if res.custom().is_none()
        && let Some(map) = value.as_object_mut()
    {
        map.remove("apiVersion");
        map.remove("kind");
    }
    value
}

fn list_answer(ctx: &Ctx, objects: &[Arc<Obj>], meta: &Value) -> Response {
    let res = &ctx.res;
    match ctx.accept.form {
        Form::Object if !ctx.accept.yaml => {
            // Stored JSON is passed on as it is.
            let mut out =
                BytesMut::with_capacity(128 + objects.iter().map(|o| o.bytes().len() + 1).sum::<usize>());
            let head = json!({"kind": res.list_kind(), "apiVersion": res.api_version(), "metadata": meta})
                .to_string();
            out.put_slice(&head.as_bytes()[..head.len() - 1]);
            out.put_slice(b",\"items\":[");
            for (i, obj) in objects.iter().enumerate() {
                if i > 0 {
                    out.put_u8(b',');
                }
                if is_stored_form(res, obj) {
                    out.put_slice(obj.bytes());
                } else {
                    out.put_slice(item(res, obj).to_string().as_bytes());
                }
            }
            out.put_slice(b"]}");
            (
                StatusCode::OK,
                [(header::CONTENT_TYPE, "application/json")],
                out.freeze(),
            )
                .into_response()
        }
        Form::Table => {
            let values: Vec<Value> = objects.iter().map(|o| present(res, o)).collect();
            let refs: Vec<&Value> = values.iter().collect();
            json_answer(
                ctx.accept.yaml,
                StatusCode::OK,
                &crate::table::table(ctx, &refs, meta, true),
            )
        }
        form => {
            let items: Vec<Value> = objects
                .iter()
                .map(|o| {
                    if form == Form::Metadata {
                        crate::table::partial(&present(res, o))
                    } else {
                        item(res, o)
                    }
                })
                .collect();
            let (kind, version) = if form == Form::Metadata {
                (
                    "PartialObjectMetadataList".to_owned(),
                    "meta.k8s.io/v1".to_owned(),
                )
            } else {
                (res.list_kind(), res.api_version())
            };
            let list = json!({"kind": kind, "apiVersion": version, "metadata": meta, "items": items});
            json_answer(ctx.accept.yaml, StatusCode::OK, &list)
        }
    }
}
