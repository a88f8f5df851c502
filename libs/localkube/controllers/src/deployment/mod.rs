//! Deployments: one ReplicaSet per template, and roll-outs between them.

mod revision;
mod rolling;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;

use crate::claim;
use crate::context::Context;
use crate::hash::template_hash;
use crate::informer::{Key, already_exists, controller_of};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "deployment-controller";

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
    let deployments = queue.clone();
    context.deployments.listen(move |change| {
        if let Some(deployment) = change.latest() {
            deployments.add(Key::of(&**deployment));
        }
    });
    claim::follow(
        &context.replica_sets,
        &context.deployments,
        &queue,
        "Deployment",
        |owner| owner.spec.as_ref().map(|spec| &spec.selector),
    );
    // A Recreate roll-out goes on when the last old Pod is gone.
    let gone = queue.clone();
    let sets = context.replica_sets.clone();
    context.pods.listen(move |change| {
        if change.new.is_none()
            && let Some(pod) = &change.old
            && let Some(owner) = controller_of(&**pod)
            && owner.kind == "ReplicaSet"
        {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            if let Some(set) = sets.get(&Key::new(&namespace, &owner.name))
                && let Some(owner) = controller_of(&*set)
            {
                gone.add(Key::new(namespace, &owner.name));
            }
        }
    });
    queue
}

/// The newest ReplicaSet, the old ones (oldest first), and all of them.
struct Sets {
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    fn of(context: &Context, deployment: &Deployment) -> Self {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        Self::split(deployment, context.replica_sets.owned_by(uid))
    }

    fn split(deployment: &Deployment, all: Vec<Arc<ReplicaSet>>) -> Self {
        let (new, old) = revision::split(deployment, all);
        Self { new, old }
    }
}

async fn reconcile(context: Context, queue: Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(found) = context.deployments.get(&key) else {
        return Ok(());
    };
    let mut deployment = (*found).clone();
    let now = Timestamp::now();
    let selector = deployment
        .spec
        .as_ref()
        .map(|spec| spec.selector.clone())
        .unwrap_or_default();
    let own = claim::claim(&context.replica_sets, &deployment, &selector, |_| true).await?;
    let mut sets = Sets::split(&deployment, own);
    if deployment.metadata.deletion_timestamp.is_some() {
        let next = status::counts(&deployment, sets.new.as_deref(), &sets.all(), now);
        return write(&context, &deployment, next).await.map(|_| ());
    }
    if status::note_paused(&mut deployment, now) {
        deployment = (*context.deployments.replace_status(&deployment).await?).clone();
    }
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    if paused || resized(&deployment, &sets) {
        sync_new(&context, &mut deployment, &mut sets, false).await?;
        scale_all(&context, &deployment, &sets).await?;
        if paused {
            clean_up(&context, &deployment, &sets.old).await?;
        }
        let sets = Sets::of(&context, &deployment);
        let next = status::counts(&deployment, sets.new.as_deref(), &sets.all(), now);
        write(&context, &deployment, next).await?;
        return Ok(());
    }
    roll_out(&context, &mut deployment, &mut sets).await?;
    let sets = Sets::of(&context, &deployment);
    let next = status::rollout(&deployment, sets.new.as_deref(), &sets.all(), Timestamp::now());
    let after = write(&context, &deployment, next).await?;
    if status::complete(
        &after,
        after.status.as_ref().unwrap_or(&DeploymentStatus::default()),
    ) {
        clean_up(&context, &after, &sets.old).await?;
    }
    if let Some(wait) = after
        .status
        .as_ref()
        .and_then(|status| status::check_again(&after, status, Timestamp::now()))
    {
        queue.add_after(key, wait);
    }
    Ok(())
}

async fn write(
    context: &Context,
    deployment: &Deployment,
    next: DeploymentStatus,
) -> anyhow::Result<Arc<Deployment>> {
    let mut changed = deployment.clone();
    if changed.status.as_ref() == Some(&next) {
        return Ok(Arc::new(changed));
    }
    changed.status = Some(next);
    Ok(context.deployments.replace_status(&changed).await?)
}

fn resized(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = rolling::wanted(deployment);
    sets.all()
        .iter()
        .filter(|set| rolling::replicas(set) > 0)
        .filter_map(|set| {
            revision::annotation(&set.metadata, revision::DESIRED)?
                .parse::<i32>()
                .ok()
        })
        .any(|desired| desired != wanted)
}

