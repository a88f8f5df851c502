//! Deletion: preconditions, grace periods, finalizers, propagation.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::read::Filter;
use super::write::write_error;
use super::{decode, key, present, text, to_storage};
use crate::admission::{self, Operation};
use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::{Ctx, answer, json_answer};
use crate::server::ApiServer;
use crate::store::{Expect, Key, Obj, WriteError};
use crate::times;

/// `DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub version: Option<String>,
    pub policy: Option<String>,
    pub orphan: Option<bool>,
    pub dry_run: bool,
}

impl Options {
    pub(crate) fn of(ctx: &Ctx, body: &[u8]) -> ApiResult<Self> {
        let v = if body.is_empty() {
            json!({})
        } else {
            decode::parse(&ctx.content_type, body)?
        };
        let q = &ctx.query;
        let string = |v: &Value| v.as_str().map(str::to_owned);
        let options = Self {
            grace: v["gracePeriodSeconds"]
                .as_i64()
                .or_else(|| q.number("gracePeriodSeconds")),
            uid: string(&v["preconditions"]["uid"]),
            version: string(&v["preconditions"]["resourceVersion"]),
            policy: string(&v["propagationPolicy"])
                .or_else(|| q.non_empty("propagationPolicy").map(str::to_owned)),
            orphan: v["orphanDependents"]
                .as_bool()
                .or_else(|| q.get("orphanDependents").map(|o| o == "true")),
            dry_run: ctx.dry_run()?
                || v["dryRun"]
                    .as_array()
                    .is_some_and(|d| d.iter().any(|x| x == "All")),
        };
        let invalid = |e: FieldError| Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[e]));
        if options.policy.is_some() && options.orphan.is_some() {
            return invalid(FieldError::invalid(
                "propagationPolicy",
                options.policy.clone().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if let Some(policy) = &options.policy
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            return invalid(FieldError::not_supported(
                "propagationPolicy",
                policy.as_str(),
                &["Foreground", "Background", "Orphan", "nil"],
            ));
        }
        Ok(options)
    }
}

/// What became of a deletion.
pub(crate) enum Outcome {
    Gone(Value),
    /// Finalizers or a grace period hold it.
    Pending(Value),
}

