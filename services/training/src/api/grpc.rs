//! `ferroflow.training.v1.TrainingService`.

use std::sync::Arc;

use ferroflow_api::ferroflow::training::v1::training_service_server::TrainingService;
use ferroflow_api::ferroflow::training::v1::{GetJobRequest, JobSummary, ListJobsRequest, ListJobsResponse};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::{Code, Error};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use tonic::{Request, Response, Status};

use super::summary::summary;
use crate::domain::job::Job;
use crate::domain::kind::{KINDS, Kind};

/// Reads jobs on behalf of callers.
#[derive(Clone)]
pub struct Reader {
    client: Client,
    authorizer: Arc<dyn Authorizer>,
}

fn kind_named(kind: &str) -> Result<&'static Kind, Error> {
    Kind::named(kind).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|k| k.kind).collect();
        Error::field(
            "kind",
            format!(
                "{kind:?} is no kind of training job; use one of {}",
                known.join(", ")
            ),
        )
    })
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
    pub fn new(client: Client, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { client, authorizer }
    }

    /// Jobs of a namespace, the newest first; of one kind, or of every kind.
    pub(super) async fn list(
        &self,
        caller: &Caller,
        namespace: &str,
        kind: &str,
    ) -> Result<Vec<JobSummary>, Error> {
        let namespace = caller.namespace_or_own(namespace);
        let kinds: Vec<&'static Kind> = if kind.is_empty() {
            KINDS.iter().collect()
        } else {
            vec![kind_named(kind)?]
        };
        let mut jobs = Vec::new();
        for kind in kinds {
            let review = AccessReview::new(namespace, "list", "kubeflow.org", kind.plural);
            self.authorizer.authorize(&caller.principal, &review).await?;
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
            let list = api.list(&ListParams::default()).await.map_err(api_error)?;
            jobs.extend(
                list.items
                    .iter()
                    .filter_map(|object| Job::read(kind, object).ok())
                    .map(|job| summary(&job)),
            );
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.created.as_ref().map(|t| (t.seconds, t.nanos))));
        Ok(jobs)
    }

    /// One job.
    pub(super) async fn get(
        &self,
        caller: &Caller,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<JobSummary, Error> {
        let namespace = caller.namespace_or_own(namespace);
        let kind = kind_named(kind)?;
        let review = AccessReview::new(namespace, "get", "kubeflow.org", kind.plural);
        self.authorizer.authorize(&caller.principal, &review).await?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.resource());
        let object = api.get(name).await.map_err(api_error)?;
        Job::read(kind, &object)
            .map(|job| summary(&job))
            .map_err(Error::internal)
    }
}

#[tonic::async_trait]
impl TrainingService for Reader {
    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let jobs = self.list(&caller, &request.namespace, &request.kind).await?;
        Ok(Response::new(ListJobsResponse { jobs }))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<JobSummary>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(Error::field("name", "is empty; name the job").into());
        }
        Ok(Response::new(
            self.get(&caller, &request.namespace, &request.kind, &request.name)
                .await?,
        ))
    }
}
