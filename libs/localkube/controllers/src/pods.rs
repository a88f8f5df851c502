//! What several controllers ask of Pods, and how they make one from a template.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;

/// The phase, `Pending` when none is written yet.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether the Pod ended.
#[must_use]
pub fn finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether somebody asked for the Pod's end.
#[must_use]
pub fn terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither ended nor asked to end.
#[must_use]
pub fn active(pod: &Pod) -> bool {
    !finished(pod) && !terminating(pod)
}

/// The status of a condition, with the time of its last change.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, Option<Timestamp>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((
        &found.status,
        found.last_transition_time.as_ref().map(|time| time.0),
    ))
}

/// Whether the `Ready` condition is true.
#[must_use]
pub fn ready(pod: &Pod) -> bool {
    matches!(condition(pod, "Ready"), Some(("True", _)))
}

/// Whether the Pod has been ready for `min_ready_seconds`.
#[must_use]
pub fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    match condition(pod, "Ready") {
        Some(("True", since)) => {
            min_ready_seconds <= 0
                || since
                    .is_some_and(|since| now.as_second() - since.as_second() >= i64::from(min_ready_seconds))
        }
        _ => false,
    }
}

/// Order in which Pods are removed: unassigned, pending, not ready, newest and most restarted first.
#[must_use]
pub fn removal_order(a: &Pod, b: &Pod) -> Ordering {
    let assigned = |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.as_deref().is_some_and(|name| !name.is_empty()))
    };
    let rank = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let restarts = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref())
            .map_or(0, |all| {
                all.iter().map(|status| status.restart_count).max().unwrap_or(0)
            })
    };
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| rank(a).cmp(&rank(b)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| {
            let since = |pod: &Pod| condition(pod, "Ready").and_then(|(_, time)| time);
            if ready(a) && ready(b) {
                since(b).cmp(&since(a))
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| created(b).cmp(&created(a)))
}

/// Sum of restarts of all containers.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .map(|status| status.restart_count)
        .sum()
}

/// A reference that makes `owner` the controller of what carries it.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A Pod of a template, named `<prefix>-xxxxx` by the server and owned by `owner`.
pub fn from_template<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    prefix: &str,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut base = prefix.to_owned();
    base.push('-');
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(base),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether labels satisfy a selector; a selector that says nothing matches everything.
#[must_use]
pub fn selects(
    selector: &LabelSelector,
    labels: Option<&std::collections::BTreeMap<String, String>>,
) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|term| {
            let values = term.values.as_deref().unwrap_or_default();
            match (term.operator.as_str(), get(&term.key)) {
                ("In", Some(value)) => values.contains(value),
                ("NotIn", Some(value)) => !values.contains(value),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        })
}

/// Now, in the precision that the API keeps.
#[must_use]
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn selectors_are_set_based() {
        let selector: LabelSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "a"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "gone", "operator": "DoesNotExist"}]
        }))
        .unwrap();
        let labels = |value| serde_json::from_value(value).unwrap();
        assert!(selects(&selector, Some(&labels(json!({"app": "a"})))));
        assert!(selects(
            &selector,
            Some(&labels(json!({"app": "a", "tier": "y"})))
        ));
        assert!(!selects(
            &selector,
            Some(&labels(json!({"app": "a", "tier": "x"})))
        ));
        assert!(!selects(
            &selector,
            Some(&labels(json!({"app": "a", "gone": "1"})))
        ));
        assert!(!selects(&selector, None));
    }

    #[test]
    fn unassigned_pods_go_first() {
        let waiting = pod(json!({"metadata": {"name": "w"}, "spec": {"containers": []}}));
        let running = pod(
            json!({"metadata": {"name": "r"}, "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": "Running"}}),
        );
        let mut both = [running, waiting];
        both.sort_by(removal_order);
        assert_eq!(both[0].metadata.name.as_deref(), Some("w"));
    }

    #[test]
    fn available_after_min_ready_seconds() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let ready = pod(json!({"spec": {"containers": []}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:50Z"}]}}));
        assert!(available(&ready, 10, now));
        assert!(!available(&ready, 11, now));
    }
}
