//! MLMD's reading calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferroflow_api::ml_metadata as pb;
use ferroflow_db::DbError;
use ferroflow_kernel::Error;

use super::convert::{
    from_artifact, from_artifact_type, from_context, from_context_type, from_event, from_execution,
    from_execution_type, to_list, token,
};
use super::enter::Service;
use crate::domain::model::{Kind, Node, NodeType};
use crate::store::lineage::{Direction, Ends, Found, walk};
use crate::store::list::{self, ListQuery, Within};
use crate::store::nodes::{self, By};
use crate::store::types::{self, Which};
use crate::store::{Reader, links};

type Answer<T> = Result<T, DbError>;

/// Starting nodes of a walk, at most.
const MOST_STARTS: usize = 100;

impl Service {
    fn reader(&self) -> impl Reader + use<> {
        self.db.clone()
    }

    async fn types(&self, namespace: &str, kind: Kind, which: Which<'_>) -> Answer<Vec<NodeType>> {
        types::read(&mut self.reader(), namespace, kind, which).await
    }

    async fn one_type(
        &self,
        namespace: &str,
        kind: Kind,
        name: &Option<String>,
        version: &Option<String>,
    ) -> Answer<NodeType> {
        let (name, version) = (
            name.as_deref().unwrap_or_default(),
            version.as_deref().unwrap_or_default(),
        );
        let found = self.types(namespace, kind, Which::Named(name, version)).await?;
        let what = format!("{} type", kind.name());
        found
            .into_iter()
            .next()
            .ok_or_else(|| Error::not_found(&what, format!("{name:?}")).into())
    }

    async fn nodes(&self, namespace: &str, kind: Kind, by: By<'_>) -> Answer<Vec<Node>> {
        nodes::read(&mut self.reader(), namespace, kind, by).await
    }

    async fn list(
        &self,
        namespace: &str,
        kind: Kind,
        options: Option<pb::ListOperationOptions>,
        within: Within,
    ) -> Answer<(Vec<Node>, Option<String>)> {
        let query = to_list(options, within)?;
        let (nodes, next) = list::list(&mut self.reader(), namespace, kind, &query).await?;
        Ok((nodes, token(next)))
    }

    /// Nodes of a type; of a type that does not exist there are none.
    async fn of_type(
        &self,
        namespace: &str,
        kind: Kind,
        name: &Option<String>,
        version: &Option<String>,
        options: Option<pb::ListOperationOptions>,
    ) -> Answer<(Vec<Node>, Option<String>)> {
        let (name, version) = (
            name.as_deref().unwrap_or_default(),
            version.as_deref().unwrap_or_default(),
        );
        match self
            .types(namespace, kind, Which::Named(name, version))
            .await?
            .first()
        {
            Some(of) => self.list(namespace, kind, options, Within::Type(of.id)).await,
            None => Ok((Vec::new(), None)),
        }
    }

    /// The node of a type and name, if there is one.
    async fn named(
        &self,
        namespace: &str,
        kind: Kind,
        of: &Option<String>,
        version: &Option<String>,
        name: &Option<String>,
    ) -> Answer<Option<Node>> {
        let (of, version) = (
            of.as_deref().unwrap_or_default(),
            version.as_deref().unwrap_or_default(),
        );
        let Some(of) = self
            .types(namespace, kind, Which::Named(of, version))
            .await?
            .into_iter()
            .next()
        else {
            return Ok(None);
        };
        let name = name.as_deref().unwrap_or_default();
        Ok(self
            .nodes(namespace, kind, By::TypeAndName(of.id, name))
            .await?
            .into_iter()
            .next())
    }

    /// Contexts that a node is in.
    async fn contexts_of(&self, namespace: &str, node: i64) -> Answer<Vec<Node>> {
        let pairs = links::memberships(&mut self.reader(), &[node]).await?;
        let ids: Vec<i64> = pairs.into_iter().map(|(context, _)| context).collect();
        self.nodes(namespace, Kind::Context, By::Ids(&ids)).await
    }

