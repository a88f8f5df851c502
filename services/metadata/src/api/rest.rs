//! JSON for the dashboard below `/apis/ferroflow/v1/metadata`, and the faces that come later.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use ferroflow_auth::Caller;
use ferroflow_kernel::Error;
use ferroflow_rpc::{ErrorBody, rest_error};
use serde::Deserialize;

use super::enter::Service;

pub(crate) fn router(service: Service) -> Router {
    let later = |what: &'static str| any(move || async move { rest_error(&Error::unimplemented(what)) });
    let mut router = Router::new()
        .route("/apis/ferroflow/v1/metadata/runs/{run}/lineage", get(lineage))
        .route("/apis/ferroflow/v1/metadata/models", get(models));
    for path in ["/api/model_registry/{*rest}", "/api/model_catalog/{*rest}"] {
        router = router.route(path, later("the Model Registry's REST API"));
    }
    for path in [
        "/api/2.0/mlflow/{*rest}",
        "/api/2.0/mlflow-artifacts/{*rest}",
        "/api/3.0/mlflow/{*rest}",
    ] {
        router = router.route(path, later("the MLflow tracking API"));
    }
    router.with_state(service)
}

#[derive(Deserialize)]
struct LineageQuery {
    #[serde(default)]
    namespace: String,
}

async fn lineage(
    State(service): State<Service>,
    Path(run): Path<String>,
    Query(query): Query<LineageQuery>,
    caller: Caller,
) -> Result<Response, ErrorBody> {
    let namespace = caller.namespace_or_own(&query.namespace);
    service.right(&caller, namespace, "list", "artifacts").await?;
    service.right(&caller, namespace, "list", "executions").await?;
    let lineage = service.run_lineage(namespace, &run).await.map_err(Error::from)?;
    Ok(Json(lineage).into_response())
}

#[derive(Deserialize)]
struct ModelsQuery {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    page_size: i32,
    #[serde(default)]
    page_token: String,
}

async fn models(
    State(service): State<Service>,
    Query(query): Query<ModelsQuery>,
    caller: Caller,
) -> Result<Response, ErrorBody> {
    let namespace = caller.namespace_or_own(&query.namespace);
    service.right(&caller, namespace, "list", "artifacts").await?;
    let models = service
        .models(namespace, query.page_size, query.page_token)
        .await
        .map_err(Error::from)?;
    Ok(Json(models).into_response())
}
