//! Field ownership (`metadata.managedFields`) and server-side apply.

mod merge;
mod sets;
mod typed;

use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::field_error::FieldError;
use crate::handler::Ctx;
use crate::objects::write::{Part, create, update};
use crate::objects::{decode, text};
use crate::server::ApiServer;
use crate::times;
use sets::Set;
use typed::Node;

const APPLY: &str = "application/apply-patch+yaml";

/// Owners that are recorded per object; the oldest updates beyond that are merged by Kubernetes, and dropped here.
const MAX_UPDATERS: usize = 10;

fn is_apply(ctx: &Ctx) -> bool {
    ctx.info.verb == "patch" && ctx.content_type == APPLY
}

fn manager(ctx: &Ctx) -> String {
    match ctx.query.non_empty("fieldManager") {
        Some(given) => given.to_owned(),
        None => {
            let agent = ctx.user_agent.split('/').next().unwrap_or_default();
            let agent = if agent.is_empty() { "unknown" } else { agent };
            agent.chars().take(128).collect()
        }
    }
}

/// The parts that nobody owns.
fn strip(obj: &Value) -> Value {
    let mut out = obj.clone();
    if let Some(map) = out.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    if let Some(meta) = out.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "name",
            "namespace",
            "generateName",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "managedFields",
            "selfLink",
        ] {
            meta.remove(field);
        }
        if meta.is_empty()
            && let Some(map) = out.as_object_mut()
        {
            map.remove("metadata");
        }
    }
    out
}

fn entry(ctx: &Ctx, manager: &str, operation: &str, sub: &str, fields: &Set) -> Value {
    let mut out = json!({"manager": manager, "operation": operation, "apiVersion": ctx.res.api_version(),
        "time": times::now(), "fieldsType": "FieldsV1", "fieldsV1": fields});
    if !sub.is_empty() {
        out["subresource"] = sub.into();
    }
    out
}

fn is_entry(e: &Value, manager: &str, operation: &str, sub: &str) -> bool {
    text(e, "manager") == manager && text(e, "operation") == operation && text(e, "subresource") == sub
}

fn fields_of(e: &Value) -> Set {
    e["fieldsV1"].as_object().cloned().unwrap_or_default()
}

