//! Pods.

use serde_json::{Value, json};

use super::checks::{age, default_absent, each, immutable, list, name, object, same, spec_path, text};
use super::{pod_defaults, pod_validation};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};

/// Rules of Pods.
pub struct Pod;

impl KindRules for Pod {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_some() {
            pod_defaults::spec(&mut obj["spec"]);
            pod_defaults::pod(&mut obj["spec"]);
        }
        if let Some(status) = obj.get_mut("status").filter(|status| status.is_object()) {
            default_status(status);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        pod_defaults::admit(&mut obj["spec"]);
        if obj["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds < 0)
        {
            obj["spec"]["terminationGracePeriodSeconds"] = json!(1);
        }
        obj["status"] = json!({"phase": "Pending", "qosClass": pod_defaults::qos(&obj["spec"])});
        if !list(&obj["spec"], "schedulingGates").is_empty() {
            obj["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "lastProbeTime": null, "lastTransitionTime": crate::times::now(),
                "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = pod_validation::spec(&obj["spec"], &spec_path());
        if !list(&obj["spec"], "ephemeralContainers").is_empty() {
            errors.push(FieldError::forbidden(
                "spec.ephemeralContainers",
                "cannot be set on create",
            ));
        }
        if !text(&obj["spec"], "nodeName").is_empty() && !list(&obj["spec"], "schedulingGates").is_empty() {
            errors.push(FieldError::forbidden(
                "spec.nodeName",
                "cannot be set until all schedulingGates have been cleared",
            ));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old) = (&obj["spec"], &old["spec"]);
        let mut errors = pod_validation::spec(new, &spec_path());
        for field in ["containers", "initContainers"] {
            if list(new, field).len() != list(old, field).len() {
                errors.push(FieldError::forbidden(
                    spec_path().child(field),
                    "pod updates may not add or remove containers",
                ));
                return errors;
            }
        }
        match (
            new["activeDeadlineSeconds"].as_i64(),
            old["activeDeadlineSeconds"].as_i64(),
        ) {
            (Some(after), Some(before)) if before < after => {
                errors.push(FieldError::invalid(
                    "spec.activeDeadlineSeconds",
                    after,
                    "must be less than or equal to previous value",
                ));
                return errors;
            }
            (None, Some(_)) => {
                errors.push(FieldError::invalid(
                    "spec.activeDeadlineSeconds",
                    Value::Null,
                    "must not update from a positive integer to nil value",
                ));
            }
            _ => {}
        }
        if !only_added(list(new, "tolerations"), list(old, "tolerations")) {
            let text = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(FieldError::forbidden("spec.tolerations", text));
        }
        if list(new, "schedulingGates")
            .iter()
            .any(|gate| !list(old, "schedulingGates").contains(gate))
        {
            errors.push(FieldError::forbidden(
                "spec.schedulingGates",
                "only deletion is allowed, but found new scheduling gate",
            ));
        }
        let mut munged = new.clone();
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            munged[field] = old[field].clone();
        }
        if !list(old, "schedulingGates").is_empty() {
            munged["nodeSelector"] = old["nodeSelector"].clone();
        }
        for field in ["containers", "initContainers"] {
            for at in 0..list(old, field).len() {
                munged[field][at]["image"] = old[field][at]["image"].clone();
            }
        }
        if !same(&munged, old) {
            errors.push(FieldError::forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                 `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
                 (allow it to be set to 1 if it was previously negative)\n",
            ));
        }
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(
            &mut errors,
            &obj["status"]["qosClass"],
            &old["status"]["qosClass"],
            FieldPath::new("status").child("qosClass"),
        );
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        let (spec, status) = (&obj["spec"], &obj["status"]);
        Some(match label {
            "spec.nodeName" | "spec.restartPolicy" | "spec.schedulerName" | "spec.serviceAccountName" => {
                text(spec, label.split_at(5).1).to_owned()
            }
            "spec.hostNetwork" => (spec["hostNetwork"] == true).to_string(),
            "status.phase" | "status.nominatedNodeName" => text(status, label.split_at(7).1).to_owned(),
            "status.podIP" => text(status, "podIP").to_owned(),
            _ => return None,
        })
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Ready", "string", 0),
            Column::new("Status", "string", 0),
            Column::new("Restarts", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("IP", "string", 1),
            Column::new("Node", "string", 1),
            Column::new("Nominated Node", "string", 1),
            Column::new("Readiness Gates", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&obj["spec"], &obj["status"]);
        let statuses = list(status, "containerStatuses");
        let ready = statuses
            .iter()
            .filter(|one| one["ready"] == true && one["state"]["running"].is_object())
            .count();
        let init = list(spec, "initContainers");
        let is_sidecar = |one: &Value| is_sidecar_of(init, one);
        let ready = ready
            + list(status, "initContainerStatuses")
                .iter()
                .filter(|one| one["ready"] == true && is_sidecar(one))
                .count();
        let sidecars = init
            .iter()
            .filter(|one| text(one, "restartPolicy") == "Always")
            .count();
        let all = list(spec, "containers").len() + sidecars;
        // While it initialises a Pod shows the restarts of its init containers, then those of containers and sidecars.
        let word = state(obj);
        let initializing = !is_initialized(obj);
        let counted: Vec<&Value> = list(status, "initContainerStatuses")
            .iter()
            .filter(|one| initializing || is_sidecar(one))
            .chain(statuses.iter().filter(|_| !initializing))
            .collect();
        let restarts: i64 = counted
            .iter()
            .map(|one| one["restartCount"].as_i64().unwrap_or(0))
            .sum();
        let last = counted
            .iter()
            .filter_map(|one| one["lastState"]["terminated"]["finishedAt"].as_str())
            .max();
        let mut restarts_text = restarts.to_string();
        if restarts > 0 && last.is_some() {
            restarts_text = format!("{restarts} ({} ago)", crate::times::age(last, now));
        }
        let or_none = |found: &str| json!(if found.is_empty() { "<none>" } else { found });
        vec![
            name(obj),
            json!(format!("{ready}/{all}")),
            json!(word),
            json!(restarts_text),
            age(obj, now),
            or_none(text(status, "podIP")),
            or_none(text(spec, "nodeName")),
            or_none(text(status, "nominatedNodeName")),
            json!("<none>"),
        ]
    }
}

/// Fields of a status that Go always prints.
fn default_status(status: &mut Value) {
    each(status, "conditions", |condition| {
        default_absent(condition, "lastProbeTime", Value::Null);
        default_absent(condition, "lastTransitionTime", Value::Null);
    });
    for field in [
        "initContainerStatuses",
        "containerStatuses",
        "ephemeralContainerStatuses",
    ] {
        each(status, field, |one| {
            for (name, to) in [
                ("image", json!("")),
                ("imageID", json!("")),
                ("lastState", json!({})),
                ("ready", json!(false)),
                ("restartCount", json!(0)),
                ("state", json!({})),
            ] {
                default_absent(one, name, to);
            }
        });
    }
}

fn only_added(new: &[Value], old: &[Value]) -> bool {
    let without_time = |one: &Value| {
        let mut one = one.clone();
        if let Some(map) = one.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        one
    };
    old.iter()
        .all(|one| new.iter().any(|other| without_time(one) == without_time(other)))
}

fn is_sidecar_of(init: &[Value], status: &Value) -> bool {
    init.iter()
        .any(|own| own["name"] == status["name"] && text(own, "restartPolicy") == "Always")
}

/// Whether an init container holds up the next one no longer.
fn is_through(init: &[Value], status: &Value) -> bool {
    status["state"]["terminated"]["exitCode"] == 0
        || (is_sidecar_of(init, status) && status["started"] == true)
}

/// Whether all init containers are through; sidecars, which outlive the containers, may have ended since.
fn is_initialized(obj: &Value) -> bool {
    let status = &obj["status"];
    let init = list(&obj["spec"], "initContainers");
    let told = list(status, "conditions")
        .iter()
        .any(|one| text(one, "type") == "Initialized" && text(one, "status") == "True");
    told || list(status, "initContainerStatuses")
        .iter()
        .all(|one| is_through(init, one))
}

/// The word that `kubectl get pods` shows.
fn state(obj: &Value) -> String {
    let status = &obj["status"];
    let mut reason = text(status, "phase").to_owned();
    if !text(status, "reason").is_empty() {
        reason = text(status, "reason").to_owned();
    }
    let gated = list(status, "conditions")
        .iter()
        .any(|one| text(one, "type") == "PodScheduled" && text(one, "reason") == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let init = list(&obj["spec"], "initContainers");
    for (at, one) in list(status, "initContainerStatuses").iter().enumerate() {
        if is_through(init, one) {
            continue;
        }
        let state = &one["state"];
        reason = if state["terminated"].is_object() {
            let own = text(&state["terminated"], "reason");
            if own.is_empty() {
                format!("Init:ExitCode:{}", state["terminated"]["exitCode"])
            } else {
                format!("Init:{own}")
            }
        } else {
            let own = text(&state["waiting"], "reason");
            if own.is_empty() || own == "PodInitializing" {
                format!("Init:{at}/{}", init.len())
            } else {
                format!("Init:{own}")
            }
        };
        break;
    }
    if is_initialized(obj) {
        let mut running = false;
        for one in list(status, "containerStatuses").iter().rev() {
            let state = &one["state"];
            if !text(&state["waiting"], "reason").is_empty() {
                reason = text(&state["waiting"], "reason").to_owned();
            } else if state["terminated"].is_object() {
                let own = text(&state["terminated"], "reason");
                reason = if !own.is_empty() {
                    own.to_owned()
                } else if state["terminated"]["signal"].as_i64().unwrap_or(0) != 0 {
                    format!("Signal:{}", state["terminated"]["signal"])
                } else {
                    format!("ExitCode:{}", state["terminated"]["exitCode"])
                };
            } else if one["ready"] == true && state["running"].is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready = list(status, "conditions")
                .iter()
                .any(|one| text(one, "type") == "Ready" && text(one, "status") == "True");
            reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if obj["metadata"]["deletionTimestamp"].is_string() {
        let finished = matches!(text(status, "phase"), "Succeeded" | "Failed");
        if text(status, "reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !finished {
            reason = "Terminating".to_owned();
        }
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        assert_eq!(state(&json!({"status": {"phase": "Pending"}})), "Pending");
        let crash = json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        assert_eq!(state(&crash), "CrashLoopBackOff");
        let mut ended = json!({"spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}]}, "status": {"phase": "Succeeded",
            "conditions": [{"type": "Initialized", "status": "True"}],
            "initContainerStatuses": [{"name": "s", "started": false, "state": {"terminated": {"exitCode": 143, "reason": "Error"}}}],
            "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}});
        assert_eq!(state(&ended), "Completed");
        ended["status"]["conditions"] = json!([]);
        assert_eq!(state(&ended), "Init:Error");
        assert_eq!(
            state(&json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}})),
            "Terminating"
        );
    }

    #[test]
    fn only_some_fields_may_change() {
        let mut old = json!({"spec": {"containers": [{"name": "c", "image": "a"}]}});
        Pod.default(&mut old);
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("b");
        assert!(Pod.validate_update(&new, &old).is_empty());
        new["spec"]["hostname"] = json!("h");
        assert_eq!(Pod.validate_update(&new, &old).len(), 1);
    }
}
