//! `ferroflow.tuning.v1.TuningService`.

use std::sync::Arc;

use ferroflow_api::crd::tuning::{Experiment, Trial};
use ferroflow_api::ferroflow::tuning::v1::tuning_service_server::TuningService;
use ferroflow_api::ferroflow::tuning::v1::{
    ExperimentSummary, GetExperimentRequest, ListExperimentsRequest, ListExperimentsResponse,
    ListTrialsRequest, ListTrialsResponse,
};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::{Code, Error};
use kube::Client;
use kube::api::{Api, ListParams};
use tonic::{Request, Response, Status};

use super::summary::{experiment_summary, trial_summary};
use crate::domain::collector::EXPERIMENT_LABEL;
use crate::domain::observation::Report;
use crate::store::{LogQuery, ObservationLogs};

/// Reads experiments and trials on behalf of callers.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    authorizer: Arc<dyn Authorizer>,
    logs: ObservationLogs,
}

fn api_error(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => Error::new(Code::NotFound, status.message),
        other => Error::new(Code::Unavailable, other.to_string()),
    }
}

impl Reader {
    /// Reads through `client`, after asking `authorizer`.
    #[must_use]
    pub fn new(client: Client, authorizer: Arc<dyn Authorizer>, logs: ObservationLogs) -> Self {
        Self {
            client,
            authorizer,
            logs,
        }
    }

    async fn authorize(
        &self,
        caller: &Caller,
        namespace: &str,
        verb: &str,
        resource: &str,
    ) -> Result<(), Error> {
        let review = AccessReview::new(namespace, verb, "kubeflow.org", resource);
        self.authorizer.authorize(&caller.principal, &review).await
    }

    /// Experiments of a namespace, the newest first.
    pub(super) async fn experiments(
        &self,
        caller: &Caller,
        namespace: &str,
    ) -> Result<Vec<ExperimentSummary>, Error> {
        let namespace = caller.namespace_or_own(namespace);
        self.authorize(caller, namespace, "list", "experiments").await?;
        let api: Api<Experiment> = Api::namespaced(self.client.clone(), namespace);
        let mut items = api.list(&ListParams::default()).await.map_err(api_error)?.items;
        items.sort_by_key(|e| std::cmp::Reverse(e.metadata.creation_timestamp.as_ref().map(|t| t.0)));
        Ok(items.iter().map(experiment_summary).collect())
    }

    /// One experiment.
    pub(super) async fn experiment(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
    ) -> Result<ExperimentSummary, Error> {
        let namespace = caller.namespace_or_own(namespace);
        self.authorize(caller, namespace, "get", "experiments").await?;
        let api: Api<Experiment> = Api::namespaced(self.client.clone(), namespace);
        Ok(experiment_summary(&api.get(name).await.map_err(api_error)?))
    }

    /// An experiment with its trials, the oldest first.
    pub(super) async fn trials(
        &self,
        caller: &Caller,
        namespace: &str,
        experiment: &str,
    ) -> Result<ListTrialsResponse, Error> {
        let namespace = caller.namespace_or_own(namespace);
        let experiment = self.experiment(caller, namespace, experiment).await?;
        self.authorize(caller, namespace, "list", "trials").await?;
        let api: Api<Trial> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().labels(&format!("{EXPERIMENT_LABEL}={}", experiment.name));
        let mut items = api.list(&params).await.map_err(api_error)?.items;
        items.sort_by_key(|t| {
            (
                t.metadata.creation_timestamp.as_ref().map(|c| c.0),
                t.metadata.name.clone(),
            )
        });
        let trials = items
            .iter()
            .map(|trial| trial_summary(trial, &experiment.best_trial))
            .collect();
        Ok(ListTrialsResponse {
            experiment: Some(experiment),
            trials,
        })
    }

    /// What a trial has reported so far.
    pub(super) async fn log(
        &self,
        caller: &Caller,
        namespace: &str,
        trial: &str,
    ) -> Result<Vec<Report>, Error> {
        let namespace = caller.namespace_or_own(namespace);
        self.authorize(caller, namespace, "get", "trials").await?;
        self.logs
            .read(namespace, trial, &LogQuery::default())
            .await
            .map_err(Error::from)
    }
}

#[tonic::async_trait]
impl TuningService for Reader {
    async fn list_experiments(
        &self,
        request: Request<ListExperimentsRequest>,
    ) -> Result<Response<ListExperimentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let experiments = self.experiments(&caller, &request.into_inner().namespace).await?;
        Ok(Response::new(ListExperimentsResponse { experiments }))
    }

    async fn get_experiment(
        &self,
        request: Request<GetExperimentRequest>,
    ) -> Result<Response<ExperimentSummary>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        Ok(Response::new(
            self.experiment(&caller, &request.namespace, &request.name)
                .await?,
        ))
    }

    async fn list_trials(
        &self,
        request: Request<ListTrialsRequest>,
    ) -> Result<Response<ListTrialsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        Ok(Response::new(
            self.trials(&caller, &request.namespace, &request.experiment)
                .await?,
        ))
    }
}
