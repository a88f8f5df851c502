//! Trials: the resource that runs one, its end, and what it reported.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_api::crd::tuning::{Trial, TrialStatus};
use ferroflow_kernel::Clock;
use futures::StreamExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::experiment::TRIAL_FINALIZER;
use super::{ReconcileError, controlled_by, is_code, owner, retry};
use crate::domain::condition::{seconds, set};
use crate::domain::trial::{TrialAction, TrialPlan, plan, state};
use crate::events::Recorder;
use crate::resources::Resources;
use crate::store::{LogQuery, ObservationLogs};

/// Kinds that are watched from the start: those that Katib watches by default and this platform runs.
const USUAL: [(&str, &str); 6] = [
    ("batch/v1", "Job"),
    ("kubeflow.org/v1", "XGBoostJob"),
    ("kubeflow.org/v1", "PyTorchJob"),
    ("kubeflow.org/v1", "TFJob"),
    ("kubeflow.org/v1", "JAXJob"),
    ("kubeflow.org/v1", "PaddleJob"),
];

struct Context {
    client: Client,
    clock: Arc<dyn Clock>,
    logs: ObservationLogs,
    recorder: Recorder,
    resources: Resources,
    watched: Mutex<BTreeMap<(String, String), ApiResource>>,
}

/// Runs the controller until it is cancelled. A trial of a kind that is not watched yet makes it start again with that kind:
/// what runs is finished first, and nothing is lost, since everything is read again.
pub async fn run(client: Client, clock: Arc<dyn Clock>, logs: ObservationLogs, cancel: CancellationToken) {
    let resources = Resources::new(client.clone());
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), "trial-controller"),
        client: client.clone(),
        clock,
        logs,
        resources: resources.clone(),
        watched: Mutex::default(),
    });
    for (api_version, kind) in USUAL {
        if let Ok(resource) = resources.of(api_version, kind).await {
            context
                .watched
                .lock()
                .insert((api_version.to_owned(), kind.to_owned()), resource);
        }
    }
    while !cancel.is_cancelled() {
        let round = cancel.child_token();
        let kinds: Vec<ApiResource> = context.watched.lock().values().cloned().collect();
        let mut controller = Controller::new(Api::<Trial>::all(client.clone()), watcher::Config::default());
        for kind in kinds {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
            controller = controller.owns_with(api, kind, watcher::Config::default());
        }
        let stop = round.clone();
        let shared = Arc::new((context.clone(), round));
        controller
            .graceful_shutdown_on(async move { stop.cancelled().await })
            .run(
                reconcile,
                |t, error, _| retry("Trial", &t.metadata, error),
                shared,
            )
            .for_each(|_| async {})
            .await;
    }
}

type Shared = Arc<(Arc<Context>, CancellationToken)>;

