//! MLMD's writing calls. Each is one transaction: all of it is stored, or nothing.

use ferroflow_api::ml_metadata as pb;
use ferroflow_db::{DbError, Tx};
use ferroflow_kernel::{Code, Error};

use super::convert::{
    to_artifact, to_artifact_type, to_context, to_context_type, to_event, to_execution, to_execution_type,
};
use super::enter::Service;
use crate::domain::model::{Event, Evolution, Kind, Node, NodeType};
use crate::store::nodes::{self, By, Put};
use crate::store::{links, types};

type Answer<T> = Result<T, DbError>;

/// How a type may evolve, from the flags of a request.
fn evolution(
    add: Option<bool>,
    omit: Option<bool>,
    delete: Option<bool>,
    all: Option<bool>,
) -> Result<Evolution, Error> {
    if delete == Some(true) || all == Some(false) {
        return Err(Error::new(
            Code::Unimplemented,
            "can_delete_fields and all_fields_match are not implemented in MLMD",
        ));
    }
    Ok(Evolution {
        can_add: add.unwrap_or(false),
        can_omit: omit.unwrap_or(false),
    })
}

/// How nodes of one request are tied to what is there already.
#[derive(Debug, Clone, Copy, Default)]
struct Reuse {
    context_by_name: bool,
    context_by_id: bool,
    artifact_by_external_id: bool,
}

async fn put_context(tx: &mut Tx, namespace: &str, context: &Node, reuse: Reuse, now: i64) -> Answer<i64> {
    if reuse.context_by_id && context.id != 0 {
        links::require(tx, namespace, Kind::Context, context.id, "contexts").await?;
        return Ok(context.id);
    }
    if reuse.context_by_name
        && context.id == 0
        && let Some(name) = &context.name
    {
        let found = nodes::read(
            tx,
            namespace,
            Kind::Context,
            By::TypeAndName(context.type_id, name),
        )
        .await?;
        if let Some(found) = found.first() {
            return Ok(found.id);
        }
    }
    nodes::put(
        tx,
        namespace,
        context,
        &Put {
            now,
            ..Put::default()
        },
    )
    .await
}

async fn put_artifact(tx: &mut Tx, namespace: &str, artifact: &Node, reuse: Reuse, now: i64) -> Answer<i64> {
    if reuse.artifact_by_external_id
        && artifact.id == 0
        && let Some(external_id) = &artifact.external_id
    {
        let ids = [external_id.clone()];
        let found = nodes::read(tx, namespace, Kind::Artifact, By::ExternalIds(&ids)).await?;
        if let Some(found) = found.first() {
            return Ok(found.id);
        }
    }
    nodes::put(
        tx,
        namespace,
        artifact,
        &Put {
            now,
            ..Put::default()
        },
    )
    .await
}

impl Service {
    async fn put_type(&self, namespace: &str, new: NodeType, allowed: Evolution) -> Answer<i64> {
        let ids = self.put_all_types(namespace, &[new], allowed).await?;
        Ok(ids.first().copied().unwrap_or_default())
    }

