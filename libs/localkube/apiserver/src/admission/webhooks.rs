//! Mutating and validating webhooks.

use base64::Engine as _;
use serde_json::{Value, json};

use super::Operation;
use super::call::{self, CallError};
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::objects::text;
use crate::registry::api_version;
use crate::selectors::LabelSelector;
use crate::server::ApiServer;

const GROUP: &str = "admissionregistration.k8s.io";

/// One webhook that applies to a request, with the version in which it wants the object.
struct Hook {
    name: String,
    spec: Value,
    version: String,
}

fn list_has(list: &Value, wanted: &str) -> bool {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|x| x == "*" || x == wanted)
}

fn resource_matches(list: &Value, resource: &str, sub: &str) -> bool {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|rule| {
            let (r, s) = rule.split_once('/').unwrap_or((rule, ""));
            (r == "*" || r == resource) && (s == "*" || s == sub)
        })
}

/// The version of the object that a rule asks for, when the rule covers the request.
fn rule_version(ctx: &Ctx, rule: &Value, operation: Operation, sub: &str, exact: bool) -> Option<String> {
    let res = &ctx.res;
    let scope = match text(rule, "scope") {
        "" | "*" => true,
        "Namespaced" => res.namespaced,
        _ => !res.namespaced,
    };
    if !scope
        || !list_has(&rule["operations"], operation.name())
        || !list_has(&rule["apiGroups"], &res.group)
        || !resource_matches(&rule["resources"], &res.plural, sub)
    {
        return None;
    }
    if list_has(&rule["apiVersions"], &res.version) {
        return Some(res.version.clone());
    }
    if exact {
        return None;
    }
    ctx.snapshot
        .all()
        .iter()
        .find(|r| {
            r.group == res.group && r.plural == res.plural && list_has(&rule["apiVersions"], &r.version)
        })
        .map(|r| r.version.clone())
}

/// Webhooks of a kind of configuration that apply, in the order of configurations' names.
fn applicable(
    server: &ApiServer,
    ctx: &Ctx,
    plural: &str,
    operation: Operation,
    obj: Option<&Value>,
    old: Option<&Value>,
    sub: &str,
) -> ApiResult<Vec<Hook>> {
    if ctx.res.group == GROUP {
        return Ok(Vec::new());
    }
    let configs = server
        .inner
        .store
        .list(&format!("{GROUP}/{plural}"), None, None)
        .1;
    let mut out = Vec::new();
    for config in &configs {
        for hook in config.value()["webhooks"].as_array().into_iter().flatten() {
            let exact = text(hook, "matchPolicy") == "Exact";
            let version = hook["rules"]
                .as_array()
                .into_iter()
                .flatten()
                .find_map(|rule| rule_version(ctx, rule, operation, sub, exact));
            let Some(version) = version else { continue };
            if !selected(server, ctx, hook, obj, old) {
                continue;
            }
            let name = text(hook, "name").to_owned();
            if !crate::admission::conditions::hold(ctx, hook, operation, obj, old, sub, &name)? {
                continue;
            }
            out.push(Hook {
                name,
                spec: hook.clone(),
                version,
            });
        }
    }
    Ok(out)
}

fn selected(server: &ApiServer, ctx: &Ctx, hook: &Value, obj: Option<&Value>, old: Option<&Value>) -> bool {
    let namespace_selector = LabelSelector::from_object(&hook["namespaceSelector"]).unwrap_or_default();
    if !namespace_selector.0.is_empty() {
        let matches = if ctx.res.is("", "namespaces") {
            let labels = obj.or(old).and_then(|o| o["metadata"]["labels"].as_object());
            namespace_selector.matches(labels)
        } else if ctx.res.namespaced {
            match server.inner.store.get("/namespaces", "", ctx.ns()) {
                Some(ns) => namespace_selector.matches(ns.value()["metadata"]["labels"].as_object()),
                None => false,
            }
        } else {
            true
        };
        if !matches {
            return false;
        }
    }
    let object_selector = LabelSelector::from_object(&hook["objectSelector"]).unwrap_or_default();
    object_selector.0.is_empty()
        || [obj, old]
            .into_iter()
            .flatten()
            .any(|o| object_selector.matches(o["metadata"]["labels"].as_object()))
}

