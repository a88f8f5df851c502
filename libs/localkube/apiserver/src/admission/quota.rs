//! ResourceQuota: what a namespace may hold.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokio::sync::MutexGuard;

use super::Operation;
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::objects::text;
use crate::quantity::{Format, Quantity};
use crate::registry::Resource;
use crate::server::ApiServer;

const QUOTAS: &str = "/resourcequotas";

/// Amounts by the name that quotas use.
type Usage = BTreeMap<String, Quantity>;

fn one() -> Quantity {
    Quantity {
        nanos: 1_000_000_000,
        format: Format::Decimal,
    }
}

fn add(usage: &mut Usage, name: &str, amount: Quantity) {
    match usage.get_mut(name) {
        Some(have) => have.nanos += amount.nanos,
        None => {
            usage.insert(name.to_owned(), amount);
        }
    }
}

fn parse(v: &Value) -> Option<Quantity> {
    Quantity::parse(v.as_str()?)
}

/// Sum over containers, or the largest init container when that is more.
fn pod_amounts(pod: &Value, kind: &str) -> Usage {
    let amounts = |c: &Value| -> Usage {
        let map: Option<&Map<String, Value>> = c["resources"][kind].as_object();
        map.into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), parse(v)?)))
            .collect()
    };
    let mut out = Usage::new();
    for c in pod["spec"]["containers"].as_array().into_iter().flatten() {
        amounts(c).into_iter().for_each(|(k, v)| add(&mut out, &k, v));
    }
    for c in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
        for (k, v) in amounts(c) {
            let have = out.entry(k).or_insert(v);
            if v.nanos > have.nanos {
                *have = v;
            }
        }
    }
    out
}

fn ended(pod: &Value) -> bool {
    matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed")
}

/// What one object counts for.
fn usage_of(group: &str, plural: &str, obj: &Value) -> Usage {
    let mut out = Usage::new();
    let counted = if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    };
    add(&mut out, &counted, one());
    if !group.is_empty() {
        return out;
    }
    match plural {
        "pods" if !ended(obj) => {
            add(&mut out, "pods", one());
            for (k, v) in pod_amounts(obj, "requests") {
                add(&mut out, &k, v);
                add(&mut out, &format!("requests.{k}"), v);
            }
            for (k, v) in pod_amounts(obj, "limits") {
                add(&mut out, &format!("limits.{k}"), v);
            }
        }
        "services" => {
            add(&mut out, "services", one());
            let kind = text(&obj["spec"], "type");
            if matches!(kind, "NodePort" | "LoadBalancer") {
                let ports = obj["spec"]["ports"].as_array().map_or(0, Vec::len);
                let nanos = i128::try_from(ports).unwrap_or(0) * one().nanos;
                add(
                    &mut out,
                    "services.nodeports",
                    Quantity {
                        nanos,
                        format: Format::Decimal,
                    },
                );
            }
            if kind == "LoadBalancer" {
                add(&mut out, "services.loadbalancers", one());
            }
        }
        "persistentvolumeclaims" => {
            add(&mut out, "persistentvolumeclaims", one());
            if let Some(size) = parse(&obj["spec"]["resources"]["requests"]["storage"]) {
                add(&mut out, "requests.storage", size);
            }
        }
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            add(&mut out, plural, one());
        }
        _ => {}
    }
    out
}

/// Whether a quota with scopes is about this object.
fn in_scope(quota: &Value, res: &Resource, obj: &Value) -> bool {
    let scopes = quota["spec"]["scopes"].as_array().map_or(&[][..], Vec::as_slice);
    if scopes.is_empty() {
        return true;
    }
    if !res.is("", "pods") {
        return false;
    }
    let terminating = obj["spec"]["activeDeadlineSeconds"].is_number();
    let best_effort = pod_amounts(obj, "requests").is_empty() && pod_amounts(obj, "limits").is_empty();
    scopes.iter().all(|s| match s.as_str().unwrap_or_default() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        _ => false,
    })
}

fn needs_request(name: &str) -> Option<(&'static str, &str)> {
    match name {
        "cpu" | "memory" => Some(("requests", name)),
        _ => match name.split_once('.') {
            Some(("requests", what @ ("cpu" | "memory"))) => Some(("requests", what)),
            Some(("limits", what @ ("cpu" | "memory"))) => Some(("limits", what)),
            _ => None,
        },
    }
}

/// Names of compute resources that a quota wants to be stated, and of the containers that do not.
fn unstated(hard: &Map<String, Value>, pod: &Value) -> Option<String> {
    let mut out: Vec<String> = Vec::new();
    for name in hard.keys() {
        let Some((kind, what)) = needs_request(name) else {
            continue;
        };
        let missing: Vec<&str> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|c| c["resources"][kind].get(what).is_none())
            .map(|c| text(c, "name"))
            .collect();
        if !missing.is_empty() {
            out.push(format!("{name} for: {}", missing.join(",")));
        }
    }
    (!out.is_empty()).then(|| out.join("; "))
}

fn shown(usage: &Usage, names: &[String]) -> String {
    let parts: Vec<String> = names
        .iter()
        .map(|n| {
            format!(
                "{n}={}",
                usage.get(n).map_or_else(|| "0".to_owned(), ToString::to_string)
            )
        })
        .collect();
    parts.join(",")
}

/// Refuses what would exceed a quota of the namespace. The guard is held until the object is stored.
pub(crate) async fn reserve<'a>(
    server: &'a ApiServer,
    ctx: &Ctx,
    operation: Operation,
    obj: &Value,
    _old: Option<&Value>,
) -> ApiResult<Option<MutexGuard<'a, ()>>> {
    let store = &server.inner.store;
    if operation != Operation::Create || !ctx.res.namespaced || store.count(QUOTAS, Some(ctx.ns())) == 0 {
        return Ok(None);
    }
    let guard = server.inner.quota.lock().await;
    let res = &ctx.res;
    let asked = usage_of(&res.group, &res.plural, obj);
    for quota in store.list(QUOTAS, Some(ctx.ns()), None).1 {
        let quota = quota.value();
        let Some(hard) = quota["spec"]["hard"].as_object() else {
            continue;
        };
        if !in_scope(quota, res, obj) {
            continue;
        }
        let quota_name = text(&quota["metadata"], "name");
        let name = text(&obj["metadata"], "name");
        if res.is("", "pods")
            && let Some(missing) = unstated(hard, obj)
        {
            return Err(ApiError::forbidden(
                &ctx.gr(),
                name,
                format!("failed quota: {quota_name}: must specify {missing}"),
            ));
        }
        let mut names: Vec<String> = hard.keys().filter(|n| asked.contains_key(*n)).cloned().collect();
        names.sort();
        if names.is_empty() {
            continue;
        }
        let mut used = Usage::new();
        for other in store.list(&res.storage, Some(ctx.ns()), None).1 {
            other.look(|other| {
                if in_scope(quota, res, other) {
                    for (k, v) in usage_of(&res.group, &res.plural, other) {
                        add(&mut used, &k, v);
                    }
                }
            });
        }
        let limits: Usage = hard
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), parse(v)?)))
            .collect();
        names.retain(|n| {
            let have = used.get(n).map_or(0, |q| q.nanos);
            have + asked[n].nanos > limits.get(n).map_or(i128::MAX, |q| q.nanos)
        });
        if !names.is_empty() {
            return Err(ApiError::forbidden(
                &ctx.gr(),
                name,
                format!(
                    "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
                    shown(&asked, &names),
                    shown(&used, &names),
                    shown(&limits, &names)
                ),
            ));
        }
    }
    Ok(Some(guard))
}
