//! Experiments: trials from points, counters and end from trials.

use std::sync::Arc;

use ferroflow_api::crd::tuning::{
    Experiment, ExperimentStatus, Suggestion, SuggestionSpec, Trial, TrialAssignment, TrialSpec,
};
use ferroflow_kernel::Clock;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use super::suggestion::Algorithms;
use super::{ReconcileError, controlled_by, is_code, owner, retry};
use crate::domain::collector::{EXPERIMENT_LABEL, trial_labels};
use crate::domain::condition::{lower, set};
use crate::domain::defaults::set_defaults;
use crate::domain::experiment::{ExperimentAction, plan};
use crate::domain::trial;
use crate::events::Recorder;
use crate::template_source;

/// Holds a trial until its log is forgotten.
pub const TRIAL_FINALIZER: &str = "clean-metrics-in-db";

struct Context {
    client: Client,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    algorithms: Algorithms,
}

/// Runs the controller until it is cancelled.
pub async fn run(client: Client, clock: Arc<dyn Clock>, algorithms: Algorithms, cancel: CancellationToken) {
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), "experiment-controller"),
        client: client.clone(),
        clock,
        algorithms,
    });
    let any = watcher::Config::default();
    Controller::new(Api::<Experiment>::all(client.clone()), any.clone())
        .owns(Api::<Trial>::all(client.clone()), any.clone())
        .owns(Api::<Suggestion>::all(client), any)
        .graceful_shutdown_on(async move { cancel.cancelled().await })
        .run(
            reconcile,
            |e, error, _| retry("Experiment", &e.metadata, error),
            context,
        )
        .for_each(|_| async {})
        .await;
}

async fn reconcile(experiment: Arc<Experiment>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let result = reconcile_fresh(&experiment, &context).await;
    if let Err(error) = &result
        && !matches!(error, ReconcileError::Api(kube::Error::Api(status)) if status.code == 409)
    {
        let message = format!("Failed to reconcile: {error}");
        context
            .recorder
            .record(
                "Experiment",
                &experiment.metadata,
                true,
                "ReconcileError",
                message,
            )
            .await;
    }
    result
}

