//! `ferroflow.metadata.v1.MetadataService`: lineage of a run, and models.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferroflow_api::ferroflow::metadata::v1 as pb;
use ferroflow_api::ferroflow::metadata::v1::metadata_service_server::MetadataService;
use ferroflow_auth::Caller;
use ferroflow_db::DbError;
use ferroflow_kernel::Error;
use prost::Message;
use tonic::{Request, Response, Status};

use super::enter::Service;
use crate::domain::model::{Event, Kind, Node, Property};
use crate::store::filter_sql::state_name;
use crate::store::links;
use crate::store::list::{self, ListQuery, Order, Within};
use crate::store::nodes::{self, By};
use crate::store::types::{self, Which};

/// Types of the contexts that stand for runs.
const RUN_TYPES: [&str; 2] = ["system.PipelineRun", "kfp.PipelineRun"];
/// Types of artifacts that are models.
const MODEL_TYPES: [&str; 2] = ["system.Model", "google.VertexModel"];
/// Types of artifacts that hold metrics.
const METRIC_TYPES: [&str; 1] = ["system.Metrics"];

pub(crate) struct Overview(pub Service);

fn json(property: &Property) -> pbjson_types::Value {
    use pbjson_types::value::Kind;
    let kind = match property {
        #[expect(clippy::cast_precision_loss, reason = "JSON has only doubles")]
        Property::Int(value) => Kind::NumberValue(*value as f64),
        Property::Real(value) => Kind::NumberValue(*value),
        Property::Text(value) => Kind::StringValue(value.clone()),
        Property::Bool(value) => Kind::BoolValue(*value),
        Property::Struct(bytes) => match pbjson_types::Struct::decode(&bytes[..]) {
            Ok(value) => Kind::StructValue(value),
            Err(_) => Kind::NullValue(0),
        },
        Property::Proto(_) => Kind::NullValue(0),
    };
    pbjson_types::Value { kind: Some(kind) }
}

fn properties(node: &Node) -> pbjson_types::Struct {
    let all = node.properties.iter().chain(&node.custom);
    pbjson_types::Struct {
        fields: all.map(|(name, value)| (name.clone(), json(value))).collect(),
    }
}