    /// Related contexts by the context they belong to; `up` is parents, else children.
    async fn related(&self, namespace: &str, ids: &[i64], up: bool) -> Answer<BTreeMap<i64, Vec<Node>>> {
        let own = self.nodes(namespace, Kind::Context, By::Ids(ids)).await?;
        let own: Vec<i64> = own.into_iter().map(|node| node.id).collect();
        let mut reader = self.reader();
        let pairs = if up {
            links::parents_of(&mut reader, &own).await?
        } else {
            links::children_of(&mut reader, &own)
                .await?
                .into_iter()
                .map(|(child, parent)| (parent, child))
                .collect()
        };
        let others: Vec<i64> = pairs
            .iter()
            .map(|(_, other)| *other)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let nodes = self.nodes(namespace, Kind::Context, By::Ids(&others)).await?;
        let nodes: HashMap<i64, Node> = nodes.into_iter().map(|node| (node.id, node)).collect();
        let mut related: BTreeMap<i64, Vec<Node>> = BTreeMap::new();
        for (from, other) in pairs {
            related
                .entry(from)
                .or_default()
                .extend(nodes.get(&other).cloned());
        }
        Ok(related)
    }

    async fn parents_and_children(&self, namespace: &str, id: i64, up: bool) -> Answer<Vec<pb::Context>> {
        let mut related = self.related(namespace, &[id], up).await?;
        Ok(related
            .remove(&id)
            .unwrap_or_default()
            .into_iter()
            .map(from_context)
            .collect())
    }

    /// The messages of a found part of the graph, as far as a mask names them; an empty mask names all.
    pub(crate) async fn graph(
        &self,
        namespace: &str,
        found: Found,
        mask: &[String],
    ) -> Answer<pb::LineageGraph> {
        let wanted = |name: &str| mask.is_empty() || mask.iter().any(|path| path == name);
        let mut reader = self.reader();
        let artifact_ids: Vec<i64> = found.artifacts.into_iter().collect();
        let execution_ids: Vec<i64> = found.executions.into_iter().collect();
        let artifacts = nodes::read(&mut reader, namespace, Kind::Artifact, By::Ids(&artifact_ids)).await?;
        let executions =
            nodes::read(&mut reader, namespace, Kind::Execution, By::Ids(&execution_ids)).await?;
        let attributions = links::memberships(&mut reader, &artifact_ids).await?;
        let associations = links::memberships(&mut reader, &execution_ids).await?;
        let context_ids: BTreeSet<i64> = attributions
            .iter()
            .chain(&associations)
            .map(|(context, _)| *context)
            .collect();
        let context_ids: Vec<i64> = context_ids.into_iter().collect();
        let contexts = nodes::read(&mut reader, namespace, Kind::Context, By::Ids(&context_ids)).await?;
        let parents = links::parents_of(&mut reader, &context_ids).await?;
        let mut graph = pb::LineageGraph::default();
        for (kind, nodes, name) in [
            (Kind::Artifact, &artifacts, "artifact_types"),
            (Kind::Execution, &executions, "execution_types"),
            (Kind::Context, &contexts, "context_types"),
        ] {
            if !wanted(name) {
                continue;
            }
            let ids: BTreeSet<i64> = nodes.iter().map(|node| node.type_id).collect();
            let ids: Vec<i64> = ids.into_iter().collect();
            for of in types::read(&mut reader, namespace, kind, Which::Ids(&ids)).await? {
                match kind {
                    Kind::Artifact => graph.artifact_types.push(from_artifact_type(of)),
                    Kind::Execution => graph.execution_types.push(from_execution_type(of)),
                    Kind::Context => graph.context_types.push(from_context_type(of)),
                }
            }
        }
        if wanted("artifacts") {
            graph.artifacts = artifacts.into_iter().map(from_artifact).collect();
        }
        if wanted("executions") {
            graph.executions = executions.into_iter().map(from_execution).collect();
        }
        if wanted("contexts") {
            graph.contexts = contexts.into_iter().map(from_context).collect();
        }
        if wanted("events") {
            graph.events = found.events.into_iter().map(from_event).collect();
        }
        if wanted("attributions") {
            let one = |(context, artifact)| pb::Attribution {
                artifact_id: Some(artifact),
                context_id: Some(context),
                system_metadata: None,
            };
            graph.attributions = attributions.into_iter().map(one).collect();
        }
        if wanted("associations") {
            let one = |(context, execution)| pb::Association {
                execution_id: Some(execution),
                context_id: Some(context),
                system_metadata: None,
            };
            graph.associations = associations.into_iter().map(one).collect();
        }
        if wanted("parent_contexts") {
            let one = |(child, parent)| pb::ParentContext {
                child_id: Some(child),
                parent_id: Some(parent),
                system_metadata: None,
            };
            graph.parent_contexts = parents.into_iter().map(one).collect();
        }
        Ok(graph)
    }

