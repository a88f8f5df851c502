//! Runs.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use ferroflow_auth::Caller;
use ferroflow_kernel::{Code, Error, Result, new_id};
use ferroflow_telemetry::TraceContext;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::list_query;
use super::{Api, Queried, answer, body, id_and_verb, json as shape, namespace};
use crate::domain::package::Package;
use crate::domain::run::TaskState;
use crate::domain::validate::arguments;
use crate::store::{RunRow, StateChange};
use crate::worker::pod::slug;

/// What a run is made from, and with what.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    #[serde(default)]
    pub experiment_id: Option<String>,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub pipeline_spec: Option<Value>,
    #[serde(default)]
    pub pipeline_version_id: Option<String>,
    #[serde(default)]
    pub pipeline_version_reference: Option<Reference>,
    #[serde(default)]
    pub runtime_config: Option<RuntimeConfig>,
    #[serde(default)]
    pub service_account: Option<String>,
    #[serde(default, rename = "recurring_run_id")]
    pub _recurring_run_id: Option<String>,
    #[serde(default)]
    pub plugins_input: Option<Value>,
    #[serde(default, rename = "run_id")]
    pub _run_id: Option<Value>,
    #[serde(default, rename = "storage_state")]
    pub _storage_state: Option<Value>,
    #[serde(default, rename = "created_at")]
    pub _created_at: Option<Value>,
    #[serde(default, rename = "scheduled_at")]
    pub _scheduled_at: Option<Value>,
    #[serde(default, rename = "finished_at")]
    pub _finished_at: Option<Value>,
    #[serde(default, rename = "state")]
    pub _state: Option<Value>,
    #[serde(default, rename = "error")]
    pub _error: Option<Value>,
    #[serde(default, rename = "run_details")]
    pub _run_details: Option<Value>,
    #[serde(default, rename = "state_history")]
    pub _state_history: Option<Value>,
    #[serde(default, rename = "plugins_output")]
    pub _plugins_output: Option<Value>,
}

/// A version of a pipeline; the newest when only the pipeline is named.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    #[serde(default)]
    pub pipeline_id: String,
    #[serde(default)]
    pub pipeline_version_id: String,
}

/// Parameters and the place of outputs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    #[serde(default)]
    pub pipeline_root: Option<String>,
}

pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    params: Queried,
    bytes: Bytes,
) -> Response {
    let created = async {
        let mut request: Request = body(&bytes)?;
        request.experiment_id = request
            .experiment_id
            .or_else(|| params.get("experiment_id").cloned());
        api.create_run(&caller, request, None).await
    };
    answer(created.await)
}

pub(super) async fn create_in(
    State(api): State<Api>,
    caller: Caller,
    Path(experiment): Path<String>,
    bytes: Bytes,
) -> Response {
    let created = async {
        let request = Request {
            experiment_id: Some(experiment),
            ..body(&bytes)?
        };
        api.create_run(&caller, request, None).await
    };
    answer(created.await)
}

pub(super) async fn list(State(api): State<Api>, caller: Caller, params: Queried) -> Response {
    let experiment = params.get("experiment_id").cloned().unwrap_or_default();
    answer(api.list_runs(&caller, &experiment, &params).await)
}

pub(super) async fn list_in(
    State(api): State<Api>,
    caller: Caller,
    Path(experiment): Path<String>,
    params: Queried,
) -> Response {
    answer(api.list_runs(&caller, &experiment, &params).await)
}

pub(super) async fn get(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let found = async {
        let row = api.run(&caller, &id, "get").await?;
        let (tasks, attempts, ids) = tokio::try_join!(
            api.store.tasks(&id),
            api.store.attempts(&id),
            api.store.artifact_ids(&id)
        )?;
        let mut run = shape::run(&row);
        run["run_details"] = shape::details(&row, &tasks, &attempts, &ids);
        Ok(run)
    };
    answer(found.await)
}

