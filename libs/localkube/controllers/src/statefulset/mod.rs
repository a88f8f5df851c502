//! StatefulSets: Pods with names, claims and an order.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::claim;
use crate::context::Context;
use crate::hash::template_hash;
use crate::informer::{Key, already_exists, namespace_terminating};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "statefulset-controller";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const HASH: &str = "controller.kubernetes.io/hash";

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
    context.stateful_sets.listen(move |change| {
        if let Some(set) = change.latest() {
            sets.add(Key::of(&**set));
        }
    });
    claim::follow(
        &context.pods,
        &context.stateful_sets,
        &queue,
        "StatefulSet",
        |owner| owner.spec.as_ref().map(|spec| &spec.selector),
    );
    queue
}

async fn reconcile(context: Context, queue: Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(set) = context.stateful_sets.get(&key) else {
        return Ok(());
    };
    let (current, update) = match revisions(&context, &set).await {
        Ok(both) => both,
        Err(error) if matches!(error.downcast_ref::<kube::Error>(), Some(error) if namespace_terminating(error)) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let name = |revision: &ControllerRevision| revision.metadata.name.clone().unwrap_or_default();
    let now = Timestamp::now();
    let selector = set
        .spec
        .as_ref()
        .map(|spec| spec.selector.clone())
        .unwrap_or_default();
    let fits = |pod: &Pod| plan::ordinal(&set, pod).is_some();
    let all = claim::claim(&context.pods, &*set, &selector, fits).await?;
    let plan = plan::plan(&set, &all, &name(&current), &name(&update), now);
    let mut failure = None;
    for one in &plan.create {
        let revision = if one.revision == name(&update) {
            &update
        } else {
            &current
        };
        if let Err(error) = create(&context, &set, one.ordinal, revision).await {
            failure = Some(error);
            break;
        }
    }
    for pod in &plan.delete {
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        context.pods.delete(pod, DeleteParams::background()).await?;
        let text = format!("delete Pod {pod_name} in StatefulSet {} successful", key.name);
        context.events.normal(COMPONENT, &*set, "SuccessfulDelete", text);
    }
    if failure.is_none() && set.status.as_ref() != Some(&plan.status) {
        let mut changed = (*set).clone();
        changed.status = Some(plan.status);
        context.stateful_sets.replace_status(&changed).await?;
    }
    truncate(&context, &set, &all).await?;
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    if min_ready > 0
        && all
            .iter()
            .any(|pod| pods::ready(pod) && !pods::available(pod, min_ready, now))
    {
        queue.add_after(key, std::time::Duration::from_secs(1));
    }
    match failure {
        Some(error) if namespace_terminating(&error) => Ok(()),
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn revision_data(set: &StatefulSet) -> Result<Value, serde_json::Error> {
    let mut template = serde_json::to_value(set.spec.as_ref().map(|spec| &spec.template))?;
    if let Some(map) = template.as_object_mut() {
        map.insert("$patch".to_owned(), json!("replace"));
    }
    Ok(json!({"spec": {"template": template}}))
}

fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The current and the update revision; a new template makes a new one, an earlier template its old one newest.
async fn revisions(
    context: &Context,
    set: &StatefulSet,
) -> anyhow::Result<(Arc<ControllerRevision>, Arc<ControllerRevision>)> {
    let mut known = context
        .revisions
        .owned_by(set.metadata.uid.as_deref().unwrap_or_default());
    known.sort_by_key(|revision| revision.revision);
    let template = set
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let last = known.last().map_or(0, |revision| revision.revision);
    let same = known
        .iter()
        .rev()
        .find(|revision| template_of(revision).as_ref() == Some(&template))
        .cloned();
    let update = match same {
        Some(found) if found.revision == last => found,
        Some(found) => {
            let mut changed = (*found).clone();
            changed.revision = last + 1;
            context.revisions.replace(&changed).await?
        }
        None => make_revision(context, set, &template, last + 1).await?,
    };
    let wanted = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.clone());
    let current = known
        .into_iter()
        .find(|revision| revision.metadata.name == wanted && wanted.is_some());
    Ok((current.unwrap_or_else(|| Arc::clone(&update)), update))
}

async fn make_revision(
    context: &Context,
    set: &StatefulSet,
    template: &PodTemplateSpec,
    number: i64,
) -> anyhow::Result<Arc<ControllerRevision>> {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
    loop {
        let hash = template_hash(template, collisions)?;
        let mut labels = template
            .metadata
            .as_ref()
            .and_then(|meta| meta.labels.clone())
            .unwrap_or_default();
        labels.insert(HASH.to_owned(), hash.clone());
        let made = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels),
                owner_references: Some(vec![pods::controller_reference(set)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(revision_data(set)?)),
            revision: number,
        };
        match context.revisions.create(namespace, &made).await {
            Ok(created) => return Ok(created),
            Err(error) if already_exists(&error) && collisions.unwrap_or(0) < 100 => {
                collisions = Some(collisions.unwrap_or(0) + 1);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn truncate(context: &Context, set: &StatefulSet, all: &[Arc<Pod>]) -> anyhow::Result<()> {
    let limit = set
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else {
        return Ok(());
    };
    let status = set.status.clone().unwrap_or_default();
    let mut idle: Vec<Arc<ControllerRevision>> = context
        .revisions
        .owned_by(set.metadata.uid.as_deref().unwrap_or_default())
        .into_iter()
        .filter(|revision| {
            let name = &revision.metadata.name;
            let used = all.iter().any(|pod| {
                pod.metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(plan::REVISION))
                    == name.as_ref()
            });
            !used && *name != status.current_revision && *name != status.update_revision
        })
        .collect();
    idle.sort_by_key(|revision| revision.revision);
    let surplus = idle.len().saturating_sub(limit);
    for revision in idle.into_iter().take(surplus) {
        context
            .revisions
            .delete(&revision, DeleteParams::background())
            .await?;
    }
    Ok(())
}

async fn create(
    context: &Context,
    set: &StatefulSet,
    ordinal: i32,
    revision: &ControllerRevision,
) -> kube::Result<()> {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let template = template_of(revision).unwrap_or_else(|| {
        set.spec
            .as_ref()
            .map(|spec| spec.template.clone())
            .unwrap_or_default()
    });
    let (pod, claims) = pod_and_claims(
        set,
        &template,
        ordinal,
        revision.metadata.name.as_deref().unwrap_or_default(),
    );
    let pod_name = pod.metadata.name.clone().unwrap_or_default();
    for claim in claims {
        let claim_name = claim.metadata.name.clone().unwrap_or_default();
        if context.claims.get(&Key::new(namespace, &claim_name)).is_some() {
            continue;
        }
        match context.claims.create(namespace, &claim).await {
            Ok(_) => {
                let text =
                    format!("create Claim {claim_name} Pod {pod_name} in StatefulSet {set_name} success");
                context.events.normal(COMPONENT, set, "SuccessfulCreate", text);
            }
            Err(error) if already_exists(&error) => {}
            Err(error) => return Err(error),
        }
    }
    match context.pods.create(namespace, &pod).await {
        Ok(_) => {
            let text = format!("create Pod {pod_name} in StatefulSet {set_name} successful");
            context.events.normal(COMPONENT, set, "SuccessfulCreate", text);
            Ok(())
        }
        Err(error) => {
            if !namespace_terminating(&error) {
                let text = format!("create Pod {pod_name} in StatefulSet {set_name} failed error: {error}");
                context.events.warning(COMPONENT, set, "FailedCreate", text);
            }
            Err(error)
        }
    }
}

fn pod_and_claims(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    ordinal: i32,
    revision: &str,
) -> (Pod, Vec<PersistentVolumeClaim>) {
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let name = format!("{set_name}-{ordinal}");
    let mut pod = pods::from_template(set, template, set_name);
    pod.metadata.generate_name = Some(format!("{set_name}-"));
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(plan::REVISION.to_owned(), revision.to_owned());
    let set_spec = set.spec.clone().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set_spec.service_name.filter(|name| !name.is_empty());
    let mut claims = Vec::new();
    for claim_template in set_spec.volume_claim_templates.into_iter().flatten() {
        let volume = claim_template.metadata.name.clone().unwrap_or_default();
        let claim_name = format!("{volume}-{name}");
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|own| own.name != volume);
        volumes.push(Volume {
            name: volume,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        });
        let mut claim = claim_template;
        claim.metadata.name = Some(claim_name);
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        claim
            .metadata
            .labels
            .get_or_insert_default()
            .extend(set_spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        claims.push(claim);
    }
    (pod, claims)
}