    async fn matching(&self, namespace: &str, kind: Kind, filter: String) -> Answer<Vec<i64>> {
        let query = ListQuery {
            filter,
            ..ListQuery::all(Within::All)
        };
        let (nodes, _) = list::list(&mut self.reader(), namespace, kind, &query).await?;
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }

    async fn starts(&self, namespace: &str, kind: Kind, filter: Option<String>) -> Answer<Vec<i64>> {
        let filter = filter.filter(|text| !text.trim().is_empty());
        let filter = filter.ok_or_else(|| Error::field("starting_nodes.filter_query", "is missing"))?;
        let query = ListQuery {
            filter,
            limit: Some(MOST_STARTS),
            ..ListQuery::all(Within::All)
        };
        let (nodes, _) = list::list(&mut self.reader(), namespace, kind, &query).await?;
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }

    pub(crate) async fn get_lineage_subgraph(
        &self,
        message: pb::GetLineageSubgraphRequest,
        namespace: &str,
    ) -> Answer<pb::GetLineageSubgraphResponse> {
        use pb::lineage_subgraph_query_options as options;
        let query = message.lineage_subgraph_query_options.unwrap_or_default();
        let direction = match query.direction() {
            options::Direction::Upstream => Direction::Up,
            options::Direction::Downstream => Direction::Down,
            options::Direction::Bidirectional | options::Direction::Unspecified => Direction::Both,
        };
        let (kind, starts) = match query.starting_nodes {
            Some(options::StartingNodesOneOf::StartingArtifacts(nodes)) => {
                (Kind::Artifact, nodes.filter_query)
            }
            Some(options::StartingNodesOneOf::StartingExecutions(nodes)) => {
                (Kind::Execution, nodes.filter_query)
            }
            None => return Err(Error::field("starting_nodes", "are missing").into()),
        };
        let starts = self.starts(namespace, kind, starts).await?;
        let hops = match query.max_num_hops {
            None => None,
            Some(hops) => Some(
                usize::try_from(hops)
                    .map_err(|_| Error::field("max_num_hops", format!("{hops} is negative")))?,
            ),
        };
        let mut ends = Ends::default();
        if let Some(nodes) = query.ending_artifacts {
            ends.include_artifacts = nodes.include_ending_nodes();
            let filter = nodes.filter_query.unwrap_or_default();
            ends.artifacts = self
                .matching(namespace, Kind::Artifact, filter)
                .await?
                .into_iter()
                .collect();
        }
        if let Some(nodes) = query.ending_executions {
            ends.include_executions = nodes.include_ending_nodes();
            let filter = nodes.filter_query.unwrap_or_default();
            ends.executions = self
                .matching(namespace, Kind::Execution, filter)
                .await?
                .into_iter()
                .collect();
        }
        let found = walk(
            &mut self.reader(),
            namespace,
            kind,
            &starts,
            hops,
            direction,
            &ends,
        )
        .await?;
        let mask = message.read_mask.map(|mask| mask.paths).unwrap_or_default();
        let graph = self.graph(namespace, found, &mask).await?;
        Ok(pb::GetLineageSubgraphResponse {
            lineage_subgraph: Some(graph),
        })
    }

