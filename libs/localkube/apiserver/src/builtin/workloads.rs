//! Deployments, ReplicaSets, StatefulSets and DaemonSets.

use serde_json::{Value, json};

use super::checks::{
    age, containers, default, empty_selector, immutable, int_or_percent, label, list, name, non_negative,
    object, present, same, selector, selector_text, selects, spec_path, text,
};
use super::{pod_defaults, pod_validation};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};

/// Rules of Deployments.
pub struct Deployment;
/// Rules of ReplicaSets.
pub struct ReplicaSet;
/// Rules of StatefulSets.
pub struct StatefulSet;
/// Rules of DaemonSets.
pub struct DaemonSet;

fn default_template(spec: &mut Value) {
    if object(spec, "template").is_some() {
        pod_defaults::template(&mut spec["template"]);
    }
}

/// Selector and template of a workload whose Pods always restart.
fn selector_and_template(
    errors: &mut Vec<FieldError>,
    spec: &Value,
    path: &FieldPath,
    kind: &str,
    in_set: bool,
) {
    let own = &spec["selector"];
    if own.is_null() {
        errors.push(FieldError::required(path.child("selector"), ""));
    } else {
        selector(errors, own, &path.child("selector"));
        if empty_selector(own) {
            errors.push(FieldError::invalid(
                path.child("selector"),
                own.clone(),
                format!("empty selector is invalid for {kind}"),
            ));
        }
    }
    let template = &spec["template"];
    let path = path.child("template");
    match selects(own, &template["metadata"]["labels"]) {
        None => {
            let text = if kind == "statefulset" {
                ""
            } else {
                "invalid label selector"
            };
            errors.push(FieldError::invalid(
                spec_path().child("selector"),
                own.clone(),
                text,
            ));
            return;
        }
        Some(false) => {
            let labels = template["metadata"]["labels"].clone();
            errors.push(FieldError::invalid(
                path.child("metadata").child("labels"),
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        Some(true) => {}
    }
    errors.extend(pod_validation::template(template, &path));
    let restart = text(&template["spec"], "restartPolicy");
    if restart != "Always" {
        errors.push(FieldError::not_supported(
            path.child("spec").child("restartPolicy"),
            restart,
            &["Always"],
        ));
    }
    if present(&template["spec"], "activeDeadlineSeconds") {
        let owner = if in_set { "StatefulSet" } else { "ReplicaSet" };
        let text = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden(
            path.child("spec").child("activeDeadlineSeconds"),
            text,
        ));
    }
}

fn zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.trim_end_matches('%').parse() == Ok(0),
        _ => true,
    }
}

fn not_over_all(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    let percent = value
        .as_str()
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|text| text.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            "must not be greater than 100%",
        ));
    }
}

impl Deployment {
    fn validate(obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        non_negative(&mut errors, spec, &path, "replicas");
        selector_and_template(&mut errors, spec, &path, "deployment", false);
        let (strategy, at) = (&spec["strategy"], path.child("strategy"));
        let rolling = &strategy["rollingUpdate"];
        match text(strategy, "type") {
            "Recreate" => {
                if rolling.is_object() {
                    let text = "may not be specified when strategy `type` is 'Recreate'";
                    errors.push(FieldError::forbidden(at.child("rollingUpdate"), text));
                }
            }
            "RollingUpdate" => {
                let at = at.child("rollingUpdate");
                let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
                int_or_percent(&mut errors, unavailable, &at.child("maxUnavailable"));
                int_or_percent(&mut errors, surge, &at.child("maxSurge"));
                if zero(unavailable) && zero(surge) {
                    errors.push(FieldError::invalid(
                        at.child("maxUnavailable"),
                        unavailable.clone(),
                        "may not be 0 when `maxSurge` is 0",
                    ));
                }
                not_over_all(&mut errors, unavailable, &at.child("maxUnavailable"));
            }
            _ => errors.push(FieldError::not_supported(
                at,
                strategy.clone(),
                &["Recreate", "RollingUpdate"],
            )),
        }
        for field in [
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ] {
            non_negative(&mut errors, spec, &path, field);
        }
        if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
            && deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0)
        {
            errors.push(FieldError::invalid(
                path.child("progressDeadlineSeconds"),
                deadline,
                "must be greater than minReadySeconds",
            ));
        }
        errors
    }
}

