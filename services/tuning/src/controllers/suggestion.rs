//! Suggestions: points from the algorithm, asked through Katib's gRPC service.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_api::api::v1::beta1 as katib;
use ferroflow_api::api::v1::beta1::suggestion_client::SuggestionClient;
use ferroflow_api::crd::tuning::{
    AlgorithmSetting, Experiment, ParameterAssignment, Suggestion, SuggestionStatus, TrialAssignment,
};
use ferroflow_auth::Caller;
use ferroflow_kernel::{Clock, random_suffix};
use ferroflow_rpc::Transport;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ReconcileError, retry};
use crate::api::suggestion::experiment_message;
use crate::domain::condition::{is_true, lower, seconds, set};
use crate::domain::defaults::set_defaults;
use crate::domain::experiment::SUGGESTION_EXHAUSTED;

/// Katib's Suggestion service, and who we are to it.
#[derive(Clone)]
pub struct Algorithms {
    /// The way to the service.
    pub transport: Transport,
    /// The caller of each request.
    pub caller: Caller,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

struct Context {
    client: Client,
    algorithms: Algorithms,
}

/// Runs the controller until it is cancelled. Experiments get their points by [`Algorithms::fulfil`] as soon as they want
/// them; this controller answers whoever else raises `spec.requests`, and an experiment that was interrupted.
pub async fn run(client: Client, algorithms: Algorithms, cancel: CancellationToken) {
    let context = Arc::new(Context {
        client: client.clone(),
        algorithms,
    });
    Controller::new(Api::<Suggestion>::all(client), watcher::Config::default())
        .graceful_shutdown_on(async move { cancel.cancelled().await })
        .run(
            reconcile,
            |s, error, _| retry("Suggestion", &s.metadata, error),
            context,
        )
        .for_each(|_| async {})
        .await;
}

async fn reconcile(cached: Arc<Suggestion>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let namespace = cached.namespace().unwrap_or_default();
    let suggestions: Api<Suggestion> = Api::namespaced(context.client.clone(), &namespace);
    let Some(mut suggestion) = suggestions.get_opt(&cached.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let before = suggestion.status.clone();
    let mut status = before.clone().unwrap_or_default();
    if suggestion.metadata.deletion_timestamp.is_some()
        || is_true(&status.conditions, "Succeeded")
        || is_true(&status.conditions, "Failed")
    {
        return Ok(Action::await_change());
    }
    let now = context.algorithms.clock.now();
    begin(&mut status, now);
    if suggestion.spec.requests > count(&status) {
        let experiments: Api<Experiment> = Api::namespaced(context.client.clone(), &namespace);
        let Some(mut experiment) = experiments.get_opt(&suggestion.name_any()).await? else {
            return Ok(Action::await_change());
        };
        set_defaults(&mut experiment.spec);
        context
            .algorithms
            .ask(&experiment, &mut status, suggestion.spec.requests, now)
            .await?;
    }
    if before.as_ref() != Some(&status) {
        suggestion.metadata.managed_fields = None;
        suggestion.status = Some(status);
        suggestions
            .replace_status(&suggestion.name_any(), &PostParams::default(), &suggestion)
            .await?;
    }
    Ok(Action::await_change())
}

fn count(status: &SuggestionStatus) -> i32 {
    i32::try_from(status.suggestions.len()).unwrap_or(i32::MAX)
}

fn begin(status: &mut SuggestionStatus, now: Timestamp) {
    if !status.conditions.is_empty() {
        return;
    }
    status.start_time = Some(seconds(now));
    let conditions = &mut status.conditions;
    set(
        conditions,
        "Created",
        true,
        "SuggestionCreated",
        "Suggestion is created",
        now,
    );
    // there is no Deployment to wait for: the algorithms are part of the service
    set(
        conditions,
        "DeploymentReady",
        true,
        "DeploymentReady",
        "Deployment is ready",
        now,
    );
    set(
        conditions,
        "Running",
        true,
        "SuggestionRunning",
        "Suggestion is running",
        now,
    );
}

impl Algorithms {
    /// Brings a Suggestion to `total` points at once. The points are written before `spec.requests`, so the controller never
    /// sees more wanted than there is and does not ask as well.
    ///
    /// # Errors
    /// What the API server or the service says.
    pub(super) async fn fulfil(
        &self,
        suggestions: &Api<Suggestion>,
        experiment: &Experiment,
        mut suggestion: Suggestion,
        total: i32,
    ) -> Result<Suggestion, ReconcileError> {
        let now = self.clock.now();
        let name = suggestion.name_any();
        let mut status = suggestion.status.take().unwrap_or_default();
        begin(&mut status, now);
        self.ask(experiment, &mut status, total, now).await?;
        suggestion.metadata.managed_fields = None;
        suggestion.status = Some(status);
        let written = suggestions
            .replace_status(&name, &PostParams::default(), &suggestion)
            .await?;
        if written.spec.requests >= total {
            return Ok(written);
        }
        let patch = Patch::Merge(json!({"spec": {"requests": total}}));
        Ok(suggestions.patch(&name, &PatchParams::default(), &patch).await?)
    }

    /// Adds the points that are missing.
    async fn ask(
        &self,
        experiment: &Experiment,
        status: &mut SuggestionStatus,
        total: i32,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let wanted = total - count(status);
        if wanted <= 0 {
            return Ok(());
        }
        let name = experiment.name_any();
        let request = katib::GetSuggestionsRequest {
            experiment: Some(experiment_message(
                &name,
                &experiment.spec,
                &status.algorithm_settings,
            )),
            trials: status.suggestions.iter().map(known).collect(),
            current_request_number: wanted,
            total_request_number: total,
        };
        let mut client = SuggestionClient::new(self.transport.call_as(&self.caller));
        let reply = match client.get_suggestions(request).await {
            Ok(reply) => reply.into_inner(),
            Err(refused)
                if matches!(
                    refused.code(),
                    tonic::Code::InvalidArgument | tonic::Code::Unimplemented
                ) =>
            {
                lower(&mut status.conditions, "Running", now);
                set(
                    &mut status.conditions,
                    "Failed",
                    true,
                    "SuggestionFailed",
                    refused.message(),
                    now,
                );
                status.completion_time = Some(seconds(now));
                return Ok(());
            }
            Err(error) => return Err(ReconcileError::Suggestion(error)),
        };
        take(&name, status, reply, wanted, now);
        Ok(())
    }
}

/// Adds what the service proposed.
fn take(
    name: &str,
    status: &mut SuggestionStatus,
    reply: katib::GetSuggestionsReply,
    wanted: i32,
    now: Timestamp,
) {
    let received = i32::try_from(reply.parameter_assignments.len()).unwrap_or(i32::MAX);
    for proposed in reply.parameter_assignments {
        let own = Some(proposed.trial_name).filter(|own| !own.is_empty());
        let assign = |a: katib::ParameterAssignment| ParameterAssignment {
            name: a.name,
            value: a.value,
        };
        status.suggestions.push(TrialAssignment {
            name: own.unwrap_or_else(|| format!("{name}-{}", random_suffix(8))),
            parameter_assignments: proposed.assignments.into_iter().map(assign).collect(),
            early_stopping_rules: Vec::new(),
            labels: proposed.labels.into_iter().collect::<BTreeMap<_, _>>(),
        });
    }
    status.suggestion_count = count(status);
    for setting in reply.algorithm.into_iter().flat_map(|a| a.algorithm_settings) {
        status.algorithm_settings.retain(|s| s.name != setting.name);
        status.algorithm_settings.push(AlgorithmSetting {
            name: setting.name,
            value: setting.value,
        });
    }
    if received < wanted {
        let message = format!("algorithm has no more points than {}", status.suggestion_count);
        lower(&mut status.conditions, "Running", now);
        set(
            &mut status.conditions,
            "Succeeded",
            true,
            SUGGESTION_EXHAUSTED,
            &message,
            now,
        );
        status.completion_time = Some(seconds(now));
    }
}

/// A point that was proposed before, whatever has become of its trial.
fn known(assignment: &TrialAssignment) -> katib::Trial {
    let assign = |a: &ParameterAssignment| katib::ParameterAssignment {
        name: a.name.clone(),
        value: a.value.clone(),
    };
    let assignments = assignment.parameter_assignments.iter().map(assign).collect();
    katib::Trial {
        name: assignment.name.clone(),
        spec: Some(katib::TrialSpec {
            parameter_assignments: Some(katib::trial_spec::ParameterAssignments { assignments }),
            ..Default::default()
        }),
        status: None,
    }
}
