//! What to do about one StatefulSet: a pure function of it, its Pods and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// Label that names the revision of a Pod's template.
pub const REVISION: &str = "controller-revision-hash";

/// A Pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// its number in the set
    pub ordinal: i32,
    /// name of the ControllerRevision whose template it has
    pub revision: String,
}

/// What one pass changes.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to create
    pub create: Vec<Create>,
    /// Pods to delete
    pub delete: Vec<Arc<Pod>>,
    /// the status to write
    pub status: StatefulSetStatus,
}

/// The number at the end of a Pod's name, when it is of this set.
#[must_use]
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let tail = name
        .strip_prefix(set.metadata.name.as_deref()?)?
        .strip_prefix('-')?;
    tail.parse().ok().filter(|number| *number >= 0)
}

fn revision(pod: &Pod) -> &str {
    pod.metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(REVISION))
        .map_or("", String::as_str)
}

/// First number and size of the set.
fn range(set: &StatefulSet) -> (i32, i32) {
    let spec = set.spec.as_ref();
    let start = spec
        .and_then(|spec| spec.ordinals.as_ref())
        .and_then(|ordinals| ordinals.start)
        .unwrap_or(0);
    (start, spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

/// The least ordinal that gets the update revision.
fn partition(set: &StatefulSet) -> i32 {
    let rolling = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.partition).unwrap_or(0)
}

fn on_delete(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

/// Decides, given the names of the current and the update revision.
#[must_use]
pub fn plan(set: &StatefulSet, all: &[Arc<Pod>], current: &str, update: &str, now: Timestamp) -> Plan {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let ordered = spec.and_then(|spec| spec.pod_management_policy.as_deref()) != Some("Parallel");
    let (start, size) = range(set);
    let mut living: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    let mut condemned: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    for pod in all {
        if let Some(number) = ordinal(set, pod) {
            if number >= start && number < start + size {
                &mut living
            } else {
                &mut condemned
            }
            .insert(number, Arc::clone(pod));
        }
    }
    let available = |pod: &Pod| pods::phase(pod) == "Running" && pods::available(pod, min_ready, now);
    let healthy = |pod: &Arc<Pod>| available(pod) && !pods::terminating(pod);
    let mut plan = Plan {
        status: status(set, all, current, update, &available),
        ..Plan::default()
    };
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }

    let mut held = false;
    for number in start..start + size {
        match living.get(&number) {
            None => {
                let newest = on_delete(set) || number - start >= partition(set);
                plan.create.push(Create {
                    ordinal: number,
                    revision: if newest { update } else { current }.to_owned(),
                });
                held |= ordered;
            }
            Some(pod) if pods::finished(pod) => {
                if !pods::terminating(pod) {
                    plan.delete.push(Arc::clone(pod));
                }
                held |= ordered;
            }
            Some(pod) => held |= ordered && !healthy(pod),
        }
        if held {
            return created(plan, current, update);
        }
    }

    let first_unhealthy = living
        .values()
        .find(|pod| !healthy(pod))
        .or_else(|| condemned.values().find(|pod| !healthy(pod)))
        .cloned();
    let mut shrinking = false;
    for pod in condemned.values().rev() {
        shrinking = true;
        if pods::terminating(pod) {
            if ordered {
                return created(plan, current, update);
            }
            continue;
        }
        let is_first = first_unhealthy
            .as_ref()
            .is_some_and(|first| first.metadata.uid == pod.metadata.uid);
        if ordered && !healthy(pod) && !is_first {
            return created(plan, current, update);
        }
        plan.delete.push(Arc::clone(pod));
        if ordered {
            return created(plan, current, update);
        }
    }
    if shrinking || on_delete(set) {
        return created(plan, current, update);
    }
    for number in (start + partition(set)..start + size).rev() {
        let Some(pod) = living.get(&number) else { break };
        if revision(pod) != update && !pods::terminating(pod) {
            if !pods::finished(pod) {
                plan.delete.push(Arc::clone(pod));
                plan.status.current_replicas = some(plan.status.current_replicas.unwrap_or(0) - 1);
            }
            break;
        }
        if !healthy(pod) {
            break;
        }
    }
    created(plan, current, update)
}

fn created(mut plan: Plan, current: &str, update: &str) -> Plan {
    let add = |number: &mut Option<i32>, more: usize| {
        *number = some(number.unwrap_or(0) + i32::try_from(more).unwrap_or(0));
    };
    plan.status.replicas += i32::try_from(plan.create.len()).unwrap_or(0);
    add(
        &mut plan.status.current_replicas,
        plan.create.iter().filter(|one| one.revision == current).count(),
    );
    add(
        &mut plan.status.updated_replicas,
        plan.create.iter().filter(|one| one.revision == update).count(),
    );
    plan
}

fn some(number: i32) -> Option<i32> {
    (number > 0).then_some(number)
}

fn status(
    set: &StatefulSet,
    all: &[Arc<Pod>],
    current: &str,
    update: &str,
    available: &dyn Fn(&Pod) -> bool,
) -> StatefulSetStatus {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        i32::try_from(all.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
    };
    let mut status = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: some(count(&|pod| pods::phase(pod) == "Running" && pods::ready(pod))),
        available_replicas: Some(count(available)),
        current_replicas: some(count(&|pod| !pods::terminating(pod) && revision(pod) == current)),
        updated_replicas: some(count(&|pod| !pods::terminating(pod) && revision(pod) == update)),
        current_revision: Some(current.to_owned()),
        update_revision: Some(update.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(
            set.status
                .as_ref()
                .and_then(|status| status.collision_count)
                .unwrap_or(0),
        ),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let replicas = status.replicas;
    if !on_delete(set)
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.ready_replicas.unwrap_or(0) == replicas
        && replicas == range(set).1
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> StatefulSet {
        let mut spec = spec;
        spec["selector"] = json!({});
        spec["serviceName"] = json!("s");
        spec["template"] = json!({});
        serde_json::from_value(json!({"metadata": {"name": "web", "generation": 1}, "spec": spec})).unwrap()
    }

    fn pod(number: i32, revision: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": format!("web-{number}"), "uid": format!("u{number}"), "labels": {REVISION: revision}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
            .unwrap(),
        )
    }

    fn decide(set: &StatefulSet, pods: &[Arc<Pod>], current: &str, update: &str) -> Plan {
        plan(
            set,
            pods,
            current,
            update,
            "2026-01-01T00:00:00Z".parse().unwrap(),
        )
    }

    fn ordinals(plan: &Plan) -> Vec<i32> {
        plan.create.iter().map(|one| one.ordinal).collect()
    }

    #[test]
    fn one_after_the_other() {
        let set = set(json!({"replicas": 3}));
        assert_eq!(ordinals(&decide(&set, &[], "r", "r")), [0]);
        assert!(ordinals(&decide(&set, &[pod(0, "r", false)], "r", "r")).is_empty());
        assert_eq!(ordinals(&decide(&set, &[pod(0, "r", true)], "r", "r")), [1]);
    }

    #[test]
    fn all_at_once_when_parallel() {
        assert_eq!(
            ordinals(&decide(
                &set(json!({"replicas": 3, "podManagementPolicy": "Parallel"})),
                &[],
                "r",
                "r"
            )),
            [0, 1, 2]
        );
    }

    #[test]
    fn shrinks_from_the_end() {
        let pods = [pod(0, "r", true), pod(1, "r", true), pod(2, "r", true)];
        let plan = decide(&set(json!({"replicas": 1})), &pods, "r", "r");
        assert_eq!(
            plan.delete
                .iter()
                .map(|pod| pod.metadata.name.as_deref().unwrap())
                .collect::<Vec<_>>(),
            ["web-2"]
        );
    }

    #[test]
    fn updates_from_the_end_down_to_the_partition() {
        let pods = [pod(0, "a", true), pod(1, "a", true)];
        let plan = decide(&set(json!({"replicas": 2})), &pods, "a", "b");
        assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("web-1"));
        let halted = json!({"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        assert!(decide(&set(halted), &pods, "a", "b").delete.is_empty());
        let manual = json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}});
        assert!(decide(&set(manual), &pods, "a", "b").delete.is_empty());
    }

    #[test]
    fn a_finished_roll_out_makes_the_update_current() {
        let plan = decide(&set(json!({"replicas": 1})), &[pod(0, "b", true)], "a", "b");
        assert_eq!(plan.status.current_revision.as_deref(), Some("b"));
        assert_eq!(plan.status.current_replicas, Some(1));
    }

    #[test]
    fn starts_at_its_first_ordinal() {
        assert_eq!(
            ordinals(&decide(
                &set(json!({"replicas": 1, "ordinals": {"start": 5}})),
                &[],
                "r",
                "r"
            )),
            [5]
        );
    }
}