/// The `AdmissionReview` of a request.
fn review(
    ctx: &Ctx,
    hook: &Hook,
    operation: Operation,
    obj: Option<&Value>,
    old: Option<&Value>,
    sub: &str,
    dry_run: bool,
) -> Value {
    let res = &ctx.res;
    let shown = |v: Option<&Value>| match v {
        None => Value::Null,
        Some(v) => {
            let mut v = v.clone();
            if hook.version != res.version {
                v["apiVersion"] = api_version(&res.group, &hook.version).into();
            }
            v
        }
    };
    let name = match obj.or(old) {
        Some(o) => text(&o["metadata"], "name").to_owned(),
        None => ctx.info.name.clone(),
    };
    let options = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update if ctx.info.verb == "patch" => "PatchOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
    };
    let mut request = json!({
        "uid": uuid::Uuid::new_v4().to_string(),
        "kind": {"group": res.group, "version": hook.version, "kind": res.kind},
        "resource": {"group": res.group, "version": hook.version, "resource": res.plural},
        "requestKind": {"group": res.group, "version": res.version, "kind": res.kind},
        "requestResource": {"group": res.group, "version": res.version, "resource": res.plural},
        "name": name,
        "operation": operation.name(),
        "userInfo": ctx.user,
        "object": shown(obj),
        "oldObject": shown(old),
        "dryRun": dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"},
    });
    if !sub.is_empty() {
        request["subResource"] = sub.into();
        request["requestSubResource"] = sub.into();
    }
    if res.namespaced {
        request["namespace"] = ctx.ns().into();
    } else if res.is("", "namespaces") {
        request["namespace"] = request["name"].clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// The answer of a webhook that allowed the request; `None` when the call failed and failures are ignored.
async fn ask(
    server: &ApiServer,
    ctx: &Ctx,
    hook: &Hook,
    operation: Operation,
    obj: Option<&Value>,
    old: Option<&Value>,
    sub: &str,
) -> ApiResult<Option<Value>> {
    let dry_run = ctx.dry_run().unwrap_or(false);
    if dry_run && !matches!(text(&hook.spec, "sideEffects"), "None" | "NoneOnDryRun") {
        return Err(ApiError::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            hook.name
        )));
    }
    let review = review(ctx, hook, operation, obj, old, sub, dry_run);
    let uid = text(&review["request"], "uid").to_owned();
    let answer = match call::post(server, &hook.spec, &review).await {
        Ok(answer) => check_answer(&answer, &uid),
        Err(e) => Err(e),
    };
    let response = match answer {
        Ok(response) => response,
        Err(CallError(why)) => {
            if text(&hook.spec, "failurePolicy") == "Ignore" {
                tracing::warn!(
                    webhook = hook.name,
                    error = why,
                    "a webhook failed; its failurePolicy ignores that"
                );
                return Ok(None);
            }
            return Err(ApiError::internal(format!(
                "failed calling webhook {:?}: failed to call webhook: {why}",
                hook.name
            )));
        }
    };
    for warning in response["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        ctx.warn(warning);
    }
    if response["allowed"] == true {
        return Ok(Some(response));
    }
    Err(denied(&hook.name, &response["status"]))
}

fn check_answer(answer: &Value, uid: &str) -> Result<Value, CallError> {
    if answer["kind"] != "AdmissionReview" || answer["apiVersion"] != "admission.k8s.io/v1" {
        return Err(CallError(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            text(answer, "apiVersion"),
            text(answer, "kind")
        )));
    }
    let response = answer["response"].clone();
    if !response.is_object() {
        return Err(CallError("webhook response was absent".into()));
    }
    if text(&response, "uid") != uid {
        return Err(CallError(format!(
            "expected response.uid={uid:?}, got {:?}",
            text(&response, "uid")
        )));
    }
    Ok(response)
}

