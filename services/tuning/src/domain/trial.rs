//! What becomes of a trial.

use ferroflow_api::crd::tuning::{Trial, TrialStatus};
use jiff::Timestamp;
use serde_json::Value;

use super::condition::{is_true, lower, seconds, set};
use super::gjson::{self, PathError};
use super::observation::{Report, is_available, observe};

/// Types of condition.
pub mod state {
    /// The controller has seen the trial.
    pub const CREATED: &str = "Created";
    /// Its resource exists.
    pub const RUNNING: &str = "Running";
    /// Its resource has succeeded and the objective is known.
    pub const SUCCEEDED: &str = "Succeeded";
    /// It is not needed any more.
    pub const KILLED: &str = "Killed";
    /// Its resource has failed.
    pub const FAILED: &str = "Failed";
    /// Its resource has succeeded and the objective is not known.
    pub const METRICS_UNAVAILABLE: &str = "MetricsUnavailable";
    /// It was not worth finishing.
    pub const EARLY_STOPPED: &str = "EarlyStopped";
}

/// The state of the resource that runs a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Neither condition holds.
    Running,
    /// The success condition holds; reason and message of what it found.
    Succeeded(String, String),
    /// The failure condition holds; reason and message of what it found.
    Failed(String, String),
}

/// Reads the state of a resource; the failure condition goes first.
///
/// # Errors
/// If a condition is not in the supported part of GJSON.
pub fn run_state(run: &Value, success: &str, failure: &str) -> Result<RunState, PathError> {
    let details = |found: Value| {
        let object = match found {
            Value::Array(mut items) => items.swap_remove(0),
            other => other,
        };
        let text = |key: &str| {
            object
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (text("reason"), text("message"))
    };
    if !failure.is_empty()
        && let Some(found) = gjson::holds(run, failure)?
    {
        let (reason, message) = details(found);
        return Ok(RunState::Failed(reason, message));
    }
    if !success.is_empty()
        && let Some(found) = gjson::holds(run, success)?
    {
        let (reason, message) = details(found);
        return Ok(RunState::Succeeded(reason, message));
    }
    Ok(RunState::Running)
}

/// What to do about the resource of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialAction {
    /// Create it.
    CreateRun,
    /// Delete it: the trial has ended.
    DeleteRun,
}

/// Everything to do now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrialPlan {
    /// At most one change.
    pub action: Option<TrialAction>,
    /// The log is needed to decide; ask again with it.
    pub needs_log: bool,
    /// The status as it will be.
    pub status: TrialStatus,
    /// To record: whether it is a warning, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
}

/// Succeeded, failed, killed or stopped early: the resource is not needed any more.
#[must_use]
pub fn is_completed(status: &TrialStatus) -> bool {
    [
        state::SUCCEEDED,
        state::FAILED,
        state::KILLED,
        state::EARLY_STOPPED,
    ]
    .iter()
    .any(|type_| is_true(&status.conditions, type_))
}

/// Ended in any way, metrics or not.
#[must_use]
pub fn is_over(status: &TrialStatus) -> bool {
    is_completed(status) || is_true(&status.conditions, state::METRICS_UNAVAILABLE)
}

