//! What to do about one Job: a pure function of the Job, its Pods and the time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::{indexes, policy};
use crate::pods;

/// Keeps a Pod until the Job has counted it.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods whose end one pass counts, so that the status stays small.
const COUNTED_AT_ONCE: usize = 500;
/// Pods that one pass creates or deletes.
const CHANGED_AT_ONCE: usize = 500;
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LAST_BACKOFF: Duration = Duration::from_secs(600);

/// What one pass does, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to create; the index of an Indexed Job.
    pub create: Vec<Option<i32>>,
    /// Pods to delete after taking the finalizer off (they do not count).
    pub delete: Vec<Arc<Pod>>,
    /// Pods to delete that still have to be counted.
    pub stop: Vec<Arc<Pod>>,
    /// The status to write before finalizers are taken off.
    pub status: JobStatus,
    /// Whether `status` differs from what the Job says.
    pub write: bool,
    /// Ended Pods that are in `status` now and lose their finalizer.
    pub release: Vec<Arc<Pod>>,
    /// The last condition, set when every Pod is counted and gone.
    pub end: Option<JobCondition>,
    /// When to look again at the latest.
    pub again: Option<Duration>,
    /// Set when the Job was suspended or resumed: (reason, message) of the event.
    pub event: Option<(&'static str, &'static str)>,
    /// Whether more ended Pods wait to be counted.
    pub more: bool,
}

/// Whether the Pod carries the tracking finalizer.
#[must_use]
pub fn tracked(pod: &Pod) -> bool {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == TRACKING_FINALIZER)
}

/// A condition of a Job that is true since now.
#[must_use]
pub fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(pods::time(now)),
        last_transition_time: Some(pods::time(now)),
    }
}

/// A condition that is true.
#[must_use]
pub fn true_condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the Job is over.
#[must_use]
pub fn over(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|status| {
        true_condition(status, "Complete").is_some() || true_condition(status, "Failed").is_some()
    })
}

fn again_as(target: &JobCondition, kind: &str, now: Timestamp) -> JobCondition {
    condition(
        kind,
        "True",
        target.reason.as_deref().unwrap_or_default(),
        target.message.as_deref().unwrap_or_default(),
        now,
    )
}