async fn reconcile(cached: Arc<Trial>, shared: Shared) -> Result<Action, ReconcileError> {
    let (context, round) = &*shared;
    let namespace = cached.namespace().unwrap_or_default();
    let trials: Api<Trial> = Api::namespaced(context.client.clone(), &namespace);
    let Some(trial) = trials.get_opt(&cached.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let name = trial.name_any();
    let finalizers = trial.metadata.finalizers.clone().unwrap_or_default();
    let held = finalizers.iter().any(|f| f == TRIAL_FINALIZER);
    if trial.metadata.deletion_timestamp.is_some() {
        if held {
            context.logs.delete(&namespace, &name).await?;
            let rest: Vec<String> = finalizers.into_iter().filter(|f| f != TRIAL_FINALIZER).collect();
            set_finalizers(&trials, &trial, &rest).await?;
        }
        return Ok(Action::await_change());
    }
    if !held {
        let more = finalizers
            .into_iter()
            .chain([TRIAL_FINALIZER.to_owned()])
            .collect::<Vec<_>>();
        set_finalizers(&trials, &trial, &more).await?;
        return Ok(Action::await_change());
    }
    let Some(run_spec) = trial.spec.run_spec.clone() else {
        return Err(ReconcileError::Other("spec.runSpec is missing".to_owned()));
    };
    let text = |key: &str| {
        run_spec
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let resource = context.resources.of(&api_version, &kind).await?;
    let key = (api_version, kind);
    let new_kind = context.watched.lock().insert(key, resource.clone()).is_none();
    let runs: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let run = runs.get_opt(&name).await?;
    if run
        .as_ref()
        .is_some_and(|r| !controlled_by(&r.metadata, trial.metadata.uid.as_deref()))
    {
        let message = format!(
            "{} {name} exists and does not belong to the trial; delete it",
            resource.kind
        );
        return Err(ReconcileError::Other(message));
    }
    let uid = run.as_ref().and_then(|r| r.metadata.uid.clone());
    let run = run
        .map(serde_json::to_value)
        .transpose()
        .map_err(|e| ReconcileError::Other(e.to_string()))?;
    let now = context.clock.now();
    let mut decided = plan(&trial, run.as_ref(), None, now)?;
    if decided.needs_log {
        let log = context.logs.read(&namespace, &name, &LogQuery::default()).await?;
        decided = plan(&trial, run.as_ref(), Some(&log), now)?;
    }
    let TrialPlan {
        action,
        mut status,
        mut events,
        ..
    } = decided;
    match action {
        Some(TrialAction::CreateRun) => {
            if let Err(refusal) = create(&runs, &trial, run_spec).await? {
                fail(&mut status, &refusal, context);
                events = vec![(true, "JobRefused", refusal)];
            }
        }
        Some(TrialAction::DeleteRun) => {
            let params = DeleteParams::background().preconditions(Preconditions {
                uid,
                resource_version: None,
            });
            match runs.delete(&name, &params).await {
                Ok(_) => {}
                Err(error) if is_code(&error, 404) => events.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        None => {}
    }
    write_status(&trials, &trial, status).await?;
    for (warning, reason, message) in events {
        context
            .recorder
            .record("Trial", &trial.metadata, warning, reason, message)
            .await;
    }
    if new_kind {
        round.cancel();
    }
    Ok(Action::await_change())
}

async fn set_finalizers(
    trials: &Api<Trial>,
    trial: &Trial,
    finalizers: &[String],
) -> Result<(), ReconcileError> {
    let metadata = json!({"finalizers": finalizers, "resourceVersion": trial.metadata.resource_version});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    match trials
        .patch(&trial.name_any(), &PatchParams::default(), &patch)
        .await
    {
        Err(error) if !is_code(&error, 404) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Creates the resource. The inner error is a refusal that no retry changes: the template is wrong.
async fn create(
    runs: &Api<DynamicObject>,
    trial: &Trial,
    run_spec: Value,
) -> Result<Result<(), String>, ReconcileError> {
    let mut run: DynamicObject = match serde_json::from_value(run_spec) {
        Ok(run) => run,
        Err(error) => return Ok(Err(format!("spec.runSpec is no resource: {error}"))),
    };
    run.metadata.owner_references = Some(vec![owner("Trial", &trial.metadata)]);
    match runs.create(&PostParams::default(), &run).await {
        Ok(_) => Ok(Ok(())),
        Err(error) if is_code(&error, 409) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if status.code == 400 || status.code == 422 => Ok(Err(status.message)),
        Err(error) => Err(error.into()),
    }
}

fn fail(status: &mut TrialStatus, refusal: &str, context: &Context) {
    let now = context.clock.now();
    let message = format!("Trial has failed. Job message: {refusal}");
    set(
        &mut status.conditions,
        state::FAILED,
        true,
        "TrialFailed. Job reason: Refused",
        &message,
        now,
    );
    status.completion_time = Some(seconds(now));
}

async fn write_status(
    trials: &Api<Trial>,
    stored: &Trial,
    status: TrialStatus,
) -> Result<(), ReconcileError> {
    if stored.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut replacement = stored.clone();
    replacement.metadata.managed_fields = None;
    replacement.status = Some(status);
    trials
        .replace_status(&stored.name_any(), &PostParams::default(), &replacement)
        .await?;
    Ok(())
}