async fn roll_out(context: &Context, deployment: &mut Deployment, sets: &mut Sets) -> anyhow::Result<()> {
    if !rolling::is_rolling(deployment) {
        sync_new(context, deployment, sets, false).await?;
        let mut shrunk = false;
        for set in sets.old.iter().filter(|set| rolling::replicas(set) > 0) {
            shrunk |= scale(context, deployment, set, 0).await?;
        }
        if shrunk || old_pods_run(context, &sets.old) {
            return Ok(());
        }
        sync_new(context, deployment, sets, true).await?;
        if let Some(new) = &sets.new {
            scale(context, deployment, new, rolling::wanted(deployment)).await?;
        }
        return Ok(());
    }
    sync_new(context, deployment, sets, true).await?;
    let Some(new) = sets.new.clone() else {
        return Ok(());
    };
    let others = sets.old.iter().map(|set| rolling::replicas(set)).sum();
    let size = rolling::new_size(deployment, rolling::replicas(&new), others);
    if size != rolling::replicas(&new) && scale(context, deployment, &new, size).await? {
        return Ok(());
    }
    for (set, size) in rolling::shrink_old(deployment, &sets.old, &new) {
        scale(context, deployment, &set, size).await?;
    }
    Ok(())
}

fn old_pods_run(context: &Context, old: &[Arc<ReplicaSet>]) -> bool {
    old.iter().any(|set| {
        context
            .pods
            .owned_by(set.metadata.uid.as_deref().unwrap_or_default())
            .iter()
            .any(|pod| !pods::finished(pod))
    })
}

async fn scale_all(context: &Context, deployment: &Deployment, sets: &Sets) -> anyhow::Result<()> {
    let wanted = rolling::wanted(deployment);
    let active: Vec<Arc<ReplicaSet>> = sets
        .all()
        .into_iter()
        .filter(|set| rolling::replicas(set) > 0)
        .collect();
    if active.len() <= 1 {
        let only = active
            .into_iter()
            .next()
            .or_else(|| sets.new.clone())
            .or_else(|| sets.old.last().cloned());
        if let Some(set) = only {
            scale(context, deployment, &set, wanted).await?;
        }
        return Ok(());
    }
    let saturated = sets.new.as_ref().is_some_and(|new| {
        let desired =
            revision::annotation(&new.metadata, revision::DESIRED).and_then(|text| text.parse().ok());
        rolling::replicas(new) == wanted && desired == Some(wanted) && rolling::available(new) == wanted
    });
    if saturated {
        for set in sets.old.iter().filter(|set| rolling::replicas(set) > 0) {
            scale(context, deployment, set, 0).await?;
        }
        return Ok(());
    }
    if rolling::is_rolling(deployment) {
        let sizes: BTreeMap<String, i32> = rolling::proportional(deployment, &active)
            .into_iter()
            .map(|(set, size)| (set.metadata.name.clone().unwrap_or_default(), size))
            .collect();
        for set in &active {
            let size = sizes
                .get(set.metadata.name.as_deref().unwrap_or_default())
                .copied()
                .unwrap_or(rolling::replicas(set));
            scale(context, deployment, set, size).await?;
        }
    }
    Ok(())
}

/// Sets a size and the annotations that remember why; says whether the size changed.
async fn scale(
    context: &Context,
    deployment: &Deployment,
    set: &ReplicaSet,
    size: i32,
) -> anyhow::Result<bool> {
    let before = rolling::replicas(set);
    let notes = revision::size_annotations(deployment);
    let noted = notes
        .iter()
        .all(|(name, value)| revision::annotation(&set.metadata, name) == Some(value));
    if before == size && noted {
        return Ok(false);
    }
    let mut changed = set.clone();
    changed.spec.get_or_insert_default().replicas = Some(size);
    changed.metadata.annotations.get_or_insert_default().extend(notes);
    context.replica_sets.replace(&changed).await?;
    if before != size {
        let direction = if size > before { "up" } else { "down" };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        context.events.normal(
            COMPONENT,
            deployment,
            "ScalingReplicaSet",
            format!("Scaled {direction} replica set {name} from {before} to {size}"),
        );
    }
    Ok(before != size)
}

