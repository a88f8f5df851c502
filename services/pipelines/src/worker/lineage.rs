//! What runs did, told to the metadata service in the words that KFP uses: contexts `system.Pipeline` and
//! `system.PipelineRun`, executions `system.ContainerExecution`, `system.ImporterExecution` and
//! `system.DAGExecution`, and the artifacts between them.
//!
//! The scheduler writes down which tasks are to be told in the transaction that ends them. Telling is repeated until
//! it worked, and telling twice changes nothing: executions have names, and artifacts are found by their URI.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ferroflow_api::ml_metadata as proto;
use ferroflow_api::ml_metadata::metadata_store_service_client::MetadataStoreServiceClient;
use ferroflow_auth::{Caller, Principal};
use ferroflow_kernel::{Code, Error, PLATFORM_NAMESPACE, Result};
use ferroflow_rpc::{CallAs, Transport};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Scheduler;
use crate::domain::run::{Artifact, Outputs, TaskKind, TaskState};
use crate::store::{ArtifactIds, RunRow, Store, TaskRow};

type Client = MetadataStoreServiceClient<CallAs>;

/// So many are read at a time.
const BATCH: usize = 100;

/// Tells the metadata service until it is cancelled.
pub struct Lineage {
    store: Store,
    transport: Transport,
}

impl Lineage {
    /// Tells the service behind a transport what the store holds for it.
    pub fn new(store: Store, transport: Transport) -> Self {
        Self { store, transport }
    }

    /// Works until it is cancelled.
    pub async fn run(self, scheduler: Scheduler, cancel: CancellationToken) {
        let mut pause = Duration::from_millis(200);
        loop {
            match self.tell_some().await {
                Ok(0) => {
                    pause = Duration::from_millis(200);
                    tokio::select! {
                        () = scheduler.lineage_changed() => {}
                        () = cancel.cancelled() => return,
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the metadata service could not be told what a run did; trying again");
                    pause = (pause * 2).min(Duration::from_secs(30));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = cancel.cancelled() => return,
                    }
                }
            }
        }
    }