/// What people call a node.
fn display(node: &Node) -> String {
    let shown = ["display_name", "task_name"]
        .into_iter()
        .find_map(|name| match node.custom.get(name) {
            Some(Property::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        });
    let last = |uri: &str| uri.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
    shown
        .or_else(|| node.name.clone())
        .or_else(|| node.uri.as_deref().and_then(last))
        .unwrap_or_else(|| format!("{} {}", node.kind.name(), node.id))
}

fn node_id(kind: Kind, id: i64) -> String {
    format!("{}:{id}", kind.name())
}

fn message(node: &Node) -> pb::Node {
    pb::Node {
        id: node_id(node.kind, node.id),
        kind: node.kind.name().to_owned(),
        r#type: node.type_name.clone(),
        name: display(node),
        uri: node.uri.clone().unwrap_or_default(),
        state: node
            .state
            .map(|state| state_name(node.kind, state).to_owned())
            .unwrap_or_default(),
        properties: Some(properties(node)),
        created_ms: node.created,
        updated_ms: node.updated,
    }
}

fn edge(event: &Event) -> pb::Edge {
    use ferroflow_api::ml_metadata::event::Path;
    use ferroflow_api::ml_metadata::event::path::step::Value;
    let artifact = node_id(Kind::Artifact, event.artifact);
    let execution = node_id(Kind::Execution, event.execution);
    let path = event
        .path
        .as_ref()
        .and_then(|bytes| Path::decode(&bytes[..]).ok())
        .unwrap_or_default();
    let label = path.steps.into_iter().find_map(|step| match step.value {
        Some(Value::Key(key)) => Some(key),
        Some(Value::Index(_)) | None => None,
    });
    let (from, to, kind) = if event.is_output() {
        (execution, artifact, "OUTPUT")
    } else {
        (artifact, execution, "INPUT")
    };
    pb::Edge {
        from,
        to,
        kind: kind.to_owned(),
        label: label.unwrap_or_default(),
    }
}

impl Service {
    pub(crate) async fn run_lineage(&self, namespace: &str, run_id: &str) -> Result<pb::Lineage, DbError> {
        let mut reader = self.db.clone();
        let mut run = None;
        for name in RUN_TYPES {
            let of = types::read(&mut reader, namespace, Kind::Context, Which::Named(name, "")).await?;
            for of in of {
                let found = nodes::read(
                    &mut reader,
                    namespace,
                    Kind::Context,
                    By::TypeAndName(of.id, run_id),
                )
                .await?;
                run = run.or(found.into_iter().next());
            }
        }
        let run = run.ok_or_else(|| Error::not_found("lineage of run", format!("{run_id:?}")))?;
        let query = ListQuery::all(Within::Context(run.id));
        let (executions, _) = list::list(&mut reader, namespace, Kind::Execution, &query).await?;
        let (artifacts, _) = list::list(&mut reader, namespace, Kind::Artifact, &query).await?;
        let ids: Vec<i64> = executions.iter().map(|node| node.id).collect();
        let events = links::events(&mut reader, namespace, Kind::Execution, &ids).await?;
        // inputs may come from elsewhere: from other runs, or from an import
        let known: BTreeSet<i64> = artifacts.iter().map(|node| node.id).collect();
        let other: BTreeSet<i64> = events
            .iter()
            .map(|event| event.artifact)
            .filter(|id| !known.contains(id))
            .collect();
        let other: Vec<i64> = other.into_iter().collect();
        let other = nodes::read(&mut reader, namespace, Kind::Artifact, By::Ids(&other)).await?;
        Ok(pb::Lineage {
            nodes: executions
                .iter()
                .chain(&artifacts)
                .chain(&other)
                .map(message)
                .collect(),
            edges: events.iter().map(edge).collect(),
        })
    }

    pub(crate) async fn models(
        &self,
        namespace: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<pb::ListModelsResponse, DbError> {
        let limit = match page_size {
            0 => 50,
            1..=200 => usize::try_from(page_size).unwrap_or(50),
            other => {
                return Err(Error::field("page_size", format!("{other} is not between 1 and 200")).into());
            }
        };
        let mut reader = self.db.clone();
        let names: Vec<String> = MODEL_TYPES.iter().map(|name| format!("'{name}'")).collect();
        let query = ListQuery {
            within: Within::All,
            filter: format!("type IN ({})", names.join(", ")),
            order: Order::Created,
            ascending: false,
            limit: Some(limit),
            page_token,
        };
        let (artifacts, next_page_token) = list::list(&mut reader, namespace, Kind::Artifact, &query).await?;
        let ids: Vec<i64> = artifacts.iter().map(|node| node.id).collect();
        let events = links::events(&mut reader, namespace, Kind::Artifact, &ids).await?;
        let makers: HashMap<i64, i64> = events
            .iter()
            .filter(|event| event.is_output())
            .map(|event| (event.artifact, event.execution))
            .collect();
        let maker_ids: Vec<i64> = makers
            .values()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let executions = nodes::read(&mut reader, namespace, Kind::Execution, By::Ids(&maker_ids)).await?;
        let executions: HashMap<i64, Node> = executions.into_iter().map(|node| (node.id, node)).collect();
        let runs = self.runs_of(namespace, &maker_ids).await?;
        let metrics = self.metrics_of(namespace, &maker_ids).await?;
        let models = artifacts
            .into_iter()
            .map(|artifact| {
                let maker = makers.get(&artifact.id);
                let mut numbers = maker.and_then(|id| metrics.get(id)).cloned().unwrap_or_default();
                numbers.extend(numbers_of(&artifact));
                pb::Model {
                    artifact_id: artifact.id,
                    name: display(&artifact),
                    uri: artifact.uri.clone().unwrap_or_default(),
                    namespace: namespace.to_owned(),
                    properties: Some(properties(&artifact)),
                    metrics: numbers.into_iter().collect(),
                    run_id: maker.and_then(|id| runs.get(id)).cloned().unwrap_or_default(),
                    execution_name: maker
                        .and_then(|id| executions.get(id))
                        .map(display)
                        .unwrap_or_default(),
                    created_ms: artifact.created,
                }
            })
            .collect();
        Ok(pb::ListModelsResponse {
            models,
            next_page_token,
        })
    }

    /// Names of the runs that executions belong to.
    async fn runs_of(&self, namespace: &str, executions: &[i64]) -> Result<HashMap<i64, String>, DbError> {
        let mut reader = self.db.clone();
        let pairs = links::memberships(&mut reader, executions).await?;
        let ids: Vec<i64> = pairs
            .iter()
            .map(|(context, _)| *context)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let contexts = nodes::read(&mut reader, namespace, Kind::Context, By::Ids(&ids)).await?;
        let runs: HashMap<i64, String> = contexts
            .into_iter()
            .filter(|context| RUN_TYPES.contains(&context.type_name.as_str()))
            .filter_map(|context| Some((context.id, context.name?)))
            .collect();
        Ok(pairs
            .into_iter()
            .filter_map(|(context, execution)| Some((execution, runs.get(&context)?.clone())))
            .collect())
    }

    /// Numbers in the metrics that executions wrote.
    async fn metrics_of(
        &self,
        namespace: &str,
        executions: &[i64],
    ) -> Result<HashMap<i64, BTreeMap<String, f64>>, DbError> {
        let mut reader = self.db.clone();
        let events = links::events(&mut reader, namespace, Kind::Execution, executions).await?;
        let outputs: Vec<&Event> = events.iter().filter(|event| event.is_output()).collect();
        let ids: Vec<i64> = outputs.iter().map(|event| event.artifact).collect();
        let artifacts = nodes::read(&mut reader, namespace, Kind::Artifact, By::Ids(&ids)).await?;
        let metrics: HashMap<i64, Node> = artifacts
            .into_iter()
            .filter(|node| METRIC_TYPES.contains(&node.type_name.as_str()))
            .map(|node| (node.id, node))
            .collect();
        let mut all: HashMap<i64, BTreeMap<String, f64>> = HashMap::new();
        for event in outputs {
            if let Some(node) = metrics.get(&event.artifact) {
                all.entry(event.execution).or_default().extend(numbers_of(node));
            }
        }
        Ok(all)
    }
}

fn numbers_of(node: &Node) -> BTreeMap<String, f64> {
    let all = node.properties.iter().chain(&node.custom);
    all.filter_map(|(name, value)| match value {
        #[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
        Property::Int(value) => Some((name.clone(), *value as f64)),
        Property::Real(value) => Some((name.clone(), *value)),
        _ => None,
    })
    .collect()
}

#[tonic::async_trait]
impl MetadataService for Overview {
    async fn get_run_lineage(
        &self,
        request: Request<pb::GetRunLineageRequest>,
    ) -> Result<Response<pb::Lineage>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner();
        let namespace = caller.namespace_or_own(&asked.namespace);
        self.0.right(&caller, namespace, "list", "artifacts").await?;
        self.0.right(&caller, namespace, "list", "executions").await?;
        let lineage = self
            .0
            .run_lineage(namespace, &asked.run_id)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(lineage))
    }

    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner();
        let namespace = caller.namespace_or_own(&asked.namespace);
        self.0.right(&caller, namespace, "list", "artifacts").await?;
        let models = self
            .0
            .models(namespace, asked.page_size, asked.page_token)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(models))
    }
}
