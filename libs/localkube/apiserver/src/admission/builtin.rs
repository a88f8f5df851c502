//! The built-in admission plugins: NamespaceLifecycle, ServiceAccount, Priority, DefaultStorageClass, and the checks of roles.

use serde_json::{Value, json};

use super::Operation;
use crate::auth::escalation;
use crate::auth::rbac::{self, Attributes, Rule};
use crate::error::{ApiError, ApiResult, GroupResource};
use crate::field_error::FieldError;
use crate::handler::Ctx;
use crate::meta::random_suffix;
use crate::objects::text;
use crate::server::ApiServer;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Mutating plugins, on create.
pub(crate) fn mutate_create(server: &ApiServer, ctx: &Ctx, obj: &mut Value) -> ApiResult<()> {
    namespace_lifecycle(server, ctx, obj)?;
    match (ctx.res.group.as_str(), ctx.res.plural.as_str()) {
        ("", "namespaces") => {
            let name = text(&obj["metadata"], "name").to_owned();
            obj["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
            if obj["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                obj["spec"]["finalizers"] = json!(["kubernetes"]);
            }
            obj["status"] = json!({"phase": "Active"});
        }
        ("", "pods") => {
            priority(server, ctx, obj)?;
            service_account(server, ctx, obj)?;
        }
        ("", "persistentvolumeclaims") => default_storage_class(server, obj),
        _ => {}
    }
    Ok(())
}

/// Nothing is created in a namespace that is not there or is going away.
fn namespace_lifecycle(server: &ApiServer, ctx: &Ctx, obj: &Value) -> ApiResult<()> {
    if !ctx.res.namespaced || ctx.res.is("authorization.k8s.io", "localsubjectaccessreviews") {
        return Ok(());
    }
    let ns = ctx.ns();
    let Some(found) = server.inner.store.get("/namespaces", "", ns) else {
        return Err(ApiError::not_found(&GroupResource::new("", "namespaces"), ns));
    };
    if !found.value()["metadata"]["deletionTimestamp"].is_null() {
        let name = text(&obj["metadata"], "name");
        let mut e = ApiError::forbidden(
            &ctx.gr(),
            name,
            format!("unable to create new content in namespace {ns} because it is being terminated"),
        );
        e.body["details"]["causes"] = json!([{"reason": "NamespaceTerminating",
            "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
        return Err(e);
    }
    Ok(())
}

fn priority(server: &ApiServer, ctx: &Ctx, pod: &mut Value) -> ApiResult<()> {
    let class = text(&pod["spec"], "priorityClassName").to_owned();
    if class.is_empty() {
        if pod["spec"].get("priority").is_none_or(Value::is_null) {
            pod["spec"]["priority"] = 0.into();
        }
        return Ok(());
    }
    let value = match class.as_str() {
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        other => match server
            .inner
            .store
            .get("scheduling.k8s.io/priorityclasses", "", other)
        {
            Some(found) => found.value()["value"].as_i64().unwrap_or(0),
            None => {
                return Err(ApiError::forbidden(
                    &ctx.gr(),
                    text(&pod["metadata"], "name"),
                    format!("no PriorityClass with name {other} was found"),
                ));
            }
        },
    };
    pod["spec"]["priority"] = value.into();
    Ok(())
}

fn service_account(server: &ApiServer, ctx: &Ctx, pod: &mut Value) -> ApiResult<()> {
    if text(&pod["spec"], "serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = "default".into();
    }
    let account_name = text(&pod["spec"], "serviceAccountName").to_owned();
    pod["spec"]["serviceAccount"] = account_name.as_str().into();
    let ns = ctx.ns();
    let Some(account) = server.inner.store.get("/serviceaccounts", ns, &account_name) else {
        return Err(ApiError::forbidden(
            &ctx.gr(),
            text(&pod["metadata"], "name"),
            format!(
                "error looking up service account {ns}/{account_name}: serviceaccount {account_name:?} not found"
            ),
        ));
    };
    let account = account.value();
    if pod["spec"]["imagePullSecrets"]
        .as_array()
        .is_none_or(Vec::is_empty)
        && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|s| !s.is_empty())
    {
        pod["spec"]["imagePullSecrets"] = Value::Array(secrets.clone());
    }
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let existing = pod["spec"]["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| text(v, "name"))
        .find(|n| n.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("kube-api-access-{}", random_suffix()));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let has = container["volumeMounts"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|m| text(m, "mountPath") == TOKEN_PATH);
            if has {
                continue;
            }
            used = true;
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            }
        }
    }
    if !used || existing.is_some() {
        return;
    }
    if !pod["spec"]["volumes"].is_array() {
        pod["spec"]["volumes"] = json!([]);
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn default_storage_class(server: &ApiServer, claim: &mut Value) {
    if claim["spec"]
        .get("storageClassName")
        .is_some_and(|v| !v.is_null())
    {
        return;
    }
    let classes = server
        .inner
        .store
        .list("storage.k8s.io/storageclasses", None, None)
        .1;
    let default = classes.iter().find(|c| {
        c.value()["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    });
    if let Some(class) = default {
        claim["spec"]["storageClassName"] = class.value()["metadata"]["name"].clone();
    }
}

/// Validating plugins.
pub(crate) fn validate(
    server: &ApiServer,
    ctx: &Ctx,
    operation: Operation,
    obj: &Value,
    old: Option<&Value>,
) -> ApiResult<()> {
    let _ = operation;
    if ctx.res.group == RBAC {
        return rbac_write(server, ctx, obj, old);
    }
    if ctx.res.is("", "pods") && old.is_none() {
        check_mirror(ctx, obj)?;
    }
    if matches!(ctx.res.plural.as_str(), "configmaps" | "secrets")
        && ctx.res.group.is_empty()
        && let Some(old) = old
        && old["immutable"] == true
    {
        let mut errors = Vec::new();
        if obj["immutable"] != true {
            errors.push(FieldError::forbidden(
                "immutable",
                "field is immutable when `immutable` is set",
            ));
        }
        for field in ["data", "binaryData"] {
            if obj.get(field) != old.get(field) {
                errors.push(FieldError::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "",
                &ctx.res.kind,
                text(&obj["metadata"], "name"),
                &errors,
            ));
        }
    }
    Ok(())
}

fn check_mirror(ctx: &Ctx, pod: &Value) -> ApiResult<()> {
    let _ = (ctx, pod);
    Ok(())
}

/// Grants must be held by who gives them.
fn rbac_write(server: &ApiServer, ctx: &Ctx, obj: &Value, old: Option<&Value>) -> ApiResult<()> {
    let inner = &server.inner;
    let index = inner.rbac();
    let name = text(&obj["metadata"], "name");
    let ns = ctx.ns();
    let may = |verb: &str, resource: &str, name: &str| {
        let a = Attributes {
            verb,
            group: RBAC,
            resource,
            namespace: ns,
            name,
            ..Attributes::default()
        };
        index.allows(&ctx.user, &a).is_some()
    };
    let forbidden = |text: String| ApiError::forbidden(&ctx.gr(), name, text);
    let binding = ctx.res.plural.ends_with("bindings");
    if !binding {
        let wanted = rbac::rules_of(obj);
        let unchanged = old
            .is_some_and(|o| rbac::rules_of(o) == wanted && o["aggregationRule"] == obj["aggregationRule"]);
        if unchanged || may("escalate", &ctx.res.plural, name) {
            return Ok(());
        }
        let held = index.rules(&ctx.user, ns);
        if !obj["aggregationRule"].is_null() {
            let star = || vec!["*".to_owned()];
            let all = [
                Rule {
                    verbs: star(),
                    api_groups: star(),
                    resources: star(),
                    ..Rule::default()
                },
                Rule {
                    verbs: star(),
                    non_resource_urls: star(),
                    ..Rule::default()
                },
            ];
            return escalation::check(&ctx.user, &held, &all).map_err(|_| {
                forbidden("must have cluster-admin privileges to use the aggregationRule".into())
            });
        }
        return escalation::check(&ctx.user, &held, &wanted).map_err(forbidden);
    }
    if let Some(old) = old {
        if old["roleRef"] != obj["roleRef"] {
            // Printed as Kubernetes' internal type is.
            let r = &obj["roleRef"];
            let shown = json!({"APIGroup": r["apiGroup"], "Kind": r["kind"], "Name": r["name"]});
            let e = FieldError::invalid("roleRef", shown, "cannot change roleRef");
            return Err(ApiError::invalid(RBAC, &ctx.res.kind, name, &[e]));
        }
        if old["subjects"] == obj["subjects"] {
            return Ok(());
        }
    }
    let role_kind = text(&obj["roleRef"], "kind");
    let role_name = text(&obj["roleRef"], "name");
    let plural = if role_kind == "ClusterRole" {
        "clusterroles"
    } else {
        "roles"
    };
    if may("bind", plural, role_name) {
        return Ok(());
    }
    let found = if role_kind == "ClusterRole" {
        inner.store.get(rbac::CLUSTER_ROLES, "", role_name)
    } else {
        inner.store.get(rbac::ROLES, ns, role_name)
    };
    let Some(role) = found else {
        return Err(ApiError::not_found(&GroupResource::new(RBAC, plural), role_name));
    };
    escalation::check(
        &ctx.user,
        &index.rules(&ctx.user, ns),
        &rbac::rules_of(role.value()),
    )
    .map_err(forbidden)
}
