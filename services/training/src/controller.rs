//! One controller per kind: reads what exists, asks [`crate::domain::plan`], does what it says.
//!
//! Reads go to the API server and not to a cache, so a decision never rests on Pods that are already gone or on a job that
//! has already changed, and no expectations have to be kept. Everything is derived from the API's objects: a restart
//! continues where the last process was.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_kernel::Clock;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::runtime::controller::{Action as Next, Controller};
use kube::runtime::{reflector::ObjectRef, watcher};
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::domain::environment::EnvironmentError;
use crate::domain::job::{Job, ReadError};
use crate::domain::kind::Kind;
use crate::domain::plan::{Action, Plan, job_labels, label, plan};
use crate::domain::status::JobEvent;
use crate::events::Recorder;

/// Why a job could not be reconciled; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The job cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its Pods cannot be made.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A name is taken.
    #[error("{kind} {name} exists and does not belong to the job; delete it or rename the job")]
    Taken {
        /// Pod or Service.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The status cannot be written as JSON.
    #[error("status: {0}")]
    Status(#[from] serde_json::Error),
}

struct Context {
    kind: &'static Kind,
    client: Client,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
}

/// Runs the controller of one kind until it is cancelled.
pub async fn run(kind: &'static Kind, client: Client, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    let resource = kind.resource();
    let jobs: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let ours = watcher::Config::default().labels(&format!("{}={}", label::OPERATOR_NAME, kind.controller));
    let context = Arc::new(Context {
        kind,
        client: client.clone(),
        clock,
        recorder: Recorder::new(client.clone(), kind.controller),
    });
    Controller::new_with(jobs, watcher::Config::default(), resource)
        .owns(Api::<Pod>::all(client.clone()), ours.clone())
        .owns(Api::<Service>::all(client), ours)
        .graceful_shutdown_on(async move { cancel.cancelled().await })
        .run(reconcile, on_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(kind = kind.kind, %error, "reconcile ended with an error");
            }
        })
        .await;
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn on_error(job: Arc<DynamicObject>, error: &ReconcileError, context: Arc<Context>) -> Next {
    if let ReconcileError::Api(kube::Error::Api(status)) = error
        && status.code == 409
    {
        return Next::requeue(Duration::from_millis(20));
    }
    tracing::warn!(kind = context.kind.kind, job = %ObjectRef::from_obj_with(&*job, context.kind.resource()), %error, "job is tried again");
    Next::requeue(Duration::from_secs(2))
}

async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Next, ReconcileError> {
    let namespace = object.namespace().unwrap_or_default();
    let jobs: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &namespace, &context.kind.resource());
    let Some(object) = jobs.get_opt(&object.name_any()).await? else {
        return Ok(Next::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let job = Job::read(context.kind, &object)?;
    if job
        .run_policy
        .managed_by
        .as_deref()
        .is_some_and(|m| m != "kubeflow.org/training-operator")
    {
        return Ok(Next::await_change());
    }
    let selector: Vec<String> = job_labels(&job).iter().map(|(k, v)| format!("{k}={v}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(context.client.clone(), &namespace);
    let (mut observed_pods, mut observed_services) =
        futures::try_join!(async { pods.list(&params).await }, async {
            services.list(&params).await
        })?;
    let uid = job.metadata.uid.clone().unwrap_or_default();
    observed_pods
        .items
        .retain(|pod| controlled_by(&pod.metadata, &uid));
    observed_services
        .items
        .retain(|service| controlled_by(&service.metadata, &uid));
    let Plan {
        actions,
        status,
        events,
        again,
    } = plan(
        &job,
        &observed_pods.items,
        &observed_services.items,
        context.clock.now(),
    )?;
    let mut deleted = false;
    for action in actions {
        deleted |= action == Action::DeleteJob;
        apply(&context, &job, &jobs, &pods, &services, &uid, action).await?;
    }
    if deleted {
        return Ok(Next::await_change());
    }
    if status != job.status {
        let mut replacement = object;
        replacement.metadata.managed_fields = None;
        replacement.data["status"] = serde_json::to_value(&status)?;
        jobs.replace_status(job.name(), &PostParams::default(), &replacement)
            .await?;
        for event in events {
            context.recorder.record(&job, event).await;
        }
    }
    Ok(again.map_or_else(Next::await_change, Next::requeue))
}

fn controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

async fn apply(
    context: &Context,
    job: &Job,
    jobs: &Api<DynamicObject>,
    pods: &Api<Pod>,
    services: &Api<Service>,
    uid: &str,
    action: Action,
) -> Result<(), ReconcileError> {
    let done = |word: &str, message: String| JobEvent {
        warning: false,
        reason: word.to_owned(),
        message,
    };
    match action {
        Action::CreateService(service) => {
            let name = service.name_any();
            match services.create(&PostParams::default(), &service).await {
                Ok(_) => {
                    let event = done("SuccessfulCreateService", format!("Created service: {name}"));
                    context.recorder.record(job, event).await;
                }
                Err(error) if is_code(&error, 409) => {
                    let existing = services.get_opt(&name).await?;
                    if existing.is_some_and(|s| !controlled_by(&s.metadata, uid)) {
                        return Err(ReconcileError::Taken {
                            kind: "service",
                            name,
                        });
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Action::CreatePod(pod) => {
            let name = pod.name_any();
            match pods.create(&PostParams::default(), &pod).await {
                Ok(_) => {
                    context
                        .recorder
                        .record(job, done("SuccessfulCreatePod", format!("Created pod: {name}")))
                        .await;
                }
                Err(error) if is_code(&error, 409) => {
                    let existing = pods.get_opt(&name).await?;
                    if existing.is_some_and(|p| !controlled_by(&p.metadata, uid)) {
                        return Err(ReconcileError::Taken { kind: "pod", name });
                    }
                }
                Err(error) => {
                    let message = format!("Error creating: {error}");
                    let event = JobEvent {
                        warning: true,
                        reason: "FailedCreatePod".to_owned(),
                        message,
                    };
                    context.recorder.record(job, event).await;
                    return Err(error.into());
                }
            }
        }
        Action::DeletePod(name) => {
            if gone(pods.delete(&name, &DeleteParams::default()).await)? {
                context
                    .recorder
                    .record(job, done("SuccessfulDeletePod", format!("Deleted pod: {name}")))
                    .await;
            }
        }
        Action::DeleteService(name) => {
            if gone(services.delete(&name, &DeleteParams::default()).await)? {
                let event = done("SuccessfulDeleteService", format!("Deleted service: {name}"));
                context.recorder.record(job, event).await;
            }
        }
        Action::DeleteJob => {
            let preconditions = Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            };
            let params = DeleteParams::background().preconditions(preconditions);
            gone(jobs.delete(job.name(), &params).await)?;
        }
    }
    Ok(())
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// False when it was gone already.
fn gone<T>(result: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_code(&error, 404) => Ok(false),
        Err(error) => Err(error),
    }
}
