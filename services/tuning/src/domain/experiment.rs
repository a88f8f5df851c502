//! What becomes of an experiment: its counters, its end, and which trials it needs.

use std::collections::HashSet;

use ferroflow_api::crd::tuning::{
    Experiment, ExperimentStatus, Observation, OptimalTrial, Suggestion, Trial, TrialAssignment,
};
use jiff::Timestamp;

use super::condition::{get, is_true, lower, seconds, set};
use super::observation::objective_value;
use super::trial::state as trial_state;

/// Types of condition.
pub mod state {
    /// The controller has seen the experiment.
    pub const CREATED: &str = "Created";
    /// There are trials.
    pub const RUNNING: &str = "Running";
    /// It had ended and goes on with a larger budget.
    pub const RESTARTING: &str = "Restarting";
    /// It has reached its goal or used its budget.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Too many trials failed.
    pub const FAILED: &str = "Failed";
}

/// Reason of an experiment that used its budget; only such a one may go on.
pub const MAX_TRIALS_REACHED: &str = "ExperimentMaxTrialsReached";
/// Reason of a suggestion whose algorithm has no more points.
pub const SUGGESTION_EXHAUSTED: &str = "SuggestionExhausted";

/// One change to make.
#[derive(Debug, Clone, PartialEq)]
pub enum ExperimentAction {
    /// Create the Suggestion, or ask it for this many points in all.
    Request(i32),
    /// Create a trial.
    CreateTrial(TrialAssignment),
    /// Fewer may run at once: delete these trials and take back their points.
    DeleteTrials(Vec<String>),
    /// The experiment has ended: mark these trials as killed, for this reason.
    KillTrials(Vec<String>, &'static str),
    /// The experiment has ended: the Suggestion has done its work.
    FinishSuggestion,
    /// The experiment goes on: so does the Suggestion.
    ResumeSuggestion,
}

/// Everything to do now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentPlan {
    /// In this order.
    pub actions: Vec<ExperimentAction>,
    /// The status as it will be.
    pub status: ExperimentStatus,
}

/// Succeeded or failed.
#[must_use]
pub fn is_completed(status: &ExperimentStatus) -> bool {
    is_true(&status.conditions, state::SUCCEEDED) || is_true(&status.conditions, state::FAILED)
}

/// Whether an experiment that has ended may go on.
#[must_use]
pub fn is_restartable(status: &ExperimentStatus, resume_policy: Option<&str>) -> bool {
    is_true(&status.conditions, state::SUCCEEDED)
        && get(&status.conditions, state::SUCCEEDED).is_some_and(|c| c.reason == MAX_TRIALS_REACHED)
        && matches!(resume_policy, Some("LongRunning" | "FromVolume"))
}

/// Decides. `trials` are those of this experiment.
#[must_use]
pub fn plan(
    experiment: &Experiment,
    suggestion: Option<&Suggestion>,
    trials: &[Trial],
    now: Timestamp,
) -> ExperimentPlan {
    let spec = &experiment.spec;
    let mut plan = ExperimentPlan {
        status: experiment.status.clone().unwrap_or_default(),
        ..ExperimentPlan::default()
    };
    let status = &mut plan.status;
    if !status.conditions.iter().any(|c| c.type_ == state::CREATED) {
        status.start_time.get_or_insert_with(|| seconds(now));
        set(
            &mut status.conditions,
            state::CREATED,
            true,
            "ExperimentCreated",
            "Experiment is created",
            now,
        );
    }
    if is_completed(status) {
        let raised = spec.max_trial_count.is_none_or(|max| max > status.trials);
        if is_restartable(status, spec.resume_policy.as_deref()) && raised {
            status
                .conditions
                .retain(|c| c.type_ != state::SUCCEEDED && c.type_ != state::FAILED);
            let message = "Experiment is restarted";
            set(
                &mut status.conditions,
                state::RESTARTING,
                true,
                "ExperimentRestarting",
                message,
                now,
            );
            status.completion_time = None;
            plan.actions.push(ExperimentAction::ResumeSuggestion);
        }
    }
    let goal_reached = summarize(experiment, &mut plan.status, trials);
    if !is_completed(&plan.status) && !trials.is_empty() {
        conclude(experiment, &mut plan.status, goal_reached, false, now);
    }
    if is_completed(&plan.status) {
        finish(spec.resume_policy.as_deref(), suggestion, trials, &mut plan);
        return plan;
    }
    if let Some(failed) = suggestion
        .and_then(|s| s.status.as_ref())
        .and_then(|s| get(&s.conditions, state::FAILED))
        && failed.status == "True"
    {
        let message = format!("Suggestion has failed: {}", failed.message);
        fail(&mut plan.status, &message, now);
        finish(spec.resume_policy.as_deref(), suggestion, trials, &mut plan);
        return plan;
    }
    next_trials(experiment, suggestion, trials, &mut plan, now);
    plan
}

