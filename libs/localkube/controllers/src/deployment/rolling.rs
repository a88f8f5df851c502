//! Sizes of a Deployment's ReplicaSets: pure arithmetic.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{DESIRED, MAX, annotation};

/// `spec.replicas`
#[must_use]
pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

/// `status.availableReplicas`
#[must_use]
pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// `spec.replicas` of the Deployment
#[must_use]
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// Whether the strategy is `RollingUpdate`.
#[must_use]
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// A number or a percentage of `total`.
#[must_use]
pub fn scaled(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = i64::from(percent) * i64::from(total);
            i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
        }
        None => 0,
    }
}

fn fence(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.clone())
        .unwrap_or_default();
    let total = wanted(deployment);
    let surge = scaled(rolling.max_surge.as_ref(), total, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref(), total, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// Pods above `spec.replicas` that a roll-out may run.
#[must_use]
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) {
        fence(deployment).0
    } else {
        0
    }
}

/// Pods below `spec.replicas` that a roll-out may lack.
#[must_use]
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    fence(deployment).1.min(wanted(deployment))
}

/// The size that the newest ReplicaSet may have now; `others` are all older ones.
#[must_use]
pub fn new_size(deployment: &Deployment, new: i32, others: i32) -> i32 {
    let wanted = wanted(deployment);
    if !is_rolling(deployment) || new > wanted {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - others - new;
    if room <= 0 {
        new
    } else {
        new + room.min(wanted - new)
    }
}

/// New sizes of old ReplicaSets (oldest first) that a roll-out shrinks now.
#[must_use]
pub fn shrink_old(
    deployment: &Deployment,
    old: &[Arc<ReplicaSet>],
    new: &ReplicaSet,
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let mut sizes: Vec<i32> = old.iter().map(|set| replicas(set)).collect();
    let total_old: i32 = sizes.iter().sum();
    if total_old == 0 {
        return Vec::new();
    }
    let least = wanted(deployment) - max_unavailable(deployment);
    let mut room = total_old + replicas(new) - least - (replicas(new) - available(new));
    if room <= 0 {
        return Vec::new();
    }
    // Unhealthy Pods go first: they are available to nobody.
    for (size, set) in sizes.iter_mut().zip(old) {
        let drop = room.min(*size - available(set)).max(0);
        *size -= drop;
        room -= drop;
    }
    let available_now: i32 = old.iter().map(|set| available(set)).sum::<i32>() + available(new);
    let mut spare = available_now - least;
    for size in &mut sizes {
        let drop = spare.min(*size).max(0);
        *size -= drop;
        spare -= drop;
    }
    old.iter()
        .zip(sizes)
        .filter(|(set, size)| replicas(set) != *size)
        .map(|(set, size)| (Arc::clone(set), size))
        .collect()
}

/// New sizes when `spec.replicas` changed in the middle of a roll-out: every ReplicaSet in proportion.
#[must_use]
pub fn proportional(deployment: &Deployment, active: &[Arc<ReplicaSet>]) -> Vec<(Arc<ReplicaSet>, i32)> {
    let wanted = wanted(deployment);
    let allowed = if wanted > 0 {
        wanted + max_surge(deployment)
    } else {
        0
    };
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let add = allowed - total;
    let mut sets: Vec<Arc<ReplicaSet>> = active.to_vec();
    sets.sort_by(|a, b| {
        let age = a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp);
        replicas(b)
            .cmp(&replicas(a))
            .then(if add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = sets
        .iter()
        .map(|set| {
            let size = replicas(set);
            if size == 0 || add == 0 || added == add {
                return size;
            }
            let before: i32 = annotation(&set.metadata, MAX)
                .or_else(|| annotation(&set.metadata, DESIRED))
                .and_then(|text| text.parse().ok())
                .filter(|max| *max > 0)
                .unwrap_or_else(|| {
                    deployment
                        .status
                        .as_ref()
                        .and_then(|status| status.replicas)
                        .unwrap_or(size)
                        .max(1)
                });
            let share = (2 * i64::from(size) * i64::from(wanted + max_surge(deployment)) + i64::from(before))
                / (2 * i64::from(before));
            let change = i32::try_from(share).unwrap_or(i32::MAX) - size;
            let change = if add > 0 {
                change.min(add - added)
            } else {
                change.max(add - added)
            };
            added += change;
            size + change
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + add - added).max(0);
    }
    sets.into_iter()
        .zip(sizes)
        .filter(|(set, size)| replicas(set) != *size)
        .collect()
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn deployment(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({"spec": {"replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap()
    }

    fn set(name: &str, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {}},
                "status": {"replicas": replicas, "availableReplicas": available}}),
            )
            .unwrap(),
        )
    }

    #[test]
    fn percentages_round_in_the_safe_direction() {
        let d = deployment(10, json!("25%"), json!("25%"));
        assert_eq!((max_surge(&d), max_unavailable(&d)), (3, 2));
        let zero = deployment(1, json!(0), json!("25%"));
        assert_eq!((max_surge(&zero), max_unavailable(&zero)), (0, 1));
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        let d = deployment(10, json!(3), json!(2));
        assert_eq!(new_size(&d, 0, 10), 3);
        assert_eq!(new_size(&d, 3, 8), 5);
        assert_eq!(new_size(&d, 12, 0), 10);
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        let d = deployment(4, json!(1), json!(1));
        let shrunk = shrink_old(&d, &[set("a", 2, 2), set("b", 2, 0)], &set("n", 1, 0));
        assert_eq!(
            shrunk
                .iter()
                .map(|(set, size)| (set.metadata.name.as_deref().unwrap(), *size))
                .collect::<Vec<_>>(),
            [("b", 1)]
        );
    }

    proptest! {
        #[test]
        fn a_roll_out_ends_and_keeps_its_limits(replicas in 1i32..12, surge in 0i32..4, unavailable in 0i32..4) {
            let d = deployment(replicas, json!(surge), json!(unavailable));
            let (mut old, mut new) = (replicas, 0);
            for _ in 0..100 {
                new = new_size(&d, new, old);
                prop_assert!(old + new <= replicas + max_surge(&d));
                if let Some((_, size)) = shrink_old(&d, &[set("o", old, old)], &set("n", new, new)).first() {
                    old = *size;
                }
                prop_assert!(old + new >= replicas - max_unavailable(&d));
            }
            prop_assert_eq!((old, new), (0, replicas));
        }
    }
}