    pub(crate) async fn get_lineage_graph(
        &self,
        message: pb::GetLineageGraphRequest,
        namespace: &str,
    ) -> Answer<pb::GetLineageGraphResponse> {
        let options = message.options.unwrap_or_default();
        let most = usize::try_from(options.max_node_size()).unwrap_or(0);
        if most == 0 {
            return Err(Error::field("options.max_node_size", "is less than 1").into());
        }
        let Some(pb::lineage_graph_query_options::QueryNodes::ArtifactsOptions(list)) = options.query_nodes
        else {
            return Err(Error::field("options.artifacts_options", "is missing").into());
        };
        let stop = options.stop_conditions.unwrap_or_default();
        let hops = stop.max_num_hops.map(|hops| usize::try_from(hops).unwrap_or(0));
        let mut ends = Ends::default();
        if let Some(filter) = stop.boundary_artifacts.filter(|text| !text.is_empty()) {
            // boundaries are what may be walked over, so that nothing else is
            let kept: BTreeSet<i64> = self
                .matching(namespace, Kind::Artifact, filter)
                .await?
                .into_iter()
                .collect();
            let all = self.matching(namespace, Kind::Artifact, String::new()).await?;
            ends.artifacts = all.into_iter().filter(|id| !kept.contains(id)).collect();
        }
        if let Some(filter) = stop.boundary_executions.filter(|text| !text.is_empty()) {
            let kept: BTreeSet<i64> = self
                .matching(namespace, Kind::Execution, filter)
                .await?
                .into_iter()
                .collect();
            let all = self.matching(namespace, Kind::Execution, String::new()).await?;
            ends.executions = all.into_iter().filter(|id| !kept.contains(id)).collect();
        }
        let (starts, _) = self
            .list(namespace, Kind::Artifact, Some(list), Within::All)
            .await?;
        let starts: Vec<i64> = starts.into_iter().map(|node| node.id).collect();
        let mut found = walk(
            &mut self.reader(),
            namespace,
            Kind::Artifact,
            &starts,
            hops,
            Direction::Both,
            &ends,
        )
        .await?;
        let mut room = most;
        for ids in [&mut found.artifacts, &mut found.executions] {
            *ids = std::mem::take(ids).into_iter().take(room).collect();
            room -= ids.len();
        }
        let (artifacts, executions) = (found.artifacts.clone(), found.executions.clone());
        found
            .events
            .retain(|event| artifacts.contains(&event.artifact) && executions.contains(&event.execution));
        Ok(pb::GetLineageGraphResponse {
            subgraph: Some(self.graph(namespace, found, &[]).await?),
        })
    }

    pub(crate) async fn get_events_by_execution_i_ds(
        &self,
        message: pb::GetEventsByExecutionIDsRequest,
        namespace: &str,
    ) -> Answer<pb::GetEventsByExecutionIDsResponse> {
        let events = links::events(
            &mut self.reader(),
            namespace,
            Kind::Execution,
            &message.execution_ids,
        )
        .await?;
        Ok(pb::GetEventsByExecutionIDsResponse {
            events: events.into_iter().map(from_event).collect(),
        })
    }

    pub(crate) async fn get_events_by_artifact_i_ds(
        &self,
        message: pb::GetEventsByArtifactIDsRequest,
        namespace: &str,
    ) -> Answer<pb::GetEventsByArtifactIDsResponse> {
        let events = links::events(
            &mut self.reader(),
            namespace,
            Kind::Artifact,
            &message.artifact_ids,
        )
        .await?;
        Ok(pb::GetEventsByArtifactIDsResponse {
            events: events.into_iter().map(from_event).collect(),
        })
    }

    pub(crate) async fn get_artifacts_by_uri(
        &self,
        message: pb::GetArtifactsByUriRequest,
        namespace: &str,
    ) -> Answer<pb::GetArtifactsByUriResponse> {
        let nodes = self
            .nodes(namespace, Kind::Artifact, By::Uris(&message.uris))
            .await?;
        Ok(pb::GetArtifactsByUriResponse {
            artifacts: nodes.into_iter().map(from_artifact).collect(),
        })
    }

    pub(crate) async fn get_contexts_by_artifact(
        &self,
        message: pb::GetContextsByArtifactRequest,
        namespace: &str,
    ) -> Answer<pb::GetContextsByArtifactResponse> {
        let contexts = self.contexts_of(namespace, message.artifact_id()).await?;
        Ok(pb::GetContextsByArtifactResponse {
            contexts: contexts.into_iter().map(from_context).collect(),
        })
    }