    async fn tell_some(&self) -> Result<usize> {
        let pending = self.store.pending_lineage(BATCH).await?;
        for (seq, run_id, path) in &pending {
            match self.tell(run_id, path).await {
                Ok((execution, artifacts)) => {
                    self.store
                        .lineage_done(*seq, run_id, path, execution, &artifacts)
                        .await?;
                }
                Err(error) if matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) => {
                    return Err(error.context(format!("task {path} of run {run_id}")));
                }
                // A run that was deleted meanwhile, or a fact that the service does not take: others go on.
                Err(error) => {
                    tracing::warn!(run = run_id, task = path, %error, "what a task did cannot be recorded");
                    self.store
                        .lineage_failed(*seq, error.code() == Code::NotFound)
                        .await?;
                }
            }
        }
        Ok(pending.len())
    }

    async fn tell(&self, run_id: &str, path: &str) -> Result<(Option<i64>, ArtifactIds)> {
        let run = self.store.run(run_id).await?;
        let tasks = self.store.tasks(run_id).await?;
        let Some(task) = tasks.iter().find(|task| task.path == path) else {
            return Ok((None, BTreeMap::new()));
        };
        let caller = Caller {
            principal: Principal::service_account(PLATFORM_NAMESPACE, "pipelines"),
            namespace: run.namespace.clone(),
        };
        let mut client = MetadataStoreServiceClient::new(self.transport.call_as(&caller));
        let kind = execution_type(task.kind);
        let contexts = Self::contexts(&mut client, &run).await?;
        let type_id = Self::execution_type_id(&mut client, kind).await?;
        let name = format!("run/{run_id}/{path}");
        let known = find_execution(&mut client, kind, &name).await?;
        let told = match known {
            Some(id) => events_of(&mut client, id).await?,
            None => HashSet::new(),
        };
        let attempts = self.store.attempts(run_id).await?;
        let attempt = attempts.iter().rev().find(|attempt| attempt.path == path);
        let parent = task
            .parent
            .as_deref()
            .and_then(|p| tasks.iter().find(|t| t.path == p)?.execution_id);
        let mut ids = self.store.artifact_ids(run_id).await?;
        let mut pairs = Vec::new();
        let mut uris = Vec::new();
        // A graph's own inputs and outputs are those of its tasks.
        if matches!(task.kind, TaskKind::Container | TaskKind::Importer) {
            for (values, direction) in [
                (&task.inputs, proto::event::Type::Input),
                (&task.outputs, proto::event::Type::Output),
            ] {
                Self::pairs(
                    &mut client,
                    &run,
                    values,
                    direction,
                    &told,
                    &mut ids,
                    &mut pairs,
                    &mut uris,
                )
                .await?;
            }
        }
        let execution = proto::Execution {
            id: known,
            name: Some(name),
            type_id: Some(type_id),
            last_known_state: Some(state(task) as i32),
            custom_properties: facts(
                &run,
                task,
                attempt.map(|a| (a.pod_name.as_str(), a.pod_uid.as_deref())),
                parent,
            ),
            ..proto::Execution::default()
        };
        let request = proto::PutExecutionRequest {
            execution: Some(execution),
            artifact_event_pairs: pairs,
            contexts,
            options: Some(proto::put_execution_request::Options {
                reuse_context_if_already_exist: Some(true),
                ..Default::default()
            }),
            transaction_options: None,
        };
        let answer = client.put_execution(request).await?.into_inner();
        for (uri, id) in uris.into_iter().zip(answer.artifact_ids) {
            ids.insert(uri, id);
        }
        if let [pipeline, run] = answer.context_ids[..]
            && task.kind == TaskKind::Root
        {
            let parents = vec![proto::ParentContext {
                child_id: Some(run),
                parent_id: Some(pipeline),
                system_metadata: None,
            }];
            let put = client.put_parent_contexts(proto::PutParentContextsRequest {
                parent_contexts: parents,
                transaction_options: None,
            });
            match put.await {
                Ok(_) => {}
                Err(status) if status.code() == tonic::Code::AlreadyExists => {}
                Err(status) => return Err(status.into()),
            }
        }
        Ok((answer.execution_id, ids))
    }

    async fn pairs(
        client: &mut Client,
        run: &RunRow,
        values: &Outputs,
        direction: proto::event::Type,
        told: &HashSet<(i64, i32)>,
        ids: &mut ArtifactIds,
        pairs: &mut Vec<proto::put_execution_request::ArtifactAndEvent>,
        uris: &mut Vec<String>,
    ) -> Result<()> {
        for (name, list) in &values.artifacts {
            for (index, artifact) in list.iter().enumerate() {
                let known = match ids.get(&artifact.uri) {
                    Some(id) => Some(*id),
                    None => find_artifact(client, artifact).await?,
                };
                if let Some(id) = known
                    && told.contains(&(id, direction as i32))
                {
                    ids.insert(artifact.uri.clone(), id);
                    continue;
                }
                let type_id = Self::artifact_type_id(client, &artifact.schema_title).await?;
                let step = |value| proto::event::path::Step { value: Some(value) };
                let steps = vec![
                    step(proto::event::path::step::Value::Key(name.clone())),
                    step(proto::event::path::step::Value::Index(
                        i64::try_from(index).unwrap_or_default(),
                    )),
                ];
                pairs.push(proto::put_execution_request::ArtifactAndEvent {
                    artifact: Some(artifact_message(run, artifact, known, type_id)),
                    event: Some(proto::Event {
                        path: Some(proto::event::Path { steps }),
                        r#type: Some(direction as i32),
                        ..proto::Event::default()
                    }),
                });
                uris.push(artifact.uri.clone());
            }
        }
        Ok(())
    }

    async fn contexts(client: &mut Client, run: &RunRow) -> Result<Vec<proto::Context>> {
        let mut all = Vec::new();
        for (kind, name, properties) in [
            ("system.Pipeline", run.pipeline_name.clone(), BTreeMap::new()),
            (
                "system.PipelineRun",
                run.id.clone(),
                BTreeMap::from([
                    ("display_name".to_owned(), text(&run.display_name)),
                    ("namespace".to_owned(), text(&run.namespace)),
                    ("pipeline_root".to_owned(), text(&run.pipeline_root)),
                    ("resource_name".to_owned(), text(&run.resource_name)),
                ]),
            ),
        ] {
            let context_type = proto::ContextType {
                name: Some(kind.to_owned()),
                ..Default::default()
            };
            let request = proto::PutContextTypeRequest {
                context_type: Some(context_type),
                can_add_fields: Some(true),
                can_omit_fields: Some(true),
                ..Default::default()
            };
            let type_id = client.put_context_type(request).await?.into_inner().type_id;
            all.push(proto::Context {
                name: Some(name),
                type_id,
                custom_properties: properties.into_iter().collect(),
                ..proto::Context::default()
            });
        }
        Ok(all)
    }

    async fn execution_type_id(client: &mut Client, name: &str) -> Result<i64> {
        let request = proto::PutExecutionTypeRequest {
            execution_type: Some(proto::ExecutionType {
                name: Some(name.to_owned()),
                ..Default::default()
            }),
            can_add_fields: Some(true),
            can_omit_fields: Some(true),
            ..Default::default()
        };
        let answer = client.put_execution_type(request).await?.into_inner();
        answer
            .type_id
            .ok_or_else(|| Error::internal("the metadata service gave a type no id"))
    }

    async fn artifact_type_id(client: &mut Client, name: &str) -> Result<i64> {
        let name = if name.is_empty() { "system.Artifact" } else { name };
        let request = proto::PutArtifactTypeRequest {
            artifact_type: Some(proto::ArtifactType {
                name: Some(name.to_owned()),
                ..Default::default()
            }),
            can_add_fields: Some(true),
            can_omit_fields: Some(true),
            ..Default::default()
        };
        let answer = client.put_artifact_type(request).await?.into_inner();
        answer
            .type_id
            .ok_or_else(|| Error::internal("the metadata service gave a type no id"))
    }
}

