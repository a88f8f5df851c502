//! Nodes that fall silent: their condition, their taints, and the end of the Pods on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch};
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::informer::{Key, is_not_found};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "node-controller";
const CHECK: Duration = Duration::from_secs(5);
/// Silence after which a Node is no longer believed.
const GRACE: Duration = Duration::from_secs(50);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Finished Pods kept before the oldest are removed.
const FINISHED_PODS: usize = 12_500;

/// When a Node's heartbeat was last seen to change, by this process's clock.
type Heartbeats = HashMap<String, (Option<Timestamp>, Instant)>;

/// Connects the queue to what it depends on; call before the caches start. A Node that becomes ready loses its taints at once.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue = Queue::new();
    let nodes = queue.clone();
    context.nodes.listen(move |change| {
        if let Some(node) = &change.new {
            let relevant = |node: &Node| {
                (
                    ready_status(node).to_owned(),
                    node.spec.as_ref().and_then(|spec| spec.taints.clone()),
                )
            };
            if change
                .old
                .as_ref()
                .is_none_or(|old| relevant(old) != relevant(node))
            {
                nodes.add(Key::of(&**node));
            }
        }
    });
    queue
}

/// Keeps taints in line with conditions until cancelled.
pub async fn run_taints(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    queue
        .drive(COMPONENT, 4, cancel, move |key| {
            let context = context.clone();
            async move {
                match context.nodes.get(&key) {
                    Some(node) if has_ready(&node) => set_taints(&context, &node, taint_of(&node)).await,
                    _ => Ok(()),
                }
            }
        })
        .await;
}

/// A Node that never reported keeps the taint that admission gave it.
fn has_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready")
}

fn taint_of(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// Runs the checks until cancelled.
pub async fn run(context: Context) {
    let mut heartbeats = Heartbeats::new();
    let mut ticks = tokio::time::interval(CHECK);
    loop {
        tokio::select! {
            () = context.cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for node in context.nodes.all() {
            if let Err(error) = check(&context, &mut heartbeats, &node).await {
                tracing::debug!(node = node.metadata.name, %error, "node check failed, trying again");
            }
        }
        if let Err(error) = collect(&context).await {
            tracing::debug!(%error, "pod collection failed, trying again");
        }
    }
}

fn ready_status(node: &Node) -> &str {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .map_or("Unknown", |condition| condition.status.as_str())
}

fn heartbeat(context: &Context, node: &Node) -> Option<Timestamp> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let lease = context
        .leases
        .get(&Key::new("kube-node-lease", name))
        .and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let own = conditions
        .iter()
        .filter_map(|condition| condition.last_heartbeat_time.as_ref().map(|time| time.0))
        .max();
    lease.map(|time| time.0).max(own)
}

async fn check(context: &Context, heartbeats: &mut Heartbeats, node: &Node) -> anyhow::Result<()> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let seen = heartbeat(context, node);
    let now = Instant::now();
    let entry = heartbeats.entry(name.clone()).or_insert((seen, now));
    if entry.0 != seen {
        *entry = (seen, now);
    }
    let silent = now.duration_since(entry.1) > GRACE;
    if silent && ready_status(node) != "Unknown" {
        mark_unknown(context, node).await?;
        return Ok(());
    }
    if !has_ready(node) {
        return Ok(());
    }
    let taint = taint_of(node);
    set_taints(context, node, taint).await?;
    if let Some(taint) = taint {
        evict(context, node, taint).await?;
    }
    Ok(())
}

