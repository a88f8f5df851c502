//! The same as JSON below `/apis/ferroflow/v1/training`.

use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use ferroflow_api::ferroflow::training::v1::{JobSummary, ListJobsResponse};
use ferroflow_auth::Caller;
use ferroflow_rpc::ErrorBody;
use serde::Deserialize;

use super::Reader;

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    kind: String,
}

/// Routes; the caller is in the extensions.
pub fn router(reader: Reader) -> Router {
    Router::new()
        .route(
            "/apis/ferroflow/v1/training/namespaces/{namespace}/jobs",
            get(list),
        )
        .route(
            "/apis/ferroflow/v1/training/namespaces/{namespace}/jobs/{kind}/{name}",
            get(one),
        )
        .with_state(reader)
}

async fn list(
    State(reader): State<Reader>,
    caller: Caller,
    Path(namespace): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListJobsResponse>, ErrorBody> {
    let jobs = reader.list(&caller, &namespace, &query.kind).await?;
    Ok(Json(ListJobsResponse { jobs }))
}

async fn one(
    State(reader): State<Reader>,
    caller: Caller,
    Path((namespace, kind, name)): Path<(String, String, String)>,
) -> Result<Json<JobSummary>, ErrorBody> {
    Ok(Json(reader.get(&caller, &namespace, &kind, &name).await?))
}
