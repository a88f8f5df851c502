//! Namespaces, Nodes, Events, Leases, quotas, limits, priorities.

use serde_json::{Value, json};

use super::checks::{
    age, amount, default, default_absent, each, immutable, list, name, non_negative, object, present, same,
    spec_path, text,
};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};

/// Rules of Namespaces.
pub struct Namespace;
/// Rules of Nodes.
pub struct Node;
/// Rules of core Events.
pub struct Event;
/// Rules of Leases.
pub struct Lease;
/// Rules of ResourceQuotas.
pub struct ResourceQuota;
/// Rules of LimitRanges.
pub struct LimitRange;
/// Rules of PriorityClasses.
pub struct PriorityClass;
/// Rules of ControllerRevisions.
pub struct ControllerRevision;
/// Rules of NetworkPolicies.
pub struct NetworkPolicy;
/// Rules of HorizontalPodAutoscalers.
pub struct Autoscaler;
/// Rules of PodDisruptionBudgets.
pub struct DisruptionBudget;

impl KindRules for Namespace {
    fn default(&self, obj: &mut Value) {
        let own = name(obj);
        if own.is_string()
            && let Some(labels) = object(obj, "metadata").and_then(|meta| {
                let labels = meta.entry("labels").or_insert_with(|| json!({}));
                if labels.is_null() {
                    *labels = json!({});
                }
                labels.as_object_mut()
            })
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), own);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"phase": "Active"});
        if object(obj, "spec").is_some() {
            let held = list(&obj["spec"], "finalizers")
                .iter()
                .any(|one| one == "kubernetes");
            if !held {
                obj["spec"]["finalizers"] = json!(["kubernetes"]);
            }
        }
    }

    fn prepare_update(&self, obj: &mut Value, old: &Value) {
        obj["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> Vec<FieldError> {
        let phase = text(&obj["status"], "phase");
        let at = FieldPath::new("status").child("Phase");
        let deleted = obj["metadata"]["deletionTimestamp"].is_string();
        match (deleted, phase) {
            (false, "Active") | (true, "Terminating") => Vec::new(),
            (false, _) => vec![FieldError::invalid(
                at,
                phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            )],
            (true, _) => vec![FieldError::invalid(
                at,
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )],
        }
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        match label {
            "status.phase" => Some(text(&obj["status"], "phase").to_owned()),
            "name" => Some(text(&obj["metadata"], "name").to_owned()),
            _ => None,
        }
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Status", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![name(obj), obj["status"]["phase"].clone(), age(obj, now)]
    }
}