    async fn put_all_types(&self, namespace: &str, new: &[NodeType], allowed: Evolution) -> Answer<Vec<i64>> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let mut ids = Vec::new();
                for of in new {
                    ids.push(types::put(&mut tx, namespace, of, allowed).await?);
                }
                tx.commit().await?;
                Ok(ids)
            })
            .await
    }

    async fn put_nodes(
        &self,
        namespace: &str,
        new: Vec<Node>,
        mask: Vec<String>,
        check_updated: bool,
    ) -> Answer<Vec<i64>> {
        let how = Put {
            mask: &mask,
            check_updated,
            touch: false,
            now: self.now(),
        };
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let mut ids = Vec::new();
                for node in &new {
                    ids.push(nodes::put(&mut tx, namespace, node, &how).await?);
                }
                tx.commit().await?;
                Ok(ids)
            })
            .await
    }

    pub(crate) async fn put_artifact_type(
        &self,
        message: pb::PutArtifactTypeRequest,
        namespace: &str,
    ) -> Answer<pb::PutArtifactTypeResponse> {
        let pb::PutArtifactTypeRequest {
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
            ..
        } = message;
        let allowed = evolution(
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
        )?;
        let new = to_artifact_type(message.artifact_type.unwrap_or_default());
        Ok(pb::PutArtifactTypeResponse {
            type_id: Some(self.put_type(namespace, new, allowed).await?),
        })
    }

    pub(crate) async fn put_execution_type(
        &self,
        message: pb::PutExecutionTypeRequest,
        namespace: &str,
    ) -> Answer<pb::PutExecutionTypeResponse> {
        let pb::PutExecutionTypeRequest {
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
            ..
        } = message;
        let allowed = evolution(
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
        )?;
        let new = to_execution_type(message.execution_type.unwrap_or_default());
        Ok(pb::PutExecutionTypeResponse {
            type_id: Some(self.put_type(namespace, new, allowed).await?),
        })
    }

    pub(crate) async fn put_context_type(
        &self,
        message: pb::PutContextTypeRequest,
        namespace: &str,
    ) -> Answer<pb::PutContextTypeResponse> {
        let pb::PutContextTypeRequest {
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
            ..
        } = message;
        let allowed = evolution(
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
        )?;
        let new = to_context_type(message.context_type.unwrap_or_default());
        Ok(pb::PutContextTypeResponse {
            type_id: Some(self.put_type(namespace, new, allowed).await?),
        })
    }

    pub(crate) async fn put_types(
        &self,
        message: pb::PutTypesRequest,
        namespace: &str,
    ) -> Answer<pb::PutTypesResponse> {
        let pb::PutTypesRequest {
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
            ..
        } = message;
        let allowed = evolution(
            can_add_fields,
            can_omit_fields,
            can_delete_fields,
            all_fields_match,
        )?;
        let mut new: Vec<NodeType> = message.artifact_types.into_iter().map(to_artifact_type).collect();
        let artifacts = new.len();
        new.extend(message.execution_types.into_iter().map(to_execution_type));
        let executions = new.len() - artifacts;
        new.extend(message.context_types.into_iter().map(to_context_type));
        let mut ids = self.put_all_types(namespace, &new, allowed).await?.into_iter();
        Ok(pb::PutTypesResponse {
            artifact_type_ids: ids.by_ref().take(artifacts).collect(),
            execution_type_ids: ids.by_ref().take(executions).collect(),
            context_type_ids: ids.collect(),
        })
    }

    pub(crate) async fn put_artifacts(
        &self,
        message: pb::PutArtifactsRequest,
        namespace: &str,
    ) -> Answer<pb::PutArtifactsResponse> {
        let new = message
            .artifacts
            .into_iter()
            .map(to_artifact)
            .collect::<Result<Vec<_>, _>>()?;
        let mask = message.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let check = message
            .options
            .is_some_and(|options| options.abort_if_latest_updated_time_changed());
        Ok(pb::PutArtifactsResponse {
            artifact_ids: self.put_nodes(namespace, new, mask, check).await?,
        })
    }

    pub(crate) async fn put_executions(
        &self,
        message: pb::PutExecutionsRequest,
        namespace: &str,
    ) -> Answer<pb::PutExecutionsResponse> {
        let new = message
            .executions
            .into_iter()
            .map(to_execution)
            .collect::<Result<Vec<_>, _>>()?;
        let mask = message.update_mask.map(|mask| mask.paths).unwrap_or_default();
        Ok(pb::PutExecutionsResponse {
            execution_ids: self.put_nodes(namespace, new, mask, false).await?,
        })
    }

    pub(crate) async fn put_contexts(
        &self,
        message: pb::PutContextsRequest,
        namespace: &str,
    ) -> Answer<pb::PutContextsResponse> {
        let new = message
            .contexts
            .into_iter()
            .map(to_context)
            .collect::<Result<Vec<_>, _>>()?;
        let mask = message.update_mask.map(|mask| mask.paths).unwrap_or_default();
        Ok(pb::PutContextsResponse {
            context_ids: self.put_nodes(namespace, new, mask, false).await?,
        })
    }

    pub(crate) async fn put_events(
        &self,
        message: pb::PutEventsRequest,
        namespace: &str,
    ) -> Answer<pb::PutEventsResponse> {
        let now = self.now();
        let events: Vec<Event> = message
            .events
            .into_iter()
            .map(|event| to_event(event, now))
            .collect();
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for event in &events {
                    links::put_event(&mut tx, namespace, event).await?;
                }
                tx.commit().await
            })
            .await?;
        Ok(pb::PutEventsResponse {})
    }

    pub(crate) async fn put_execution(
        &self,
        message: pb::PutExecutionRequest,
        namespace: &str,
    ) -> Answer<pb::PutExecutionResponse> {
        let now = self.now();
        let options = message.options.unwrap_or_default();
        let reuse = Reuse {
            context_by_name: options.reuse_context_if_already_exist(),
            context_by_id: options.force_reuse_context(),
            artifact_by_external_id: options.reuse_artifact_if_already_exist_by_external_id(),
        };
        let touch = options.force_update_time();
        let execution = message
            .execution
            .ok_or_else(|| Error::field("execution", "is missing"))?;
        let execution = to_execution(execution)?;
        let mut pairs = Vec::new();
        for (index, pair) in message.artifact_event_pairs.into_iter().enumerate() {
            let event = pair.event.map(|event| to_event(event, now));
            if pair.artifact.is_none() && event.as_ref().is_none_or(|event| event.artifact == 0) {
                let text = "names no artifact; give one, or an event with its id";
                return Err(Error::field(format!("artifact_event_pairs[{index}]"), text).into());
            }
            pairs.push((pair.artifact.map(to_artifact).transpose()?, event));
        }
        let contexts = message
            .contexts
            .into_iter()
            .map(to_context)
            .collect::<Result<Vec<_>, _>>()?;
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let how = Put {
                    touch,
                    now,
                    ..Put::default()
                };
                let execution_id = nodes::put(&mut tx, namespace, &execution, &how).await?;
                let mut artifact_ids = Vec::new();
                for (artifact, event) in &pairs {
                    let mut id = event.as_ref().map_or(0, |event| event.artifact);
                    if let Some(artifact) = artifact {
                        let put = put_artifact(&mut tx, namespace, artifact, reuse, now).await?;
                        if id != 0 && id != put {
                            let text = format!("is {id}, but its artifact has id {put}");
                            return Err(Error::field("event.artifact_id", text).into());
                        }
                        id = put;
                    }
                    if let Some(event) = event {
                        if event.execution != 0 && event.execution != execution_id {
                            let text =
                                format!("is {}, but the execution has id {execution_id}", event.execution);
                            return Err(Error::field("event.execution_id", text).into());
                        }
                        let event = Event {
                            artifact: id,
                            execution: execution_id,
                            ..event.clone()
                        };
                        links::put_event(&mut tx, namespace, &event).await?;
                    }
                    artifact_ids.push(id);
                }
                let mut context_ids = Vec::new();
                for context in &contexts {
                    let id = put_context(&mut tx, namespace, context, reuse, now).await?;
                    links::put_member(&mut tx, namespace, id, Kind::Execution, execution_id).await?;
                    for artifact in &artifact_ids {
                        links::put_member(&mut tx, namespace, id, Kind::Artifact, *artifact).await?;
                    }
                    context_ids.push(id);
                }
                tx.commit().await?;
                Ok(pb::PutExecutionResponse {
                    execution_id: Some(execution_id),
                    artifact_ids,
                    context_ids,
                })
            })
            .await
    }

    pub(crate) async fn put_lineage_subgraph(
        &self,
        message: pb::PutLineageSubgraphRequest,
        namespace: &str,
    ) -> Answer<pb::PutLineageSubgraphResponse> {
        let now = self.now();
        let options = message.options.unwrap_or_default();
        let reuse = Reuse {
            context_by_name: options.reuse_context_if_already_exist(),
            context_by_id: false,
            artifact_by_external_id: options.reuse_artifact_if_already_exist_by_external_id(),
        };
        let executions = message
            .executions
            .into_iter()
            .map(to_execution)
            .collect::<Result<Vec<_>, _>>()?;
        let artifacts = message
            .artifacts
            .into_iter()
            .map(to_artifact)
            .collect::<Result<Vec<_>, _>>()?;
        let contexts = message
            .contexts
            .into_iter()
            .map(to_context)
            .collect::<Result<Vec<_>, _>>()?;
        let edges: Vec<_> = message
            .event_edges
            .into_iter()
            .map(|edge| {
                (
                    edge.execution_index,
                    edge.artifact_index,
                    edge.event.map(|event| to_event(event, now)),
                )
            })
            .collect();
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                let (mut execution_ids, mut artifact_ids, mut context_ids) =
                    (Vec::new(), Vec::new(), Vec::new());
                for execution in &executions {
                    let how = Put {
                        now,
                        ..Put::default()
                    };
                    execution_ids.push(nodes::put(&mut tx, namespace, execution, &how).await?);
                }
                for artifact in &artifacts {
                    artifact_ids.push(put_artifact(&mut tx, namespace, artifact, reuse, now).await?);
                }
                for context in &contexts {
                    let id = put_context(&mut tx, namespace, context, reuse, now).await?;
                    for execution in &execution_ids {
                        links::put_member(&mut tx, namespace, id, Kind::Execution, *execution).await?;
                    }
                    for artifact in &artifact_ids {
                        links::put_member(&mut tx, namespace, id, Kind::Artifact, *artifact).await?;
                    }
                    context_ids.push(id);
                }
                for (at, (execution, artifact, event)) in edges.iter().enumerate() {
                    let field = |name: &str| format!("event_edges[{at}].{name}");
                    let event = event
                        .clone()
                        .ok_or_else(|| Error::field(field("event"), "is missing"))?;
                    let end = |index: Option<i32>, ids: &[i64], named: i64, name: &str| match index {
                        None => Ok(named),
                        Some(index) => usize::try_from(index)
                            .ok()
                            .and_then(|index| ids.get(index).copied())
                            .ok_or_else(|| Error::field(field(name), format!("{index} is out of range"))),
                    };
                    let event = Event {
                        execution: end(*execution, &execution_ids, event.execution, "execution_index")?,
                        artifact: end(*artifact, &artifact_ids, event.artifact, "artifact_index")?,
                        ..event
                    };
                    links::put_event(&mut tx, namespace, &event).await?;
                }
                tx.commit().await?;
                Ok(pb::PutLineageSubgraphResponse {
                    execution_ids,
                    artifact_ids,
                    context_ids,
                })
            })
            .await
    }

    pub(crate) async fn put_attributions_and_associations(
        &self,
        message: pb::PutAttributionsAndAssociationsRequest,
        namespace: &str,
    ) -> Answer<pb::PutAttributionsAndAssociationsResponse> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for one in &message.attributions {
                    let (context, artifact) = (one.context_id(), one.artifact_id());
                    links::put_member(&mut tx, namespace, context, Kind::Artifact, artifact).await?;
                }
                for one in &message.associations {
                    let (context, execution) = (one.context_id(), one.execution_id());
                    links::put_member(&mut tx, namespace, context, Kind::Execution, execution).await?;
                }
                tx.commit().await
            })
            .await?;
        Ok(pb::PutAttributionsAndAssociationsResponse {})
    }

    pub(crate) async fn put_parent_contexts(
        &self,
        message: pb::PutParentContextsRequest,
        namespace: &str,
    ) -> Answer<pb::PutParentContextsResponse> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                for one in &message.parent_contexts {
                    links::put_parent(&mut tx, namespace, one.child_id(), one.parent_id()).await?;
                }
                tx.commit().await
            })
            .await?;
        Ok(pb::PutParentContextsResponse {})
    }
}
