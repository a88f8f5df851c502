//! Jobs: runs Pods until enough of them succeeded, and counts each exactly once.

mod indexes;
mod plan;
mod policy;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::Context;
use crate::informer::{Key, controller_of, is_not_found, namespace_terminating};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "job-controller";
/// Pods created at first; each round that works doubles it, so that a quota is not hit a thousand times.
const FIRST_BATCH: usize = 1;

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
    let jobs = queue.clone();
    context.jobs.listen(move |change| {
        if let Some(job) = change.latest() {
            jobs.add(Key::of(&**job));
        }
    });
    let owners = queue.clone();
    context.pods.listen(move |change| {
        if let Some(pod) = change.latest()
            && let Some(owner) = controller_of(&**pod)
            && owner.kind == "Job"
        {
            owners.add(Key::new(
                pod.metadata.namespace.clone().unwrap_or_default(),
                &owner.name,
            ));
        }
    });
    queue
}

async fn reconcile(context: Context, queue: Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(job) = context.jobs.get(&key) else {
        return release_orphans(&context, &key).await;
    };
    let foreign = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    if foreign.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
        return Ok(());
    }
    let all = context
        .pods
        .owned_by(job.metadata.uid.as_deref().unwrap_or_default());
    if plan::over(&job) {
        release(
            &context,
            &all.into_iter()
                .filter(|pod| plan::tracked(pod))
                .collect::<Vec<_>>(),
        )
        .await?;
        return ttl::expire(&context, &queue, &job).await;
    }
    let now = Timestamp::now();
    let mut plan = plan::plan(&job, &all, now);
    let mut failure = None;

    let stops = plan
        .stop
        .iter()
        .map(|pod| context.pods.delete(pod, DeleteParams::background()));
    failure = join_all(stops)
        .await
        .into_iter()
        .filter_map(Result::err)
        .next()
        .or(failure);
    if failure.is_some() {
        plan.end = None;
    }
    for pod in &plan.delete {
        release(&context, std::slice::from_ref(pod)).await?;
        context.pods.delete(pod, DeleteParams::background()).await?;
        context.events.normal(
            COMPONENT,
            &*job,
            "SuccessfulDelete",
            format!("Deleted pod: {}", name_of(pod)),
        );
    }
    let (created, refused) = create(&context, &job, &plan.create).await;
    if let Some(error) = refused {
        let missing = i32::try_from(plan.create.len() - created).unwrap_or(0);
        plan.status.active = plan
            .status
            .active
            .map(|active| active - missing)
            .filter(|active| *active > 0);
        failure = Some(error);
    }
    if let Some((reason, message)) = plan.event {
        context.events.normal(COMPONENT, &*job, reason, message);
    }
    record(&context, &job, plan, now).await?;
    if let Some(after) = plan_again(&context, &key, now) {
        queue.add_after(key, after);
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn plan_again(context: &Context, key: &Key, now: Timestamp) -> Option<Duration> {
    let job = context.jobs.get(key)?;
    if plan::over(&job) {
        return ttl::left(&job, now);
    }
    let all = context
        .pods
        .owned_by(job.metadata.uid.as_deref().unwrap_or_default());
    plan::plan(&job, &all, now).again
}

/// Writes the status, releases counted Pods, and writes the status again with what they add up to.
async fn record(context: &Context, job: &Job, plan: plan::Plan, now: Timestamp) -> anyhow::Result<()> {
    let mut current = job.clone();
    current.status = Some(plan.status);
    if plan.write {
        current = (*context.jobs.replace_status(&current).await?).clone();
    }
    release(context, &plan.release).await?;
    let mut status = current.status.clone().unwrap_or_default();
    let gone: Vec<&str> = plan
        .release
        .iter()
        .filter_map(|pod| pod.metadata.uid.as_deref())
        .collect();
    let mut changed = plan::settle(&mut status, |uid| !gone.contains(&uid));
    let mut finished = false;
    if let Some(end) = &plan.end
        && !plan.more
    {
        finished = plan::finish(&mut status, end, now);
        changed |= finished;
    }
    if changed {
        current.status = Some(status);
        let current = context.jobs.replace_status(&current).await?;
        if let Some(end) = plan.end.filter(|_| finished) {
            if end.type_ == "Complete" {
                context
                    .events
                    .normal(COMPONENT, &*current, "Completed", "Job completed");
            } else {
                context.events.warning(
                    COMPONENT,
                    &*current,
                    end.reason.as_deref().unwrap_or_default(),
                    end.message.unwrap_or_default(),
                );
            }
        }
    }
    Ok(())
}

fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Takes the tracking finalizer off Pods.
async fn release(context: &Context, all: &[Arc<Pod>]) -> anyhow::Result<()> {
    let calls = all.iter().filter(|pod| plan::tracked(pod)).map(|pod| async move {
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [plan::TRACKING_FINALIZER]}});
        match context.pods.patch(&Key::of(&**pod), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    });
    for result in join_all(calls).await {
        result?;
    }
    Ok(())
}