    pub(crate) async fn get_contexts_by_execution(
        &self,
        message: pb::GetContextsByExecutionRequest,
        namespace: &str,
    ) -> Answer<pb::GetContextsByExecutionResponse> {
        let contexts = self.contexts_of(namespace, message.execution_id()).await?;
        Ok(pb::GetContextsByExecutionResponse {
            contexts: contexts.into_iter().map(from_context).collect(),
        })
    }

    pub(crate) async fn get_parent_contexts_by_context(
        &self,
        message: pb::GetParentContextsByContextRequest,
        namespace: &str,
    ) -> Answer<pb::GetParentContextsByContextResponse> {
        let contexts = self
            .parents_and_children(namespace, message.context_id(), true)
            .await?;
        Ok(pb::GetParentContextsByContextResponse { contexts })
    }

    pub(crate) async fn get_children_contexts_by_context(
        &self,
        message: pb::GetChildrenContextsByContextRequest,
        namespace: &str,
    ) -> Answer<pb::GetChildrenContextsByContextResponse> {
        let contexts = self
            .parents_and_children(namespace, message.context_id(), false)
            .await?;
        Ok(pb::GetChildrenContextsByContextResponse { contexts })
    }

    pub(crate) async fn get_parent_contexts_by_contexts(
        &self,
        message: pb::GetParentContextsByContextsRequest,
        namespace: &str,
    ) -> Answer<pb::GetParentContextsByContextsResponse> {
        use pb::get_parent_contexts_by_contexts_response::ParentContextsPerChild as Per;
        let related = self.related(namespace, &message.context_ids, true).await?;
        let per = |nodes: Vec<Node>| Per {
            parent_contexts: nodes.into_iter().map(from_context).collect(),
        };
        let contexts = related.into_iter().map(|(id, nodes)| (id, per(nodes))).collect();
        Ok(pb::GetParentContextsByContextsResponse { contexts })
    }

    pub(crate) async fn get_children_contexts_by_contexts(
        &self,
        message: pb::GetChildrenContextsByContextsRequest,
        namespace: &str,
    ) -> Answer<pb::GetChildrenContextsByContextsResponse> {
        use pb::get_children_contexts_by_contexts_response::ChildrenContextsPerParent as Per;
        let related = self.related(namespace, &message.context_ids, false).await?;
        let per = |nodes: Vec<Node>| Per {
            children_contexts: nodes.into_iter().map(from_context).collect(),
        };
        let contexts = related.into_iter().map(|(id, nodes)| (id, per(nodes))).collect();
        Ok(pb::GetChildrenContextsByContextsResponse { contexts })
    }

    pub(crate) async fn get_artifacts_by_context(
        &self,
        message: pb::GetArtifactsByContextRequest,
        namespace: &str,
    ) -> Answer<pb::GetArtifactsByContextResponse> {
        let within = Within::Context(message.context_id());
        let (nodes, next_page_token) = self
            .list(namespace, Kind::Artifact, message.options, within)
            .await?;
        let artifacts = nodes.into_iter().map(from_artifact).collect();
        Ok(pb::GetArtifactsByContextResponse {
            artifacts,
            next_page_token,
        })
    }

    pub(crate) async fn get_executions_by_context(
        &self,
        message: pb::GetExecutionsByContextRequest,
        namespace: &str,
    ) -> Answer<pb::GetExecutionsByContextResponse> {
        let within = Within::Context(message.context_id());
        let (nodes, next_page_token) = self
            .list(namespace, Kind::Execution, message.options, within)
            .await?;
        let executions = nodes.into_iter().map(from_execution).collect();
        Ok(pb::GetExecutionsByContextResponse {
            executions,
            next_page_token,
            transaction_options: None,
        })
    }
}

