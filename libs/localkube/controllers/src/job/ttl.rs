//! `ttlSecondsAfterFinished`.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::api::DeleteParams;

use super::plan::true_condition;
use crate::context::Context;
use crate::informer::Key;
use crate::queue::Queue;

/// How long a finished Job may still stay; `None` when it has no limit or is not over.
#[must_use]
pub fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).ok()?;
    let status = job.status.as_ref()?;
    let end = true_condition(status, "Complete").or_else(|| true_condition(status, "Failed"))?;
    let since =
        Duration::try_from(now.duration_since(end.last_transition_time.as_ref()?.0)).unwrap_or_default();
    Some(Duration::from_secs(seconds).saturating_sub(since))
}

/// Deletes a finished Job whose time is over, or looks again when it will be.
pub async fn expire(context: &Context, queue: &Queue<Key>, job: &Job) -> anyhow::Result<()> {
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    match left(job, Timestamp::now()) {
        Some(left) if left.is_zero() => context.jobs.delete(job, DeleteParams::foreground()).await?,
        Some(left) => queue.add_after(Key::of(job), left),
        None => {}
    }
    Ok(())
}
