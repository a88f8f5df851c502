//! Binding and eviction.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::done;
use crate::error::{ApiError, ApiResult};
use crate::handler::{Ctx, json_answer};
use crate::objects::delete::{self, Options};
use crate::objects::write::{Part, update};
use crate::objects::{decode, read, text};
use crate::selectors::LabelSelector;
use crate::server::ApiServer;
use crate::times;

/// Assigns a Pod to a node.
pub(crate) async fn bind(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let binding = decode::parse(&ctx.content_type, body)?;
    let name = if ctx.info.name.is_empty() {
        text(&binding["metadata"], "name").to_owned()
    } else {
        ctx.info.name.clone()
    };
    let node = text(&binding["target"], "name").to_owned();
    if node.is_empty() {
        return Err(ApiError::new(500, "", "target.name: Required value", json!({})));
    }
    let refused =
        |text: String| ApiError::conflict(&crate::error::GroupResource::new("", "pods/binding"), &name, text);
    update(server, ctx, &name, Part::Internal, |old| {
        let uid = text(&binding["metadata"], "uid");
        if !uid.is_empty() && uid != text(&old["metadata"], "uid") {
            return Err(refused(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(&old["metadata"], "uid")
            )));
        }
        if !old["metadata"]["deletionTimestamp"].is_null() {
            return Err(refused(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let bound = text(&old["spec"], "nodeName");
        if !bound.is_empty() {
            return Err(refused(format!("pod {name} is already assigned to node {bound:?}")));
        }
        let mut pod = old.clone();
        pod["spec"]["nodeName"] = node.as_str().into();
        for (k, v) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
            pod["metadata"]["annotations"][k.as_str()] = v.clone();
        }
        let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": times::now()});
        let mut conditions: Vec<Value> = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(condition);
        pod["status"]["conditions"] = Value::Array(conditions);
        Ok(pod)
    })
    .await?;
    Ok(json_answer(false, StatusCode::CREATED, &done(201)))
}

/// Deletes a Pod unless a disruption budget forbids it.
pub(crate) async fn evict(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let eviction = decode::parse(&ctx.content_type, body)?;
    let pod = read::get(server, ctx, &ctx.info.name)?;
    let options_body = serde_json::to_vec(&eviction["deleteOptions"]).unwrap_or_default();
    let mut plain = ctx.with(&ctx.res, "delete", &ctx.info.namespace, &ctx.info.name);
    plain.content_type = "application/json".into();
    let options = if eviction["deleteOptions"].is_object() {
        Options::of(&plain, &options_body)?
    } else {
        Options::default()
    };
    let settled = matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed" | "Pending");
    if !settled && pod["metadata"]["deletionTimestamp"].is_null() {
        let labels = pod["metadata"]["labels"].as_object();
        let budgets = server
            .inner
            .store
            .list("policy/poddisruptionbudgets", Some(ctx.ns()), None)
            .1;
        for budget in budgets {
            let budget = budget.value();
            let covers =
                LabelSelector::from_object(&budget["spec"]["selector"]).is_ok_and(|s| s.matches(labels));
            if covers && budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0 {
                let name = text(&budget["metadata"], "name");
                let healthy = budget["status"]["currentHealthy"].as_i64().unwrap_or(0);
                let desired = budget["status"]["desiredHealthy"].as_i64().unwrap_or(0);
                return Err(ApiError::too_many_requests(
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                    0,
                    json!({"causes": [{"reason": "DisruptionBudget", "message":
                        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")}]}),
                ));
            }
        }
    }
    delete::delete(server, &plain, &ctx.info.name, &options).await?;
    Ok(json_answer(false, StatusCode::CREATED, &done(201)))
}