/// Finds or makes the ReplicaSet of the current template and keeps revision and annotations right.
async fn sync_new(
    context: &Context,
    deployment: &mut Deployment,
    sets: &mut Sets,
    make: bool,
) -> anyhow::Result<()> {
    let next = sets
        .old
        .iter()
        .map(|set| revision::revision(&set.metadata))
        .max()
        .unwrap_or(0)
        + 1;
    let now = Timestamp::now();
    if let Some(new) = &sets.new {
        let own = new.metadata.annotations.clone().unwrap_or_default();
        let wanted = revision::wanted_annotations(deployment, Some(&own), next);
        let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let ready_differs = new
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0)
            != min_ready.unwrap_or(0);
        let mut found = Arc::clone(new);
        if wanted != own || ready_differs {
            let mut changed = (**new).clone();
            changed.metadata.annotations = Some(wanted);
            changed.spec.get_or_insert_default().min_ready_seconds = min_ready;
            found = context.replica_sets.replace(&changed).await?;
            sets.new = Some(Arc::clone(&found));
        }
        note_revision(context, deployment, revision::revision(&found.metadata)).await?;
        let name = found.metadata.name.clone().unwrap_or_default();
        if status::note_new_set(
            deployment,
            true,
            "FoundNewReplicaSet",
            format!("Found new replica set \"{name}\""),
            now,
        ) {
            *deployment = (*context.deployments.replace_status(deployment).await?).clone();
        }
        return Ok(());
    }
    if !make {
        return Ok(());
    }
    let set = make_set(deployment, sets, next)?;
    let name = set.metadata.name.clone().unwrap_or_default();
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    match context.replica_sets.create(&namespace, &set).await {
        Ok(created) => {
            let size = rolling::replicas(&created);
            if size > 0 {
                let text = format!("Scaled up replica set {name} from 0 to {size}");
                context
                    .events
                    .normal(COMPONENT, deployment, "ScalingReplicaSet", text);
            }
            sets.new = Some(created);
        }
        Err(error) if already_exists(&error) => {
            let status = deployment.status.get_or_insert_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            context.deployments.replace_status(deployment).await?;
            return Err(error.into());
        }
        Err(error) => {
            let text = format!("Failed to create new replica set \"{name}\": {error}");
            if status::note_new_set(deployment, false, "ReplicaSetCreateError", text.clone(), now) {
                context.deployments.replace_status(deployment).await?;
            }
            context
                .events
                .warning(COMPONENT, deployment, "ReplicaSetCreateError", text);
            return Err(error.into());
        }
    }
    note_revision(context, deployment, next).await?;
    if status::note_new_set(
        deployment,
        true,
        "NewReplicaSetCreated",
        format!("Created new replica set \"{name}\""),
        now,
    ) {
        *deployment = (*context.deployments.replace_status(deployment).await?).clone();
    }
    Ok(())
}

async fn note_revision(context: &Context, deployment: &mut Deployment, number: i64) -> anyhow::Result<()> {
    if revision::revision(&deployment.metadata) == number {
        return Ok(());
    }
    // Through the status, as the main resource would count the annotation as a new generation.
    deployment
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(revision::REVISION.to_owned(), number.to_string());
    *deployment = (*context.deployments.replace_status(deployment).await?).clone();
    Ok(())
}

fn make_set(deployment: &Deployment, sets: &Sets, next: i64) -> anyhow::Result<ReplicaSet> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions)?;
    let mut template = spec.template;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(revision::TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(revision::TEMPLATE_HASH.to_owned(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let others = sets.old.iter().map(|set| rolling::replicas(set)).sum();
    Ok(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                name.chars().take(252 - hash.len()).collect::<String>()
            )),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(revision::wanted_annotations(deployment, None, next)),
            owner_references: Some(vec![pods::controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(rolling::new_size(deployment, 0, others)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}

/// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`.
async fn clean_up(context: &Context, deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> anyhow::Result<()> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else {
        return Ok(());
    };
    let mut candidates: Vec<&Arc<ReplicaSet>> = old
        .iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .collect();
    candidates.sort_by_key(|set| revision::revision(&set.metadata));
    let surplus = candidates.len().saturating_sub(limit);
    for set in candidates.into_iter().take(surplus) {
        let idle =
            rolling::replicas(set) == 0 && set.status.as_ref().is_none_or(|status| status.replicas == 0);
        if idle
            && set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation
        {
            context
                .replica_sets
                .delete(set, DeleteParams::background())
                .await?;
        }
    }
    Ok(())
}
