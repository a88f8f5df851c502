//! Keeps Deployment, Services and status of every InferenceService as its spec asks.

use crate::credentials;
use crate::domain::{self, Failure, FailureReason, Observed, SERVICE_LABEL, Selected, ServingConfig};
use ferroflow_api::crd::serving::{
    ClusterServingRuntime, InferenceService, ServingRuntime, ServingRuntimeSpec,
};
use ferroflow_kernel::Clock;
use ferroflow_rpc::Transport;
use ferroflow_telemetry::Probe;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Annotation by which a change of what we want is told from defaults that the API server filled in.
const DESIRED: &str = "serving.ferroflow.dev/desired";

/// What reconciles share.
pub struct Context {
    pub client: Client,
    pub config: ServingConfig,
    pub clock: Arc<dyn Clock>,
    pub artifacts: Option<Transport>,
    pub recorder: Recorder,
}

impl Context {
    /// A context whose events are reported by the serving controller.
    pub fn new(
        client: Client,
        config: ServingConfig,
        clock: Arc<dyn Clock>,
        artifacts: Option<Transport>,
    ) -> Self {
        let reporter = Reporter {
            controller: "ferroflow-serving".into(),
            instance: None,
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            config,
            clock,
            artifacts,
            recorder,
        }
    }
}

/// Runs until cancelled.
pub async fn run(context: Arc<Context>, probe: Probe, cancel: CancellationToken) {
    let client = context.client.clone();
    let services: Api<InferenceService> = Api::all(client.clone());
    let labelled = watcher::Config::default().labels(SERVICE_LABEL);
    let of_pod = |pod: Pod| {
        let name = pod.labels().get(SERVICE_LABEL)?.clone();
        Some(ObjectRef::new(&name).within(&pod.namespace()?))
    };
    let controller = Controller::new(services, watcher::Config::default())
        .with_config(Config::default().concurrency(8))
        .owns(Api::<Deployment>::all(client.clone()), labelled.clone())
        .owns(Api::<Service>::all(client.clone()), labelled.clone())
        .watches(Api::<Pod>::all(client), labelled, of_pod);
    let store = controller.store();
    let seen = async move {
        if store.wait_until_ready().await.is_ok() {
            probe.ready();
        }
    };
    let stream = controller
        .graceful_shutdown_on(cancel.clone().cancelled_owned())
        .run(reconcile, failed, context)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "reconcile ended with an error");
            }
        });
    tokio::join!(stream, seen);
}

