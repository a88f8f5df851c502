//! Conditions of a job, and when it has succeeded or failed.

use ferroflow_api::crd::training::{JobCondition, JobStatus, ReplicaSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::job::Job;
use super::kind::Framework;

/// Types of condition.
pub mod condition {
    /// The controller has seen the job.
    pub const CREATED: &str = "Created";
    /// The deciding replicas run.
    pub const RUNNING: &str = "Running";
    /// Replicas that failed are started again.
    pub const RESTARTING: &str = "Restarting";
    /// `spec.runPolicy.suspend` holds the job.
    pub const SUSPENDED: &str = "Suspended";
    /// The job has done its work.
    pub const SUCCEEDED: &str = "Succeeded";
    /// The job has not, and will not.
    pub const FAILED: &str = "Failed";
}

/// An event to record on the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Whether something is wrong.
    pub warning: bool,
    /// A word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Whole seconds, as Kubernetes writes times.
#[must_use]
pub fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Whether a condition of this type is true.
#[must_use]
pub fn is_true(status: &JobStatus, type_: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|c| c.type_ == type_ && c.status == "True")
}

/// Succeeded or failed.
#[must_use]
pub fn is_finished(status: &JobStatus) -> bool {
    is_true(status, condition::SUCCEEDED) || is_true(status, condition::FAILED)
}

/// Sets a condition by the Training Operator's rules: nothing changes after a failure, `Running` and `Restarting`
/// replace each other, an end turns `Running` to `False`, and the same status and reason twice change nothing.
pub fn set(
    status: &mut JobStatus,
    type_: &str,
    value: bool,
    reason: String,
    message: String,
    now: Timestamp,
) {
    if is_true(status, condition::FAILED) {
        return;
    }
    let value = if value { "True" } else { "False" };
    let current = status.conditions.iter().find(|c| c.type_ == type_);
    if current.is_some_and(|c| c.status == value && c.reason == reason) {
        return;
    }
    let transition = current
        .filter(|c| c.status == value)
        .and_then(|c| c.last_transition_time.clone());
    let ends = type_ == condition::SUCCEEDED || type_ == condition::FAILED;
    status.conditions.retain(|c| {
        c.type_ != type_
            && !(type_ == condition::RESTARTING && c.type_ == condition::RUNNING)
            && !(type_ == condition::RUNNING && c.type_ == condition::RESTARTING)
    });
    for other in &mut status.conditions {
        if ends && other.type_ == condition::RUNNING {
            "False".clone_into(&mut other.status);
        }
    }
    status.conditions.push(JobCondition {
        type_: type_.to_owned(),
        status: value.to_owned(),
        reason,
        message,
        last_update_time: Some(seconds(now)),
        last_transition_time: Some(transition.unwrap_or_else(|| seconds(now))),
    });
}

/// Derives the job's conditions from the counts of its replicas.
pub fn conclude(
    job: &Job,
    status: &mut JobStatus,
    worker0_succeeded: bool,
    now: Timestamp,
    events: &mut Vec<JobEvent>,
) {
    status.start_time.get_or_insert_with(|| seconds(now));
    let mut verdict = Verdict { job, now, events };
    let restarting = status
        .conditions
        .iter()
        .find(|c| c.type_ == condition::RESTARTING)
        .cloned();
    for (replica_type, spec) in &job.replicas {
        let counts = status
            .replica_statuses
            .get(replica_type)
            .cloned()
            .unwrap_or_default();
        let count = Count {
            replica_type,
            spec,
            desired: spec.replicas.unwrap_or(1),
            active: counts.active,
            succeeded: counts.succeeded,
            failed: counts.failed,
        };
        let stop = match job.kind.framework {
            Framework::XGBoost => verdict.xgboost(status, &count),
            Framework::PyTorch | Framework::Jax | Framework::Paddle => verdict.torch_like(status, &count),
            Framework::TensorFlow => {
                verdict.tensorflow(status, &count, worker0_succeeded, restarting.as_ref());
                false
            }
        };
        if stop {
            return;
        }
    }
}

struct Count<'a> {
    replica_type: &'a str,
    spec: &'a ReplicaSpec,
    desired: i32,
    active: i32,
    succeeded: i32,
    failed: i32,
}

impl Count<'_> {
    fn all_succeeded(&self) -> bool {
        self.desired == self.succeeded
    }
    fn restart_policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or_default()
    }
}

struct Verdict<'a> {
    job: &'a Job,
    now: Timestamp,
    events: &'a mut Vec<JobEvent>,
}

