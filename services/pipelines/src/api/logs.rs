//! Logs of steps, and small artifacts in JSON.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use ferroflow_auth::Caller;
use ferroflow_kernel::{Code, Error, Result};
use ferroflow_rpc::rest_error;
use futures::io::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api as Kube, LogParams};
use serde_json::{Value, json};

use super::{Api, Queried, answer};
use crate::store::AttemptRow;

/// An artifact in JSON is at most so large.
const MAX_ARTIFACT: usize = 16 * 1024 * 1024;

pub(super) async fn log(
    State(api): State<Api>,
    caller: Caller,
    Path((run, node)): Path<(String, String)>,
    params: Queried,
) -> Response {
    match api.log(&caller, &run, &node, &params).await {
        Ok(response) => response,
        Err(error) => rest_error(&error),
    }
}

pub(super) async fn read_artifact(
    State(api): State<Api>,
    caller: Caller,
    Path((run, node, name)): Path<(String, String, String)>,
) -> Response {
    answer(
        api.read_artifact(&caller, &run, &node, name.trim_end_matches(":read"))
            .await,
    )
}

impl Api {
    /// The newest attempt of a node: a Pod's name, a task's id or a task's path.
    async fn attempt(&self, run: &str, node: &str) -> Result<AttemptRow> {
        let tasks = self.store.tasks(run).await?;
        let path = tasks
            .iter()
            .find(|t| t.task_id == node || t.path == node)
            .map(|t| t.path.clone());
        let attempts = self.store.attempts(run).await?;
        let is_it = |a: &&AttemptRow| a.pod_name == node || Some(&a.path) == path.as_ref();
        attempts
            .iter()
            .rev()
            .find(is_it)
            .cloned()
            .ok_or_else(|| Error::not_found("a step's Pod in this run for node", node))
    }

    async fn log(&self, caller: &Caller, run: &str, node: &str, params: &super::Params) -> Result<Response> {
        let row = self.run(caller, run, "get").await?;
        let attempt = self.attempt(run, node).await?;
        let pods: Kube<Pod> = Kube::namespaced(self.client.clone(), &row.namespace);
        let options = LogParams {
            container: Some("main".to_owned()),
            follow: params.get("follow").is_some_and(|text| text == "true"),
            tail_lines: params.get("tail_lines").and_then(|text| text.parse().ok()),
            ..LogParams::default()
        };
        let stream = pods
            .log_stream(&attempt.pod_name, &options)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) if status.is_not_found() => Error::new(
                    Code::NotFound,
                    format!("the log of {} is gone with its Pod", attempt.pod_name),
                ),
                kube::Error::Api(status) => Error::new(Code::FailedPrecondition, status.message.clone()),
                error => Error::new(Code::Unavailable, error.to_string()),
            })?;
        let chunks = futures::stream::unfold(Box::pin(stream), |mut stream| async move {
            let mut buffer = vec![0_u8; 16 * 1024];
            match stream.read(&mut buffer).await {
                Ok(0) => None,
                Ok(read) => {
                    buffer.truncate(read);
                    Some((Ok::<_, std::io::Error>(bytes::Bytes::from(buffer)), stream))
                }
                Err(error) => Some((Err(error), stream)),
            }
        });
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Ok((headers, Body::from_stream(chunks)).into_response())
    }

    async fn read_artifact(&self, caller: &Caller, run: &str, node: &str, name: &str) -> Result<Value> {
        self.run(caller, run, "get").await?;
        let attempt = self.attempt(run, node).await?;
        let tasks = self.store.tasks(run).await?;
        let artifact = tasks
            .iter()
            .find(|t| t.path == attempt.path)
            .and_then(|t| t.outputs.artifacts.get(name)?.first())
            .ok_or_else(|| Error::not_found("output artifact", name))?;
        let bytes = self.artifacts.get(&artifact.uri, MAX_ARTIFACT).await?;
        let bytes = bytes.ok_or_else(|| Error::not_found("the bytes of artifact", &artifact.uri))?;
        Ok(json!({"data": base64::engine::general_purpose::STANDARD.encode(bytes)}))
    }
}
