//! Pipelines and their versions.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use ferroflow_auth::Caller;
use ferroflow_kernel::{Error, Result, new_id};
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::list_query;
use super::{Api, Queried, answer, body, check_tags, json as shape, namespace};
use crate::domain::package::Package;
use crate::store::{PipelineRow, VersionRow};

/// A pipeline as clients send it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineRequest {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub namespace: Option<String>,
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "pipeline_id")]
    pub _pipeline_id: Option<Value>,
    #[serde(default, rename = "created_at")]
    pub _created_at: Option<Value>,
    #[serde(default, rename = "error")]
    pub _error: Option<Value>,
}

/// A version as clients send it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionRequest {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub code_source_url: Option<String>,
    #[serde(default)]
    pub package_url: Option<Url>,
    #[serde(default)]
    pub pipeline_spec: Option<Value>,
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "pipeline_id")]
    pub _pipeline_id: Option<Value>,
    #[serde(default, rename = "pipeline_version_id")]
    pub _pipeline_version_id: Option<Value>,
    #[serde(default, rename = "created_at")]
    pub _created_at: Option<Value>,
    #[serde(default, rename = "error")]
    pub _error: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Url {
    #[serde(default)]
    pub pipeline_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    pipeline: PipelineRequest,
    pipeline_version: VersionRequest,
}

pub(super) async fn create(State(api): State<Api>, caller: Caller, bytes: Bytes) -> Response {
    let created = async {
        let row = api.new_pipeline(&caller, body(&bytes)?, "").await?;
        api.store.create_pipeline(&row, None).await?;
        Ok(shape::pipeline(&row))
    };
    answer(created.await)
}

pub(super) async fn create_with_version(State(api): State<Api>, caller: Caller, bytes: Bytes) -> Response {
    let created = async {
        let Both {
            pipeline,
            pipeline_version,
        } = body(&bytes)?;
        let row = api.new_pipeline(&caller, pipeline, "").await?;
        let version = api.new_version(&row, pipeline_version)?;
        api.store.create_pipeline(&row, Some(&version)).await?;
        Ok(shape::pipeline(&row))
    };
    answer(created.await)
}

pub(super) async fn list(State(api): State<Api>, caller: Caller, params: Queried) -> Response {
    let listed = async {
        let namespace = namespace(&caller, params.get("namespace"));
        api.allow(&caller, namespace, "list", "pipelines").await?;
        let page = api.store.list_pipelines(namespace, &list_query(&params)?).await?;
        Ok(shape::page("pipelines", &page, shape::pipeline))
    };
    answer(listed.await)
}

pub(super) async fn by_name(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    params: Queried,
) -> Response {
    let found = async {
        let namespace = namespace(&caller, params.get("namespace"));
        api.allow(&caller, namespace, "get", "pipelines").await?;
        Ok(shape::pipeline(
            &api.store.pipeline_by_name(namespace, &name).await?,
        ))
    };
    answer(found.await)
}

pub(super) async fn get(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let found = async { Ok(shape::pipeline(&api.pipeline(&caller, &id, "get").await?)) };
    answer(found.await)
}

pub(super) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Response {
    let updated = async {
        let mut row = api.pipeline(&caller, &id, "update").await?;
        let change: PipelineRequest = body(&bytes)?;
        if !change.display_name.is_empty() {
            row.display_name = change.display_name;
        }
        row.description = change.description.unwrap_or(row.description);
        row.tags = change.tags.unwrap_or(row.tags);
        check_tags(&row.tags)?;
        api.store.update_pipeline(&row).await?;
        Ok(shape::pipeline(&row))
    };
    answer(updated.await)
}

pub(super) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Queried,
) -> Response {
    let deleted = async {
        api.pipeline(&caller, &id, "delete").await?;
        let cascade = params.get("cascade").is_some_and(|text| text == "true");
        api.store.delete_pipeline(&id, cascade).await?;
        Ok(json!({}))
    };
    answer(deleted.await)
}

