//! ReplicaSets: keep a number of Pods alive.

mod plan;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;

use crate::claim;
use crate::context::Context;
use crate::informer::{Key, namespace_terminating};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "replicaset-controller";

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    let workers = context.config.workers;
    let again = queue.clone();
    queue
        .drive(COMPONENT, workers, cancel, move |key| {
            reconcile(context.clone(), again.clone(), key)
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue = Queue::new();
    let sets = queue.clone();
    context.replica_sets.listen(move |change| {
        if let Some(set) = change.latest() {
            sets.add(Key::of(&**set));
        }
    });
    claim::follow(
        &context.pods,
        &context.replica_sets,
        &queue,
        "ReplicaSet",
        |owner| owner.spec.as_ref().map(|spec| &spec.selector),
    );
    queue
}

async fn reconcile(context: Context, queue: Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(set) = context.replica_sets.get(&key) else {
        return Ok(());
    };
    let uid = set.metadata.uid.clone().unwrap_or_default();
    let selector = set
        .spec
        .as_ref()
        .map(|spec| spec.selector.clone())
        .unwrap_or_default();
    let own = claim::claim(&context.pods, &*set, &selector, pods::active).await?;
    let plan = plan::plan(&set, &own);
    let created = create(&context, &set, plan.create).await;
    let mut failure = created
        .as_ref()
        .err()
        .map(|error| ("FailedCreate", error.to_string()));
    let deletes = plan
        .delete
        .iter()
        .map(|pod| context.pods.delete(pod, DeleteParams::background()));
    for (pod, result) in plan.delete.iter().zip(join_all(deletes).await) {
        match result {
            Ok(()) => context.events.normal(
                COMPONENT,
                &*set,
                "SuccessfulDelete",
                format!(
                    "Deleted pod: {}",
                    pod.metadata.name.as_deref().unwrap_or_default()
                ),
            ),
            Err(error) => failure = Some(("FailedDelete", error.to_string())),
        }
    }
    let now = Timestamp::now();
    let all = context.pods.owned_by(&uid);
    let status = plan::status(&set, &all, failure, now);
    if set.status.as_ref() != Some(&status) {
        let mut changed = (*set).clone();
        changed.status = Some(status);
        context.replica_sets.replace_status(&changed).await?;
    }
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    if let Some(after) = plan::next_available(&all, min_ready, now) {
        queue.add_after(key, after);
    }
    created.map_err(Into::into)
}

async fn create(context: &Context, set: &ReplicaSet, wanted: usize) -> kube::Result<()> {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let (mut created, mut batch) = (0, 1);
    while created < wanted {
        let size = batch.min(wanted - created);
        let made: Vec<_> = (0..size)
            .map(|_| pods::from_template(set, &template, name))
            .collect();
        for result in join_all(made.iter().map(|pod| context.pods.create(namespace, pod))).await {
            match result {
                Ok(pod) => {
                    created += 1;
                    let text = format!(
                        "Created pod: {}",
                        pod.metadata.name.as_deref().unwrap_or_default()
                    );
                    context.events.normal(COMPONENT, set, "SuccessfulCreate", text);
                }
                Err(error) if namespace_terminating(&error) => return Ok(()),
                Err(error) => {
                    let text = match &error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    context
                        .events
                        .warning(COMPONENT, set, "FailedCreate", format!("Error creating: {text}"));
                    return Err(error);
                }
            }
        }
        batch *= 2;
    }
    Ok(())
}