impl KindRules for Deployment {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        default(spec, "replicas", json!(1));
        default(spec, "revisionHistoryLimit", json!(10));
        default(spec, "progressDeadlineSeconds", json!(600));
        if object(spec, "strategy").is_some() {
            let strategy = &mut spec["strategy"];
            default(strategy, "type", json!("RollingUpdate"));
            if text(strategy, "type") == "RollingUpdate" && object(strategy, "rollingUpdate").is_some() {
                default(&mut strategy["rollingUpdate"], "maxUnavailable", json!("25%"));
                default(&mut strategy["rollingUpdate"], "maxSurge", json!("25%"));
            }
        }
        default_template(spec);
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Self::validate(obj);
        immutable(
            &mut errors,
            &obj["spec"]["selector"],
            &old["spec"]["selector"],
            spec_path().child("selector"),
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Ready", "string", 0),
            Column::new("Up-to-date", "string", 0),
            Column::new("Available", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("Containers", "string", 1),
            Column::new("Images", "string", 1),
            Column::new("Selector", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let number = |field: &str| obj["status"][field].as_i64().unwrap_or(0);
        let (names, images) = containers(&obj["spec"]["template"]["spec"]);
        vec![
            name(obj),
            json!(format!("{}/{}", number("readyReplicas"), obj["spec"]["replicas"])),
            json!(number("updatedReplicas")),
            json!(number("availableReplicas")),
            age(obj, now),
            names,
            images,
            selector_text(&obj["spec"]["selector"]),
        ]
    }
}

impl ReplicaSet {
    fn validate(obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        non_negative(&mut errors, &obj["spec"], &spec_path(), "replicas");
        non_negative(&mut errors, &obj["spec"], &spec_path(), "minReadySeconds");
        selector_and_template(&mut errors, &obj["spec"], &spec_path(), "deployment", false);
        errors
    }
}

impl KindRules for ReplicaSet {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_some() {
            default(&mut obj["spec"], "replicas", json!(1));
            default_template(&mut obj["spec"]);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"replicas": 0});
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Self::validate(obj);
        immutable(
            &mut errors,
            &obj["spec"]["selector"],
            &old["spec"]["selector"],
            spec_path().child("selector"),
        );
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        (label == "status.replicas").then(|| obj["status"]["replicas"].as_i64().unwrap_or(0).to_string())
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Desired", "integer", 0),
            Column::new("Current", "integer", 0),
            Column::new("Ready", "integer", 0),
            Column::new("Age", "string", 0),
            Column::new("Containers", "string", 1),
            Column::new("Images", "string", 1),
            Column::new("Selector", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let number = |field: &str| json!(obj["status"][field].as_i64().unwrap_or(0));
        let (names, images) = containers(&obj["spec"]["template"]["spec"]);
        vec![
            name(obj),
            obj["spec"]["replicas"].clone(),
            number("replicas"),
            number("readyReplicas"),
            age(obj, now),
            names,
            images,
            selector_text(&obj["spec"]["selector"]),
        ]
    }
}

impl StatefulSet {
    fn validate(obj: &Value, create: bool) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        let policy = text(spec, "podManagementPolicy");
        if !matches!(policy, "OrderedReady" | "Parallel") {
            errors.push(FieldError::invalid(
                path.child("podManagementPolicy"),
                policy,
                "must be 'OrderedReady' or 'Parallel'",
            ));
        }
        let (strategy, at) = (&spec["updateStrategy"], path.child("updateStrategy"));
        match text(strategy, "type") {
            "OnDelete" => {
                if strategy["rollingUpdate"].is_object() {
                    let text = "only allowed for updateStrategy 'RollingUpdate'";
                    errors.push(FieldError::invalid(
                        at.child("rollingUpdate"),
                        strategy["rollingUpdate"].clone(),
                        text,
                    ));
                }
            }
            "RollingUpdate" => non_negative(
                &mut errors,
                &strategy["rollingUpdate"],
                &at.child("rollingUpdate"),
                "partition",
            ),
            _ => errors.push(FieldError::invalid(
                at,
                strategy.clone(),
                "must be 'RollingUpdate' or 'OnDelete'",
            )),
        }
        let (retention, at) = (
            &spec["persistentVolumeClaimRetentionPolicy"],
            path.child("persistentVolumeClaimRetentionPolicy"),
        );
        for field in ["whenDeleted", "whenScaled"] {
            let found = text(retention, field);
            if !matches!(found, "Retain" | "Delete") {
                errors.push(FieldError::not_supported(
                    at.child(field),
                    found,
                    &["Delete", "Retain"],
                ));
            }
        }
        non_negative(&mut errors, spec, &path, "replicas");
        non_negative(&mut errors, spec, &path, "minReadySeconds");
        if let Some(start) = spec["ordinals"]["start"].as_i64()
            && start < 0
        {
            errors.push(FieldError::invalid(
                "spec.ordinals.start",
                start,
                "must be greater than or equal to 0",
            ));
        }
        let service = text(spec, "serviceName");
        if create && !service.is_empty() {
            label(&mut errors, service, &path.child("serviceName"));
        }
        // The controller mounts the claims that the templates make.
        let mut complete = spec.clone();
        let claims: Vec<Value> = list(spec, "volumeClaimTemplates")
            .iter()
            .map(|claim| json!({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}))
            .collect();
        if !claims.is_empty() && complete["template"]["spec"].is_object() {
            let mut volumes = claims.clone();
            volumes.extend(
                list(&spec["template"]["spec"], "volumes")
                    .iter()
                    .filter(|own| claims.iter().all(|claim| claim["name"] != own["name"]))
                    .cloned(),
            );
            complete["template"]["spec"]["volumes"] = json!(volumes);
        }
        selector_and_template(&mut errors, &complete, &path, "statefulset", true);
        errors
    }
}