pub(super) async fn create_version(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Response {
    let created = async {
        let pipeline = api.pipeline(&caller, &id, "update").await?;
        let row = api.new_version(&pipeline, body(&bytes)?)?;
        api.store.create_version(&row).await?;
        Ok(shape::version(&row))
    };
    answer(created.await)
}

pub(super) async fn versions(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    params: Queried,
) -> Response {
    let listed = async {
        api.pipeline(&caller, &id, "get").await?;
        let page = api.store.list_versions(&id, &list_query(&params)?).await?;
        Ok(shape::page("pipeline_versions", &page, shape::version))
    };
    answer(listed.await)
}

pub(super) async fn version(
    State(api): State<Api>,
    caller: Caller,
    Path((id, version)): Path<(String, String)>,
) -> Response {
    let found = async {
        api.pipeline(&caller, &id, "get").await?;
        Ok(shape::version(&api.store.version(&id, &version).await?))
    };
    answer(found.await)
}

pub(super) async fn update_version(
    State(api): State<Api>,
    caller: Caller,
    Path((id, version)): Path<(String, String)>,
    bytes: Bytes,
) -> Response {
    let updated = async {
        api.pipeline(&caller, &id, "update").await?;
        let mut row = api.store.version(&id, &version).await?;
        let change: VersionRequest = body(&bytes)?;
        if !change.display_name.is_empty() {
            row.display_name = change.display_name;
        }
        row.description = change.description.unwrap_or(row.description);
        row.tags = change.tags.unwrap_or(row.tags);
        check_tags(&row.tags)?;
        api.store.update_version(&row).await?;
        Ok(shape::version(&row))
    };
    answer(updated.await)
}

pub(super) async fn delete_version(
    State(api): State<Api>,
    caller: Caller,
    Path((id, version)): Path<(String, String)>,
) -> Response {
    let deleted = async {
        api.pipeline(&caller, &id, "update").await?;
        let row = api.store.version(&id, &version).await?;
        api.store.delete_version(&row.id).await?;
        Ok(json!({}))
    };
    answer(deleted.await)
}

impl Api {
    /// The pipeline of an id, if the caller may do this with it.
    pub(super) async fn pipeline(&self, caller: &Caller, id: &str, verb: &str) -> Result<PipelineRow> {
        let row = self.store.pipeline(id).await?;
        self.allow(caller, &row.namespace, verb, "pipelines").await?;
        Ok(row)
    }

    pub(super) async fn new_pipeline(
        &self,
        caller: &Caller,
        request: PipelineRequest,
        fallback: &str,
    ) -> Result<PipelineRow> {
        let namespace = namespace(caller, request.namespace.as_ref());
        self.allow(caller, namespace, "create", "pipelines").await?;
        let first = |texts: [&str; 3]| {
            texts
                .into_iter()
                .find(|t| !t.is_empty())
                .unwrap_or_default()
                .to_owned()
        };
        let name = first([&request.name, &request.display_name, fallback]);
        if name.is_empty() {
            return Err(Error::field("name", "is empty; give the pipeline a name"));
        }
        let tags = request.tags.unwrap_or_default();
        check_tags(&tags)?;
        Ok(PipelineRow {
            id: new_id(),
            namespace: namespace.to_owned(),
            display_name: first([&request.display_name, &request.name, fallback]),
            name,
            description: request.description.unwrap_or_default(),
            created_at: self.clock.now(),
            tags,
        })
    }

    pub(super) fn new_version(&self, pipeline: &PipelineRow, request: VersionRequest) -> Result<VersionRow> {
        let Some(spec) = &request.pipeline_spec else {
            if request
                .package_url
                .is_some_and(|url| !url.pipeline_url.is_empty())
            {
                return Err(Error::unimplemented("package_url: reading a package from a URL"));
            }
            return Err(Error::field(
                "pipeline_spec",
                "is missing; upload the package or pass the pipeline_spec",
            ));
        };
        let package = Package::from_json(spec)?;
        let first = |texts: [&str; 3]| {
            texts
                .into_iter()
                .find(|t| !t.is_empty())
                .unwrap_or_default()
                .to_owned()
        };
        let tags = request.tags.unwrap_or_default();
        check_tags(&tags)?;
        Ok(VersionRow {
            id: new_id(),
            pipeline_id: pipeline.id.clone(),
            name: first([&request.name, &request.display_name, &pipeline.name]),
            display_name: first([&request.display_name, &request.name, &pipeline.display_name]),
            description: request.description.unwrap_or_default(),
            created_at: self.clock.now(),
            code_source_url: request.code_source_url.unwrap_or_default(),
            package_url: request.package_url.unwrap_or_default().pipeline_url,
            spec: package.to_json(),
            tags,
        })
    }
}
