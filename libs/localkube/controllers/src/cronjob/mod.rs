//! CronJobs: make Jobs at their times and keep a few old ones.

mod schedule;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::informer::{Key, already_exists, controller_of, namespace_terminating};
use crate::pods;
use crate::queue::Queue;
use schedule::Schedule;

const COMPONENT: &str = "cronjob-controller";
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    let again = queue.clone();
    queue
        .drive(COMPONENT, 4, cancel, move |key| {
            reconcile(context.clone(), again.clone(), key)
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue = Queue::new();
    let cron_jobs = queue.clone();
    context.cron_jobs.listen(move |change| {
        if let Some(cron_job) = &change.new {
            cron_jobs.add(Key::of(&**cron_job));
        }
    });
    let owners = queue.clone();
    context.jobs.listen(move |change| {
        if let Some(job) = change.latest()
            && let Some(owner) = controller_of(&**job)
            && owner.kind == "CronJob"
        {
            owners.add(Key::new(
                job.metadata.namespace.clone().unwrap_or_default(),
                &owner.name,
            ));
        }
    });
    queue
}

fn ended(job: &Job, kind: &str) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn over(job: &Job) -> bool {
    ended(job, "Complete") || ended(job, "Failed")
}

async fn reconcile(context: Context, queue: Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(found) = context
        .cron_jobs
        .get(&key)
        .filter(|found| found.metadata.deletion_timestamp.is_none())
    else {
        return Ok(());
    };
    let mut cron_job = (*found).clone();
    let mut jobs = context
        .jobs
        .owned_by(cron_job.metadata.uid.as_deref().unwrap_or_default());
    observe(&context, &mut cron_job, &jobs);
    clean_up(&context, &cron_job, &mut jobs).await?;
    let now = Timestamp::now();
    let next = run_due(&context, &mut cron_job, &jobs, now).await?;
    if cron_job.status != found.status {
        context.cron_jobs.replace_status(&cron_job).await?;
    }
    if let Some(next) = next {
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
        queue.add_after(key, wait + Duration::from_millis(100));
    }
    Ok(())
}

/// Keeps `status.active` and `status.lastSuccessfulTime` in line with the Jobs.
fn observe(context: &Context, cron_job: &mut CronJob, jobs: &[Arc<Job>]) {
    let mut status = cron_job.status.clone().unwrap_or_default();
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|reference| {
        let job = jobs.iter().find(|job| job.metadata.uid == reference.uid);
        match job {
            Some(job) if over(job) => {
                let result = if ended(job, "Complete") {
                    "Complete"
                } else {
                    "Failed"
                };
                let text = format!(
                    "Saw completed job: {}, condition: {result}",
                    job.metadata.name.as_deref().unwrap_or_default()
                );
                context
                    .events
                    .normal(COMPONENT, cron_job, "SawCompletedJob", text);
                false
            }
            Some(_) => true,
            None => {
                let text = format!(
                    "Active job went missing: {}",
                    reference.name.as_deref().unwrap_or_default()
                );
                context.events.normal(COMPONENT, cron_job, "MissingJob", text);
                false
            }
        }
    });
    status.active = (!active.is_empty()).then_some(active);
    let done = jobs
        .iter()
        .filter(|job| ended(job, "Complete"))
        .filter_map(|job| job.status.as_ref()?.completion_time.clone())
        .max();
    if done > status.last_successful_time {
        status.last_successful_time = done;
    }
    cron_job.status = Some(status);
}

async fn clean_up(context: &Context, cron_job: &CronJob, jobs: &mut Vec<Arc<Job>>) -> anyhow::Result<()> {
    let spec = cron_job.spec.clone().unwrap_or_default();
    for (kind, limit) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut finished: Vec<Arc<Job>> = jobs.iter().filter(|job| ended(job, kind)).cloned().collect();
        finished.sort_by_key(|job| job.status.as_ref().and_then(|status| status.start_time.clone()));
        let surplus = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for job in finished.into_iter().take(surplus) {
            context.jobs.delete(&job, DeleteParams::background()).await?;
            context.events.normal(
                COMPONENT,
                cron_job,
                "SuccessfulDelete",
                format!("Deleted job {}", job.metadata.name.as_deref().unwrap_or_default()),
            );
            jobs.retain(|other| other.metadata.uid != job.metadata.uid);
        }
    }
    Ok(())
}

/// Starts the run that is due; gives the time of the next one.
async fn run_due(
    context: &Context,
    cron_job: &mut CronJob,
    jobs: &[Arc<Job>],
    now: Timestamp,
) -> anyhow::Result<Option<Timestamp>> {
    let spec = cron_job.spec.clone().unwrap_or_default();
    if spec.suspend == Some(true) {
        return Ok(None);
    }
    let schedule = match Schedule::of(cron_job) {
        Ok(schedule) => schedule,
        Err(error) => {
            context
                .events
                .warning(COMPONENT, cron_job, "UnparseableSchedule", error.to_string());
            return Ok(None);
        }
    };
    let next = schedule.next(now);
    let Some((due, many)) = schedule.latest(schedule::earliest(cron_job, now), now) else {
        return Ok(next);
    };
    if many {
        context.events.warning(
            COMPONENT,
            cron_job,
            "TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
        );
    }
    let name = schedule::job_name(cron_job, due);
    if jobs.iter().any(|job| job.metadata.name.as_deref() == Some(&name)) {
        return Ok(next);
    }
    let running: Vec<&Arc<Job>> = jobs
        .iter()
        .filter(|job| !over(job) && job.metadata.deletion_timestamp.is_none())
        .collect();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            context.events.normal(
                COMPONENT,
                cron_job,
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid",
            );
            return Ok(next);
        }
        Some("Replace") => {
            for job in running {
                context.jobs.delete(job, DeleteParams::background()).await?;
                context.events.normal(
                    COMPONENT,
                    cron_job,
                    "SuccessfulDelete",
                    format!("Deleted job {}", job.metadata.name.as_deref().unwrap_or_default()),
                );
            }
        }
        _ => {}
    }
    let template = spec.job_template;
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(
        SCHEDULED_AT.to_owned(),
        due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    let job = Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![pods::controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    match context
        .jobs
        .create(cron_job.metadata.namespace.as_deref().unwrap_or_default(), &job)
        .await
    {
        Ok(created) => {
            context.events.normal(
                COMPONENT,
                cron_job,
                "SuccessfulCreate",
                format!("Created job {name}"),
            );
            let reference: ObjectReference = created.object_ref(&());
            let status = cron_job.status.get_or_insert_default();
            status.active.get_or_insert_default().push(reference);
        }
        Err(error) if already_exists(&error) => {}
        Err(error) if namespace_terminating(&error) => return Ok(None),
        Err(error) => {
            context.events.warning(
                COMPONENT,
                cron_job,
                "FailedCreate",
                format!("Error creating job: {error}"),
            );
            return Err(error.into());
        }
    }
    cron_job.status.get_or_insert_default().last_schedule_time = Some(pods::time(due));
    Ok(next)
}