fn execution_type(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Container => "system.ContainerExecution",
        TaskKind::Importer => "system.ImporterExecution",
        TaskKind::Root | TaskKind::Dag | TaskKind::Loop | TaskKind::Iteration => "system.DAGExecution",
    }
}

fn state(task: &TaskRow) -> proto::execution::State {
    match task.state {
        TaskState::Succeeded if task.cached => proto::execution::State::Cached,
        TaskState::Succeeded => proto::execution::State::Complete,
        TaskState::Failed => proto::execution::State::Failed,
        TaskState::Canceled | TaskState::Skipped => proto::execution::State::Canceled,
        TaskState::Pending => proto::execution::State::New,
        TaskState::Running | TaskState::Canceling => proto::execution::State::Running,
    }
}

fn facts(
    run: &RunRow,
    task: &TaskRow,
    pod: Option<(&str, Option<&str>)>,
    parent: Option<i64>,
) -> std::collections::HashMap<String, proto::Value> {
    let (pod_name, pod_uid) = pod.map_or(("", ""), |(name, uid)| (name, uid.unwrap_or_default()));
    let mut all: std::collections::HashMap<String, proto::Value> = [
        ("display_name", task.display_name.as_str()),
        ("task_name", &task.name),
        ("task_id", &task.task_id),
        ("namespace", &run.namespace),
        ("pod_name", pod_name),
        ("pod_uid", pod_uid),
        ("error", task.message.as_deref().unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), text(value)))
    .collect();
    for (key, values) in [("inputs", &task.inputs), ("outputs", &task.outputs)] {
        if !values.parameters.is_empty() {
            let fields = values
                .parameters
                .iter()
                .map(|(k, v)| (k.clone(), struct_value(v)))
                .collect();
            let value = proto::value::Value::StructValue(pbjson_types::Struct { fields });
            all.insert(key.to_owned(), proto::Value { value: Some(value) });
        }
    }
    let int = |value| proto::Value {
        value: Some(proto::value::Value::IntValue(value)),
    };
    if let Some(parent) = parent {
        all.insert("parent_dag_id".to_owned(), int(parent));
    }
    if let Some(index) = task.iteration {
        all.insert("iteration_index".to_owned(), int(index));
    }
    all
}