/// Everything that the steps of one pass read.
struct Pass<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    indexed: bool,
    uncounted_succeeded: BTreeSet<String>,
    uncounted_failed: BTreeSet<String>,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Pass<'_> {
    fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
            || self.spec.pod_failure_policy.is_some()
    }

    fn failed(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Failed"
            || (!self.replaces_only_failed() && pods::terminating(pod) && pods::phase(pod) != "Succeeded")
    }

    fn valid_index(&self, pod: &Pod) -> bool {
        !self.indexed || indexes::of(pod).is_some_and(|index| index < self.completions())
    }

    fn new_succeeded(&self) -> usize {
        let fresh = |pod: &&Arc<Pod>| {
            tracked(pod) && !self.uncounted_succeeded.contains(uid(pod)) && pods::phase(pod) == "Succeeded"
        };
        self.pods.iter().filter(fresh).count()
    }

    fn new_failed(&self) -> usize {
        let fresh = |pod: &&Arc<Pod>| {
            tracked(pod)
                && !self.uncounted_failed.contains(uid(pod))
                && self.valid_index(pod)
                && self.failed(pod)
                && policy::judge(self.job, pod) != policy::Verdict::Ignore
        };
        self.pods.iter().filter(fresh).count()
    }

    /// Consecutive failures since the last success, and when the last of them ended.
    fn back_off(&self) -> Option<Duration> {
        let mut ends: Vec<(Timestamp, bool)> = self
            .pods
            .iter()
            .filter(|pod| pods::phase(pod) == "Succeeded" || self.failed(pod))
            .filter_map(|pod| Some((ended_at(pod)?, pods::phase(pod) == "Succeeded")))
            .collect();
        ends.sort();
        let failures = ends.iter().rev().take_while(|(_, succeeded)| !succeeded).count();
        let (last, _) = ends.last()?;
        if failures == 0 {
            return None;
        }
        let wait = FIRST_BACKOFF
            .saturating_mul(2u32.saturating_pow(u32::try_from(failures - 1).unwrap_or(u32::MAX)))
            .min(LAST_BACKOFF);
        let since = Duration::try_from(self.now.duration_since(*last)).unwrap_or_default();
        wait.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn failed_indexes(&self) -> Option<BTreeSet<i32>> {
        let limit = usize::try_from(self.spec.backoff_limit_per_index?).unwrap_or(0);
        let mut found = indexes::parse(
            self.job
                .status
                .as_ref()
                .and_then(|status| status.failed_indexes.as_deref())
                .unwrap_or_default(),
            self.completions(),
        );
        let failures = |index: i32| {
            self.pods
                .iter()
                .filter(move |pod| indexes::of(pod) == Some(index) && self.failed(pod))
                .fold((0, false), |(count, fatal), pod| {
                    match policy::judge(self.job, pod) {
                        policy::Verdict::Ignore => (count, fatal),
                        policy::Verdict::FailIndex => (count + 1, true),
                        _ => (count + 1, fatal),
                    }
                })
        };
        let seen: BTreeSet<i32> = self.pods.iter().filter_map(|pod| indexes::of(pod)).collect();
        found.extend(seen.into_iter().filter(|index| {
            let (count, fatal) = failures(*index);
            fatal || count > limit
        }));
        Some(found)
    }

    fn over_restarts(&self) -> bool {
        let on_failure = self
            .spec
            .template
            .spec
            .as_ref()
            .is_some_and(|spec| spec.restart_policy.as_deref() == Some("OnFailure"));
        if !on_failure {
            return false;
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i32 = self
            .pods
            .iter()
            .filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"))
            .map(|pod| pods::restarts(pod))
            .sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    fn deadline(&self, status: &JobStatus) -> Option<Duration> {
        if self.spec.suspend == Some(true) {
            return None;
        }
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        let start = status.start_time.as_ref()?.0;
        let since = Duration::try_from(self.now.duration_since(start)).unwrap_or_default();
        Some(Duration::from_secs(seconds).saturating_sub(since))
    }
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let ends: Option<Vec<Timestamp>> = statuses
        .iter()
        .map(|status| {
            status
                .state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()
                .map(|time| time.0)
        })
        .collect();
    ends.and_then(|ends| ends.into_iter().max())
        .or_else(|| {
            pods::condition(pod, "Ready")
                .filter(|(status, _)| *status == "False")
                .and_then(|(_, since)| since)
        })
        .or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// Decides. `pods` are the Pods that the Job controls.
#[must_use]
pub fn plan(job: &Job, all: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &job.spec else {
        return Plan::default();
    };
    let before = job.status.clone().unwrap_or_default();
    let uncounted = before.uncounted_terminated_pods.clone().unwrap_or_default();
    let mut sorted: Vec<Arc<Pod>> = all.to_vec();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    if indexed {
        sorted.sort_by_key(|pod| indexes::of(pod).unwrap_or(-1));
    }
    let pass = Pass {
        job,
        spec,
        pods: &sorted,
        now,
        indexed,
        uncounted_succeeded: uncounted.succeeded.into_iter().flatten().collect(),
        uncounted_failed: uncounted.failed.into_iter().flatten().collect(),
    };
    decide(&pass, &before)
}

fn decide(pass: &Pass<'_>, before: &JobStatus) -> Plan {
    let Pass { spec, now, .. } = *pass;
    let mut status = before.clone();
    let mut plan = Plan::default();
    let suspended = spec.suspend == Some(true);
    let running: Vec<Arc<Pod>> = pass
        .pods
        .iter()
        .filter(|pod| pods::active(pod))
        .cloned()
        .collect();
    let mut active = count(running.len());
    let mut ready = count(running.iter().filter(|pod| pods::ready(pod)).count());
    let mut terminating = count(
        pass.pods
            .iter()
            .filter(|pod| pods::terminating(pod) && !pods::finished(pod))
            .count(),
    );
    let mut succeeded =
        before.succeeded.unwrap_or(0) + count(pass.new_succeeded()) + count(pass.uncounted_succeeded.len());
    let failed = before.failed.unwrap_or(0) + count(pass.new_failed()) + count(pass.uncounted_failed.len());
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(pods::time(now));
    }

    let previous = indexes::parse(
        before.completed_indexes.as_deref().unwrap_or_default(),
        pass.completions(),
    );
    let mut done_indexes = previous;
    let mut failed_indexes = None;
    if pass.indexed {
        let fresh = pass
            .pods
            .iter()
            .filter(|pod| pods::phase(pod) == "Succeeded" && tracked(pod) && pass.valid_index(pod));
        done_indexes.extend(fresh.filter_map(|pod| indexes::of(pod)));
        succeeded = count(done_indexes.len());
        failed_indexes = pass.failed_indexes();
    }

    let mut end = ending(
        pass,
        before,
        &status,
        failed,
        &done_indexes,
        failed_indexes.as_ref(),
        &mut plan.again,
    );
    let mut suspend_changed = false;
    if end.is_some() {
        for pod in &running {
            plan.stop.push(Arc::clone(pod));
        }
        terminating += active;
        active = 0;
        ready = 0;
    } else {
        if pass.job.metadata.deletion_timestamp.is_none() {
            let wanted = wanted_active(spec, suspended, succeeded, active);
            let surplus = usize::try_from((active - wanted).max(0)).unwrap_or(0);
            let mut remove = removable(pass, &running, surplus);
            remove.truncate(if suspended { usize::MAX } else { CHANGED_AT_ONCE });
            if remove.is_empty() {
                create(
                    pass,
                    &mut plan,
                    wanted
                        - active
                        - if pass.replaces_only_failed() {
                            terminating
                        } else {
                            0
                        },
                    &running,
                    &done_indexes,
                    failed_indexes.as_ref(),
                );
                active += count(plan.create.len());
            } else {
                active -= count(remove.len());
                terminating += count(remove.len());
                ready -= count(remove.iter().filter(|pod| pods::ready(pod)).count());
                plan.delete = remove;
            }
        }
        let complete = match spec.completions {
            None => succeeded > 0 && active == 0,
            Some(completions) => succeeded >= completions && active == 0,
        };
        if complete {
            end = Some(condition(
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                now,
            ));
        } else if pass.job.metadata.deletion_timestamp.is_none() {
            suspend_changed = set_suspended(&mut status, suspended, now, &mut plan.event);
        }
    }

    plan.write = suspend_changed
        || before.active.unwrap_or(0) != active
        || before.ready != Some(ready)
        || before.terminating != Some(terminating)
        || before.start_time != status.start_time;
    status.active = (active > 0).then_some(active);
    status.ready = Some(ready);
    status.terminating = Some(terminating);
    count_ended(pass, &mut plan, &mut status, end.as_ref());
    if pass.indexed {
        let text = indexes::format(&done_indexes);
        let text = (!text.is_empty()).then_some(text);
        let failed_text = failed_indexes.map(|set| indexes::format(&set));
        plan.write |= status.completed_indexes != text || status.failed_indexes != failed_text;
        status.succeeded = (succeeded > 0).then_some(succeeded);
        status.completed_indexes = text;
        status.failed_indexes = failed_text;
    }
    if let Some(end) = end {
        let last = match end.type_.as_str() {
            "FailureTarget" => "Failed",
            "SuccessCriteriaMet" => "Complete",
            other => other,
        };
        if last != end.type_ && true_condition(&status, &end.type_).is_none() {
            status.conditions.get_or_insert_default().push(end.clone());
            plan.write = true;
        }
        plan.end = Some(again_as(&end, last, now));
    }
    plan.status = status;
    plan
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn ending(
    pass: &Pass<'_>,
    before: &JobStatus,
    status: &JobStatus,
    failed: i32,
    done: &BTreeSet<i32>,
    failed_indexes: Option<&BTreeSet<i32>>,
    again: &mut Option<Duration>,
) -> Option<JobCondition> {
    let now = pass.now;
    let fail = |reason: &str, message: &str| Some(condition("FailureTarget", "True", reason, message, now));
    if let Some(found) = true_condition(before, "SuccessCriteriaMet") {
        return Some(found.clone());
    }
    if let Some(found) = true_condition(before, "FailureTarget") {
        return Some(again_as(found, "Failed", now));
    }
    let by_policy =
        pass.pods
            .iter()
            .filter(|pod| pass.failed(pod))
            .find_map(|pod| match policy::judge(pass.job, pod) {
                policy::Verdict::FailJob(message) => Some(message),
                _ => None,
            });
    if let Some(message) = by_policy {
        return fail("PodFailurePolicy", &message);
    }
    if failed > pass.spec.backoff_limit.unwrap_or(6) || pass.over_restarts() {
        return fail(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    match pass.deadline(status) {
        Some(left) if left.is_zero() => {
            return fail(
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            );
        }
        left => *again = left,
    }
    if let Some(failed) = failed_indexes {
        let many = count(failed.len());
        if pass.spec.max_failed_indexes.is_some_and(|limit| many > limit) {
            return fail(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        if many > 0 && many + count(done.len()) >= pass.completions() {
            return fail("FailedIndexes", "Job has failed indexes");
        }
    }
    if pass.indexed
        && let Some(message) = policy::success(pass.job, done)
    {
        return Some(condition(
            "SuccessCriteriaMet",
            "True",
            "SuccessPolicy",
            &message,
            now,
        ));
    }
    None
}

fn wanted_active(spec: &JobSpec, suspended: bool, succeeded: i32, active: i32) -> i32 {
    let parallelism = spec.parallelism.unwrap_or(1);
    match spec.completions {
        _ if suspended => 0,
        None if succeeded > 0 => active,
        None => parallelism,
        Some(completions) => (completions - succeeded).clamp(0, parallelism.max(0)),
    }
}

/// Pods to remove: those without a valid index of their own, then the least advanced.
fn removable(pass: &Pass<'_>, running: &[Arc<Pod>], surplus: usize) -> Vec<Arc<Pod>> {
    let mut remove = Vec::new();
    let mut left: Vec<Arc<Pod>> = running.to_vec();
    if pass.indexed {
        left.sort_by(|a, b| {
            indexes::of(a)
                .cmp(&indexes::of(b))
                .then_with(|| pods::removal_order(b, a))
        });
        let mut seen = BTreeSet::new();
        let (keep, drop): (Vec<_>, Vec<_>) = left.into_iter().partition(|pod| {
            pass.valid_index(pod) && indexes::of(pod).is_some_and(|index| seen.insert(index))
        });
        left = keep;
        remove = drop;
    }
    if remove.len() < surplus {
        left.sort_by(|a, b| pods::removal_order(a, b));
        let more = surplus - remove.len();
        remove.extend(left.into_iter().take(more));
    }
    remove
}

fn create(
    pass: &Pass<'_>,
    plan: &mut Plan,
    missing: i32,
    running: &[Arc<Pod>],
    done: &BTreeSet<i32>,
    failed: Option<&BTreeSet<i32>>,
) {
    let Ok(missing) = usize::try_from(missing) else {
        return;
    };
    if missing == 0 {
        return;
    }
    if pass.spec.backoff_limit_per_index.is_none()
        && let Some(left) = pass.back_off()
    {
        plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
        return;
    }
    let missing = missing.min(CHANGED_AT_ONCE);
    if !pass.indexed {
        plan.create = vec![None; missing];
        return;
    }
    let mut taken: BTreeSet<i32> = running.iter().filter_map(|pod| indexes::of(pod)).collect();
    taken.extend(done);
    taken.extend(failed.into_iter().flatten());
    if pass.replaces_only_failed() {
        taken.extend(
            pass.pods
                .iter()
                .filter(|pod| pods::terminating(pod) && !pods::finished(pod))
                .filter_map(|pod| indexes::of(pod)),
        );
    }
    plan.create = (0..pass.completions())
        .filter(|index| !taken.contains(index))
        .take(missing)
        .map(Some)
        .collect();
}

fn set_suspended(
    status: &mut JobStatus,
    suspended: bool,
    now: Timestamp,
    event: &mut Option<(&'static str, &'static str)>,
) -> bool {
    let wanted = if suspended { "True" } else { "False" };
    let (reason, message, short) = if suspended {
        ("JobSuspended", "Job suspended", "Suspended")
    } else {
        ("JobResumed", "Job resumed", "Resumed")
    };
    let found = status
        .conditions
        .iter_mut()
        .flatten()
        .find(|condition| condition.type_ == "Suspended");
    match found {
        Some(found) if found.status == wanted => return false,
        Some(found) => *found = condition("Suspended", wanted, reason, message, now),
        None if !suspended => return false,
        None => status.conditions.get_or_insert_default().push(condition(
            "Suspended",
            wanted,
            reason,
            message,
            now,
        )),
    }
    status.start_time = (!suspended).then(|| pods::time(now));
    *event = Some((short, message));
    true
}

/// Puts ended Pods into the status and lists those that lose their finalizer.
fn count_ended(pass: &Pass<'_>, plan: &mut Plan, status: &mut JobStatus, end: Option<&JobCondition>) {
    let with_finalizer: BTreeSet<&str> = pass
        .pods
        .iter()
        .filter(|pod| tracked(pod))
        .map(|pod| uid(pod))
        .collect();
    plan.write |= settle(status, |uid| with_finalizer.contains(uid));
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut total = 0;
    for pod in pass.pods {
        if !tracked(pod) {
            continue;
        }
        let considered_failed = pass.failed(pod);
        let succeeded = pods::phase(pod) == "Succeeded";
        let releasable =
            pass.job.metadata.deletion_timestamp.is_some() || end.is_some() || succeeded || considered_failed;
        if !releasable {
            continue;
        }
        if total >= COUNTED_AT_ONCE {
            plan.more = true;
            break;
        }
        plan.release.push(Arc::clone(pod));
        let id = uid(pod);
        if succeeded && !pass.uncounted_failed.contains(id) {
            total += 1;
            if !pass.indexed && !pass.uncounted_succeeded.contains(id) {
                uncounted.succeeded.get_or_insert_default().push(id.to_owned());
                plan.write = true;
            }
        } else if considered_failed || end.is_some_and(|end| end.type_ != "SuccessCriteriaMet") {
            total += 1;
            let counts = policy::judge(pass.job, pod) != policy::Verdict::Ignore;
            if counts && pass.valid_index(pod) && !pass.uncounted_failed.contains(id) {
                uncounted.failed.get_or_insert_default().push(id.to_owned());
                plan.write = true;
            }
        }
    }
    status.uncounted_terminated_pods = Some(uncounted);
}

/// Moves uids whose Pods lost the finalizer from the lists into the counters; says whether any did.
pub fn settle(status: &mut JobStatus, still_tracked: impl Fn(&str) -> bool) -> bool {
    let UncountedTerminatedPods { failed, succeeded } =
        status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut moved = false;
    let mut sort = |uids: Option<Vec<String>>, counter: &mut Option<i32>| {
        let (keep, gone): (Vec<_>, Vec<_>) = uids.into_iter().flatten().partition(|uid| still_tracked(uid));
        if !gone.is_empty() {
            *counter = Some(counter.unwrap_or(0) + count(gone.len()));
            moved = true;
        }
        (!keep.is_empty()).then_some(keep)
    };
    let succeeded = sort(succeeded, &mut status.succeeded);
    let failed = sort(failed, &mut status.failed);
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods { failed, succeeded });
    moved
}

/// Adds the last condition when nothing is left to count or to wait for; says whether it did.
pub fn finish(status: &mut JobStatus, end: &JobCondition, now: Timestamp) -> bool {
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let waiting =
        uncounted.succeeded.map_or(0, |list| list.len()) + uncounted.failed.map_or(0, |list| list.len());
    if waiting > 0 || status.terminating.unwrap_or(0) > 0 {
        return false;
    }
    let mut last = end.clone();
    last.last_probe_time = Some(pods::time(now));
    last.last_transition_time = Some(pods::time(now));
    if last.type_ == "Complete" {
        status.completion_time = last.last_transition_time.clone();
    }
    status.conditions.get_or_insert_default().push(last);
    true
}
