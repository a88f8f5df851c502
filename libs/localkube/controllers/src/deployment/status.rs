//! A Deployment's status: a pure function of it and its ReplicaSets.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;

use super::rolling::{available, max_unavailable, replicas, wanted};
use crate::pods;

const AVAILABLE_REASON: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(pods::time(now)),
        last_transition_time: Some(pods::time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

/// Puts a condition last unless it says nothing new; the time of transition stays when only the reason is new.
fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

fn deadline(deployment: &Deployment) -> Option<i64> {
    deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)
        .map(i64::from)
}

/// Numbers and the `Available` condition.
#[must_use]
pub fn counts(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |get: &dyn Fn(&ReplicaSet) -> i32| all.iter().map(|set| get(set)).sum::<i32>();
    let some = |number: i32| (number > 0).then_some(number);
    let is_available = sum(&available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&|set| {
            set.status.as_ref().map_or(0, |status| status.replicas)
        })),
        updated_replicas: some(
            new.and_then(|set| set.status.as_ref())
                .map_or(0, |status| status.replicas),
        ),
        ready_replicas: some(sum(&|set| {
            set.status
                .as_ref()
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0)
        })),
        available_replicas: some(is_available),
        unavailable_replicas: some(sum(&replicas) - is_available),
        terminating_replicas: all
            .iter()
            .map(|set| set.status.as_ref().and_then(|status| status.terminating_replicas))
            .try_fold(0, |total, one| one.map(|one| total + one)),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let (value, reason, text) = if is_available >= wanted(deployment) - max_unavailable(deployment) {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(
        &mut status,
        condition("Available", value, reason, text.to_owned(), now),
    );
    status
}

/// Whether the newest template runs everywhere and nothing else does.
#[must_use]
pub fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(found) = find(status, "Progressing") else {
        return false;
    };
    match found.reason.as_deref() {
        Some(AVAILABLE_REASON) => false,
        Some(TIMED_OUT) => true,
        _ => deadline(deployment)
            .zip(found.last_update_time.as_ref())
            .is_some_and(|(seconds, since)| since.0.as_second() + seconds < now.as_second()),
    }
}

/// Numbers and all conditions while a roll-out may be under way.
#[must_use]
pub fn rollout(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, new, all, now);
    if deadline(deployment).is_none() {
        remove(&mut status, "Progressing");
    }
    let current = find(&before, "Progressing").cloned();
    let settled = status.replicas == status.updated_replicas
        && current
            .as_ref()
            .is_some_and(|condition| condition.reason.as_deref() == Some(AVAILABLE_REASON));
    if deadline(deployment).is_some() && !settled {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let subject = new.map_or_else(
            || format!("Deployment \"{name}\""),
            |new| {
                format!(
                    "ReplicaSet \"{}\"",
                    new.metadata.name.as_deref().unwrap_or_default()
                )
            },
        );
        if complete(deployment, &status) {
            set(
                &mut status,
                condition(
                    "Progressing",
                    "True",
                    AVAILABLE_REASON,
                    format!("{subject} has successfully progressed."),
                    now,
                ),
            );
        } else if progressing(&before, &status) {
            let mut new = condition(
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
                now,
            );
            if let Some(current) = current.filter(|current| current.status == "True") {
                new.last_transition_time = current.last_transition_time;
            }
            remove(&mut status, "Progressing");
            set(&mut status, new);
        } else if timed_out(deployment, &status, now) {
            set(
                &mut status,
                condition(
                    "Progressing",
                    "False",
                    TIMED_OUT,
                    format!("{subject} has timed out progressing."),
                    now,
                ),
            );
        }
    }
    let failure = new
        .into_iter()
        .chain(all.iter().map(|set| &**set))
        .find_map(|set| {
            set.status
                .as_ref()?
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == "ReplicaFailure")
        });
    match failure {
        Some(found) => set(
            &mut status,
            DeploymentCondition {
                type_: "ReplicaFailure".to_owned(),
                status: found.status.clone(),
                reason: found.reason.clone(),
                message: found.message.clone(),
                last_transition_time: found.last_transition_time.clone(),
                last_update_time: found.last_transition_time.clone(),
            },
        ),
        None => remove(&mut status, "ReplicaFailure"),
    }
    status
}

/// Says that a new ReplicaSet was made, found, or could not be made.
pub fn note_new_set(
    deployment: &mut Deployment,
    ok: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> bool {
    if deadline(deployment).is_none() {
        return false;
    }
    let status = deployment.status.get_or_insert_default();
    if reason == "FoundNewReplicaSet" && find(status, "Progressing").is_some() {
        return false;
    }
    set(
        status,
        condition(
            "Progressing",
            if ok { "True" } else { "False" },
            reason,
            message,
            now,
        ),
    );
    true
}

/// Says whether the Deployment is paused; gives whether anything changed.
pub fn note_paused(deployment: &mut Deployment, now: Timestamp) -> bool {
    if deadline(deployment).is_none() {
        return false;
    }
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    let status = deployment.status.get_or_insert_default();
    let reason = find(status, "Progressing").and_then(|condition| condition.reason.clone());
    match (paused, reason.as_deref()) {
        (_, Some(TIMED_OUT)) | (true, Some("DeploymentPaused")) => false,
        (true, _) => {
            set(
                status,
                condition(
                    "Progressing",
                    "Unknown",
                    "DeploymentPaused",
                    "Deployment is paused".to_owned(),
                    now,
                ),
            );
            true
        }
        (false, Some("DeploymentPaused")) => {
            set(
                status,
                condition(
                    "Progressing",
                    "Unknown",
                    "DeploymentResumed",
                    "Deployment is resumed".to_owned(),
                    now,
                ),
            );
            true
        }
        (false, _) => false,
    }
}

/// When a roll-out that makes no progress times out.
#[must_use]
pub fn check_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let found = find(status, "Progressing")?;
    if complete(deployment, status) || found.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let left = found.last_update_time.as_ref()?.0.as_second() + deadline(deployment)? - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn deployment(status: Value) -> Deployment {
        serde_json::from_value(
            json!({"metadata": {"name": "d", "generation": 1}, "status": status,
            "spec": {"replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 600}}),
        )
        .unwrap()
    }

    fn new_set(available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": "d-1"}, "spec": {"replicas": 2, "selector": {}},
                "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available}}),
            )
            .unwrap(),
        )
    }

    fn reason(status: &DeploymentStatus) -> (&str, &str) {
        let found = find(status, "Progressing").unwrap();
        (&found.status, found.reason.as_deref().unwrap())
    }

    #[test]
    fn a_finished_roll_out() {
        let set = new_set(2);
        let status = rollout(
            &deployment(json!({})),
            Some(&set),
            std::slice::from_ref(&set),
            now(),
        );
        assert_eq!(reason(&status), ("True", "NewReplicaSetAvailable"));
        assert_eq!(status.unavailable_replicas, None);
        assert!(complete(&deployment(json!({})), &status));
    }

    #[test]
    fn no_progress_for_the_deadline() {
        let status = json!({"replicas": 2, "updatedReplicas": 2, "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
            "lastUpdateTime": "2026-01-01T00:00:00Z"}]});
        let set = new_set(0);
        let status = rollout(&deployment(status), Some(&set), std::slice::from_ref(&set), now());
        assert_eq!(reason(&status), ("False", "ProgressDeadlineExceeded"));
    }
}
