//! The Pods of attempts: looked at, created and deleted.

use ferroflow_kernel::{Code, Error, Result};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};

use super::{Actor, PodIs};
use crate::domain::plan;
use crate::domain::run::AttemptState;
use crate::domain::step::{StepPlan, task_id};
use crate::worker::artifacts::Credentials;
use crate::worker::pod;

/// An attempt, with the credentials of its Pod or why there are none.
type Minted = (StepPlan, Result<Credentials>);

/// Pods are created so many at a time.
const SIDE_BY_SIDE: usize = 16;
/// How long to wait before something that failed for no fault of the run is tried again.
pub(super) const AGAIN: SignedDuration = SignedDuration::from_millis(500);

impl Actor {
    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.run.namespace)
    }

    /// Looks at the Pod of an attempt.
    pub(super) async fn look(&mut self, path: &str, number: u32) {
        let Some(live) = self.live.get(&(path.to_owned(), number)) else {
            return;
        };
        let (name, known) = (live.row.pod_name.clone(), live.row.pod_uid.clone());
        match self.pods().get_opt(&name).await {
            Ok(Some(pod)) => self.saw(&pod).await,
            // It was there once.
            Ok(None) if known.is_some() => {
                self.settle(path, number, PodIs::Over("its Pod vanished without an outcome"))
                    .await;
            }
            Ok(None) => {
                // It may have been created, ended and removed just before a crash.
                self.settle(path, number, PodIs::Absent).await;
                if self.live.contains_key(&(path.to_owned(), number)) {
                    self.recreate(path, number).await;
                }
            }
            Err(error) => {
                tracing::warn!(run = self.run.id, pod = name, %error, "the Pod cannot be read; trying again");
                self.again(path, number);
            }
        }
    }

    pub(super) async fn recreate(&mut self, path: &str, number: u32) {
        if self.spec.terminate {
            self.settle(path, number, PodIs::Over("ended before its Pod was created"))
                .await;
            return;
        }
        match plan::rebuild(&self.spec, &self.observed, self.shared.clock.now(), path) {
            Some(plan) if plan.step.attempt == number => self.prepare(plan),
            _ => {
                self.settle(
                    path,
                    number,
                    PodIs::Over("it cannot be planned again after a restart"),
                )
                .await;
            }
        }
    }

    pub(super) fn again(&mut self, path: &str, number: u32) {
        let at = self
            .shared
            .clock
            .now()
            .checked_add(AGAIN)
            .unwrap_or(Timestamp::MAX);
        self.recheck.push((at, path.to_owned(), number));
    }

    /// The account of the run's Pods.
    fn account(&self) -> &str {
        match self.run.service_account.as_str() {
            "" => self.shared.options.step_service_account.as_str(),
            account => account,
        }
    }

    /// Credentials for attempts whose Pods are to be created.
    pub(super) async fn mint(&self, plans: Vec<StepPlan>) -> Vec<Minted> {
        let (artifacts, namespace) = (&self.shared.artifacts, self.run.namespace.as_str());
        futures::stream::iter(plans)
            .map(|plan| async move {
                let credentials = artifacts
                    .credentials(namespace, self.account(), &plan.folder)
                    .await;
                (plan, credentials)
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await
    }

    pub(super) async fn create_pods(&mut self, minted: Vec<Minted>) -> Result<()> {
        if minted.is_empty() {
            return Ok(());
        }
        let this = &*self;
        let created: Vec<(StepPlan, Result<String, Failure>)> = futures::stream::iter(minted)
            .map(|(plan, credentials)| async move {
                let result = match credentials {
                    Ok(credentials) => this.create_pod(&plan, &credentials).await,
                    Err(error) => Err(Failure::of(&error, "credentials")),
                };
                (plan, result)
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut uids = Vec::new();
        for (plan, result) in created {
            let (path, number) = (plan.step.task.clone(), plan.step.attempt);
            match result {
                Ok(uid) => {
                    if let Some(live) = self.live.get_mut(&(path.clone(), number)) {
                        live.row.pod_uid = Some(uid.clone());
                    }
                    uids.push((path, number, uid));
                }
                Err(Failure::Final(why)) => self.fail(&path, number, AttemptState::Failed(why)),
                Err(Failure::Passing(why)) => {
                    tracing::warn!(
                        run = self.run.id,
                        task = path,
                        error = why,
                        "its Pod cannot be created; trying again"
                    );
                    self.trouble(&path, number, Some(why));
                    self.again(&path, number);
                }
            }
        }
        if !uids.is_empty() {
            self.shared.store.pods_created(&self.run.id, &uids).await?;
        }
        Ok(())
    }

    /// Creates the Pod of an attempt, or finds it; gives its UID.
    async fn create_pod(&self, plan: &StepPlan, credentials: &Credentials) -> Result<String, Failure> {
        let shared = &self.shared;
        let step = &plan.step;
        let hint = shared
            .hints
            .path(&self.run.id, &task_id(&self.run.id, &step.task), step.attempt);
        let pod = pod::build(&pod::Parts {
            run: &self.spec,
            service_account: self.account(),
            plan,
            credentials,
            hint: &hint,
            options: &shared.options,
        })
        .map_err(Failure::Final)?;
        let pods = self.pods();
        match pods.create(&PostParams::default(), &pod).await {
            Ok(created) => Ok(created.uid().unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let name = pod.name_any();
                let found = pods
                    .get(&name)
                    .await
                    .map_err(|error| Failure::Passing(error.to_string()))?;
                let label = |pod: &Pod, key: &str| pod.labels().get(key).cloned();
                let ours = [pod::RUN_LABEL, pod::TASK_LABEL, pod::ATTEMPT_LABEL]
                    .iter()
                    .all(|key| label(&found, key) == label(&pod, key));
                if ours {
                    return Ok(found.uid().unwrap_or_default());
                }
                Err(Failure::Final(format!(
                    "Pod {name} exists already and belongs to something else; delete it and retry the run"
                )))
            }
            Err(kube::Error::Api(status))
                if status.code < 500 && status.code != 429 && status.code != 409 =>
            {
                Err(Failure::Final(format!("its Pod was refused: {}", status.message)))
            }
            Err(error) => Err(Failure::Passing(error.to_string())),
        }
    }

    /// Ends a running attempt; it is over once its Pod is.
    pub(super) async fn stop(&mut self, path: &str, number: u32) {
        let Some(live) = self.live.get(&(path.to_owned(), number)) else {
            return;
        };
        let name = live.row.pod_name.clone();
        let mut options = DeleteParams::default();
        if let Some(uid) = &live.row.pod_uid {
            options = options.preconditions(kube::api::Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            });
        }
        match self.pods().delete(&name, &options).await {
            Ok(either) => {
                if either.is_right() {
                    self.settle(path, number, PodIs::Over("ended on request")).await;
                }
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                self.settle(path, number, PodIs::Over("ended on request")).await;
            }
            Err(error) => {
                tracing::warn!(pod = name, %error, "a Pod cannot be deleted; trying again");
                self.again(path, number);
            }
        }
    }
}

/// Why a Pod could not be created.
enum Failure {
    /// Trying again is no use.
    Final(String),
    /// It may work later.
    Passing(String),
}

impl Failure {
    pub(super) fn of(error: &Error, what: &str) -> Self {
        let text = format!("{what}: {error}");
        match error.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition => Self::Final(text),
            _ => Self::Passing(text),
        }
    }
}
