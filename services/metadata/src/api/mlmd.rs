//! `ml_metadata.MetadataStoreService`: all 52 calls with the right that each needs. What they do is in
//! [`super::mlmd_read`] and [`super::mlmd_write`].

use ferroflow_api::ml_metadata as pb;
use ferroflow_api::ml_metadata::metadata_store_service_server::MetadataStoreService;
use ferroflow_kernel::Error;
use tonic::{Request, Response, Status};

use super::enter::Service;

pub(crate) struct Mlmd(pub Service);

macro_rules! calls {
    ($($name:ident($request:ident) -> $response:ident = $verb:literal $resource:literal;)*) => {
        #[tonic::async_trait]
        impl MetadataStoreService for Mlmd {
            $(
                async fn $name(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                    let (message, namespace) = self.0.enter(request, $verb, $resource).await?;
                    let answer = self.0.$name(message, &namespace).await.map_err(Error::from)?;
                    Ok(Response::new(answer))
                }
            )*
        }
    };
}

calls! {
    put_artifact_type(PutArtifactTypeRequest) -> PutArtifactTypeResponse = "create" "types";
    put_execution_type(PutExecutionTypeRequest) -> PutExecutionTypeResponse = "create" "types";
    put_context_type(PutContextTypeRequest) -> PutContextTypeResponse = "create" "types";
    put_types(PutTypesRequest) -> PutTypesResponse = "create" "types";
    put_artifacts(PutArtifactsRequest) -> PutArtifactsResponse = "create" "artifacts";
    put_executions(PutExecutionsRequest) -> PutExecutionsResponse = "create" "executions";
    put_events(PutEventsRequest) -> PutEventsResponse = "create" "executions";
    put_execution(PutExecutionRequest) -> PutExecutionResponse = "create" "executions";
    put_lineage_subgraph(PutLineageSubgraphRequest) -> PutLineageSubgraphResponse = "create" "executions";
    put_contexts(PutContextsRequest) -> PutContextsResponse = "create" "contexts";
    put_attributions_and_associations(PutAttributionsAndAssociationsRequest) -> PutAttributionsAndAssociationsResponse = "create" "contexts";
    put_parent_contexts(PutParentContextsRequest) -> PutParentContextsResponse = "create" "contexts";
    get_artifact_type(GetArtifactTypeRequest) -> GetArtifactTypeResponse = "get" "types";
    get_artifact_types_by_id(GetArtifactTypesByIdRequest) -> GetArtifactTypesByIdResponse = "list" "types";
    get_artifact_types(GetArtifactTypesRequest) -> GetArtifactTypesResponse = "list" "types";
    get_execution_type(GetExecutionTypeRequest) -> GetExecutionTypeResponse = "get" "types";
    get_execution_types_by_id(GetExecutionTypesByIdRequest) -> GetExecutionTypesByIdResponse = "list" "types";
    get_execution_types(GetExecutionTypesRequest) -> GetExecutionTypesResponse = "list" "types";
    get_context_type(GetContextTypeRequest) -> GetContextTypeResponse = "get" "types";
    get_context_types_by_id(GetContextTypesByIdRequest) -> GetContextTypesByIdResponse = "list" "types";
    get_context_types(GetContextTypesRequest) -> GetContextTypesResponse = "list" "types";
    get_artifacts(GetArtifactsRequest) -> GetArtifactsResponse = "list" "artifacts";
    get_executions(GetExecutionsRequest) -> GetExecutionsResponse = "list" "executions";
    get_contexts(GetContextsRequest) -> GetContextsResponse = "list" "contexts";
    get_artifacts_by_id(GetArtifactsByIdRequest) -> GetArtifactsByIdResponse = "list" "artifacts";
    get_executions_by_id(GetExecutionsByIdRequest) -> GetExecutionsByIdResponse = "list" "executions";
    get_contexts_by_id(GetContextsByIdRequest) -> GetContextsByIdResponse = "list" "contexts";
    get_artifacts_by_type(GetArtifactsByTypeRequest) -> GetArtifactsByTypeResponse = "list" "artifacts";
    get_executions_by_type(GetExecutionsByTypeRequest) -> GetExecutionsByTypeResponse = "list" "executions";
    get_contexts_by_type(GetContextsByTypeRequest) -> GetContextsByTypeResponse = "list" "contexts";
    get_artifact_by_type_and_name(GetArtifactByTypeAndNameRequest) -> GetArtifactByTypeAndNameResponse = "get" "artifacts";
    get_execution_by_type_and_name(GetExecutionByTypeAndNameRequest) -> GetExecutionByTypeAndNameResponse = "get" "executions";
    get_context_by_type_and_name(GetContextByTypeAndNameRequest) -> GetContextByTypeAndNameResponse = "get" "contexts";
    get_artifacts_by_uri(GetArtifactsByUriRequest) -> GetArtifactsByUriResponse = "list" "artifacts";
    get_events_by_execution_i_ds(GetEventsByExecutionIDsRequest) -> GetEventsByExecutionIDsResponse = "list" "executions";
    get_events_by_artifact_i_ds(GetEventsByArtifactIDsRequest) -> GetEventsByArtifactIDsResponse = "list" "executions";
    get_artifacts_by_external_ids(GetArtifactsByExternalIdsRequest) -> GetArtifactsByExternalIdsResponse = "list" "artifacts";
    get_executions_by_external_ids(GetExecutionsByExternalIdsRequest) -> GetExecutionsByExternalIdsResponse = "list" "executions";
    get_contexts_by_external_ids(GetContextsByExternalIdsRequest) -> GetContextsByExternalIdsResponse = "list" "contexts";
    get_artifact_types_by_external_ids(GetArtifactTypesByExternalIdsRequest) -> GetArtifactTypesByExternalIdsResponse = "list" "types";
    get_execution_types_by_external_ids(GetExecutionTypesByExternalIdsRequest) -> GetExecutionTypesByExternalIdsResponse = "list" "types";
    get_context_types_by_external_ids(GetContextTypesByExternalIdsRequest) -> GetContextTypesByExternalIdsResponse = "list" "types";
    get_contexts_by_artifact(GetContextsByArtifactRequest) -> GetContextsByArtifactResponse = "list" "contexts";
    get_contexts_by_execution(GetContextsByExecutionRequest) -> GetContextsByExecutionResponse = "list" "contexts";
    get_parent_contexts_by_context(GetParentContextsByContextRequest) -> GetParentContextsByContextResponse = "list" "contexts";
    get_children_contexts_by_context(GetChildrenContextsByContextRequest) -> GetChildrenContextsByContextResponse = "list" "contexts";
    get_parent_contexts_by_contexts(GetParentContextsByContextsRequest) -> GetParentContextsByContextsResponse = "list" "contexts";
    get_children_contexts_by_contexts(GetChildrenContextsByContextsRequest) -> GetChildrenContextsByContextsResponse = "list" "contexts";
    get_artifacts_by_context(GetArtifactsByContextRequest) -> GetArtifactsByContextResponse = "list" "artifacts";
    get_executions_by_context(GetExecutionsByContextRequest) -> GetExecutionsByContextResponse = "list" "executions";
    get_lineage_graph(GetLineageGraphRequest) -> GetLineageGraphResponse = "list" "artifacts";
    get_lineage_subgraph(GetLineageSubgraphRequest) -> GetLineageSubgraphResponse = "list" "artifacts";
}
