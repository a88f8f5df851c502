//! JSON below `/apis/ferroflow/v1/tuning`: what dashboards read, and where the launcher reports.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use ferroflow_api::ferroflow::tuning::v1::{ExperimentSummary, ListExperimentsResponse, ListTrialsResponse};
use ferroflow_auth::Caller;
use ferroflow_rpc::ErrorBody;
use serde::{Deserialize, Serialize};

use super::Reader;
use super::db_manager::{DbManagerService, time};
use crate::domain::observation::Report;

/// A trial's log as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Log {
    metrics: Vec<LogLine>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LogLine {
    /// RFC 3339.
    time: String,
    name: String,
    value: String,
}

#[derive(Clone)]
struct Services {
    reader: Reader,
    reports: DbManagerService,
}

/// Routes; the caller is in the extensions.
pub fn router(reader: Reader, reports: DbManagerService) -> Router {
    const ROOT: &str = "/apis/ferroflow/v1/tuning";
    Router::new()
        .route(
            &format!("{ROOT}/namespaces/{{namespace}}/experiments"),
            get(experiments),
        )
        .route(
            &format!("{ROOT}/namespaces/{{namespace}}/experiments/{{name}}"),
            get(experiment),
        )
        .route(
            &format!("{ROOT}/namespaces/{{namespace}}/experiments/{{name}}/trials"),
            get(trials),
        )
        .route(
            &format!("{ROOT}/namespaces/{{namespace}}/trials/{{name}}/observations"),
            get(log),
        )
        .route(&format!("{ROOT}/trials/{{name}}/observations"), post(report))
        .with_state(Services { reader, reports })
}

async fn experiments(
    State(services): State<Services>,
    caller: Caller,
    Path(namespace): Path<String>,
) -> Result<Json<ListExperimentsResponse>, ErrorBody> {
    let experiments = services.reader.experiments(&caller, &namespace).await?;
    Ok(Json(ListExperimentsResponse { experiments }))
}

async fn experiment(
    State(services): State<Services>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<ExperimentSummary>, ErrorBody> {
    Ok(Json(
        services.reader.experiment(&caller, &namespace, &name).await?,
    ))
}

async fn trials(
    State(services): State<Services>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<ListTrialsResponse>, ErrorBody> {
    Ok(Json(services.reader.trials(&caller, &namespace, &name).await?))
}

async fn log(
    State(services): State<Services>,
    caller: Caller,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<Log>, ErrorBody> {
    let reports = services.reader.log(&caller, &namespace, &name).await?;
    let line = |r: Report| LogLine {
        time: r.time.to_string(),
        name: r.name,
        value: r.value,
    };
    Ok(Json(Log {
        metrics: reports.into_iter().map(line).collect(),
    }))
}

/// What the launcher in front of a trial's command sends: `DBManager.ReportObservationLog` for a program that has no use for
/// gRPC. The trial is one of the caller's own namespace.
async fn report(
    State(services): State<Services>,
    caller: Caller,
    Path(name): Path<String>,
    Json(log): Json<Log>,
) -> Result<Json<serde_json::Value>, ErrorBody> {
    let mut reports = Vec::with_capacity(log.metrics.len());
    for line in log.metrics {
        reports.push(Report {
            time: time("metrics.time", &line.time)?,
            name: line.name,
            value: line.value,
        });
    }
    services.reports.report(&caller, &name, reports).await?;
    Ok(Json(serde_json::json!({})))
}