pub(super) async fn graph(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let found = async {
        let row = api.run(&caller, &id, "get").await?;
        let (tasks, attempts, ids) = tokio::try_join!(
            api.store.tasks(&id),
            api.store.attempts(&id),
            api.store.artifact_ids(&id)
        )?;
        Ok(shape::graph(&row, &tasks, &attempts, &ids))
    };
    answer(found.await)
}

pub(super) async fn delete(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let deleted = async {
        let row = api.run(&caller, &id, "delete").await?;
        if !row.state.is_final() {
            api.store.terminate_run(&id).await?;
            api.scheduler.wake(&id);
        }
        api.scheduler.delete_pods(&row.namespace, &id).await;
        api.store.delete_run(&id).await?;
        api.scheduler.wake(&id);
        Ok(json!({}))
    };
    answer(deleted.await)
}

pub(super) async fn verb(State(api): State<Api>, caller: Caller, Path(text): Path<String>) -> Response {
    let (id, verb) = id_and_verb(&text);
    let done = async {
        let row = match verb {
            "archive" | "unarchive" | "terminate" | "retry" => api.run(&caller, id, "update").await?,
            other => return Err(Error::not_found("verb", other)),
        };
        match verb {
            "archive" | "unarchive" => api.store.archive_run(id, verb == "archive").await?,
            "terminate" => {
                // A run that is over already is as terminated as it can be.
                if !row.state.is_final() {
                    api.store.terminate_run(id).await?;
                    api.scheduler.wake(id);
                }
            }
            _ => {
                if !matches!(row.state, TaskState::Failed | TaskState::Canceled) {
                    return Err(Error::new(
                        Code::FailedPrecondition,
                        format!(
                            "run {id} is {}; only a failed or canceled run can be retried",
                            row.state.name()
                        ),
                    ));
                }
                api.store.retry_run(id, api.clock.now()).await?;
                api.scheduler.wake(id);
            }
        }
        Ok(json!({}))
    };
    answer(done.await)
}

/// When a run that a schedule makes was meant to start, and its id.
pub(super) struct Scheduled {
    pub run_id: String,
    pub at: Timestamp,
    pub recurring_run_id: String,
}

impl Api {
    /// The run of an id, if the caller may do this with it.
    pub(super) async fn run(&self, caller: &Caller, id: &str, verb: &str) -> Result<RunRow> {
        let row = self.store.run(id).await?;
        self.allow(caller, &row.namespace, verb, "runs").await?;
        Ok(row)
    }

    async fn list_runs(&self, caller: &Caller, experiment: &str, params: &super::Params) -> Result<Value> {
        // An experiment knows its namespace; runs of one that was deleted are found by the namespace.
        let namespace = match self.store.experiment(experiment).await {
            Ok(row) if !experiment.is_empty() => row.namespace,
            _ => namespace(caller, params.get("namespace")).to_owned(),
        };
        self.allow(caller, &namespace, "list", "runs").await?;
        let page = self
            .store
            .list_runs(&namespace, experiment, &list_query(params)?)
            .await?;
        Ok(shape::page("runs", &page, shape::run))
    }