/// What an experiment that has ended leaves behind.
fn finish(
    resume_policy: Option<&str>,
    suggestion: Option<&Suggestion>,
    trials: &[Trial],
    plan: &mut ExperimentPlan,
) {
    let active: Vec<String> = trials
        .iter()
        .filter(|t| is_active(t))
        .filter_map(|t| t.metadata.name.clone())
        .collect();
    if !active.is_empty() {
        let why = if is_true(&plan.status.conditions, state::FAILED) {
            "its experiment has failed"
        } else {
            "its experiment has succeeded"
        };
        plan.actions.push(ExperimentAction::KillTrials(active, why));
    }
    let running = suggestion.is_some_and(|s| {
        !s.status
            .as_ref()
            .is_some_and(|s| is_true(&s.conditions, state::SUCCEEDED))
    });
    if running && resume_policy != Some("LongRunning") {
        plan.actions.push(ExperimentAction::FinishSuggestion);
    }
}

fn next_trials(
    experiment: &Experiment,
    suggestion: Option<&Suggestion>,
    trials: &[Trial],
    plan: &mut ExperimentPlan,
    now: Timestamp,
) {
    let spec = &experiment.spec;
    let active = plan.status.trials_pending + plan.status.trials_running;
    let completed = plan.status.trials - active;
    let parallel = spec.parallel_trial_count.unwrap_or(3);
    if active > parallel {
        let mut candidates: Vec<&Trial> = trials
            .iter()
            .filter(|t| is_active(t) && t.metadata.deletion_timestamp.is_none())
            .collect();
        candidates.sort_by_key(|t| {
            std::cmp::Reverse((
                t.metadata.creation_timestamp.as_ref().map(|c| c.0),
                t.metadata.name.clone(),
            ))
        });
        let surplus = usize::try_from(active - parallel).unwrap_or(0);
        let names: Vec<String> = candidates
            .iter()
            .take(surplus)
            .filter_map(|t| t.metadata.name.clone())
            .collect();
        if !names.is_empty() {
            plan.actions.push(ExperimentAction::DeleteTrials(names));
        }
        return;
    }
    let wanted = spec
        .max_trial_count
        .map_or(parallel, |max| parallel.min(max - completed));
    let add = usize::try_from(wanted - active).unwrap_or(0);
    if add == 0 {
        return;
    }
    let names: HashSet<&str> = trials.iter().filter_map(|t| t.metadata.name.as_deref()).collect();
    let status = suggestion.and_then(|s| s.status.as_ref());
    let fresh: Vec<&TrialAssignment> = status
        .iter()
        .flat_map(|s| &s.suggestions)
        .filter(|s| !names.contains(s.name.as_str()))
        .collect();
    for assignment in fresh.iter().take(add) {
        plan.actions
            .push(ExperimentAction::CreateTrial((*assignment).clone()));
    }
    if fresh.len() >= add {
        return;
    }
    let exhausted = status
        .and_then(|s| get(&s.conditions, state::SUCCEEDED))
        .is_some_and(|c| c.status == "True" && c.reason == SUGGESTION_EXHAUSTED);
    if exhausted {
        if active == 0 && fresh.is_empty() {
            conclude(experiment, &mut plan.status, false, true, now);
        }
        return;
    }
    let total = i32::try_from(trials.len() + add).unwrap_or(i32::MAX);
    if suggestion.is_none_or(|s| s.spec.requests < total) {
        plan.actions.push(ExperimentAction::Request(total));
    }
}

fn is_active(trial: &Trial) -> bool {
    trial
        .status
        .as_ref()
        .is_none_or(|status| !super::trial::is_over(status))
}