fn entries(obj: &Value) -> Vec<Value> {
    obj["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Stores the owners in Kubernetes' order: applies first, then by time and name.
fn set_entries(obj: &mut Value, list: Vec<Value>) {
    let mut list: Vec<Value> = list
        .into_iter()
        .filter(|e| e["fieldsV1"].as_object().is_some_and(|f| !f.is_empty()))
        .collect();
    let order =
        |e: &Value| ["operation", "time", "manager", "subresource"].map(|field| text(e, field).to_owned());
    list.sort_by_key(order);
    if list.is_empty() {
        if let Some(meta) = obj["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
    } else {
        obj["metadata"]["managedFields"] = Value::Array(list);
    }
}

/// Records who made a new object; `given` is the object before defaulting.
pub(crate) fn on_create(ctx: &Ctx, obj: &mut Value, given: &Value) {
    if is_apply(ctx) {
        // The entry of the apply is there already, made of what was applied rather than of what came of it.
        return;
    }
    let node = Node::root(&ctx.defs, &ctx.res);
    let mut all = sets::of_update(&ctx.defs, node, &strip(obj), true).unwrap_or_default();
    if ctx.res.is("", "pods")
        && let Some(spec) = all.get_mut("f:spec").and_then(Value::as_object_mut)
    {
        // What admission fills in is nobody's.
        for field in [
            "tolerations",
            "preemptionPolicy",
            "priority",
            "serviceAccount",
            "serviceAccountName",
        ] {
            if given["spec"].get(field).is_none_or(Value::is_null) {
                spec.remove(&format!("f:{field}"));
            }
        }
    }
    let made = entry(ctx, &manager(ctx), "Update", "", &all);
    set_entries(obj, vec![made]);
}

/// Records who changed what.
pub(crate) fn on_update(ctx: &Ctx, old: &Value, new: &mut Value) {
    if is_apply(ctx) {
        return;
    }
    let explicit_reset = new["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|l| l.len() == 1 && l[0] == json!({}));
    let mut list = if explicit_reset { Vec::new() } else { entries(old) };
    let node = Node::root(&ctx.defs, &ctx.res);
    let change = sets::difference(&ctx.defs, node, &strip(old), &strip(new), true);
    if change.set.is_empty() && change.removed.is_empty() {
        set_entries(new, list);
        return;
    }
    let (manager, sub) = (manager(ctx), ctx.info.subresource.as_str());
    for e in &mut list {
        let mut fields = fields_of(e);
        sets::subtract(&mut fields, &change.removed);
        if !is_entry(e, &manager, "Update", sub) {
            sets::subtract(&mut fields, &change.set);
        }
        e["fieldsV1"] = Value::Object(fields);
    }
    match list.iter_mut().find(|e| is_entry(e, &manager, "Update", sub)) {
        Some(e) => {
            let mut fields = fields_of(e);
            sets::union(&mut fields, &change.set);
            e["fieldsV1"] = Value::Object(fields);
            e["time"] = times::now().into();
            e["apiVersion"] = ctx.res.api_version().into();
        }
        None => list.push(entry(ctx, &manager, "Update", sub, &change.set)),
    }
    let updaters = list.iter().filter(|e| e["operation"] == "Update").count();
    if updaters > MAX_UPDATERS
        && let Some(oldest) = list.iter().position(|e| e["operation"] == "Update")
    {
        list.remove(oldest);
    }
    set_entries(new, list);
}

/// Whether two lists of owners say the same, times aside.
pub(crate) fn same_owners(old: &Value, new: &Value) -> bool {
    let plain = |v: &Value| -> Vec<Value> {
        v.as_array()
            .into_iter()
            .flatten()
            .map(|e| {
                let mut e = e.clone();
                if let Some(map) = e.as_object_mut() {
                    map.remove("time");
                }
                e
            })
            .collect()
    };
    plain(old) == plain(new)
}

fn bad_options(error: FieldError) -> ApiError {
    ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error])
}

/// PATCH with an applied configuration.
pub(crate) async fn apply(
    server: &ApiServer,
    ctx: &Ctx,
    mut applied: Value,
    part: Part,
) -> ApiResult<(Value, bool)> {
    let Some(manager) = ctx.query.non_empty("fieldManager").map(str::to_owned) else {
        return Err(bad_options(FieldError::required(
            "fieldManager",
            "is required for apply patch",
        )));
    };
    let (group, version) = crate::registry::split_api_version(text(&applied, "apiVersion"));
    let kind = text(&applied, "kind");
    if kind.is_empty() || version.is_empty() {
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={kind}"
        )));
    }
    let gvk = format!("{group}/{version}, Kind={kind}");
    decode::kind(&ctx.res, &mut applied)?;
    let unknown = decode::unknown_fields(ctx, &ctx.res, &mut applied)?;
    if !unknown.is_empty() {
        let list: Vec<String> = unknown
            .iter()
            .map(|f| format!(".{f}: field not declared in schema"))
            .collect();
        let list = if list.len() == 1 {
            list.join("")
        } else {
            format!("errors:\n  {}", list.join("\n  "))
        };
        let meta = &applied["metadata"];
        let place = format!("{}/{}; {gvk}", text(meta, "namespace"), text(meta, "name"));
        return Err(ApiError::new(
            500,
            "",
            format!("failed to create typed patch object ({place}): {list}"),
            json!({}),
        ));
    }
    let name = ctx.info.name.clone();
    if applied["metadata"]
        .get("managedFields")
        .is_some_and(|v| !v.is_null())
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let given = text(&applied["metadata"], "name");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    if !applied["metadata"].is_object() {
        applied["metadata"] = json!({});
    }
    applied["metadata"]["name"] = name.as_str().into();
    if ctx.res.namespaced {
        applied["metadata"]["namespace"] = ctx.ns().into();
    }
    let sub = if part == Part::Status { "status" } else { "" };
    let node = Node::root(&ctx.defs, &ctx.res);
    let owned = sets::of_value(&ctx.defs, node, &strip(&applied), true).unwrap_or_default();
    let place = crate::objects::key(&ctx.res, ctx.ns(), &name);
    if server.inner.store.get_settled(&place).await.is_none() {
        if part == Part::Status {
            return Err(ApiError::not_found(&ctx.gr(), &name));
        }
        let uid = text(&applied["metadata"], "uid");
        if !uid.is_empty() {
            return Err(ApiError::conflict(
                &ctx.gr(),
                &name,
                format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                ),
            ));
        }
        let mut new = applied.clone();
        if let Some(meta) = new["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        new["metadata"]["managedFields"] = json!([entry(ctx, &manager, "Apply", "", &owned)]);
        return Ok((create(server, ctx, new).await?, true));
    }
    let force = ctx.query.flag("force");
    let value = update(server, ctx, &name, part, |old| {
        let mut new = combine(ctx, node, old, &applied, &owned, &manager, sub, force)?;
        // Removal of what was applied before may leave out what defaults fill in again.
        decode::fields(ctx, &ctx.res, &mut new)?;
        Ok(new)
    })
    .await?;
    Ok((value, false))
}