/// A reconcile that will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The Kubernetes API refused or did not answer.
    #[error("kubernetes: {0}")]
    Kube(#[from] kube::Error),
    /// An object of the name that we need belongs to someone else.
    #[error("{0:?} exists and does not belong to this InferenceService")]
    Foreign(String),
    /// Something else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is the runtime's")]
fn failed(service: Arc<InferenceService>, error: &ReconcileError, _: Arc<Context>) -> Action {
    // A conflict means that we acted on an old view; the newer one is on its way.
    let conflict = matches!(error, ReconcileError::Kube(kube::Error::Api(status)) if status.code == 409);
    if conflict {
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(service = service.name_any(), namespace = service.namespace(), %error, "cannot reconcile");
    Action::requeue(Duration::from_secs(5))
}

async fn reconcile(service: Arc<InferenceService>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = service.namespace().unwrap_or_default();
    let now = context.clock.now();
    // Objects that were made before the webhook was there are read as it would have changed them.
    let value = serde_json::to_value(&*service).map_err(anyhow::Error::from)?;
    let service: InferenceService =
        serde_json::from_value(domain::with_defaults(value)).map_err(anyhow::Error::from)?;
    let chosen = match &service.spec.predictor.model {
        Some(_) => runtime(&context.client, &service, now).await?.map(Some),
        None => Ok(None),
    };
    let (runtime, mut failure) = match chosen {
        Ok(runtime) => (runtime, None),
        Err(failure) => (None, Some(failure)),
    };
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &namespace);
    let name = format!("{}-predictor", service.name_any());
    let mut deployment = None;
    if let (None, None, true) = (&failure, &runtime, service.spec.predictor.containers.is_empty()) {
        let message = "spec.predictor has neither a model nor containers".to_owned();
        failure = Some(Failure {
            reason: FailureReason::InvalidPredictorSpec,
            message,
        });
    }
    let mut secret = None;
    if failure.is_none() {
        match credentials::ensure(&context.client, context.artifacts.as_ref(), &service, now).await {
            Ok(found) => secret = found,
            Err(error) => {
                let message = format!("{error:#}");
                failure = Some(Failure {
                    reason: FailureReason::ModelLoadFailed,
                    message,
                });
            }
        }
    }
    if failure.is_none() {
        match domain::deployment(&service, runtime.as_ref(), secret.as_deref(), &context.config) {
            Ok(wanted) => match apply(&context.client, &service, wanted).await {
                Ok(applied) => deployment = Some(applied),
                Err(error) => match refused(&error) {
                    Some(message) => {
                        failure = Some(Failure {
                            reason: FailureReason::InvalidPredictorSpec,
                            message,
                        });
                    }
                    None => return Err(error),
                },
            },
            Err(message) => {
                failure = Some(Failure {
                    reason: FailureReason::InvalidPredictorSpec,
                    message,
                });
            }
        }
    }
    if deployment.is_none() {
        deployment = deployments.get_opt(&name).await?;
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let pods = pods
        .list(&ListParams::default().labels(&format!("{SERVICE_LABEL}={}", service.name_any())))
        .await?;
    let observed = Observed {
        runtime: runtime.as_ref(),
        failure: failure.as_ref(),
        deployment: deployment.as_ref(),
        pods: &pods.items,
    };
    let status = domain::status(&service, &observed, now, &context.config);
    if service.status.as_ref() != Some(&status) {
        tell(&context, &service, &status).await;
        let api: Api<InferenceService> = Api::namespaced(context.client.clone(), &namespace);
        let mut value = serde_json::to_value(&status).map_err(anyhow::Error::from)?;
        // A merge patch removes only what it names.
        for gone in ["servingRuntimeName", "clusterServingRuntimeName"] {
            if value.get(gone).is_none() {
                value[gone] = serde_json::Value::Null;
            }
        }
        for gone in ["lastFailureInfo", "copies"] {
            if value["modelStatus"].get(gone).is_none() {
                value["modelStatus"][gone] = serde_json::Value::Null;
            }
        }
        let patch = Patch::Merge(json!({ "status": value }));
        api.patch_status(&service.name_any(), &PatchParams::default(), &patch)
            .await?;
    }
    // Runtimes are not watched: one that is missing now is looked for again.
    Ok(if failure.is_some() {
        Action::requeue(Duration::from_secs(5))
    } else {
        Action::requeue(Duration::from_secs(300))
    })
}

/// Events for people who watch: ready, not ready any more, and failures.
async fn tell(
    context: &Context,
    service: &InferenceService,
    status: &ferroflow_api::crd::serving::InferenceServiceStatus,
) {
    let ready = |status: &ferroflow_api::crd::serving::InferenceServiceStatus| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let before = service.status.as_ref();
    let was_ready = before.is_some_and(ready);
    let failure = status.model_status.last_failure_info.as_ref();
    let old_failure = before.and_then(|status| status.model_status.last_failure_info.as_ref());
    let event = if ready(status) && !was_ready {
        (
            EventType::Normal,
            "InferenceServiceReady",
            "the model answers requests".to_owned(),
        )
    } else if let Some(info) =
        failure.filter(|info| old_failure.map(|old| &old.message) != Some(&info.message))
    {
        (
            EventType::Warning,
            info.reason.as_deref().unwrap_or("ModelLoadFailed"),
            info.message.clone().unwrap_or_default(),
        )
    } else if was_ready && !ready(status) {
        (
            EventType::Warning,
            "InferenceServiceNotReady",
            "the model does not answer requests any more".to_owned(),
        )
    } else {
        return;
    };
    let event = Event {
        type_: event.0,
        reason: event.1.to_owned(),
        note: Some(event.2),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &service.object_ref(&())).await {
        tracing::debug!(%error, "cannot record an event");
    }
}

async fn runtime(
    client: &Client,
    service: &InferenceService,
    now: Timestamp,
) -> Result<Result<Selected, Failure>, kube::Error> {
    let Some(model) = &service.spec.predictor.model else {
        let message = "spec.predictor has no model".to_owned();
        return Ok(Err(Failure {
            reason: FailureReason::InvalidPredictorSpec,
            message,
        }));
    };
    let (own, cluster) = runtimes(client, &service.namespace().unwrap_or_default(), now).await?;
    Ok(domain::select(model, &own, &cluster))
}

/// Runtimes of a namespace and of the cluster as (name, age in seconds, spec).
pub type Known = Vec<(String, i64, ServingRuntimeSpec)>;

/// Lists the runtimes that a namespace may use.
pub async fn runtimes(
    client: &Client,
    namespace: &str,
    now: Timestamp,
) -> Result<(Known, Known), kube::Error> {
    let age = |meta: &kube::api::ObjectMeta| {
        meta.creation_timestamp
            .as_ref()
            .map_or(0, |created| now.duration_since(created.0).as_secs())
    };
    let own: Api<ServingRuntime> = Api::namespaced(client.clone(), namespace);
    let cluster: Api<ClusterServingRuntime> = Api::all(client.clone());
    let all = ListParams::default();
    let own = own
        .list(&all)
        .await?
        .items
        .into_iter()
        .map(|found| (found.name_any(), age(&found.metadata), found.spec));
    let cluster = cluster.list(&all).await?.items;
    let cluster = cluster
        .into_iter()
        .map(|found| (found.name_any(), age(&found.metadata), found.spec.runtime));
    Ok((own.collect(), cluster.collect()))
}

/// Creates or updates what the service consists of.
async fn apply(
    client: &Client,
    service: &InferenceService,
    wanted: Deployment,
) -> Result<Deployment, ReconcileError> {
    let namespace = service.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    for wanted in domain::services(service).map_err(anyhow::Error::msg)? {
        apply_service(&services, wanted).await?;
    }
    apply_deployment(&Api::namespaced(client.clone(), &namespace), wanted).await
}

/// The text of an error that trying again will not mend: the status shows it.
fn refused(error: &ReconcileError) -> Option<String> {
    match error {
        ReconcileError::Foreign(name) => Some(format!(
            "{name:?} exists and does not belong to this InferenceService; delete or rename it"
        )),
        ReconcileError::Kube(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

fn fingerprint<T: serde::Serialize>(wanted: &T) -> anyhow::Result<String> {
    Ok(blake3::hash(&serde_json::to_vec(wanted)?).to_hex()[..16].to_owned())
}

async fn apply_deployment(
    api: &Api<Deployment>,
    mut wanted: Deployment,
) -> Result<Deployment, ReconcileError> {
    let name = wanted.name_any();
    let desired = fingerprint(&wanted)?;
    wanted.annotations_mut().insert(DESIRED.into(), desired.clone());
    let Some(mut old) = api.get_opt(&name).await? else {
        return Ok(api.create(&PostParams::default(), &wanted).await?);
    };
    owned(&name, old.owner_references(), wanted.owner_references())?;
    if old.annotations().get(DESIRED) == Some(&desired) {
        return Ok(old);
    }
    old.annotations_mut().extend(wanted.annotations().clone());
    old.labels_mut().extend(wanted.labels().clone());
    old.spec = wanted.spec;
    Ok(api.replace(&name, &PostParams::default(), &old).await?)
}

async fn apply_service(api: &Api<Service>, mut wanted: Service) -> Result<(), ReconcileError> {
    let name = wanted.name_any();
    let desired = fingerprint(&wanted)?;
    wanted.annotations_mut().insert(DESIRED.into(), desired.clone());
    let Some(mut old) = api.get_opt(&name).await? else {
        api.create(&PostParams::default(), &wanted).await?;
        return Ok(());
    };
    owned(&name, old.owner_references(), wanted.owner_references())?;
    if old.annotations().get(DESIRED) == Some(&desired) {
        return Ok(());
    }
    old.annotations_mut().extend(wanted.annotations().clone());
    old.labels_mut().extend(wanted.labels().clone());
    // Addresses stay, since clients may hold them.
    if let (Some(spec), Some(wanted)) = (&mut old.spec, wanted.spec) {
        spec.selector = wanted.selector;
        spec.ports = wanted.ports;
    }
    api.replace(&name, &PostParams::default(), &old).await?;
    Ok(())
}

/// An object of the same name that is not ours is not touched.
fn owned(
    name: &str,
    old: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    wanted: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
) -> Result<(), ReconcileError> {
    let ours = wanted
        .iter()
        .all(|wanted| old.iter().any(|old| old.uid == wanted.uid));
    if ours {
        return Ok(());
    }
    Err(ReconcileError::Foreign(name.to_owned()))
}