impl KindRules for Node {
    fn default(&self, obj: &mut Value) {
        let capacity = obj["status"]["capacity"].clone();
        if capacity.is_object() && obj["status"]["allocatable"].is_null() {
            obj["status"]["allocatable"] = capacity;
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        let _made = object(obj, "spec");
        if object(obj, "status").is_some() {
            default_absent(
                &mut obj["status"],
                "daemonEndpoints",
                json!({"kubeletEndpoint": {"Port": 0}}),
            );
            let info = [
                "architecture",
                "bootID",
                "containerRuntimeVersion",
                "kernelVersion",
                "kubeProxyVersion",
                "kubeletVersion",
                "machineID",
                "operatingSystem",
                "osImage",
                "systemUUID",
            ];
            let empty: serde_json::Map<String, Value> =
                info.iter().map(|name| ((*name).to_owned(), json!(""))).collect();
            default_absent(&mut obj["status"], "nodeInfo", Value::Object(empty));
        }
        // What the admission plugin TaintNodesByCondition adds until the node lifecycle controller looks.
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let held = list(&obj["spec"], "taints")
            .iter()
            .any(|one| one["key"] == taint["key"] && one["effect"] == taint["effect"]);
        if !held {
            match obj["spec"]["taints"].as_array_mut() {
                Some(all) => all.push(taint),
                None => obj["spec"]["taints"] = json!([taint]),
            }
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (at, taint) in list(&obj["spec"], "taints").iter().enumerate() {
            let path = spec_path().child("taints").index(at);
            let effect = text(taint, "effect");
            if effect.is_empty() {
                errors.push(FieldError::required(path.child("effect"), ""));
            } else if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
                errors.push(FieldError::not_supported(
                    path.child("effect"),
                    effect,
                    &["NoSchedule", "PreferNoSchedule", "NoExecute"],
                ));
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(obj);
        for field in ["providerID", "podCIDR"] {
            let (new, before) = (text(&obj["spec"], field), text(&old["spec"], field));
            if !before.is_empty() && new != before {
                errors.push(FieldError::forbidden(
                    spec_path().child(field),
                    "node updates may not change this field once set",
                ));
            }
        }
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        (label == "spec.unschedulable").then(|| (obj["spec"]["unschedulable"] == true).to_string())
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::name()];
        for title in ["Status", "Roles", "Age", "Version"] {
            columns.push(Column::new(title, "string", 0));
        }
        for title in [
            "Internal-IP",
            "External-IP",
            "OS-Image",
            "Kernel-Version",
            "Container-Runtime",
        ] {
            columns.push(Column::new(title, "string", 1));
        }
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let status = &obj["status"];
        let ready = list(status, "conditions")
            .iter()
            .find(|one| text(one, "type") == "Ready");
        let mut word = match ready.map(|one| text(one, "status")) {
            Some("True") => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if obj["spec"]["unschedulable"] == true {
            word.push_str(",SchedulingDisabled");
        }
        let roles: Vec<&str> = obj["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::keys)
            .filter_map(|key| key.strip_prefix("node-role.kubernetes.io/"))
            .filter(|role| !role.is_empty())
            .collect();
        let address = |kind: &str| {
            let found = list(status, "addresses")
                .iter()
                .find(|one| text(one, "type") == kind)
                .map(|one| text(one, "address"));
            json!(found.unwrap_or("<none>"))
        };
        let info = |field: &str| {
            json!(
                status["nodeInfo"][field]
                    .as_str()
                    .filter(|text| !text.is_empty())
                    .unwrap_or("<unknown>")
            )
        };
        vec![
            name(obj),
            json!(word),
            json!(if roles.is_empty() {
                "<none>".to_owned()
            } else {
                roles.join(",")
            }),
            age(obj, now),
            json!(text(&status["nodeInfo"], "kubeletVersion")),
            address("InternalIP"),
            address("ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}

impl KindRules for Event {
    fn default(&self, obj: &mut Value) {
        for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            default_absent(obj, field, Value::Null);
        }
        for field in ["reportingComponent", "reportingInstance"] {
            default_absent(obj, field, json!(""));
        }
        default_absent(obj, "source", json!({}));
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let about = text(&obj["involvedObject"], "namespace");
        let own = text(&obj["metadata"], "namespace");
        let fits = if about.is_empty() {
            matches!(own, "default" | "kube-system")
        } else {
            about == own
        };
        if !fits {
            errors.push(FieldError::invalid(
                "involvedObject.namespace",
                about,
                "does not match event.namespace",
            ));
        }
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        let found = match label.strip_prefix("involvedObject.") {
            Some(
                field @ ("kind" | "namespace" | "name" | "uid" | "apiVersion" | "resourceVersion"
                | "fieldPath"),
            ) => text(&obj["involvedObject"], field),
            Some(_) => return None,
            None => match label {
                "reason" | "type" => text(obj, label),
                "reportingComponent" => text(obj, "reportingComponent"),
                "source" => text(&obj["source"], "component"),
                _ => return None,
            },
        };
        Some(found.to_owned())
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new("Last Seen", "string", 0),
            Column::new("Type", "string", 0),
            Column::new("Reason", "string", 0),
            Column::new("Object", "string", 0),
            Column::new("Subobject", "string", 1),
            Column::new("Source", "string", 1),
            Column::new("Message", "string", 0),
            Column::new("First Seen", "string", 1),
            Column::new("Count", "string", 1),
            Column {
                priority: 1,
                ..Column::name()
            },
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let first_of = |fields: [&str; 2]| fields.into_iter().find_map(|field| obj[field].as_str());
        let last = obj["series"]["lastObservedTime"]
            .as_str()
            .or_else(|| first_of(["lastTimestamp", "eventTime"]));
        let about = &obj["involvedObject"];
        vec![
            json!(crate::times::age(last, now)),
            obj["type"].clone(),
            obj["reason"].clone(),
            json!(format!(
                "{}/{}",
                text(about, "kind").to_lowercase(),
                text(about, "name")
            )),
            json!(text(about, "fieldPath")),
            json!(text(&obj["source"], "component")),
            json!(text(obj, "message").trim()),
            json!(crate::times::age(first_of(["firstTimestamp", "eventTime"]), now)),
            json!(obj["count"].as_i64().unwrap_or(1).to_string()),
            name(obj),
        ]
    }
}

impl KindRules for Lease {
    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64()
            && seconds <= 0
        {
            errors.push(FieldError::invalid(
                path.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        non_negative(&mut errors, spec, &path, "leaseTransitions");
        errors
    }

    fn validate_update(&self, obj: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(obj)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Holder", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![
            name(obj),
            json!(text(&obj["spec"], "holderIdentity")),
            age(obj, now),
        ]
    }
}

impl KindRules for ResourceQuota {
    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
        let _made = object(obj, "spec");
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (key, value) in obj["spec"]["hard"].as_object().into_iter().flatten() {
            amount(&mut errors, value, &spec_path().child("hard").key(key));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(obj);
        if !same(&obj["spec"]["scopes"], &old["spec"]["scopes"]) {
            errors.push(FieldError::invalid(
                "spec.scopes",
                obj["spec"]["scopes"].clone(),
                "field is immutable",
            ));
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::name()];
        for title in ["Request", "Limit", "Age"] {
            columns.push(Column::new(title, "string", 0));
        }
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (key, hard) in obj["status"]["hard"].as_object().into_iter().flatten() {
            let shown = format!(
                "{key}: {}/{}",
                obj["status"]["used"][key].as_str().unwrap_or("0"),
                hard.as_str().unwrap_or_default()
            );
            if key.starts_with("limits.") {
                &mut limits
            } else {
                &mut requests
            }
            .push(shown);
        }
        vec![
            name(obj),
            json!(requests.join(", ")),
            json!(limits.join(", ")),
            age(obj, now),
        ]
    }
}

impl KindRules for LimitRange {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        each(&mut obj["spec"], "limits", |item| {
            if text(item, "type") != "Container" {
                return;
            }
            for (from, to) in [
                ("max", "default"),
                ("default", "defaultRequest"),
                ("min", "defaultRequest"),
            ] {
                let Some(source) = item[from].as_object().cloned() else {
                    continue;
                };
                if let Some(target) = object(item, to) {
                    for (key, value) in source {
                        target.entry(key).or_insert(value);
                    }
                }
            }
        });
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Created At", "date", 0)]
    }
}

impl KindRules for PriorityClass {
    fn default(&self, obj: &mut Value) {
        default(obj, "preemptionPolicy", json!("PreemptLowerPriority"));
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if obj["value"] != old["value"] {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        immutable(
            &mut errors,
            &obj["preemptionPolicy"],
            &old["preemptionPolicy"],
            FieldPath::new("preemptionPolicy"),
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Value", "integer", 0),
            Column::new("Global-Default", "boolean", 0),
            Column::new("Age", "string", 0),
            Column::new("PreemptionPolicy", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![
            name(obj),
            obj["value"].clone(),
            json!(obj["globalDefault"] == true),
            age(obj, now),
            obj["preemptionPolicy"].clone(),
        ]
    }
}

impl KindRules for ControllerRevision {
    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if obj["revision"].as_i64().unwrap_or(0) < 0 {
            errors.push(FieldError::invalid(
                "revision",
                obj["revision"].clone(),
                "must be greater than or equal to 0",
            ));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(obj);
        immutable(&mut errors, &obj["data"], &old["data"], FieldPath::new("data"));
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Controller", "string", 0),
            Column::new("Revision", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let owner = list(&obj["metadata"], "ownerReferences")
            .iter()
            .find(|one| one["controller"] == true);
        let owner = owner.map_or("<none>".to_owned(), |one| {
            let group = text(one, "apiVersion")
                .split_once('/')
                .map_or("", |(group, _)| group);
            let kind = text(one, "kind").to_lowercase();
            if group.is_empty() {
                format!("{kind}/{}", text(one, "name"))
            } else {
                format!("{kind}.{group}/{}", text(one, "name"))
            }
        });
        vec![name(obj), json!(owner), obj["revision"].clone(), age(obj, now)]
    }
}

impl KindRules for NetworkPolicy {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        for field in ["ingress", "egress"] {
            each(spec, field, |rule| {
                each(rule, "ports", |one| default(one, "protocol", json!("TCP")));
            });
        }
        if list(spec, "policyTypes").is_empty() {
            let both = !list(spec, "egress").is_empty();
            spec["policyTypes"] = if both {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
        }
    }
}

impl KindRules for Autoscaler {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        default(&mut obj["spec"], "minReplicas", json!(1));
        if list(&obj["spec"], "metrics").is_empty() {
            obj["spec"]["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"currentMetrics": null, "desiredReplicas": 0});
    }
}

impl KindRules for DisruptionBudget {
    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let spec = &obj["spec"];
        if present(spec, "minAvailable") && present(spec, "maxUnavailable") {
            return vec![FieldError::invalid(
                "spec",
                spec.clone(),
                "minAvailable and maxUnavailable cannot be both set",
            )];
        }
        Vec::new()
    }
}