fn artifact_message(run: &RunRow, artifact: &Artifact, id: Option<i64>, type_id: i64) -> proto::Artifact {
    let mut properties: std::collections::HashMap<String, proto::Value> = artifact
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), property(value)))
        .collect();
    properties.insert("display_name".to_owned(), text(&artifact.name));
    properties.insert("namespace".to_owned(), text(&run.namespace));
    if let Some(digest) = &artifact.digest {
        properties.insert("digest".to_owned(), text(digest));
    }
    proto::Artifact {
        id,
        type_id: Some(type_id),
        uri: Some(artifact.uri.clone()),
        state: Some(proto::artifact::State::Live as i32),
        custom_properties: properties,
        ..proto::Artifact::default()
    }
}

fn text(value: &str) -> proto::Value {
    proto::Value {
        value: Some(proto::value::Value::StringValue(value.to_owned())),
    }
}

/// Metadata keep their types as upstream does: numbers as doubles, lists and objects as structs.
fn property(value: &Value) -> proto::Value {
    let value = match value {
        Value::String(text) => proto::value::Value::StringValue(text.clone()),
        Value::Bool(value) => proto::value::Value::BoolValue(*value),
        Value::Number(number) => proto::value::Value::DoubleValue(number.as_f64().unwrap_or_default()),
        Value::Object(fields) => proto::value::Value::StructValue(pbjson_types::Struct {
            fields: fields.iter().map(|(k, v)| (k.clone(), struct_value(v))).collect(),
        }),
        // A list becomes a struct with one field, since a property is a struct and not a value.
        other => proto::value::Value::StructValue(pbjson_types::Struct {
            fields: [("list".to_owned(), struct_value(other))].into_iter().collect(),
        }),
    };
    proto::Value { value: Some(value) }
}

fn struct_value(value: &Value) -> pbjson_types::Value {
    use pbjson_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(pbjson_types::ListValue {
            values: items.iter().map(struct_value).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(pbjson_types::Struct {
            fields: fields.iter().map(|(k, v)| (k.clone(), struct_value(v))).collect(),
        }),
    };
    pbjson_types::Value { kind: Some(kind) }
}

async fn find_execution(client: &mut Client, kind: &str, name: &str) -> Result<Option<i64>> {
    let request = proto::GetExecutionByTypeAndNameRequest {
        type_name: Some(kind.to_owned()),
        execution_name: Some(name.to_owned()),
        ..Default::default()
    };
    match client.get_execution_by_type_and_name(request).await {
        Ok(answer) => Ok(answer.into_inner().execution.and_then(|e| e.id)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

async fn find_artifact(client: &mut Client, artifact: &Artifact) -> Result<Option<i64>> {
    let request = proto::GetArtifactsByUriRequest {
        uris: vec![artifact.uri.clone()],
        ..Default::default()
    };
    let answer = client.get_artifacts_by_uri(request).await?.into_inner();
    Ok(answer.artifacts.iter().filter_map(|a| a.id).max())
}

/// Artifact and direction of every event of an execution.
async fn events_of(client: &mut Client, execution: i64) -> Result<HashSet<(i64, i32)>> {
    let request = proto::GetEventsByExecutionIDsRequest {
        execution_ids: vec![execution],
        ..Default::default()
    };
    let answer = client.get_events_by_execution_i_ds(request).await?.into_inner();
    Ok(answer
        .events
        .iter()
        .filter_map(|e| Some((e.artifact_id?, e.r#type?)))
        .collect())
}
