//! KFP `v2beta1` over gRPC. Upstream's gateway turns REST into gRPC; here it is the other way round: each call is the
//! REST call of the same meaning, so that both always do the same.

use axum::Router;
use axum::body::Body;
use ferroflow_api::kubeflow::pipelines::backend::api::v2beta1 as proto;
use ferroflow_api::kubeflow::pipelines::backend::api::v2beta1::{
    experiment_service_server::ExperimentService, pipeline_service_server::PipelineService,
    run_service_server::RunService,
};
use ferroflow_auth::Caller;
use http_body_util::BodyExt as _;
use pbjson_types::Empty;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use crate::domain::values::normalise;

/// The gRPC services, in front of the REST routes.
#[derive(Clone)]
pub struct Grpc {
    router: Router,
}

type Answer<T> = Result<Response<T>, Status>;

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `?a=b&c=d`, without what is empty.
fn query(pairs: &[(&str, &str)]) -> String {
    let set: Vec<String> = pairs
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| format!("{k}={}", escaped(v)))
        .collect();
    if set.is_empty() {
        String::new()
    } else {
        format!("?{}", set.join("&"))
    }
}

impl Grpc {
    /// In front of routes.
    pub fn new(router: Router) -> Self {
        Self { router }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        caller: Caller,
        method: &str,
        path: String,
        body: Option<Value>,
    ) -> Answer<T> {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("/apis/v2beta1{path}"))
            .body(body)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        request.extensions_mut().insert(caller);
        let Ok(response) = self.router.clone().oneshot(request).await;
        let good = response.status().is_success();
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .to_bytes();
        let mut value: Value =
            serde_json::from_slice(&bytes).map_err(|error| Status::internal(error.to_string()))?;
        if !good {
            let code = value["code"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(2);
            return Err(Status::new(
                tonic::Code::from(code),
                value["message"].as_str().unwrap_or_default(),
            ));
        }
        without_tags(&mut value);
        serde_json::from_value(value)
            .map(Response::new)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// The messages have no tags: REST got them later.
fn without_tags(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("tags");
            for list in ["pipelines", "pipeline_versions"] {
                if let Some(list) = fields.get_mut(list) {
                    without_tags(list);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_tags),
        _ => {}
    }
}

/// A message as REST has it; protobuf's numbers are doubles, and most are meant as integers.
fn json<T: Serialize>(message: &T) -> Result<Option<Value>, Status> {
    serde_json::to_value(message)
        .map(|value| Some(normalise(value)))
        .map_err(|error| Status::internal(error.to_string()))
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    Ok(Caller::of(request)?)
}

fn pages(namespace: &str, experiment: &str, token: &str, size: i32, sort: &str, filter: &str) -> String {
    let size = if size == 0 {
        String::new()
    } else {
        size.to_string()
    };
    query(&[
        ("namespace", namespace),
        ("experiment_id", experiment),
        ("page_token", token),
        ("page_size", &size),
        ("sort_by", sort),
        ("filter", filter),
    ])
}

#[tonic::async_trait]
impl RunService for Grpc {
    async fn create_run(&self, request: Request<proto::CreateRunRequest>) -> Answer<proto::Run> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            "/runs".into(),
            json(&request.run.unwrap_or_default())?,
        )
        .await
    }

    async fn get_run(&self, request: Request<proto::GetRunRequest>) -> Answer<proto::Run> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(who, "GET", format!("/runs/{}", escaped(&request.run_id)), None)
            .await
    }

    async fn list_runs(&self, request: Request<proto::ListRunsRequest>) -> Answer<proto::ListRunsResponse> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let query = pages(
            &r.namespace,
            &r.experiment_id,
            &r.page_token,
            r.page_size,
            &r.sort_by,
            &r.filter,
        );
        self.call(who, "GET", format!("/runs{query}"), None).await
    }

    async fn archive_run(&self, request: Request<proto::ArchiveRunRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/runs/{}:archive", escaped(&request.run_id)),
            None,
        )
        .await
    }

    async fn unarchive_run(&self, request: Request<proto::UnarchiveRunRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/runs/{}:unarchive", escaped(&request.run_id)),
            None,
        )
        .await
    }

    async fn delete_run(&self, request: Request<proto::DeleteRunRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(who, "DELETE", format!("/runs/{}", escaped(&request.run_id)), None)
            .await
    }

    async fn read_artifact(
        &self,
        request: Request<proto::ReadArtifactRequest>,
    ) -> Answer<proto::ReadArtifactResponse> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let (run, node, name) = (escaped(&r.run_id), escaped(&r.node_id), escaped(&r.artifact_name));
        self.call(
            who,
            "GET",
            format!("/runs/{run}/nodes/{node}/artifacts/{name}:read"),
            None,
        )
        .await
    }

    async fn terminate_run(&self, request: Request<proto::TerminateRunRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/runs/{}:terminate", escaped(&request.run_id)),
            None,
        )
        .await
    }

    async fn retry_run(&self, request: Request<proto::RetryRunRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/runs/{}:retry", escaped(&request.run_id)),
            None,
        )
        .await
    }
}

