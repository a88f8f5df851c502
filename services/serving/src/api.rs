//! `ferroflow.serving.v1`: served models for dashboards.

use ferroflow_api::crd::serving::InferenceService;
use ferroflow_api::ferroflow::serving::v1::serving_service_server::ServingService;
use ferroflow_api::ferroflow::serving::v1::{GetModelRequest, ListModelsRequest, ListModelsResponse, Model};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The gRPC service.
pub struct ServingApi {
    client: Client,
    authorizer: Arc<dyn Authorizer>,
}

impl ServingApi {
    /// Reads through `client` what the caller may read.
    pub fn new(client: Client, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { client, authorizer }
    }

    async fn authorize<T>(&self, request: &Request<T>, named: &str, verb: &str) -> Result<String, Status> {
        let caller = Caller::of(request)?;
        let namespace = caller.namespace_or_own(named).to_owned();
        let review = AccessReview::new(&namespace, verb, "serving.kserve.io", "inferenceservices");
        self.authorizer.authorize(&caller.principal, &review).await?;
        Ok(namespace)
    }
}

fn unavailable(error: &kube::Error) -> Status {
    match error {
        kube::Error::Api(status) if status.code == 404 => Status::not_found(status.message.clone()),
        error => Status::unavailable(format!("the kubernetes api did not answer: {error}")),
    }
}

#[tonic::async_trait]
impl ServingService for ServingApi {
    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let namespace = self
            .authorize(&request, &request.get_ref().namespace, "list")
            .await?;
        let api: Api<InferenceService> = Api::namespaced(self.client.clone(), &namespace);
        let found = api
            .list(&ListParams::default())
            .await
            .map_err(|error| unavailable(&error))?;
        let models = found.items.iter().map(model).collect();
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<Model>, Status> {
        let namespace = self
            .authorize(&request, &request.get_ref().namespace, "get")
            .await?;
        let api: Api<InferenceService> = Api::namespaced(self.client.clone(), &namespace);
        let found = api
            .get(&request.get_ref().name)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(Response::new(model(&found)))
    }
}

fn model(service: &InferenceService) -> Model {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let spec = service.spec.predictor.model.as_ref();
    let status = service.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let failure = status.model_status.last_failure_info;
    let states = status.model_status.states.unwrap_or_default();
    let created = service
        .creation_timestamp()
        .map(|created| pbjson_types::Timestamp {
            seconds: created.0.as_second(),
            nanos: created.0.subsec_nanosecond(),
        });
    let word = |word: Option<String>| word.unwrap_or_default();
    Model {
        path: format!("/serving/{namespace}/{name}/"),
        format: spec.map_or_else(|| "custom".to_owned(), |model| model.model_format.name.clone()),
        storage_uri: spec
            .and_then(|model| model.storage_uri.clone())
            .unwrap_or_default(),
        runtime: word(
            status
                .serving_runtime_name
                .or(status.cluster_serving_runtime_name),
        ),
        protocol: spec
            .and_then(|model| model.protocol_version.clone())
            .unwrap_or_default(),
        ready: ready.is_some_and(|ready| ready.status == "True"),
        state: states.target_model_state,
        reason: word(
            failure
                .as_ref()
                .and_then(|failure| failure.reason.clone())
                .or_else(|| ready?.reason.clone()),
        ),
        message: word(
            failure
                .and_then(|failure| failure.message)
                .or_else(|| ready?.message.clone()),
        ),
        url: word(status.url),
        address: word(status.address.and_then(|address| address.url)),
        replicas: status.model_status.copies.map_or(0, |copies| copies.total_copies),
        created,
        namespace,
        name,
    }
}
