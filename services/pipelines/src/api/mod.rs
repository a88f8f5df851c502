//! The service's API: KFP `v2beta1` as REST, plus what the dashboard needs beyond it.

mod experiments;
mod grpc;
mod json;
mod logs;
mod pipelines;
mod query;
mod recurring;
mod runs;
mod upload;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::{Clock, Code, DEFAULT_NAMESPACE, Error, Result};
use ferroflow_rpc::rest_error;
use k8s_openapi::api::core::v1::Namespace;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::options::Options;
use crate::store::Store;
use crate::worker::Scheduler;
use crate::worker::artifacts::Artifacts;

pub use grpc::Grpc;
pub use recurring::next_time;

/// Requests with a pipeline in them are at most so large.
const MAX_BODY: usize = 32 * 1024 * 1024 + 64 * 1024;
/// The API group in which rights are asked for.
const GROUP: &str = "pipelines.kubeflow.org";

/// Everything that requests need.
#[derive(Clone)]
pub struct Api {
    pub(crate) store: Store,
    pub(crate) scheduler: Scheduler,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) artifacts: Arc<dyn Artifacts>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) client: kube::Client,
}

type Params = HashMap<String, String>;

impl Api {
    /// The REST routes. They expect a [`Caller`] in each request's extensions.
    pub fn router(self) -> Router {
        let v2 = Router::new()
            .route("/healthz", get(healthz))
            .route("/experiments", post(experiments::create).get(experiments::list))
            .route(
                "/experiments/{id}",
                get(experiments::get)
                    .delete(experiments::delete)
                    .post(experiments::verb),
            )
            .route("/runs", post(runs::create).get(runs::list))
            .route("/runs/{id}", get(runs::get).delete(runs::delete).post(runs::verb))
            .route(
                "/runs/{id}/nodes/{node}/artifacts/{name}",
                get(logs::read_artifact),
            )
            .route(
                "/experiments/{experiment}/runs",
                get(runs::list_in).post(runs::create_in),
            )
            .route("/recurringruns", post(recurring::create).get(recurring::list))
            .route(
                "/recurringruns/{id}",
                get(recurring::get)
                    .delete(recurring::delete)
                    .post(recurring::verb),
            )
            .route("/pipelines", post(pipelines::create).get(pipelines::list))
            .route("/pipelines/create", post(pipelines::create_with_version))
            .route("/pipelines/upload", post(upload::pipeline))
            .route("/pipelines/upload_version", post(upload::version))
            .route("/pipelines/names/{name}", get(pipelines::by_name))
            .route(
                "/pipelines/{id}",
                get(pipelines::get)
                    .delete(pipelines::delete)
                    .patch(pipelines::update),
            )
            .route(
                "/pipelines/{id}/versions",
                post(pipelines::create_version).get(pipelines::versions),
            )
            .route(
                "/pipelines/{id}/versions/{version}",
                get(pipelines::version)
                    .delete(pipelines::delete_version)
                    .patch(pipelines::update_version),
            );
        Router::new()
            .nest("/apis/v2beta1", v2)
            .route("/apis/v1beta1/healthz", get(healthz))
            .route("/apis/v1alpha1/runs/{run}/nodes/{node}/log", get(logs::log))
            .route("/apis/ferroflow/v1/pipelines/runs/{id}/graph", get(runs::graph))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self.clone())
            .merge(self.hints())
    }

    /// The route that launchers call: they are no users, and bring a code instead of an identity.
    pub fn hints(self) -> Router {
        let path = format!(
            "{}/{{run}}/{{task}}/{{attempt}}/{{code}}",
            crate::worker::hints::PATH
        );
        Router::new().route(&path, post(hint)).with_state(self)
    }

    /// Asks whether a caller may do something.
    pub(crate) async fn allow(
        &self,
        caller: &Caller,
        namespace: &str,
        verb: &str,
        resource: &str,
    ) -> Result<()> {
        let review = AccessReview::new(namespace, verb, GROUP, resource);
        self.authorizer.authorize(&caller.principal, &review).await
    }

    /// Fails if there is no such namespace: a run in it could have no Pods.
    pub(crate) async fn namespace_exists(&self, name: &str) -> Result<()> {
        let namespaces: kube::Api<Namespace> = kube::Api::all(self.client.clone());
        match namespaces.get_metadata_opt(name).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::new(
                Code::NotFound,
                format!(
                    "namespace {name:?} does not exist; make it with a Profile or with kubectl create namespace {name}"
                ),
            )),
            Err(error) => Err(Error::new(
                Code::Unavailable,
                format!("namespace {name:?} cannot be looked up: {error}"),
            )),
        }
    }
}

async fn healthz(State(api): State<Api>) -> Response {
    drop(api);
    axum::Json(json!({
        "commit_sha": "unknown",
        "tag_name": ferroflow_kernel::VERSION,
        "multi_user": false,
        "pipeline_store": "database",
    }))
    .into_response()
}

async fn hint(
    State(api): State<Api>,
    Path((run, task, attempt, code)): Path<(String, String, u32, String)>,
) -> StatusCode {
    if !api.scheduler.hints().verify(&run, &task, attempt, &code) {
        return StatusCode::FORBIDDEN;
    }
    api.scheduler.hint(&run, &task, attempt).await;
    StatusCode::NO_CONTENT
}

/// A JSON answer, or an error in grpc-gateway's shape.
fn answer(result: Result<Value>) -> Response {
    match result {
        Ok(value) => axum::Json(value).into_response(),
        Err(error) => rest_error(&error),
    }
}

/// Reads a request's body.
fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("the request's body cannot be read: {error}")))
}

/// Splits `<id>:<verb>`.
fn id_and_verb(text: &str) -> (&str, &str) {
    text.rsplit_once(':').unwrap_or((text, ""))
}

/// The namespace that a request means.
fn namespace<'a>(caller: &'a Caller, named: Option<&'a String>) -> &'a str {
    match named.map(String::as_str) {
        Some(named) if !named.is_empty() => named,
        _ if caller.namespace.is_empty() => DEFAULT_NAMESPACE,
        _ => &caller.namespace,
    }
}

/// At most 20 tags; keys and values of 1-63 characters, no dot in a key.
fn check_tags(tags: &BTreeMap<String, String>) -> Result<()> {
    if tags.len() > 20 {
        return Err(Error::field(
            "tags",
            format!("{} tags are too many; 20 are allowed", tags.len()),
        ));
    }
    for (key, value) in tags {
        let fits = |text: &str| (1..=63).contains(&text.chars().count());
        if !fits(key) || !fits(value) || key.contains('.') {
            return Err(Error::field(
                format!("tags.{key}"),
                "keys and values have 1 to 63 characters, and a key has no dot",
            ));
        }
    }
    Ok(())
}

type Queried = Query<Params>;