fn default_grace(ctx: &Ctx, obj: &Value, asked: Option<i64>) -> Option<i64> {
    if !ctx.res.is("", "pods") {
        return None;
    }
    let phase = text(&obj["status"], "phase");
    if text(&obj["spec"], "nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return Some(0);
    }
    let period = asked
        .or_else(|| obj["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30);
    Some(if period < 0 { 1 } else { period })
}

/// Finalizers after the propagation policy has been taken into account.
fn finalizers(ctx: &Ctx, obj: &Value, options: &Options) -> Vec<Value> {
    let mut out: Vec<Value> = obj["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let has = |list: &[Value], f: &str| list.iter().any(|x| x == f);
    let legacy_orphan = ctx.res.is("batch", "jobs") || ctx.res.is("", "replicationcontrollers");
    let explicit = options.policy.is_some() || options.orphan.is_some();
    let orphan = match (&options.policy, options.orphan) {
        (Some(p), _) => p == "Orphan",
        (None, Some(o)) => o,
        (None, None) => has(&out, "orphan") || (legacy_orphan && !has(&out, "foregroundDeletion")),
    };
    let foreground = match &options.policy {
        Some(p) => p == "Foreground",
        None => !explicit && has(&out, "foregroundDeletion"),
    };
    out.retain(|f| f != "orphan" && f != "foregroundDeletion");
    if orphan {
        out.push("orphan".into());
    }
    if foreground {
        out.push("foregroundDeletion".into());
    }
    out
}

/// Deletes one object as far as it may be deleted now.
pub(crate) async fn delete(
    server: &ApiServer,
    ctx: &Ctx,
    name: &str,
    options: &Options,
) -> ApiResult<Outcome> {
    let inner = &server.inner;
    let res = &ctx.res;
    let place = key(res, ctx.ns(), name);
    if res.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(ApiError::forbidden(
            &ctx.gr(),
            name,
            "this namespace may not be deleted",
        ));
    }
    for _ in 0..16 {
        let seen = inner.store.latest(&place);
        let done = match &seen.obj {
            None => Err(ApiError::not_found(&ctx.gr(), name)),
            Some(current) => delete_once(server, ctx, name, &place, current, options).await,
        };
        match done {
            Ok(Done::Written(outcome)) => return Ok(outcome),
            // a refusal, or that nothing changes, counts only if what it was found by is durable
            Ok(Done::Unwritten(outcome)) if inner.store.stands(&seen).await => return Ok(outcome),
            Err(error) if inner.store.stands(&seen).await => return Err(error),
            // the race is lost: again
            _ => {}
        }
    }
    Err(ApiError::modified(&ctx.gr(), name))
}

enum Done {
    Written(Outcome),
    /// Nothing changed, or this was a dry run.
    Unwritten(Outcome),
    /// Another write came between.
    LostRace,
}

async fn delete_once(
    server: &ApiServer,
    ctx: &Ctx,
    name: &str,
    place: &Key,
    current: &Arc<Obj>,
    options: &Options,
) -> ApiResult<Done> {
    let inner = &server.inner;
    let res = &ctx.res;
    let old = present(res, current);
    check_preconditions(ctx, name, &old, options)?;
    admission::webhooks::validate(server, ctx, Operation::Delete, None, Some(&old), "").await?;
    let mut new = old.clone();
    let finals = finalizers(ctx, &old, options);
    let deleting = !old["metadata"]["deletionTimestamp"].is_null();
    let mut grace = default_grace(ctx, &old, options.grace);
    if deleting && let Some(period) = grace {
        // A running deletion can only be made shorter.
        let running = old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        if options.grace.is_none() || period >= running {
            grace = Some(running);
        }
    }
    let is_namespace = res.is("", "namespaces");
    let holds = !finals.is_empty()
        || (is_namespace && !old["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
        || (res.is("apiextensions.k8s.io", "customresourcedefinitions"));
    let waits = grace.is_some_and(|g| g > 0);
    let failed = |error| match error {
        WriteError::Conflict => Ok(Done::LostRace),
        other => Err(write_error(ctx, name, other)),
    };
    if !holds && !waits {
        if options.dry_run {
            return Ok(Done::Unwritten(Outcome::Gone(old)));
        }
        let mut current = current.clone();
        let mut last = old.clone();
        if grace.is_some() {
            // Kinds that end gracefully are marked even when they go at once.
            mark(ctx, &old, &mut last, &finals, grace, deleting);
            if last != old {
                let marked = to_storage(res, last.clone());
                let version = Expect::Version(current.rv);
                match inner.store.put(place.clone(), version, marked).await {
                    Ok(done) => current = done,
                    Err(error) => return failed(error),
                }
            }
        }
        let stored = to_storage(res, last);
        return match inner.store.remove(place.clone(), current.rv, stored).await {
            Ok(done) => {
                inner.wrote(&res.storage);
                Ok(Done::Written(Outcome::Gone(present(res, &done))))
            }
            Err(error) => failed(error),
        };
    }
    mark(ctx, &old, &mut new, &finals, grace, deleting);
    if options.dry_run {
        return Ok(Done::Unwritten(Outcome::Pending(new)));
    }
    if new == old {
        return Ok(Done::Unwritten(Outcome::Pending(old)));
    }
    let stored = to_storage(res, new);
    let version = Expect::Version(current.rv);
    match inner.store.put(place.clone(), version, stored).await {
        Ok(done) => {
            inner.wrote(&res.storage);
            Ok(Done::Written(Outcome::Pending(present(res, &done))))
        }
        Err(error) => failed(error),
    }
}

fn mark(ctx: &Ctx, old: &Value, new: &mut Value, finals: &[Value], grace: Option<i64>, deleting: bool) {
    let meta = &mut new["metadata"];
    if finals.is_empty() {
        if let Some(map) = meta.as_object_mut() {
            map.remove("finalizers");
        }
    } else {
        meta["finalizers"] = Value::Array(finals.to_vec());
    }
    let period = grace.unwrap_or(0);
    let running = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if !deleting || running.is_some_and(|r| period < r) {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(period);
        meta["deletionTimestamp"] = times::second(at).into();
        if !ctx.res.is("", "namespaces") {
            meta["deletionGracePeriodSeconds"] = period.into();
        }
        if !deleting && let Some(generation) = meta["generation"].as_i64().filter(|g| *g > 0) {
            meta["generation"] = (generation + 1).into();
        }
    }
    if ctx.res.is("", "namespaces") {
        new["status"]["phase"] = "Terminating".into();
    }
    if ctx.res.is("apiextensions.k8s.io", "customresourcedefinitions") {
        let has = finals.iter().any(|f| f == crate::crd::CLEANUP);
        if !has {
            let mut list = finals.to_vec();
            list.push(crate::crd::CLEANUP.into());
            new["metadata"]["finalizers"] = Value::Array(list);
        }
        let status = crate::crd::status(new, None);
        new["status"] = status;
    }
}

fn check_preconditions(ctx: &Ctx, name: &str, old: &Value, options: &Options) -> ApiResult<()> {
    let meta = &old["metadata"];
    // The kind stands where the resource should, as in the real server's texts.
    let gk = crate::error::GroupResource::new(&ctx.res.group, &ctx.res.kind);
    for (asked, field, label, fate) in [
        (&options.uid, "uid", "UID", "deleted and then recreated"),
        (&options.version, "resourceVersion", "ResourceVersion", "modified"),
    ] {
        if let Some(asked) = asked
            && asked != text(meta, field)
        {
            return Err(ApiError::conflict(
                &gk,
                name,
                format!(
                    "the {label} in the precondition ({asked}) does not match the {label} in record ({}). The object might have been {fate}",
                    text(meta, field)
                ),
            ));
        }
    }
    Ok(())
}

/// Kinds whose deletion is answered with the object rather than a Status.
fn returns_object(ctx: &Ctx) -> bool {
    ctx.res.group.is_empty()
        && matches!(
            ctx.res.plural.as_str(),
            "pods"
                | "services"
                | "serviceaccounts"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "podtemplates"
                | "resourcequotas"
        )
}

pub(crate) fn success(ctx: &Ctx, obj: &Value) -> Value {
    let mut details =
        json!({"name": obj["metadata"]["name"], "kind": ctx.res.plural, "uid": obj["metadata"]["uid"]});
    if !ctx.res.group.is_empty() {
        details["group"] = ctx.res.group.as_str().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// DELETE of one object.
pub(crate) async fn one(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let options = Options::of(ctx, body)?;
    if ctx.res.is("batch", "jobs") && options.policy.is_none() && options.orphan.is_none() {
        ctx.warn("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning");
    }
    Ok(match delete(server, ctx, &ctx.info.name, &options).await? {
        Outcome::Gone(obj) if returns_object(ctx) => answer(ctx, StatusCode::OK, obj),
        Outcome::Gone(obj) => json_answer(ctx.accept.yaml, StatusCode::OK, &success(ctx, &obj)),
        Outcome::Pending(obj) => {
            let code = if options.orphan == Some(false) {
                StatusCode::ACCEPTED
            } else {
                StatusCode::OK
            };
            answer(ctx, code, obj)
        }
    })
}

/// DELETE of all objects that match.
pub(crate) async fn collection(server: &ApiServer, ctx: &Ctx, body: &[u8]) -> ApiResult<Response> {
    let options = Options::of(ctx, body)?;
    if ctx.res.is("", "namespaces") || ctx.res.is("", "services") && ctx.ns().is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let filter = Filter::of(ctx)?;
    let namespace = (!ctx.ns().is_empty()).then(|| ctx.ns());
    let (rv, objects) = server.inner.store.list(&ctx.res.storage, namespace, None);
    let mut items = Vec::new();
    for obj in objects {
        let value = present(&ctx.res, &obj);
        if !filter.matches(ctx, &value) {
            continue;
        }
        let meta = &value["metadata"];
        let each = ctx.with(&ctx.res, "delete", text(meta, "namespace"), text(meta, "name"));
        match delete(server, &each, text(meta, "name"), &options).await {
            Ok(_) => items.push(super::read::item(&ctx.res, &obj)),
            Err(e) if e.code == StatusCode::NOT_FOUND => {}
            Err(e) => return Err(e),
        }
    }
    let list = json!({"kind": ctx.res.list_kind(), "apiVersion": ctx.res.api_version(),
        "metadata": {"resourceVersion": rv.to_string()}, "items": items});
    Ok(json_answer(ctx.accept.yaml, StatusCode::OK, &list))
}
