//! Binds Pods to Nodes, driven by the watch alone: nothing is polled.

mod fit;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, Request};
use kube::core::Resource;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::informer::{Key, is_not_found};
use crate::pods;
use crate::queue::Queue;

pub use fit::node_ready;

const COMPONENT: &str = "default-scheduler";

/// Node by uid of a Pod, from the decision until the Pod itself says it.
type Assumed = Arc<Mutex<BTreeMap<String, String>>>;

/// Runs the scheduler until cancelled.
pub async fn run(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    let assumed = Assumed::default();
    let forget = Arc::clone(&assumed);
    context.pods.listen(move |change| {
        if let Some(pod) = change.latest()
            && (change.new.is_none() || node_of(pod).is_some())
        {
            forget
                .lock()
                .remove(pod.metadata.uid.as_deref().unwrap_or_default());
        }
    });
    // One decision at a time, so that two Pods never share the same free room; binding goes on beside.
    let decide = Arc::new(tokio::sync::Mutex::new(()));
    queue
        .drive(COMPONENT, 16, cancel, move |key| {
            let (context, assumed, decide) = (context.clone(), Arc::clone(&assumed), Arc::clone(&decide));
            async move { schedule(&context, &assumed, &decide, key).await }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue = Queue::new();
    let fresh = queue.clone();
    let waiting = context.pods.clone();
    context.pods.listen(move |change| {
        if let Some(pod) = &change.new
            && pending(pod)
        {
            // A status that we wrote ourselves is no news.
            if change.old.as_ref().is_none_or(|old| {
                old.spec != pod.spec || old.metadata.deletion_timestamp != pod.metadata.deletion_timestamp
            }) {
                fresh.add(Key::of(&**pod));
            }
            return;
        }
        // Room became free.
        let released = change
            .old
            .as_ref()
            .is_some_and(|old| node_of(old).is_some() && !pods::finished(old))
            && change.new.as_ref().is_none_or(|new| pods::finished(new));
        if released {
            retry(&fresh, &waiting.all());
        }
    });
    let again = queue.clone();
    let waiting = context.pods.clone();
    context.nodes.listen(move |change| {
        let relevant = |node: &Node| {
            let status = node.status.as_ref();
            (
                node.spec.clone(),
                node.metadata.labels.clone(),
                node_ready(node),
                status.and_then(|status| status.allocatable.clone()),
            )
        };
        let changed = match (&change.old, &change.new) {
            (Some(old), Some(new)) => relevant(old) != relevant(new),
            (_, new) => new.is_some(),
        };
        if changed {
            retry(&again, &waiting.all());
        }
    });
    queue
}

fn retry(queue: &Queue<Key>, all: &[Arc<Pod>]) {
    for pod in all.iter().filter(|pod| pending(pod)) {
        queue.add(Key::of(&**pod));
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

fn pending(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    node_of(pod).is_none()
        && pods::active(pod)
        && spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == "default-scheduler"
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

async fn schedule(
    context: &Context,
    assumed: &Assumed,
    decide: &tokio::sync::Mutex<()>,
    key: Key,
) -> anyhow::Result<()> {
    let Some(pod) = context.pods.get(&key).filter(|pod| pending(pod)) else {
        return Ok(());
    };
    if let Some(problem) = unbound_claim(context, &pod) {
        let message = fit::explain_claims(context.nodes.all().len(), &problem);
        return report(context, &pod, &message).await;
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let chosen = {
        let _one_at_a_time = decide.lock().await;
        let chosen = choose(context, assumed, &pod);
        if let Ok(node) = &chosen {
            assumed.lock().insert(uid.clone(), node.clone());
        }
        chosen
    };
    let node = match chosen {
        Ok(node) => node,
        Err(message) => return report(context, &pod, &message).await,
    };
    if let Err(error) = bind(context, &pod, &node).await {
        assumed.lock().remove(&uid);
        return if is_not_found(&error) {
            Ok(())
        } else {
            Err(error.into())
        };
    }
    let text = format!("Successfully assigned {key:?} to {node}");
    context.events.normal(COMPONENT, &*pod, "Scheduled", text);
    Ok(())
}

/// A claim that a Pod mounts must be bound, or be of a class that binds it once a Pod needs it.
fn unbound_claim(context: &Context, pod: &Pod) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    for volume in pod.spec.as_ref()?.volumes.iter().flatten() {
        let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => claim.claim_name.clone(),
            (None, Some(_)) => format!("{pod_name}-{}", volume.name),
            (None, None) => continue,
        };
        let Some(claim) = context.claims.get(&Key::new(namespace, &name)) else {
            return Some(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    None
}

/// The ready Node with the fewest Pods that takes the Pod, or why none does.
fn choose(context: &Context, assumed: &Assumed, pod: &Pod) -> Result<String, String> {
    let nodes: Vec<Arc<Node>> = context.nodes.all();
    let assumed = assumed.lock();
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for other in context.pods.all() {
        let uid = other.metadata.uid.as_deref().unwrap_or_default();
        if let Some(node) = node_of(&other).or_else(|| assumed.get(uid).map(String::as_str)) {
            by_node
                .entry(node.to_owned())
                .or_default()
                .push(Arc::clone(&other));
        }
    }
    let mut refusals = Vec::new();
    let mut best: Option<(usize, String)> = None;
    for node in &nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let (used, count) = fit::used(by_node.get(&name).into_iter().flatten());
        let mut refused = fit::refusals(pod, node, &used, count);
        if refused.is_empty() && !node_ready(node) {
            refused.push("node(s) were not ready".to_owned());
        }
        if refused.is_empty() {
            if best.as_ref().is_none_or(|(fewest, _)| count < *fewest) {
                best = Some((count, name));
            }
        } else {
            refusals.push(refused);
        }
    }
    best.map(|(_, name)| name)
        .ok_or_else(|| fit::explain(nodes.len(), &refusals))
}

async fn bind(context: &Context, pod: &Pod, node: &str) -> kube::Result<()> {
    let key = Key::of(pod);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let data = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
    let request = Request::new(Pod::url_path(&(), Some(&key.namespace)))
        .create_subresource("binding", &key.name, &kube::api::PostParams::default(), data)
        .map_err(kube::Error::BuildRequest)?;
    context.client.request::<Value>(request).await.map(|_| ())
}

/// Writes `PodScheduled=False` and an event, once per message.
async fn report(context: &Context, pod: &Pod, message: &str) -> anyhow::Result<()> {
    let said = |condition: &PodCondition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    };
    if pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|all| all.iter().any(said))
    {
        return Ok(());
    }
    let now = pods::time(Timestamp::now());
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": now, "observedGeneration": pod.metadata.generation,
    }]}});
    match context
        .pods
        .patch_status(&Key::of(pod), &Patch::Strategic(patch))
        .await
    {
        Ok(_) => {}
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    context
        .events
        .warning(COMPONENT, pod, "FailedScheduling", message);
    Ok(())
}
