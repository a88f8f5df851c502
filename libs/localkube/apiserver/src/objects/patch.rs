//! PATCH requests.

use serde_json::Value;

use super::write::{Part, update};
use super::{decode, text};
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::registry::Behaviour;
use crate::server::ApiServer;

/// Kinds of patch by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub(crate) fn of(ctx: &Ctx) -> ApiResult<Self> {
        let builtin = ctx.res.custom().is_none();
        match ctx.content_type.as_str() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if builtin => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ if builtin => {
                Err(ApiError::unsupported_media_type("415: Unsupported Media Type").with_empty_details())
            }
            _ => Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// Applies the patch to a value of the resource.
pub(crate) fn apply(ctx: &Ctx, kind: PatchType, target: &Value, patch: &Value) -> ApiResult<Value> {
    let mut out = target.clone();
    match kind {
        PatchType::Json => crate::patch::json_patch(&mut out, patch)?,
        PatchType::Merge => crate::patch::merge(&mut out, patch),
        PatchType::Strategic => {
            let definition = match &ctx.res.behaviour {
                Behaviour::Builtin {
                    definition: Some(name),
                    ..
                } => ctx.defs.get(name),
                _ => None,
            };
            match definition {
                Some(def) => crate::patch::strategic::apply(&ctx.defs, def, &mut out, patch)
                    .map_err(ApiError::bad_request)?,
                None => crate::patch::merge(&mut out, patch),
            }
        }
        PatchType::Apply => return Err(ApiError::internal("apply is not a plain patch")),
    }
    Ok(out)
}

pub(crate) async fn patch(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<(Value, bool)> {
    let kind = PatchType::of(ctx)?;
    let part = match ctx.info.subresource.as_str() {
        "status" => Part::Status,
        "" => Part::Main,
        _ => return Err(ApiError::method_not_allowed()),
    };
    if kind == PatchType::Apply {
        let applied = decode::parse("application/yaml", body)?;
        return crate::managed::apply(server, ctx, applied, part).await;
    }
    if ctx.query.get("force").is_some() {
        let error =
            crate::field_error::FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    let patch: Value = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if kind != PatchType::Json && !patch.is_object() {
        return Err(ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            crate::patch::go_kind(&patch)
        )));
    }
    let name = ctx.info.name.clone();
    let value = update(server, ctx, &name, part, |old| {
        let mut new = apply(ctx, kind, old, &patch)?;
        decode::kind(&ctx.res, &mut new)?;
        decode::fields(ctx, &ctx.res, &mut new)?;
        let given = text(&new["metadata"], "namespace");
        if ctx.res.namespaced && given != ctx.ns() {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Ok(new)
    })
    .await?;
    Ok((value, false))
}