/// The new state of an object to which a configuration is applied.
fn combine(
    ctx: &Ctx,
    node: Node<'_>,
    old: &Value,
    applied: &Value,
    owned: &Set,
    manager: &str,
    sub: &str,
    force: bool,
) -> ApiResult<Value> {
    let mut list = entries(old);
    if list.is_empty() {
        let all = sets::of_value(&ctx.defs, node, &strip(old), true).unwrap_or_default();
        list.push(entry(ctx, "before-first-apply", "Update", "", &all));
    }
    let mut merged = old.clone();
    merge::merge(&ctx.defs, node, &mut merged, applied, true);
    let change = sets::difference(&ctx.defs, node, &strip(old), &strip(&merged), true);
    let contested = sets::intersection(owned, &change.set);
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for e in &mut list {
        if is_entry(e, manager, "Apply", sub) {
            continue;
        }
        let mut fields = fields_of(e);
        let both = sets::intersection(&contested, &fields);
        if both.is_empty() {
            continue;
        }
        let mut places = Vec::new();
        sets::paths(&both, "", &mut places);
        conflicts.extend(places.into_iter().map(|p| (shown(e), p)));
        sets::subtract(&mut fields, &both);
        e["fieldsV1"] = Value::Object(fields);
    }
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    let time = list
        .iter()
        .find(|e| is_entry(e, manager, "Apply", sub))
        .and_then(|e| e.get("time").cloned());
    // What this manager applied before and does not now goes away, unless somebody else has it too.
    let before = list
        .iter()
        .find(|e| is_entry(e, manager, "Apply", sub))
        .map(fields_of)
        .unwrap_or_default();
    let mut gone = before;
    let kept = sets::intersection(&gone, owned);
    sets::subtract(&mut gone, &kept);
    for e in list.iter().filter(|e| !is_entry(e, manager, "Apply", sub)) {
        let shared = sets::intersection(&gone, &fields_of(e));
        sets::subtract(&mut gone, &shared);
    }
    merge::remove(&ctx.defs, node, &mut merged, &gone, true);
    list.retain(|e| !is_entry(e, manager, "Apply", sub));
    let mut own = entry(ctx, manager, "Apply", sub, owned);
    if strip(old) == strip(&merged)
        && let Some(map) = own.as_object_mut()
    {
        // An apply that changes owners only is not the time of anything.
        match time {
            Some(time) => map.insert("time".into(), time),
            None => map.remove("time"),
        };
    }
    list.push(own);
    set_entries(&mut merged, list);
    Ok(merged)
}

fn shown(e: &Value) -> String {
    let mut out = format!("{:?}", text(e, "manager"));
    if !text(e, "subresource").is_empty() {
        out.push_str(&format!(" with subresource {:?}", text(e, "subresource")));
    }
    if text(e, "operation") == "Update" {
        out.push_str(&format!(" using {}", text(e, "apiVersion")));
    }
    out
}

fn conflict(conflicts: &[(String, String)]) -> ApiError {
    let message = match conflicts {
        [(who, path)] => format!("Apply failed with 1 conflict: conflict with {who}: {path}"),
        many => {
            let mut managers: Vec<&String> = many.iter().map(|(w, _)| w).collect();
            managers.sort();
            managers.dedup();
            let parts: Vec<String> = managers
                .iter()
                .map(|m| {
                    let paths: Vec<String> = many
                        .iter()
                        .filter(|(w, _)| w == *m)
                        .map(|(_, p)| format!("- {p}"))
                        .collect();
                    format!("conflicts with {m}:\n{}", paths.join("\n"))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), parts.join("\n"))
        }
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(who, path)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": path}))
        .collect();
    ApiError::new(409, "Conflict", message, json!({"causes": causes}))
}