/// Decides. `run` is the resource if it exists; `log` what was reported, when it is known.
///
/// # Errors
/// If a condition is not in the supported part of GJSON.
pub fn plan(
    trial: &Trial,
    run: Option<&Value>,
    log: Option<&[Report]>,
    now: Timestamp,
) -> Result<TrialPlan, PathError> {
    let mut plan = TrialPlan {
        status: trial.status.clone().unwrap_or_default(),
        ..TrialPlan::default()
    };
    let name = trial.metadata.name.as_deref().unwrap_or_default();
    let status = &mut plan.status;
    if !status.conditions.iter().any(|c| c.type_ == state::CREATED) {
        status.start_time.get_or_insert_with(|| seconds(now));
        set(
            &mut status.conditions,
            state::CREATED,
            true,
            "TrialCreated",
            "Trial is created",
            now,
        );
    }
    if is_completed(status) {
        let retain = trial.spec.retain_run == Some(true) && !is_true(&status.conditions, state::KILLED);
        let leaving = run.is_some_and(|r| {
            r.pointer("/metadata/deletionTimestamp")
                .is_some_and(|t| !t.is_null())
        });
        if run.is_some() && !retain && !leaving {
            plan.action = Some(TrialAction::DeleteRun);
            plan.events
                .push((false, "JobDeleted", format!("Job {name} has been deleted")));
        }
        return Ok(plan);
    }
    if is_over(status) {
        return Ok(plan);
    }
    let Some(run) = run else {
        plan.action = Some(TrialAction::CreateRun);
        plan.events
            .push((false, "JobCreated", format!("Job {name} has been created")));
        return Ok(plan);
    };
    let success = trial.spec.success_condition.as_deref().unwrap_or_default();
    let failure = trial.spec.failure_condition.as_deref().unwrap_or_default();
    match run_state(run, success, failure)? {
        RunState::Running => {
            if !is_true(&status.conditions, state::RUNNING) {
                set(
                    &mut status.conditions,
                    state::RUNNING,
                    true,
                    "TrialRunning",
                    "Trial is running",
                    now,
                );
                plan.events
                    .push((false, "JobRunning", format!("Job {name} is running")));
            }
        }
        RunState::Failed(reason, message) => {
            let (cause, text) = ("TrialFailed", "Trial has failed");
            end(status, state::FAILED, cause, text, &reason, &message, now);
            let message = format!("Job {name} has failed. Job message: {message}, reason: {reason}");
            plan.events.push((false, "JobFailed", message));
        }
        RunState::Succeeded(reason, message) => {
            let Some(log) = log else {
                plan.needs_log = true;
                return Ok(plan);
            };
            let strategies = trial
                .spec
                .objective
                .as_ref()
                .and_then(|o| o.metric_strategies.as_deref());
            let observation = observe(log, strategies.unwrap_or_default());
            let available = is_available(trial.spec.objective.as_ref(), Some(&observation));
            status.observation = Some(observation);
            if available {
                end(
                    status,
                    state::SUCCEEDED,
                    "TrialSucceeded",
                    "Trial has succeeded",
                    &reason,
                    &message,
                    now,
                );
                plan.events
                    .push((false, "JobSucceeded", format!("Job {name} has succeeded")));
            } else {
                let (cause, text) = ("TrialMetricsUnavailable", "Metrics are not available");
                end(
                    status,
                    state::METRICS_UNAVAILABLE,
                    cause,
                    text,
                    &reason,
                    &message,
                    now,
                );
                let message = format!("Metrics are not available for Job {name}");
                plan.events.push((true, "MetricsUnavailable", message));
            }
        }
    }
    Ok(plan)
}

/// Marks a trial whose experiment has ended as killed; `None` when it had ended itself.
#[must_use]
pub fn kill(trial: &Trial, why: &str, now: Timestamp) -> Option<TrialStatus> {
    let mut status = trial.status.clone().unwrap_or_default();
    if is_over(&status) {
        return None;
    }
    end(
        &mut status,
        state::KILLED,
        "TrialKilled",
        &format!("Trial is killed because {why}"),
        "",
        "",
        now,
    );
    Some(status)
}

fn end(
    status: &mut TrialStatus,
    type_: &str,
    cause: &str,
    text: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let with = |text: &str, label: &str, detail: &str| {
        if detail.is_empty() {
            text.to_owned()
        } else {
            format!("{text}. {label}: {detail}")
        }
    };
    lower(&mut status.conditions, state::RUNNING, now);
    let cause = with(cause, "Job reason", reason);
    set(
        &mut status.conditions,
        type_,
        true,
        &cause,
        &with(text, "Job message", message),
        now,
    );
    status.completion_time = Some(seconds(now));
}