/// The calls that each of the three kinds has.
macro_rules! kind {
    ($kind:ident, $from:ident, $from_type:ident, $nodes:ident, $node:ident, $types:ident, $type:ident, $name:ident, $type_ids:ident;
     all $all:ident($all_req:ident) -> $all_resp:ident;
     by_id $by_id:ident($by_id_req:ident) -> $by_id_resp:ident, $ids:ident $(, $populate:ident)?;
     by_type $by_type:ident($by_type_req:ident) -> $by_type_resp:ident;
     by_name $by_name:ident($by_name_req:ident) -> $by_name_resp:ident;
     by_external $by_ext:ident($by_ext_req:ident) -> $by_ext_resp:ident;
     one_type $one_type:ident($one_type_req:ident) -> $one_type_resp:ident;
     types_by_id $types_by_id:ident($types_by_id_req:ident) -> $types_by_id_resp:ident;
     all_types $all_types:ident($all_types_req:ident) -> $all_types_resp:ident;
     types_by_external $types_by_ext:ident($types_by_ext_req:ident) -> $types_by_ext_resp:ident;) => {
        impl Service {
            pub(crate) async fn $all(&self, message: pb::$all_req, namespace: &str) -> Answer<pb::$all_resp> {
                let (nodes, next_page_token) = self.list(namespace, Kind::$kind, message.options, Within::All).await?;
                Ok(pb::$all_resp { $nodes: nodes.into_iter().map($from).collect(), next_page_token })
            }

            pub(crate) async fn $by_id(&self, message: pb::$by_id_req, namespace: &str) -> Answer<pb::$by_id_resp> {
                let nodes = self.nodes(namespace, Kind::$kind, By::Ids(&message.$ids)).await?;
                let mut answer = pb::$by_id_resp::default();
                $(
                    if message.$populate() {
                        let ids: BTreeSet<i64> = nodes.iter().map(|node| node.type_id).collect();
                        let ids: Vec<i64> = ids.into_iter().collect();
                        let of = self.types(namespace, Kind::$kind, Which::Ids(&ids)).await?;
                        answer.$types = of.into_iter().map($from_type).collect();
                    }
                )?
                answer.$nodes = nodes.into_iter().map($from).collect();
                Ok(answer)
            }

            pub(crate) async fn $by_type(&self, message: pb::$by_type_req, namespace: &str) -> Answer<pb::$by_type_resp> {
                let (name, version) = (&message.type_name, &message.type_version);
                let (nodes, next_page_token) =
                    self.of_type(namespace, Kind::$kind, name, version, message.options).await?;
                Ok(pb::$by_type_resp { $nodes: nodes.into_iter().map($from).collect(), next_page_token })
            }

            pub(crate) async fn $by_name(&self, message: pb::$by_name_req, namespace: &str) -> Answer<pb::$by_name_resp> {
                let (of, version, name) = (&message.type_name, &message.type_version, &message.$name);
                let node = self.named(namespace, Kind::$kind, of, version, name).await?;
                Ok(pb::$by_name_resp { $node: node.map($from) })
            }

            pub(crate) async fn $by_ext(&self, message: pb::$by_ext_req, namespace: &str) -> Answer<pb::$by_ext_resp> {
                let nodes = self.nodes(namespace, Kind::$kind, By::ExternalIds(&message.external_ids)).await?;
                Ok(pb::$by_ext_resp { $nodes: nodes.into_iter().map($from).collect() })
            }

            pub(crate) async fn $one_type(&self, message: pb::$one_type_req, namespace: &str) -> Answer<pb::$one_type_resp> {
                let of = self.one_type(namespace, Kind::$kind, &message.type_name, &message.type_version).await?;
                Ok(pb::$one_type_resp { $type: Some($from_type(of)) })
            }

            pub(crate) async fn $types_by_id(&self, message: pb::$types_by_id_req, namespace: &str) -> Answer<pb::$types_by_id_resp> {
                let of = self.types(namespace, Kind::$kind, Which::Ids(&message.$type_ids)).await?;
                Ok(pb::$types_by_id_resp { $types: of.into_iter().map($from_type).collect() })
            }

            pub(crate) async fn $all_types(&self, _: pb::$all_types_req, namespace: &str) -> Answer<pb::$all_types_resp> {
                let of = self.types(namespace, Kind::$kind, Which::All).await?;
                Ok(pb::$all_types_resp { $types: of.into_iter().map($from_type).collect() })
            }

            pub(crate) async fn $types_by_ext(&self, message: pb::$types_by_ext_req, namespace: &str) -> Answer<pb::$types_by_ext_resp> {
                let of = self.types(namespace, Kind::$kind, Which::ExternalIds(&message.external_ids)).await?;
                Ok(pb::$types_by_ext_resp { $types: of.into_iter().map($from_type).collect() })
            }
        }
    };
}