fn denied(name: &str, status: &Value) -> ApiError {
    let by = format!("admission webhook {name:?} denied the request");
    let (message, reason) = (text(status, "message"), text(status, "reason"));
    let message = if !message.is_empty() {
        format!("{by}: {message}")
    } else if !reason.is_empty() {
        format!("{by}: {reason}")
    } else {
        format!("{by} without explanation")
    };
    let code = status["code"]
        .as_u64()
        .filter(|c| *c >= 400)
        .and_then(|c| u16::try_from(c).ok())
        .unwrap_or(400);
    ApiError::new(
        code,
        reason,
        message,
        status.get("details").cloned().unwrap_or_else(|| json!({})),
    )
}

/// Lets the mutating webhooks change the object.
pub(crate) async fn mutate(
    server: &ApiServer,
    ctx: &Ctx,
    operation: Operation,
    obj: &mut Value,
    old: Option<&Value>,
    sub: &str,
) -> ApiResult<()> {
    let hooks = applicable(
        server,
        ctx,
        "mutatingwebhookconfigurations",
        operation,
        Some(obj),
        old,
        sub,
    )?;
    // What each webhook that wants reinvocation left behind.
    let mut again: Vec<(&Hook, Value)> = Vec::new();
    for hook in &hooks {
        // An earlier webhook may have changed what the selectors see.
        if !selected(server, ctx, &hook.spec, Some(obj), old) {
            continue;
        }
        mutate_once(server, ctx, hook, operation, obj, old, sub).await?;
        if text(&hook.spec, "reinvocationPolicy") == "IfNeeded" {
            again.push((hook, obj.clone()));
        }
    }
    for (hook, left) in again {
        if *obj != left {
            mutate_once(server, ctx, hook, operation, obj, old, sub).await?;
        }
    }
    Ok(())
}

async fn mutate_once(
    server: &ApiServer,
    ctx: &Ctx,
    hook: &Hook,
    operation: Operation,
    obj: &mut Value,
    old: Option<&Value>,
    sub: &str,
) -> ApiResult<()> {
    let Some(response) = ask(server, ctx, hook, operation, Some(obj), old, sub).await? else {
        return Ok(());
    };
    let encoded = &response["patch"];
    if encoded.is_null() || encoded.as_str().is_some_and(str::is_empty) {
        return Ok(());
    }
    let failed = |why: String| ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name));
    if response["patchType"] != "JSONPatch" {
        return Err(failed(format!(
            "webhook returned response.patch but not response.patchType {:?}",
            "JSONPatch"
        )));
    }
    // Go reads bytes from a list of numbers as well, which is how kube-rs writes them.
    let bytes = match encoded.as_str() {
        Some(text) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| failed(format!("response.patch is not base64: {e}")))?,
        None => serde_json::from_value::<Vec<u8>>(encoded.clone())
            .map_err(|e| failed(format!("response.patch is not bytes: {e}")))?,
    };
    let patch: Value =
        serde_json::from_slice(&bytes).map_err(|e| failed(format!("response.patch is not JSON: {e}")))?;
    let own = ctx.res.api_version();
    crate::patch::json_patch(obj, &patch).map_err(|e| failed(e.message().to_owned()))?;
    obj["apiVersion"] = own.into();
    crate::objects::decode::fields(ctx, &ctx.res, obj)?;
    crate::objects::default(ctx, obj);
    Ok(())
}

/// Asks the validating webhooks, all at once.
pub(crate) async fn validate(
    server: &ApiServer,
    ctx: &Ctx,
    operation: Operation,
    obj: Option<&Value>,
    old: Option<&Value>,
    sub: &str,
) -> ApiResult<()> {
    let hooks = applicable(
        server,
        ctx,
        "validatingwebhookconfigurations",
        operation,
        obj,
        old,
        sub,
    )?;
    let asked = hooks
        .iter()
        .map(|hook| ask(server, ctx, hook, operation, obj, old, sub));
    for answer in futures::future::join_all(asked).await {
        answer?;
    }
    Ok(())
}
