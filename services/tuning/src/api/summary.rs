//! Experiments and trials as rows.

use ferroflow_api::crd::tuning::{Condition, Experiment, Trial};
use ferroflow_api::ferroflow::tuning::v1::{
    ExperimentSummary, MetricSummary, ParameterSummary, TrialSummary,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pbjson_types::Timestamp;

use crate::domain::observation::objective_value;

/// The row of an experiment.
pub fn experiment_summary(experiment: &Experiment) -> ExperimentSummary {
    let spec = &experiment.spec;
    let status = experiment.status.clone().unwrap_or_default();
    let objective = spec.objective.clone().unwrap_or_default();
    let (state, reason, message) = state(&status.conditions);
    let parameters = spec.parameters.iter().flatten().map(|p| ParameterSummary {
        name: p.name.clone(),
        r#type: p.parameter_type.clone(),
        min: p.feasible_space.min.clone(),
        max: p.feasible_space.max.clone(),
        step: p.feasible_space.step.clone(),
        distribution: p.feasible_space.distribution.clone(),
        list: p.feasible_space.list.clone(),
    });
    ExperimentSummary {
        namespace: experiment.metadata.namespace.clone().unwrap_or_default(),
        name: experiment.metadata.name.clone().unwrap_or_default(),
        state,
        reason,
        message,
        algorithm: spec
            .algorithm
            .as_ref()
            .map(|a| a.algorithm_name.clone())
            .unwrap_or_default(),
        objective_type: objective.type_,
        objective_metric: objective.objective_metric_name,
        goal: objective.goal,
        parameters: parameters.collect(),
        trials: status.trials,
        trials_succeeded: status.trials_succeeded,
        trials_running: status.trials_running + status.trials_pending,
        trials_failed: status.trials_failed + status.trial_metrics_unavailable,
        max_trials: spec.max_trial_count,
        best_trial: status.current_optimal_trial.best_trial_name,
        created: experiment.metadata.creation_timestamp.as_ref().map(timestamp),
        started: status.start_time.as_ref().map(timestamp),
        completed: status.completion_time.as_ref().map(timestamp),
        additional_metrics: objective.additional_metric_names.unwrap_or_default(),
    }
}

/// The row of a trial.
pub fn trial_summary(trial: &Trial, best: &str) -> TrialSummary {
    let status = trial.status.clone().unwrap_or_default();
    let (state, reason, message) = state(&status.conditions);
    let name = trial.metadata.name.clone().unwrap_or_default();
    let metrics = status
        .observation
        .iter()
        .flat_map(|o| &o.metrics)
        .map(|m| MetricSummary {
            name: m.name.clone(),
            min: m.min.clone(),
            max: m.max.clone(),
            latest: m.latest.clone(),
        });
    TrialSummary {
        best: name == best,
        state,
        reason,
        message,
        parameters: trial
            .spec
            .parameter_assignments
            .iter()
            .map(|a| (a.name.clone(), a.value.clone()))
            .collect(),
        metrics: metrics.collect(),
        objective: objective_value(trial)
            .and_then(|v| v.trim().parse().ok())
            .filter(|v: &f64| v.is_finite()),
        created: trial.metadata.creation_timestamp.as_ref().map(timestamp),
        started: status.start_time.as_ref().map(timestamp),
        completed: status.completion_time.as_ref().map(timestamp),
        name,
    }
}

/// The last condition that is true.
fn state(conditions: &[Condition]) -> (String, String, String) {
    let last = conditions.iter().rev().find(|c| c.status == "True");
    last.map(|c| (c.type_.clone(), c.reason.clone(), c.message.clone()))
        .unwrap_or_default()
}

fn timestamp(time: &Time) -> Timestamp {
    Timestamp {
        seconds: time.0.as_second(),
        nanos: time.0.subsec_nanosecond(),
    }
}
