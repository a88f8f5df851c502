//! Field selectors: which labels a kind supports.

use serde_json::Value;

use crate::error::ApiError;
use crate::jsonpath::JsonPath;
use crate::registry::{Behaviour, Resource};

fn at(obj: &Value, path: &str) -> String {
    let mut v = obj;
    for part in path.split('.') {
        match v.get(part) {
            Some(next) => v = next,
            None => return String::new(),
        }
    }
    printed(v)
}

fn printed(v: &Value) -> String {
    match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn builtin(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "secrets") => &["type"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase", "name"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        _ => &[],
    }
}

/// The value of a field label; `None` when the kind does not support it.
pub fn value(res: &Resource, obj: &Value, label: &str) -> Option<String> {
    match label {
        "metadata.name" => return Some(at(obj, "metadata.name")),
        "metadata.namespace" if res.namespaced || res.custom().is_none() => {
            return Some(at(obj, "metadata.namespace"));
        }
        _ => {}
    }
    match &res.behaviour {
        Behaviour::Builtin { rules, .. } => {
            if let Some(v) = rules.field(obj, label) {
                return Some(v);
            }
            if !builtin(&res.group, &res.plural).contains(&label) {
                return None;
            }
            Some(match (res.plural.as_str(), label) {
                ("nodes", _) | (_, "spec.hostNetwork") => {
                    let v = at(obj, label);
                    if v.is_empty() { "false".into() } else { v }
                }
                ("namespaces", "name") => at(obj, "metadata.name"),
                ("jobs", _) => {
                    let v = at(obj, "status.succeeded");
                    if v.is_empty() { "0".into() } else { v }
                }
                ("events", "source") => {
                    let v = at(obj, "source.component");
                    if v.is_empty() {
                        at(obj, "reportingComponent")
                    } else {
                        v
                    }
                }
                ("replicasets" | "replicationcontrollers", _) => {
                    let v = at(obj, label);
                    if v.is_empty() { "0".into() } else { v }
                }
                _ => at(obj, label),
            })
        }
        Behaviour::Custom(custom) => custom
            .selectable
            .iter()
            .find(|p| p.trim_start_matches('.') == label)
            .map(|p| JsonPath::parse(p).first(obj).map(printed).unwrap_or_default()),
    }
}

/// The error for a label that is not supported.
pub fn unsupported(res: &Resource, label: &str) -> ApiError {
    let plain = res.custom().is_none() && builtin(&res.group, &res.plural).is_empty();
    ApiError::bad_request(if plain {
        format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {label}")
    })
}