impl Verdict<'_> {
    fn reason(&self, word: &str) -> String {
        format!("{}{word}", self.job.kind.kind)
    }

    fn running(&self, status: &mut JobStatus, who: &str) {
        let message = format!("{} {who} is running.", self.job.kind.kind);
        set(
            status,
            condition::RUNNING,
            true,
            self.reason("Running"),
            message,
            self.now,
        );
    }

    fn succeeded(&mut self, status: &mut JobStatus, message: String) {
        let reason = self.reason("Succeeded");
        self.events.push(JobEvent {
            warning: false,
            reason: reason.clone(),
            message: message.clone(),
        });
        status.completion_time.get_or_insert_with(|| seconds(self.now));
        set(status, condition::SUCCEEDED, true, reason, message, self.now);
    }

    fn failed(&mut self, status: &mut JobStatus, message: String) {
        let reason = self.reason("Failed");
        self.events.push(JobEvent {
            warning: false,
            reason: reason.clone(),
            message: message.clone(),
        });
        status.completion_time.get_or_insert_with(|| seconds(self.now));
        set(status, condition::FAILED, true, reason, message, self.now);
    }

    fn restarting(&mut self, status: &mut JobStatus, count: &Count) {
        let (kind, name) = (self.job.kind.kind, self.job.name());
        let message = format!(
            "{kind} {name} is restarting because {} {} replica(s) failed.",
            count.failed, count.replica_type
        );
        let reason = self.reason("Restarting");
        self.events.push(JobEvent {
            warning: true,
            reason: reason.clone(),
            message: message.clone(),
        });
        set(status, condition::RESTARTING, true, reason, message, self.now);
    }

    /// The master decides alone; any failure ends the job unless its exit codes may restart it.
    fn xgboost(&mut self, status: &mut JobStatus, count: &Count) -> bool {
        let name = self.job.name();
        if count.replica_type == "Master" {
            if count.active > 0 || count.all_succeeded() {
                self.running(status, name);
            }
            if count.all_succeeded() {
                self.succeeded(status, format!("XGBoostJob {name} is successfully completed."));
                return true;
            }
        }
        if count.failed > 0 {
            self.running(status, name);
            if count.restart_policy() == "ExitCode" {
                self.restarting(status, count);
            } else {
                let message = format!(
                    "XGBoostJob {name} is failed because {} {} replica(s) failed.",
                    count.failed, count.replica_type
                );
                self.failed(status, message);
            }
        }
        false
    }

    /// The master decides alone where there is one, else all workers together (any one of an elastic job).
    fn torch_like(&mut self, status: &mut JobStatus, count: &Count) -> bool {
        let (kind, name) = (self.job.kind.kind, self.job.name());
        let path = format!("{}/{name}", self.job.namespace());
        let has_master = self.job.kind.framework != Framework::Jax && self.job.replica("Master").is_some();
        if has_master && count.replica_type == "Master" {
            if count.active > 0 {
                self.running(status, name);
            }
            if count.all_succeeded() {
                self.succeeded(status, format!("{kind} {name} is successfully completed."));
                return true;
            }
        } else if !has_master && count.replica_type == "Worker" {
            let elastic = self.job.kind.framework == Framework::PyTorch && self.job.elastic.is_some();
            if count.all_succeeded() || (elastic && count.succeeded > 0) {
                self.succeeded(status, format!("{kind} {path} successfully completed."));
            } else if count.active > 0 {
                self.running(status, &path);
            }
        }
        if count.failed > 0 && count.desired > count.succeeded + count.active {
            if count.restart_policy() == "Never" {
                let message = format!(
                    "{kind} {name} is failed because {} {} replica(s) failed.",
                    count.failed, count.replica_type
                );
                self.failed(status, message);
            } else {
                self.restarting(status, count);
            }
        }
        false
    }

    /// Chief or Master decide where there is one, else worker 0, or all workers by the success policy.
    fn tensorflow(
        &mut self,
        status: &mut JobStatus,
        count: &Count,
        worker0_succeeded: bool,
        restarting: Option<&JobCondition>,
    ) {
        let path = format!("{}/{}", self.job.namespace(), self.job.name());
        let chief = self.job.replica("Chief").is_some() || self.job.replica("Master").is_some();
        let decides = if chief {
            count.replica_type == "Chief" || count.replica_type == "Master"
        } else {
            count.replica_type == "Worker"
        };
        if decides {
            let worker0 = !chief && worker0_succeeded && !self.job.all_workers_must_succeed;
            if chief && count.active > 0 {
                self.running(status, &path);
            }
            if count.all_succeeded() || worker0 {
                self.succeeded(status, format!("TFJob {path} successfully completed."));
            } else if !chief && count.active > 0 {
                self.running(status, &path);
            }
        }
        if count.failed == 0 {
            return;
        }
        if let Some(existing) = restarting {
            set(
                status,
                condition::RESTARTING,
                true,
                existing.reason.clone(),
                existing.message.clone(),
                self.now,
            );
        } else if !(self.job.dynamic_worker && count.replica_type == "Worker") {
            let message = format!(
                "TFJob {path} has failed because {} {} replica(s) failed.",
                count.failed, count.replica_type
            );
            self.failed(status, message);
        }
    }
}