impl KindRules for StatefulSet {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        default(spec, "podManagementPolicy", json!("OrderedReady"));
        if object(spec, "updateStrategy").is_some() {
            let strategy = &mut spec["updateStrategy"];
            if text(strategy, "type").is_empty() {
                strategy["type"] = json!("RollingUpdate");
                let _made = object(strategy, "rollingUpdate");
            }
            if text(strategy, "type") == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
                default(&mut strategy["rollingUpdate"], "partition", json!(0));
            }
        }
        if object(spec, "persistentVolumeClaimRetentionPolicy").is_some() {
            for field in ["whenDeleted", "whenScaled"] {
                default(
                    &mut spec["persistentVolumeClaimRetentionPolicy"],
                    field,
                    json!("Retain"),
                );
            }
        }
        default(spec, "replicas", json!(1));
        default(spec, "revisionHistoryLimit", json!(10));
        if spec["serviceName"].is_null() {
            spec["serviceName"] = json!("");
        }
        default_template(spec);
        super::checks::each(spec, "volumeClaimTemplates", |claim| {
            default(claim, "apiVersion", json!("v1"));
            default(claim, "kind", json!("PersistentVolumeClaim"));
            if object(claim, "spec").is_some() {
                default(&mut claim["spec"], "volumeMode", json!("Filesystem"));
                let _made = object(&mut claim["spec"], "resources");
            }
            if object(claim, "status").is_some() {
                default(&mut claim["status"], "phase", json!("Pending"));
            }
        });
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj, true)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Self::validate(obj, false);
        let mut munged = obj["spec"].clone();
        for field in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "ordinals",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            munged[field] = old["spec"][field].clone();
        }
        if !same(&munged, &old["spec"]) {
            errors.push(FieldError::forbidden(
                "spec",
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
                 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Ready", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("Containers", "string", 1),
            Column::new("Images", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (names, images) = containers(&obj["spec"]["template"]["spec"]);
        let ready = obj["status"]["readyReplicas"].as_i64().unwrap_or(0);
        vec![
            name(obj),
            json!(format!("{ready}/{}", obj["spec"]["replicas"])),
            age(obj, now),
            names,
            images,
        ]
    }
}

impl DaemonSet {
    fn validate(obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        selector_and_template(&mut errors, spec, &path, "daemonset", false);
        non_negative(&mut errors, spec, &path, "minReadySeconds");
        let strategy = &spec["updateStrategy"];
        if !matches!(text(strategy, "type"), "OnDelete" | "RollingUpdate") {
            errors.push(FieldError::not_supported(
                path.child("updateStrategy").child("type"),
                text(strategy, "type"),
                &["RollingUpdate", "OnDelete"],
            ));
        }
        non_negative(&mut errors, spec, &path, "revisionHistoryLimit");
        errors
    }
}

impl KindRules for DaemonSet {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        if object(spec, "updateStrategy").is_some() {
            let strategy = &mut spec["updateStrategy"];
            default(strategy, "type", json!("RollingUpdate"));
            if text(strategy, "type") == "RollingUpdate" && object(strategy, "rollingUpdate").is_some() {
                default(&mut strategy["rollingUpdate"], "maxUnavailable", json!(1));
                default(&mut strategy["rollingUpdate"], "maxSurge", json!(0));
            }
        }
        default(spec, "revisionHistoryLimit", json!(10));
        default_template(spec);
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
        if let Some(meta) = object(obj, "metadata") {
            let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
            if annotations.is_null() {
                *annotations = json!({});
            }
            annotations["deprecated.daemonset.template.generation"] = json!("1");
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Self::validate(obj);
        immutable(
            &mut errors,
            &obj["spec"]["selector"],
            &old["spec"]["selector"],
            spec_path().child("selector"),
        );
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut obj = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut obj["spec"]);
        Deployment.default(&mut obj);
        Deployment
            .validate_create(&obj)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn deployments() {
        assert!(deployment(|_| {}).is_empty());
        let mismatch = deployment(|spec| spec["template"]["metadata"]["labels"] = json!({"x": "y"}));
        assert_eq!(
            mismatch,
            [
                r#"spec.template.metadata.labels: Invalid value: {"x":"y"}: `selector` does not match template `labels`"#
            ]
        );
        assert_eq!(
            deployment(|spec| spec["replicas"] = json!(-1)),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        let never = deployment(|spec| spec["template"]["spec"]["restartPolicy"] = json!("Never"));
        assert_eq!(
            never,
            [r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#]
        );
    }

    #[test]
    fn claims_of_a_stateful_set_may_be_mounted() {
        let mut obj = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
                "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}}}});
        StatefulSet.default(&mut obj);
        assert_eq!(StatefulSet.validate_create(&obj), []);
        let mut changed = obj.clone();
        changed["spec"]["serviceName"] = json!("other");
        assert_eq!(StatefulSet.validate_update(&changed, &obj).len(), 1);
    }
}