async fn mark_unknown(context: &Context, node: &Node) -> anyhow::Result<()> {
    let now = pods::time(Timestamp::now());
    let mut changed = node.clone();
    for condition in changed
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default()
    {
        if matches!(
            condition.type_.as_str(),
            "Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure"
        ) {
            *condition = NodeCondition {
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusUnknown".to_owned()),
                message: Some("Kubelet stopped posting node status.".to_owned()),
                last_transition_time: Some(now.clone()),
                ..condition.clone()
            };
        }
    }
    context.nodes.replace_status(&changed).await?;
    context.events.normal(
        COMPONENT,
        node,
        "NodeNotReady",
        format!(
            "Node {} status is now: NodeNotReady",
            node.metadata.name.as_deref().unwrap_or_default()
        ),
    );
    for pod in on_node(context, node).iter().filter(|pod| pods::ready(pod)) {
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": now}]}});
        match context
            .pods
            .patch_status(&Key::of(&**pod), &Patch::Strategic(patch))
            .await
        {
            Err(error) if !is_not_found(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Sets the NoSchedule and NoExecute taints of the Node's condition, and removes those of the other.
async fn set_taints(context: &Context, node: &Node, wanted: Option<&str>) -> anyhow::Result<()> {
    let before = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let mut after: Vec<Taint> = before
        .iter()
        .filter(|taint| {
            ![NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) || Some(taint.key.as_str()) == wanted
        })
        .cloned()
        .collect();
    if let Some(key) = wanted {
        for effect in ["NoSchedule", "NoExecute"] {
            if !after
                .iter()
                .any(|taint| taint.key == key && taint.effect == effect)
            {
                let time_added = (effect == "NoExecute").then(|| pods::time(Timestamp::now()));
                after.push(Taint {
                    key: key.to_owned(),
                    value: None,
                    effect: effect.to_owned(),
                    time_added,
                });
            }
        }
    }
    if after != before {
        let mut changed = node.clone();
        changed.spec.get_or_insert_default().taints = (!after.is_empty()).then_some(after);
        context.nodes.replace(&changed).await?;
    }
    Ok(())
}

fn on_node(context: &Context, node: &Node) -> Vec<Arc<Pod>> {
    let name = node.metadata.name.as_deref();
    context
        .pods
        .all()
        .into_iter()
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == name)
        .collect()
}

/// How long a Pod tolerates a taint: `None` for ever, zero not at all.
fn tolerated_for(pod: &Pod, key: &str) -> Option<Duration> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let matching: Vec<_> = tolerations
        .iter()
        .filter(|one| {
            let effect = one.effect.as_deref().unwrap_or_default();
            let own = one.key.as_deref().unwrap_or_default();
            (effect.is_empty() || effect == "NoExecute")
                && (own == key || (own.is_empty() && one.operator.as_deref() == Some("Exists")))
        })
        .collect();
    if matching.is_empty() {
        return Some(Duration::ZERO);
    }
    matching
        .iter()
        .filter_map(|one| one.toleration_seconds)
        .min()
        .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

async fn evict(context: &Context, node: &Node, key: &str) -> anyhow::Result<()> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let Some(since) = taints
        .iter()
        .find(|taint| taint.key == key && taint.effect == "NoExecute")
        .and_then(|taint| taint.time_added.as_ref())
    else {
        return Ok(());
    };
    let waited = Duration::try_from(Timestamp::now().duration_since(since.0)).unwrap_or_default();
    for pod in on_node(context, node).iter().filter(|pod| pods::active(pod)) {
        if tolerated_for(pod, key).is_some_and(|limit| waited >= limit) {
            context.events.normal(
                COMPONENT,
                &**pod,
                "TaintManagerEviction",
                format!("Marking for deletion Pod {:?}", Key::of(&**pod)),
            );
            context.pods.delete(pod, DeleteParams::background()).await?;
        }
    }
    Ok(())
}

/// Removes Pods of Nodes that no longer exist, and the oldest of very many finished ones.
async fn collect(context: &Context) -> anyhow::Result<()> {
    let all = context.pods.all();
    let force = || DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::background()
    };
    for pod in &all {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|name| !name.is_empty());
        let orphaned = node.is_some_and(|name| context.nodes.get(&Key::new("", name)).is_none());
        let unscheduled = node.is_none() && pods::terminating(pod);
        if orphaned && !pods::finished(pod) {
            let now = pods::time(Timestamp::now());
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists", "lastTransitionTime": now}]}});
            match context
                .pods
                .patch_status(&Key::of(&**pod), &Patch::Strategic(patch))
                .await
            {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        if orphaned || unscheduled {
            context.pods.delete(pod, force()).await?;
        }
    }
    let mut finished: Vec<&Arc<Pod>> = all
        .iter()
        .filter(|pod| pods::finished(pod) && !pods::terminating(pod))
        .collect();
    if finished.len() > FINISHED_PODS {
        finished.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let surplus = finished.len() - FINISHED_PODS;
        for pod in finished.into_iter().take(surplus) {
            context.pods.delete(pod, force()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toleration_of_silence() {
        let pod = |tolerations: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap()
        };
        assert_eq!(tolerated_for(&pod(json!([])), NOT_READY), Some(Duration::ZERO));
        assert_eq!(
            tolerated_for(&pod(json!([{"operator": "Exists"}])), NOT_READY),
            None
        );
        let usual = json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        assert_eq!(
            tolerated_for(&pod(usual), NOT_READY),
            Some(Duration::from_secs(300))
        );
    }
}