kind! {
    Artifact, from_artifact, from_artifact_type, artifacts, artifact, artifact_types, artifact_type, artifact_name, type_ids;
    all get_artifacts(GetArtifactsRequest) -> GetArtifactsResponse;
    by_id get_artifacts_by_id(GetArtifactsByIdRequest) -> GetArtifactsByIdResponse, artifact_ids, populate_artifact_types;
    by_type get_artifacts_by_type(GetArtifactsByTypeRequest) -> GetArtifactsByTypeResponse;
    by_name get_artifact_by_type_and_name(GetArtifactByTypeAndNameRequest) -> GetArtifactByTypeAndNameResponse;
    by_external get_artifacts_by_external_ids(GetArtifactsByExternalIdsRequest) -> GetArtifactsByExternalIdsResponse;
    one_type get_artifact_type(GetArtifactTypeRequest) -> GetArtifactTypeResponse;
    types_by_id get_artifact_types_by_id(GetArtifactTypesByIdRequest) -> GetArtifactTypesByIdResponse;
    all_types get_artifact_types(GetArtifactTypesRequest) -> GetArtifactTypesResponse;
    types_by_external get_artifact_types_by_external_ids(GetArtifactTypesByExternalIdsRequest) -> GetArtifactTypesByExternalIdsResponse;
}

kind! {
    Execution, from_execution, from_execution_type, executions, execution, execution_types, execution_type, execution_name, type_ids;
    all get_executions(GetExecutionsRequest) -> GetExecutionsResponse;
    by_id get_executions_by_id(GetExecutionsByIdRequest) -> GetExecutionsByIdResponse, execution_ids;
    by_type get_executions_by_type(GetExecutionsByTypeRequest) -> GetExecutionsByTypeResponse;
    by_name get_execution_by_type_and_name(GetExecutionByTypeAndNameRequest) -> GetExecutionByTypeAndNameResponse;
    by_external get_executions_by_external_ids(GetExecutionsByExternalIdsRequest) -> GetExecutionsByExternalIdsResponse;
    one_type get_execution_type(GetExecutionTypeRequest) -> GetExecutionTypeResponse;
    types_by_id get_execution_types_by_id(GetExecutionTypesByIdRequest) -> GetExecutionTypesByIdResponse;
    all_types get_execution_types(GetExecutionTypesRequest) -> GetExecutionTypesResponse;
    types_by_external get_execution_types_by_external_ids(GetExecutionTypesByExternalIdsRequest) -> GetExecutionTypesByExternalIdsResponse;
}

kind! {
    Context, from_context, from_context_type, contexts, context, context_types, context_type, context_name, type_ids;
    all get_contexts(GetContextsRequest) -> GetContextsResponse;
    by_id get_contexts_by_id(GetContextsByIdRequest) -> GetContextsByIdResponse, context_ids;
    by_type get_contexts_by_type(GetContextsByTypeRequest) -> GetContextsByTypeResponse;
    by_name get_context_by_type_and_name(GetContextByTypeAndNameRequest) -> GetContextByTypeAndNameResponse;
    by_external get_contexts_by_external_ids(GetContextsByExternalIdsRequest) -> GetContextsByExternalIdsResponse;
    one_type get_context_type(GetContextTypeRequest) -> GetContextTypeResponse;
    types_by_id get_context_types_by_id(GetContextTypesByIdRequest) -> GetContextTypesByIdResponse;
    all_types get_context_types(GetContextTypesRequest) -> GetContextTypesResponse;
    types_by_external get_context_types_by_external_ids(GetContextTypesByExternalIdsRequest) -> GetContextTypesByExternalIdsResponse;
}