/// Counts the trials and finds the best; whether the goal is reached.
fn summarize(experiment: &Experiment, status: &mut ExperimentStatus, trials: &[Trial]) -> bool {
    let mut ordered: Vec<&Trial> = trials.iter().collect();
    ordered.sort_by_key(|t| {
        (
            t.metadata.creation_timestamp.as_ref().map(|c| c.0),
            t.metadata.name.clone(),
        )
    });
    for list in [
        &mut status.running_trial_list,
        &mut status.pending_trial_list,
        &mut status.failed_trial_list,
        &mut status.succeeded_trial_list,
        &mut status.killed_trial_list,
        &mut status.early_stopped_trial_list,
        &mut status.metrics_unavailable_trial_list,
    ] {
        list.clear();
    }
    let mut best: Option<(&Trial, Option<f64>)> = None;
    let objective = experiment.spec.objective.as_ref();
    let maximize = objective.is_some_and(|o| o.type_ == "maximize");
    for trial in &ordered {
        let name = trial.metadata.name.clone().unwrap_or_default();
        let conditions = trial
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice())
            .unwrap_or_default();
        let list = if is_true(conditions, trial_state::KILLED) {
            &mut status.killed_trial_list
        } else if is_true(conditions, trial_state::FAILED) {
            &mut status.failed_trial_list
        } else if is_true(conditions, trial_state::SUCCEEDED) {
            &mut status.succeeded_trial_list
        } else if is_true(conditions, trial_state::EARLY_STOPPED) {
            &mut status.early_stopped_trial_list
        } else if is_true(conditions, trial_state::METRICS_UNAVAILABLE) {
            &mut status.metrics_unavailable_trial_list
        } else if is_true(conditions, trial_state::RUNNING) {
            &mut status.running_trial_list
        } else {
            &mut status.pending_trial_list
        };
        list.push(name);
        let Some(value) = objective_value(trial) else {
            continue;
        };
        match (value.trim().parse::<f64>().ok().filter(|v| !v.is_nan()), best) {
            // of values that are no numbers, the latest is the best
            (None, Some((_, Some(_)))) => {}
            (None, _) => best = Some((trial, None)),
            (Some(value), Some((_, Some(bar))))
                if (maximize && value <= bar) || (!maximize && value >= bar) => {}
            (Some(value), _) => best = Some((trial, Some(value))),
        }
    }
    let count = |list: &Vec<String>| i32::try_from(list.len()).unwrap_or(i32::MAX);
    status.trials = i32::try_from(trials.len()).unwrap_or(i32::MAX);
    status.trials_running = count(&status.running_trial_list);
    status.trials_pending = count(&status.pending_trial_list);
    status.trials_succeeded = count(&status.succeeded_trial_list);
    status.trials_failed = count(&status.failed_trial_list);
    status.trials_killed = count(&status.killed_trial_list);
    status.trials_early_stopped = count(&status.early_stopped_trial_list);
    status.trial_metrics_unavailable = count(&status.metrics_unavailable_trial_list);
    let Some((trial, value)) = best else { return false };
    status.current_optimal_trial = OptimalTrial {
        best_trial_name: trial.metadata.name.clone().unwrap_or_default(),
        parameter_assignments: trial.spec.parameter_assignments.clone(),
        observation: trial
            .status
            .as_ref()
            .and_then(|s| s.observation.clone())
            .unwrap_or_else(Observation::default),
    };
    let (Some(value), Some(goal)) = (value, objective.and_then(|o| o.goal)) else {
        return false;
    };
    if maximize { value >= goal } else { value <= goal }
}

/// Katib's order: goal, failures, budget, end of the suggestions.
fn conclude(
    experiment: &Experiment,
    status: &mut ExperimentStatus,
    goal: bool,
    suggestions_ended: bool,
    now: Timestamp,
) {
    let spec = &experiment.spec;
    let active = status.trials_pending + status.trials_running;
    let failed = status.trials_failed + status.trial_metrics_unavailable;
    if goal {
        let message = "Experiment has succeeded because Objective goal has reached";
        succeed(status, "ExperimentGoalReached", message, now);
    } else if spec
        .max_failed_trial_count
        .is_some_and(|max| failed > 0 && failed >= max)
    {
        fail(
            status,
            "Experiment has failed because max failed count has reached",
            now,
        );
    } else if spec
        .max_trial_count
        .is_some_and(|max| status.trials - active >= max)
    {
        let message = "Experiment has succeeded because max trial count has reached";
        succeed(status, MAX_TRIALS_REACHED, message, now);
    } else if suggestions_ended && active == 0 {
        let message = "Experiment has succeeded because suggestion service has reached the end";
        succeed(status, "ExperimentSuggestionEndReached", message, now);
    } else {
        set(
            &mut status.conditions,
            state::RUNNING,
            true,
            "ExperimentRunning",
            "Experiment is running",
            now,
        );
    }
}

fn succeed(status: &mut ExperimentStatus, reason: &str, message: &str, now: Timestamp) {
    lower(&mut status.conditions, state::RUNNING, now);
    lower(&mut status.conditions, state::RESTARTING, now);
    set(
        &mut status.conditions,
        state::SUCCEEDED,
        true,
        reason,
        message,
        now,
    );
    status.completion_time = Some(seconds(now));
}

fn fail(status: &mut ExperimentStatus, message: &str, now: Timestamp) {
    lower(&mut status.conditions, state::RUNNING, now);
    lower(&mut status.conditions, state::RESTARTING, now);
    set(
        &mut status.conditions,
        state::FAILED,
        true,
        "ExperimentFailed",
        message,
        now,
    );
    status.completion_time = Some(seconds(now));
}
