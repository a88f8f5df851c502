//! Experiments.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use ferroflow_auth::Caller;
use ferroflow_kernel::{Error, Result, new_id};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::list_query;
use super::{Api, Queried, answer, body, id_and_verb, json as shape, namespace};
use crate::store::ExperimentRow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default, alias = "displayName")]
    display_name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default, rename = "experiment_id")]
    _experiment_id: Option<Value>,
    #[serde(default, rename = "created_at")]
    _created_at: Option<Value>,
    #[serde(default, rename = "storage_state")]
    _storage_state: Option<Value>,
    #[serde(default, rename = "last_run_created_at")]
    _last_run_created_at: Option<Value>,
}

pub(super) async fn create(State(api): State<Api>, caller: Caller, bytes: Bytes) -> Response {
    answer(api.create_experiment(&caller, &bytes).await)
}

pub(super) async fn list(State(api): State<Api>, caller: Caller, params: Queried) -> Response {
    let listed = async {
        let namespace = namespace(&caller, params.get("namespace"));
        api.allow(&caller, namespace, "list", "experiments").await?;
        let page = api
            .store
            .list_experiments(namespace, &list_query(&params)?)
            .await?;
        Ok(shape::page("experiments", &page, shape::experiment))
    };
    answer(listed.await)
}

pub(super) async fn get(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let found = async { Ok(shape::experiment(&api.experiment(&caller, &id, "get").await?)) };
    answer(found.await)
}

pub(super) async fn delete(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let deleted = async {
        api.experiment(&caller, &id, "delete").await?;
        api.store.delete_experiment(&id).await?;
        Ok(json!({}))
    };
    answer(deleted.await)
}

pub(super) async fn verb(State(api): State<Api>, caller: Caller, Path(text): Path<String>) -> Response {
    let (id, verb) = id_and_verb(&text);
    let done = async {
        let archive = match verb {
            "archive" => true,
            "unarchive" => false,
            other => return Err(Error::not_found("verb", other)),
        };
        api.experiment(&caller, id, "update").await?;
        api.store.archive_experiment(id, archive).await?;
        Ok(json!({}))
    };
    answer(done.await)
}

impl Api {
    async fn create_experiment(&self, caller: &Caller, bytes: &[u8]) -> Result<Value> {
        let request: Request = body(bytes)?;
        let namespace = namespace(caller, request.namespace.as_ref());
        self.allow(caller, namespace, "create", "experiments").await?;
        if request.display_name.is_empty() {
            return Err(Error::field(
                "display_name",
                "is empty; give the experiment a name",
            ));
        }
        let row = self.new_experiment(
            namespace,
            &request.display_name,
            request.description.unwrap_or_default(),
        );
        self.namespace_exists(namespace).await?;
        self.store.create_experiment(&row).await?;
        Ok(shape::experiment(&row))
    }

    fn new_experiment(&self, namespace: &str, name: &str, description: String) -> ExperimentRow {
        ExperimentRow {
            id: new_id(),
            namespace: namespace.to_owned(),
            display_name: name.to_owned(),
            description,
            archived: false,
            created_at: self.clock.now(),
            last_run_created_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// The experiment of an id, if the caller may do this with it.
    pub(super) async fn experiment(&self, caller: &Caller, id: &str, verb: &str) -> Result<ExperimentRow> {
        let row = self.store.experiment(id).await?;
        self.allow(caller, &row.namespace, verb, "experiments").await?;
        Ok(row)
    }

    /// The experiment of runs that name none.
    pub(super) async fn default_experiment(&self, namespace: &str) -> Result<ExperimentRow> {
        if let Some(row) = self.store.experiment_by_name(namespace, "Default").await? {
            return Ok(row);
        }
        let row = self.new_experiment(namespace, "Default", "runs that name no experiment".to_owned());
        match self.store.create_experiment(&row).await {
            Ok(()) => Ok(row),
            Err(error) => self
                .store
                .experiment_by_name(namespace, "Default")
                .await?
                .ok_or(error),
        }
    }
}
