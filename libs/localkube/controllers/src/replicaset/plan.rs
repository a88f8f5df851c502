//! What to do about one ReplicaSet: a pure function of it, its Pods and the time.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// Pods that one pass creates or deletes.
const CHANGED_AT_ONCE: usize = 500;

/// What one pass changes.
#[derive(Debug, Default)]
pub struct Plan {
    /// number of Pods to create
    pub create: usize,
    /// Pods to delete
    pub delete: Vec<Arc<Pod>>,
}

/// Compares the Pods with `spec.replicas`.
#[must_use]
pub fn plan(set: &ReplicaSet, all: &[Arc<Pod>]) -> Plan {
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let mut active: Vec<Arc<Pod>> = all.iter().filter(|pod| pods::active(pod)).cloned().collect();
    let wanted = usize::try_from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)).unwrap_or(0);
    if active.len() < wanted {
        return Plan {
            create: (wanted - active.len()).min(CHANGED_AT_ONCE),
            delete: Vec::new(),
        };
    }
    active.sort_by(|a, b| pods::removal_order(a, b));
    active.truncate((active.len() - wanted).min(CHANGED_AT_ONCE));
    Plan {
        create: 0,
        delete: active,
    }
}

/// The status that the Pods add up to; `failure` is what went wrong in this pass, as (reason, message).
#[must_use]
pub fn status(
    set: &ReplicaSet,
    all: &[Arc<Pod>],
    failure: Option<(&str, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let before = set.status.clone().unwrap_or_default();
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let active: Vec<&Arc<Pod>> = all.iter().filter(|pod| pods::active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let number = active.iter().filter(|pod| test(pod)).count();
        i32::try_from(number).ok().filter(|number| *number > 0)
    };
    let labelled = |pod: &Pod| {
        labels
            .iter()
            .all(|(key, value)| pod.metadata.labels.as_ref().and_then(|have| have.get(key)) == Some(value))
    };
    let mut conditions = before.conditions.unwrap_or_default();
    let failing = conditions
        .iter()
        .any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some((reason, message)) if !failing => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(pods::time(now)),
            reason: Some(reason.to_owned()),
            message: Some(message),
        }),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Some(_) => {}
    }
    let terminating = all
        .iter()
        .filter(|pod| pods::terminating(pod) && !pods::finished(pod))
        .count();
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(&labelled),
        ready_replicas: count(&pods::ready),
        available_replicas: count(&|pod| pods::available(pod, spec.min_ready_seconds.unwrap_or(0), now)),
        terminating_replicas: i32::try_from(terminating).ok(),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// When the next ready Pod becomes available.
#[must_use]
pub fn next_available(all: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        return None;
    }
    all.iter()
        .filter(|pod| pods::active(pod) && !pods::available(pod, min_ready_seconds, now))
        .filter_map(|pod| match pods::condition(pod, "Ready") {
            Some(("True", Some(since))) => {
                u64::try_from(since.as_second() + i64::from(min_ready_seconds) - now.as_second()).ok()
            }
            _ => None,
        })
        .min()
        .map(Duration::from_secs)
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": "s", "generation": 2}, "spec": {"replicas": replicas, "selector": {}}})).unwrap()
    }

    fn pod(name: &str, phase: &str, more: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name}, "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": phase}});
        if more["deleted"] == true {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if more["ready"] == true {
            value["status"]["conditions"] =
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn ended_pods_are_replaced() {
        let pods = [
            pod("a", "Failed", json!({})),
            pod("b", "Running", json!({})),
            pod("c", "Running", json!({"deleted": true})),
        ];
        assert_eq!(plan(&set(3), &pods).create, 2);
    }

    #[test]
    fn the_least_ready_pods_go_first() {
        let pods = [
            pod("a", "Running", json!({"ready": true})),
            pod("b", "Pending", json!({})),
        ];
        let plan = plan(&set(1), &pods);
        assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("b"));
    }

    #[test]
    fn status_counts() {
        let pods = [
            pod("a", "Running", json!({"ready": true})),
            pod("b", "Running", json!({"deleted": true})),
        ];
        let status = status(&set(1), &pods, None, "2026-01-01T00:00:10Z".parse().unwrap());
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.available_replicas,
                status.terminating_replicas
            ),
            (1, Some(1), Some(1), Some(1))
        );
        assert_eq!(status.observed_generation, Some(2));
    }
}