async fn reconcile_fresh(cached: &Experiment, context: &Context) -> Result<Action, ReconcileError> {
    let namespace = cached.namespace().unwrap_or_default();
    let client = &context.client;
    let experiments: Api<Experiment> = Api::namespaced(client.clone(), &namespace);
    let Some(stored) = experiments.get_opt(&cached.name_any()).await? else {
        return Ok(Action::await_change());
    };
    if stored.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut experiment = stored.clone();
    set_defaults(&mut experiment.spec);
    let name = experiment.name_any();
    let trials: Api<Trial> = Api::namespaced(client.clone(), &namespace);
    let suggestions: Api<Suggestion> = Api::namespaced(client.clone(), &namespace);
    let selector = ListParams::default().labels(&format!("{EXPERIMENT_LABEL}={name}"));
    let (mut observed, suggestion) = futures::try_join!(async { trials.list(&selector).await }, async {
        suggestions.get_opt(&name).await
    })?;
    observed
        .items
        .retain(|t| controlled_by(&t.metadata, experiment.metadata.uid.as_deref()));
    let suggestion = suggestion.filter(|s| controlled_by(&s.metadata, experiment.metadata.uid.as_deref()));
    let mut suggestion = suggestion;
    let mut decided = plan(
        &experiment,
        suggestion.as_ref(),
        &observed.items,
        context.clock.now(),
    );
    // points are there as soon as they are asked for, and the trials that try them start in the same pass
    if let Some(total) = decided.actions.iter().find_map(requested) {
        let asked = match suggestion.take() {
            Some(suggestion) => suggestion,
            None => create_suggestion(&suggestions, &experiment).await?,
        };
        suggestion = Some(
            context
                .algorithms
                .fulfil(&suggestions, &experiment, asked, total)
                .await?,
        );
        decided = plan(
            &experiment,
            suggestion.as_ref(),
            &observed.items,
            context.clock.now(),
        );
    }
    let mut template = None;
    for action in decided.actions {
        match action {
            // asked for above; a service that gave nothing is asked again when something changes
            ExperimentAction::Request(_) => {}
            ExperimentAction::CreateTrial(assignment) => {
                if template.is_none() {
                    template = template_source::load(client, &experiment.spec)
                        .await
                        .map_err(ReconcileError::Other)?;
                }
                let Some(template) = &template else {
                    return Err(ReconcileError::Other(
                        "the experiment has no trial template".to_owned(),
                    ));
                };
                let trial = trial_of(&experiment, template, &assignment)?;
                match trials.create(&PostParams::default(), &trial).await {
                    Ok(_) => {}
                    Err(error) if is_code(&error, 409) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ExperimentAction::DeleteTrials(names) => {
                take_back(&trials, &suggestions, suggestion.as_ref(), &names).await?;
            }
            ExperimentAction::KillTrials(names, why) => {
                kill(context, &trials, &observed.items, &names, why).await?;
            }
            ExperimentAction::FinishSuggestion => {
                finish(context, &suggestions, suggestion.as_ref(), &experiment).await?;
            }
            ExperimentAction::ResumeSuggestion => resume(&suggestions, suggestion.as_ref()).await?,
        }
    }
    write_status(&experiments, stored, decided.status, context).await?;
    Ok(Action::await_change())
}

async fn write_status(
    experiments: &Api<Experiment>,
    stored: Experiment,
    status: ExperimentStatus,
    context: &Context,
) -> Result<(), ReconcileError> {
    if stored.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let count = |s: Option<&ExperimentStatus>| s.map_or(0, |s| s.conditions.len());
    let last = status
        .conditions
        .last()
        .filter(|_| count(stored.status.as_ref()) != count(Some(&status)))
        .cloned();
    let name = stored.name_any();
    let mut replacement = stored;
    replacement.metadata.managed_fields = None;
    replacement.status = Some(status);
    experiments
        .replace_status(&name, &PostParams::default(), &replacement)
        .await?;
    if let Some(condition) = last {
        let warning = condition.type_ == "Failed";
        let message = condition.message;
        context
            .recorder
            .record(
                "Experiment",
                &replacement.metadata,
                warning,
                &condition.reason,
                message,
            )
            .await;
    }
    Ok(())
}

fn requested(action: &ExperimentAction) -> Option<i32> {
    match action {
        ExperimentAction::Request(total) => Some(*total),
        _ => None,
    }
}

/// Creates the Suggestion of an experiment, which asks for nothing yet.
async fn create_suggestion(
    suggestions: &Api<Suggestion>,
    experiment: &Experiment,
) -> Result<Suggestion, ReconcileError> {
    let name = experiment.name_any();
    let mut created = Suggestion::new(
        &name,
        SuggestionSpec {
            algorithm: experiment.spec.algorithm.clone(),
            early_stopping: experiment.spec.early_stopping.clone(),
            requests: 0,
            resume_policy: experiment.spec.resume_policy.clone(),
        },
    );
    created.metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: experiment.namespace(),
        labels: Some(trial_labels(
            &name,
            experiment.metadata.labels.as_ref(),
            &std::collections::BTreeMap::new(),
        )),
        owner_references: Some(vec![owner("Experiment", &experiment.metadata)]),
        ..ObjectMeta::default()
    };
    match suggestions.create(&PostParams::default(), &created).await {
        Ok(created) => Ok(created),
        Err(error) if is_code(&error, 409) => Err(ReconcileError::Other(format!(
            "suggestion {name} exists and does not belong to the experiment; delete it or rename the experiment"
        ))),
        Err(error) => Err(error.into()),
    }
}

fn trial_of(
    experiment: &Experiment,
    template: &crate::domain::template::Template,
    assignment: &TrialAssignment,
) -> Result<Trial, ReconcileError> {
    let source = experiment.spec.trial_template.clone().unwrap_or_default();
    let namespace = experiment.namespace().unwrap_or_default();
    let parameters = source.trial_parameters.unwrap_or_default();
    let run_spec = template.render(
        &parameters,
        &assignment.parameter_assignments,
        &assignment.name,
        &namespace,
    )?;
    let mut trial = Trial::new(
        &assignment.name,
        TrialSpec {
            objective: experiment.spec.objective.clone(),
            parameter_assignments: assignment.parameter_assignments.clone(),
            early_stopping_rules: Some(assignment.early_stopping_rules.clone())
                .filter(|rules| !rules.is_empty()),
            run_spec: Some(run_spec),
            retain_run: Some(source.retain.unwrap_or(false)),
            metrics_collector: experiment.spec.metrics_collector_spec.clone(),
            primary_pod_labels: source.primary_pod_labels,
            primary_container_name: source.primary_container_name,
            success_condition: source.success_condition,
            failure_condition: source.failure_condition,
            labels: Some(assignment.labels.clone()).filter(|labels| !labels.is_empty()),
        },
    );
    trial.metadata.namespace = Some(namespace);
    trial.metadata.labels = Some(trial_labels(
        &experiment.name_any(),
        experiment.metadata.labels.as_ref(),
        &assignment.labels,
    ));
    trial.metadata.owner_references = Some(vec![owner("Experiment", &experiment.metadata)]);
    trial.metadata.finalizers = Some(vec![TRIAL_FINALIZER.to_owned()]);
    Ok(trial)
}

/// Deletes trials, and their points from the Suggestion, so that they may be proposed anew later.
async fn take_back(
    trials: &Api<Trial>,
    suggestions: &Api<Suggestion>,
    suggestion: Option<&Suggestion>,
    names: &[String],
) -> Result<(), ReconcileError> {
    for name in names {
        match trials.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(error) if is_code(&error, 404) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(mut shrunk) = suggestion.cloned() else {
        return Ok(());
    };
    shrunk.metadata.managed_fields = None;
    let mut status = shrunk.status.take().unwrap_or_default();
    status.suggestions.retain(|s| !names.contains(&s.name));
    status.suggestion_count = i32::try_from(status.suggestions.len()).unwrap_or(i32::MAX);
    shrunk.spec.requests = status.suggestion_count;
    // the spec first: while it asks for more than there is, the algorithm would be asked again
    let name = shrunk.name_any();
    let mut replaced = suggestions
        .replace(&name, &PostParams::default(), &shrunk)
        .await?;
    replaced.status = Some(status);
    suggestions
        .replace_status(&name, &PostParams::default(), &replaced)
        .await?;
    Ok(())
}

async fn kill(
    context: &Context,
    trials: &Api<Trial>,
    observed: &[Trial],
    names: &[String],
    why: &str,
) -> Result<(), ReconcileError> {
    for trial in observed
        .iter()
        .filter(|t| t.metadata.name.as_ref().is_some_and(|name| names.contains(name)))
    {
        let Some(status) = trial::kill(trial, why, context.clock.now()) else {
            continue;
        };
        let mut killed = trial.clone();
        killed.metadata.managed_fields = None;
        killed.status = Some(status);
        trials
            .replace_status(&killed.name_any(), &PostParams::default(), &killed)
            .await?;
    }
    Ok(())
}

async fn finish(
    context: &Context,
    suggestions: &Api<Suggestion>,
    suggestion: Option<&Suggestion>,
    experiment: &Experiment,
) -> Result<(), ReconcileError> {
    let Some(mut finished) = suggestion.cloned() else {
        return Ok(());
    };
    let mut status = finished.status.take().unwrap_or_default();
    let message = if experiment.spec.resume_policy.as_deref() == Some("FromVolume") {
        "Suggestion is succeeded, suggestion volume is not deleted, can be restarted"
    } else {
        "Suggestion is succeeded, can't be restarted"
    };
    let now = context.clock.now();
    lower(&mut status.conditions, "Running", now);
    lower(&mut status.conditions, "DeploymentReady", now);
    set(
        &mut status.conditions,
        "Succeeded",
        true,
        "SuggestionSucceeded",
        message,
        now,
    );
    status.completion_time = Some(crate::domain::condition::seconds(now));
    finished.metadata.managed_fields = None;
    finished.status = Some(status);
    suggestions
        .replace_status(&finished.name_any(), &PostParams::default(), &finished)
        .await?;
    Ok(())
}

async fn resume(
    suggestions: &Api<Suggestion>,
    suggestion: Option<&Suggestion>,
) -> Result<(), ReconcileError> {
    let Some(mut resumed) = suggestion.cloned() else {
        return Ok(());
    };
    let mut status = resumed.status.take().unwrap_or_default();
    status.conditions.retain(|c| c.type_ != "Succeeded");
    status.completion_time = None;
    resumed.metadata.managed_fields = None;
    resumed.status = Some(status);
    suggestions
        .replace_status(&resumed.name_any(), &PostParams::default(), &resumed)
        .await?;
    Ok(())
}
