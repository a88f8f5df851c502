//! What is not plain create, read, update, delete.

pub mod pods;
pub mod reviews;
pub mod scale;

use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::tokens::{ISSUER, TokenRequest};
use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::{Ctx, answer, json_answer, read_body};
use crate::objects::{decode, patch, read, text, write};
use crate::server::ApiServer;
use crate::times;

/// Serves subresources that are answered by the server itself.
pub(crate) async fn serve(server: &ApiServer, ctx: &Ctx, request: Request) -> ApiResult<Response> {
    let sub = ctx.info.subresource.as_str();
    let res = &ctx.res;
    let verb = ctx.info.verb.as_str();
    let body = read_body(request.into_body()).await?;
    match sub {
        "status" if res.status => match verb {
            "get" => Ok(answer(
                ctx,
                StatusCode::OK,
                read::get(server, ctx, &ctx.info.name)?,
            )),
            "update" => {
                let (value, _) = write::replace(server, ctx, &body).await?;
                Ok(answer(ctx, StatusCode::OK, value))
            }
            "patch" => {
                let (value, _) = patch::patch(server, ctx, &body).await?;
                Ok(answer(ctx, StatusCode::OK, value))
            }
            _ => Err(ApiError::method_not_allowed()),
        },
        "scale" if res.scale.is_some() => scale::serve(server, ctx, &body).await,
        "finalize" if res.is("", "namespaces") && verb == "update" => {
            let (value, _) = write::replace(server, ctx, &body).await?;
            Ok(answer(ctx, StatusCode::OK, value))
        }
        "token" if res.is("", "serviceaccounts") && verb == "create" => token(server, ctx, &body),
        "binding" if res.is("", "pods") && verb == "create" => pods::bind(server, ctx, &body).await,
        "eviction" if res.is("", "pods") && verb == "create" => pods::evict(server, ctx, &body).await,
        "ephemeralcontainers" | "resize" if res.is("", "pods") => Err(ApiError::not_implemented(format!(
            "pods/{sub} is not implemented by localkube; change the pod's template instead"
        ))),
        _ => Err(ApiError::no_resource().with_empty_details()),
    }
}

/// `serviceaccounts/token`.
fn token(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let mut request = decode::parse(&ctx.content_type, body)?;
    let account = read::get(server, ctx, &ctx.info.name)?;
    let mut seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    if seconds < 600 {
        let e = FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 10 minutes",
        );
        return Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[e],
        ));
    }
    seconds = seconds.min(1 << 31);
    let audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let bound = &request["spec"]["boundObjectRef"];
    let pod = (text(bound, "kind") == "Pod")
        .then(|| (text(bound, "name").to_owned(), text(bound, "uid").to_owned()));
    let pod = match pod {
        None => None,
        Some((name, uid)) => {
            let found =
                server.inner.store.get("/pods", ctx.ns(), &name).ok_or_else(|| {
                    ApiError::not_found(&crate::error::GroupResource::new("", "pods"), &name)
                })?;
            let actual = text(&found.value()["metadata"], "uid").to_owned();
            if !uid.is_empty() && uid != actual {
                return Err(ApiError::conflict(
                    &crate::error::GroupResource::new("", "pods"),
                    &name,
                    format!(
                        "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                    ),
                ));
            }
            Some((name, actual))
        }
    };
    let wanted = TokenRequest {
        namespace: ctx.ns().to_owned(),
        service_account: ctx.info.name.clone(),
        audiences: audiences.clone(),
        ttl: Duration::from_secs(u64::try_from(seconds).unwrap_or(3600)),
        pod,
    };
    let (token, until) = server
        .inner
        .tokens
        .issue(&wanted, text(&account["metadata"], "uid"))
        .map_err(ApiError::internal)?;
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] =
        json!({"name": ctx.info.name, "namespace": ctx.ns(), "creationTimestamp": times::now()});
    request["spec"]["expirationSeconds"] = seconds.into();
    if audiences.is_empty() {
        request["spec"]["audiences"] = json!([ISSUER]);
    }
    request["status"] = json!({"token": token, "expirationTimestamp": times::second(until)});
    Ok(json_answer(ctx.accept.yaml, StatusCode::CREATED, &request))
}

/// `Status` of success without details.
pub(crate) fn done(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}