    /// Checks a request, records the run and starts it.
    pub(super) async fn create_run(
        &self,
        caller: &Caller,
        request: Request,
        scheduled: Option<Scheduled>,
    ) -> Result<Value> {
        let experiment = match request.experiment_id.as_deref() {
            None | Some("") => {
                self.allow(caller, &caller.namespace, "create", "runs").await?;
                self.namespace_exists(&caller.namespace).await?;
                self.default_experiment(&caller.namespace).await?
            }
            Some(id) => {
                let known = self.store.experiment(id).await?;
                self.allow(caller, &known.namespace, "create", "runs").await?;
                self.namespace_exists(&known.namespace).await?;
                known
            }
        };
        if experiment.archived {
            return Err(Error::new(
                Code::FailedPrecondition,
                format!(
                    "experiment {:?} is archived; unarchive it or use another",
                    experiment.display_name
                ),
            ));
        }
        if request
            .plugins_input
            .as_ref()
            .is_some_and(|p| p.as_object().is_some_and(|p| !p.is_empty()))
        {
            return Err(Error::unimplemented("plugins_input"));
        }
        let (package, pipeline_id, version_id) = self.source(caller, &request).await?;
        let config = request.runtime_config.unwrap_or_default();
        let parameters = arguments(&package.spec, &config.parameters)?;
        let pipeline_root = [
            config.pipeline_root.as_deref(),
            Some(package.spec.default_pipeline_root.as_str()),
        ]
        .into_iter()
        .flatten()
        .find(|root| !root.is_empty())
        .unwrap_or(&self.options.pipeline_root)
        .to_owned();
        if !["s3://", "minio://", "gs://"]
            .iter()
            .any(|scheme| pipeline_root.starts_with(scheme))
        {
            return Err(Error::field(
                "runtime_config.pipeline_root",
                format!("{pipeline_root:?} is not supported; use s3://, minio:// or gs://"),
            ));
        }
        let now = self.clock.now();
        let name = package.spec.pipeline_info.name.clone();
        let id = scheduled.as_ref().map_or_else(new_id, |s| s.run_id.clone());
        let tail: String = id.replace('-', "").chars().rev().take(6).collect();
        let head: String = slug(&name).chars().take(21).collect();
        let row = RunRow {
            namespace: experiment.namespace,
            experiment_id: experiment.id,
            display_name: if request.display_name.is_empty() {
                name.clone()
            } else {
                request.display_name
            },
            description: request.description.unwrap_or_default(),
            archived: false,
            state: TaskState::Pending,
            error: None,
            pipeline_name: name,
            spec: package.to_json(),
            pipeline_id,
            version_id,
            parameters,
            runtime_config: shape::compact(json!({
                "parameters": config.parameters,
                "pipeline_root": config.pipeline_root,
            })),
            pipeline_root,
            service_account: request.service_account.unwrap_or_default(),
            resource_name: format!("{}-{tail}", head.trim_end_matches('-')),
            recurring_run_id: scheduled
                .as_ref()
                .map(|s| s.recurring_run_id.clone())
                .unwrap_or_default(),
            created_by: caller.principal.user.clone(),
            created_at: now,
            scheduled_at: scheduled.as_ref().map_or(now, |s| s.at),
            finished_at: Timestamp::UNIX_EPOCH,
            history: vec![StateChange {
                update_time: now,
                state: TaskState::Pending,
                error: None,
            }],
            terminate: false,
            revision: 1,
            trace: TraceContext::current(),
            id,
        };
        self.store.create_run(&row).await?;
        self.scheduler.wake(&row.id);
        Ok(shape::run(&row))
    }

    /// The pipeline of a request, with the ids of pipeline and version where it has them.
    pub(super) async fn source(
        &self,
        caller: &Caller,
        request: &Request,
    ) -> Result<(std::sync::Arc<Package>, String, String)> {
        let reference = request.pipeline_version_reference.clone().unwrap_or_default();
        let version_id = [
            reference.pipeline_version_id,
            request.pipeline_version_id.clone().unwrap_or_default(),
        ]
        .concat();
        match &request.pipeline_spec {
            Some(spec) if spec.as_object().is_none_or(|s| !s.is_empty()) => {
                Ok((Package::from_json(spec)?, String::new(), String::new()))
            }
            _ if reference.pipeline_id.is_empty() => Err(Error::field(
                "pipeline_spec",
                "is missing; pass a pipeline_spec, or a pipeline_version_reference with a pipeline_id",
            )),
            _ => {
                let pipeline = self.pipeline(caller, &reference.pipeline_id, "get").await?;
                let version = self.store.version(&pipeline.id, &version_id).await?;
                Ok((Package::from_json(&version.spec)?, pipeline.id, version.id))
            }
        }
    }
}