/// Pods that outlive their Job keep no finalizer that nobody would remove.
async fn release_orphans(context: &Context, key: &Key) -> anyhow::Result<()> {
    let orphans: Vec<Arc<Pod>> = context
        .pods
        .in_namespace(&key.namespace)
        .into_iter()
        .filter(|pod| {
            plan::tracked(pod)
                && controller_of(&**pod).is_some_and(|owner| owner.kind == "Job" && owner.name == key.name)
        })
        .collect();
    release(context, &orphans).await
}

/// Creates Pods in growing batches; gives how many were created and the first error.
async fn create(context: &Context, job: &Job, wanted: &[Option<i32>]) -> (usize, Option<kube::Error>) {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let mut created = 0;
    let mut batch = FIRST_BATCH;
    while created < wanted.len() {
        let end = (created + batch).min(wanted.len());
        let pods: Vec<Pod> = wanted[created..end]
            .iter()
            .map(|index| pod_of(job, *index))
            .collect();
        let results = join_all(pods.iter().map(|pod| context.pods.create(namespace, pod))).await;
        let mut first_error = None;
        for result in results {
            match result {
                Ok(pod) => {
                    created += 1;
                    context.events.normal(
                        COMPONENT,
                        job,
                        "SuccessfulCreate",
                        format!("Created pod: {}", name_of(&pod)),
                    );
                }
                Err(error) => {
                    if !namespace_terminating(&error) {
                        context.events.warning(
                            COMPONENT,
                            job,
                            "FailedCreate",
                            format!("Error creating: {}", api_message(&error)),
                        );
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        if first_error.is_some() {
            return (created, first_error);
        }
        batch *= 2;
    }
    (created, None)
}

fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn pod_of(job: &Job, index: Option<i32>) -> Pod {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let template = job
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut pod = pods::from_template(job, &template, name);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers
        .iter()
        .any(|finalizer| finalizer == plan::TRACKING_FINALIZER)
    {
        finalizers.push(plan::TRACKING_FINALIZER.to_owned());
    }
    if let Some(index) = index {
        let text = index.to_string();
        let tail = format!("-{text}-");
        let head: String = name.chars().take(58 - tail.len()).collect();
        pod.metadata.generate_name = Some(format!("{head}{tail}"));
        pod.metadata
            .annotations
            .get_or_insert_default()
            .insert(indexes::COMPLETION_INDEX.to_owned(), text.clone());
        pod.metadata
            .labels
            .get_or_insert_default()
            .insert(indexes::COMPLETION_INDEX.to_owned(), text);
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{name}-{index}"));
            index_environment(spec);
        }
    }
    pod
}

fn index_environment(spec: &mut PodSpec) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|variable| variable.name != NAME) {
            let field = ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{}']", indexes::COMPLETION_INDEX),
            };
            env.push(EnvVar {
                name: NAME.to_owned(),
                value: None,
                value_from: Some(EnvVarSource {
                    field_ref: Some(field),
                    ..EnvVarSource::default()
                }),
            });
        }
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod plan_tests;