#[tonic::async_trait]
impl ExperimentService for Grpc {
    async fn create_experiment(
        &self,
        request: Request<proto::CreateExperimentRequest>,
    ) -> Answer<proto::Experiment> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            "/experiments".into(),
            json(&request.experiment.unwrap_or_default())?,
        )
        .await
    }

    async fn get_experiment(
        &self,
        request: Request<proto::GetExperimentRequest>,
    ) -> Answer<proto::Experiment> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "GET",
            format!("/experiments/{}", escaped(&request.experiment_id)),
            None,
        )
        .await
    }

    async fn list_experiments(
        &self,
        request: Request<proto::ListExperimentsRequest>,
    ) -> Answer<proto::ListExperimentsResponse> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let query = pages(
            &r.namespace,
            "",
            &r.page_token,
            r.page_size,
            &r.sort_by,
            &r.filter,
        );
        self.call(who, "GET", format!("/experiments{query}"), None).await
    }

    async fn archive_experiment(&self, request: Request<proto::ArchiveExperimentRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/experiments/{}:archive", escaped(&request.experiment_id)),
            None,
        )
        .await
    }

    async fn unarchive_experiment(
        &self,
        request: Request<proto::UnarchiveExperimentRequest>,
    ) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            format!("/experiments/{}:unarchive", escaped(&request.experiment_id)),
            None,
        )
        .await
    }

    async fn delete_experiment(&self, request: Request<proto::DeleteExperimentRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "DELETE",
            format!("/experiments/{}", escaped(&request.experiment_id)),
            None,
        )
        .await
    }
}

#[tonic::async_trait]
impl PipelineService for Grpc {
    async fn create_pipeline(
        &self,
        request: Request<proto::CreatePipelineRequest>,
    ) -> Answer<proto::Pipeline> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "POST",
            "/pipelines".into(),
            json(&request.pipeline.unwrap_or_default())?,
        )
        .await
    }

    async fn get_pipeline(&self, request: Request<proto::GetPipelineRequest>) -> Answer<proto::Pipeline> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "GET",
            format!("/pipelines/{}", escaped(&request.pipeline_id)),
            None,
        )
        .await
    }

    async fn get_pipeline_by_name(
        &self,
        request: Request<proto::GetPipelineByNameRequest>,
    ) -> Answer<proto::Pipeline> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let query = query(&[("namespace", &r.namespace)]);
        self.call(
            who,
            "GET",
            format!("/pipelines/names/{}{query}", escaped(&r.name)),
            None,
        )
        .await
    }

    async fn list_pipelines(
        &self,
        request: Request<proto::ListPipelinesRequest>,
    ) -> Answer<proto::ListPipelinesResponse> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let query = pages(
            &r.namespace,
            "",
            &r.page_token,
            r.page_size,
            &r.sort_by,
            &r.filter,
        );
        self.call(who, "GET", format!("/pipelines{query}"), None).await
    }

    async fn delete_pipeline(&self, request: Request<proto::DeletePipelineRequest>) -> Answer<Empty> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(
            who,
            "DELETE",
            format!("/pipelines/{}", escaped(&request.pipeline_id)),
            None,
        )
        .await
    }

    async fn create_pipeline_and_version(
        &self,
        request: Request<proto::CreatePipelineAndVersionRequest>,
    ) -> Answer<proto::Pipeline> {
        let (who, request) = (caller(&request)?, request.into_inner());
        self.call(who, "POST", "/pipelines/create".into(), json(&request)?)
            .await
    }

    async fn create_pipeline_version(
        &self,
        request: Request<proto::CreatePipelineVersionRequest>,
    ) -> Answer<proto::PipelineVersion> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let path = format!("/pipelines/{}/versions", escaped(&r.pipeline_id));
        self.call(who, "POST", path, json(&r.pipeline_version.unwrap_or_default())?)
            .await
    }

    async fn get_pipeline_version(
        &self,
        request: Request<proto::GetPipelineVersionRequest>,
    ) -> Answer<proto::PipelineVersion> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let path = format!(
            "/pipelines/{}/versions/{}",
            escaped(&r.pipeline_id),
            escaped(&r.pipeline_version_id)
        );
        self.call(who, "GET", path, None).await
    }

    async fn list_pipeline_versions(
        &self,
        request: Request<proto::ListPipelineVersionsRequest>,
    ) -> Answer<proto::ListPipelineVersionsResponse> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let query = pages("", "", &r.page_token, r.page_size, &r.sort_by, &r.filter);
        self.call(
            who,
            "GET",
            format!("/pipelines/{}/versions{query}", escaped(&r.pipeline_id)),
            None,
        )
        .await
    }

    async fn delete_pipeline_version(
        &self,
        request: Request<proto::DeletePipelineVersionRequest>,
    ) -> Answer<Empty> {
        let (who, r) = (caller(&request)?, request.into_inner());
        let path = format!(
            "/pipelines/{}/versions/{}",
            escaped(&r.pipeline_id),
            escaped(&r.pipeline_version_id)
        );
        self.call(who, "DELETE", path, None).await
    }
}
