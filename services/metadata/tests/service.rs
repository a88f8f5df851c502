//! The store and its calls on both engines, tenants, and rights on every method. PostgreSQL runs when
//! `FERROFLOW_TEST_POSTGRES` gives a URL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use ferroflow_api::ferroflow::metadata::v1 as overview;
use ferroflow_api::ferroflow::metadata::v1::metadata_service_client::MetadataServiceClient;
use ferroflow_api::ml_metadata as pb;
use ferroflow_api::ml_metadata::metadata_store_service_client::MetadataStoreServiceClient;
use ferroflow_auth::{AccessReview, Authorizer, CALLER_HEADER, Caller, CallerKey, Principal};
use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::{Error, SystemClock};
use ferroflow_metadata::{Deps, Metadata};
use ferroflow_rpc::{CallAs, LateRoutes, Transport};
use ferroflow_telemetry::Readiness;
use prost::Message;
use tonic::Code;
use tower::ServiceExt;

/// Everybody may do all in the namespace of their name; `nobody` may do nothing.
#[derive(Debug)]
struct Own;

#[async_trait::async_trait]
impl Authorizer for Own {
    async fn authorize(&self, principal: &Principal, review: &AccessReview) -> Result<(), Error> {
        if principal.user == review.namespace {
            return Ok(());
        }
        Err(Error::denied(format!(
            "{} cannot {} in {}",
            principal.user, review.verb, review.namespace
        )))
    }
}

type Mlmd = MetadataStoreServiceClient<CallAs>;

struct Fixture {
    transport: Transport,
    key: CallerKey,
    routes: axum::Router,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn on(options: &DbOptions, folder: tempfile::TempDir) -> Self {
        let key = CallerKey::random();
        let deps = Deps {
            db: Db::open(options, Metadata::MIGRATIONS).await.unwrap(),
            authorizer: Arc::new(Own),
            key: key.clone(),
            clock: Arc::new(SystemClock),
            readiness: Readiness::default(),
        };
        let routes = Metadata::new(deps).grpc();
        let late = LateRoutes::default();
        late.bind(routes.clone());
        let transport = Transport::in_process(late, key.clone(), "test");
        Self {
            transport,
            key,
            routes: routes.prepare().into_axum_router(),
            _folder: folder,
        }
    }

    fn caller(user: &str) -> Caller {
        Caller {
            principal: Principal::user(user),
            namespace: user.to_owned(),
        }
    }

    fn mlmd(&self, user: &str) -> Mlmd {
        Mlmd::new(self.transport.call_as(&Self::caller(user)))
    }
}

async fn engines() -> Vec<Fixture> {
    let folder = tempfile::tempdir().unwrap();
    let mut options = vec![DbOptions::sqlite(&folder.path().join("m.db"), "metadata")];
    match std::env::var("FERROFLOW_TEST_POSTGRES") {
        Ok(url) => options.push(DbOptions::url(
            &url,
            &format!("m{}", ferroflow_kernel::random_suffix(10)),
        )),
        Err(_) => {
            eprintln!("SKIPPED postgres: FERROFLOW_TEST_POSTGRES is not set (cargo xtask test sets it)");
        }
    }
    let mut all = Vec::new();
    let mut folder = Some(folder);
    for options in options {
        let folder = folder.take().unwrap_or_else(|| tempfile::tempdir().unwrap());
        all.push(Fixture::on(&options, folder).await);
    }
    all
}

fn text(value: &str) -> pb::Value {
    pb::Value {
        value: Some(pb::value::Value::StringValue(value.to_owned())),
    }
}

fn double(value: f64) -> pb::Value {
    pb::Value {
        value: Some(pb::value::Value::DoubleValue(value)),
    }
}

/// A pipeline run: load writes a dataset, train reads it and writes a model and metrics.
async fn story(mlmd: &mut Mlmd) -> (i64, i64) {
    let types = pb::PutTypesRequest {
        artifact_types: ["system.Dataset", "system.Model", "system.Metrics"]
            .map(|name| pb::ArtifactType {
                name: Some(name.to_owned()),
                ..Default::default()
            })
            .to_vec(),
        execution_types: vec![pb::ExecutionType {
            name: Some("system.ContainerExecution".to_owned()),
            ..Default::default()
        }],
        context_types: vec![pb::ContextType {
            name: Some("system.PipelineRun".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let types = mlmd.put_types(types).await.unwrap().into_inner();
    let (dataset, model, metrics) = (
        types.artifact_type_ids[0],
        types.artifact_type_ids[1],
        types.artifact_type_ids[2],
    );
    let run = pb::Context {
        name: Some("run-1".to_owned()),
        type_id: Some(types.context_type_ids[0]),
        ..Default::default()
    };
    let step = |name: &str| pb::Execution {
        name: Some(name.to_owned()),
        type_id: Some(types.execution_type_ids[0]),
        last_known_state: Some(pb::execution::State::Complete.into()),
        ..Default::default()
    };
    let event = |kind: pb::event::Type| {
        Some(pb::Event {
            r#type: Some(kind.into()),
            ..Default::default()
        })
    };
    let put = |execution, pairs| pb::PutExecutionRequest {
        execution: Some(execution),
        artifact_event_pairs: pairs,
        contexts: vec![run.clone()],
        options: Some(pb::put_execution_request::Options {
            reuse_context_if_already_exist: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    };
    let pair = |artifact, event| pb::put_execution_request::ArtifactAndEvent { artifact, event };
    let artifact = |of: i64, uri: &str| pb::Artifact {
        type_id: Some(of),
        uri: Some(uri.to_owned()),
        ..Default::default()
    };
    let output = event(pb::event::Type::Output);
    let loaded = put(
        step("load"),
        vec![pair(Some(artifact(dataset, "s3://b/data")), output.clone())],
    );
    let loaded = mlmd.put_execution(loaded).await.unwrap().into_inner();
    let read = pb::Event {
        artifact_id: Some(loaded.artifact_ids[0]),
        r#type: Some(pb::event::Type::Input.into()),
        ..Default::default()
    };
    let mut weights = artifact(model, "s3://b/model");
    weights
        .custom_properties
        .insert("framework".to_owned(), text("xgboost"));
    let mut scores = artifact(metrics, "s3://b/metrics");
    scores
        .custom_properties
        .insert("accuracy".to_owned(), double(0.97));
    let pairs = vec![
        pair(None, Some(read)),
        pair(Some(weights), output.clone()),
        pair(Some(scores), output),
    ];
    let trained = mlmd
        .put_execution(put(step("train"), pairs))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(trained.context_ids, loaded.context_ids);
    (loaded.artifact_ids[0], trained.artifact_ids[1])
}

async fn listed(mlmd: &mut Mlmd, filter: &str) -> Result<Vec<i64>, tonic::Status> {
    let options = pb::ListOperationOptions {
        filter_query: Some(filter.to_owned()),
        ..Default::default()
    };
    let request = pb::GetArtifactsRequest {
        options: Some(options),
        ..Default::default()
    };
    let answer = mlmd.get_artifacts(request).await?.into_inner();
    Ok(answer.artifacts.iter().map(pb::Artifact::id).collect())
}

#[tokio::test]
async fn a_run_its_lineage_and_its_model() {
    for f in engines().await {
        let mut mlmd = f.mlmd("a");
        let (data, model) = story(&mut mlmd).await;
        let mut client = MetadataServiceClient::new(f.transport.call_as(&Fixture::caller("a")));
        let asked = overview::GetRunLineageRequest {
            namespace: String::new(),
            run_id: "run-1".to_owned(),
        };
        let lineage = client.get_run_lineage(asked).await.unwrap().into_inner();
        let names: Vec<&str> = lineage.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["load", "train", "data", "model", "metrics"]);
        assert_eq!(lineage.nodes[0].state, "COMPLETE");
        let edges: Vec<(&str, &str)> = lineage
            .edges
            .iter()
            .map(|e| (e.from.as_str(), e.to.as_str()))
            .collect();
        let (load, train) = (lineage.nodes[0].id.as_str(), lineage.nodes[1].id.as_str());
        let data = format!("artifact:{data}");
        assert_eq!(edges[..2], [(load, data.as_str()), (data.as_str(), train)]);
        let models = client
            .list_models(overview::ListModelsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .models;
        assert_eq!(
            (models[0].artifact_id, models[0].run_id.as_str()),
            (model, "run-1")
        );
        assert_eq!(
            (models[0].execution_name.as_str(), models[0].metrics["accuracy"]),
            ("train", 0.97)
        );
        let asked = overview::GetRunLineageRequest {
            namespace: String::new(),
            run_id: "none".to_owned(),
        };
        assert_eq!(
            client.get_run_lineage(asked).await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

#[tokio::test]
async fn two_tenants_share_names_and_nothing_else() {
    for f in engines().await {
        let (mut a, mut b) = (f.mlmd("a"), f.mlmd("b"));
        let (data, model) = story(&mut a).await;
        assert!(listed(&mut b, "id > 0").await.unwrap().is_empty());
        let (data_of_b, _) = story(&mut b).await;
        assert_ne!(data, data_of_b);
        assert_eq!(listed(&mut b, "uri = 's3://b/data'").await.unwrap(), [data_of_b]);
        let by_id = pb::GetArtifactsByIdRequest {
            artifact_ids: vec![data, model],
            ..Default::default()
        };
        assert!(
            b.get_artifacts_by_id(by_id)
                .await
                .unwrap()
                .into_inner()
                .artifacts
                .is_empty()
        );
        let by_uri = pb::GetArtifactsByUriRequest {
            uris: vec!["s3://b/model".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            b.get_artifacts_by_uri(by_uri)
                .await
                .unwrap()
                .into_inner()
                .artifacts
                .len(),
            1
        );
        let events = pb::GetEventsByArtifactIDsRequest {
            artifact_ids: vec![data],
            ..Default::default()
        };
        assert!(
            b.get_events_by_artifact_i_ds(events)
                .await
                .unwrap()
                .into_inner()
                .events
                .is_empty()
        );
        // neither update nor link what is another's
        let update = pb::PutArtifactsRequest {
            artifacts: vec![pb::Artifact {
                id: Some(data),
                uri: Some("stolen".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            b.put_artifacts(update).await.unwrap_err().code(),
            Code::InvalidArgument
        );
        let contexts = b
            .get_contexts(pb::GetContextsRequest::default())
            .await
            .unwrap()
            .into_inner()
            .contexts;
        let link = pb::PutAttributionsAndAssociationsRequest {
            attributions: vec![pb::Attribution {
                artifact_id: Some(data),
                context_id: contexts[0].id,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            b.put_attributions_and_associations(link)
                .await
                .unwrap_err()
                .code(),
            Code::InvalidArgument
        );
        let mut client = MetadataServiceClient::new(f.transport.call_as(&Fixture::caller("b")));
        let asked = overview::GetRunLineageRequest {
            namespace: "a".to_owned(),
            run_id: "run-1".to_owned(),
        };
        assert_eq!(
            client.get_run_lineage(asked).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        // a walk from one's own nodes never leaves one's own
        let start = pb::lineage_subgraph_query_options::StartingNodes {
            filter_query: Some("id > 0".to_owned()),
        };
        let query = pb::LineageSubgraphQueryOptions {
            starting_nodes: Some(
                pb::lineage_subgraph_query_options::StartingNodesOneOf::StartingArtifacts(start),
            ),
            ..Default::default()
        };
        let query = pb::GetLineageSubgraphRequest {
            lineage_subgraph_query_options: Some(query),
            ..Default::default()
        };
        let graph = b
            .get_lineage_subgraph(query)
            .await
            .unwrap()
            .into_inner()
            .lineage_subgraph
            .unwrap();
        assert_eq!(
            (graph.artifacts.len(), graph.executions.len(), graph.events.len()),
            (3, 2, 4)
        );
        assert!(
            graph
                .artifacts
                .iter()
                .all(|artifact| artifact.id() != data && artifact.id() != model)
        );
    }
}

/// Every method of both services refuses who has no right, found by the descriptors: a new method without a check fails here.
#[tokio::test]
async fn every_method_asks_for_a_right() {
    let f = engines().await.remove(0);
    let set = prost_types::FileDescriptorSet::decode(ferroflow_api::FILE_DESCRIPTOR_SET).unwrap();
    let mut checked = 0;
    for file in set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if !Metadata::GRPC_SERVICES.contains(&name.as_str()) {
                continue;
            }
            for method in &service.method {
                let path = format!("/{name}/{}", method.name());
                let mut caller = Fixture::caller("nobody");
                caller.namespace = "a".to_owned();
                let request = http::Request::post(&path)
                    .header("content-type", "application/grpc")
                    .header(CALLER_HEADER, f.key.sign(&caller, "gateway").unwrap())
                    // an empty message is a message of any type
                    .body(axum::body::Body::from(vec![0_u8; 5]))
                    .unwrap();
                let response = f.routes.clone().oneshot(request).await.unwrap();
                let status = response
                    .headers()
                    .get("grpc-status")
                    .unwrap_or_else(|| panic!("{path} answered"));
                assert_eq!(status, "7", "{path} must answer PERMISSION_DENIED");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 52 + 2);
}

#[tokio::test]
async fn filters_mean_the_same_on_both_engines() {
    for f in engines().await {
        let mut mlmd = f.mlmd("a");
        let (data, model) = story(&mut mlmd).await;
        let all = listed(&mut mlmd, "id >= 0").await.unwrap();
        let scores = all[2];
        let cases = [
            (format!("id = {data}"), vec![data]),
            ("type = 'system.Model'".to_owned(), vec![model]),
            ("uri LIKE 'S3://B/%'".to_owned(), all.clone()),
            ("uri NOT LIKE '%model'".to_owned(), vec![data, scores]),
            (
                "custom_properties.framework.string_value = 'xgboost'".to_owned(),
                vec![model],
            ),
            (
                "custom_properties.accuracy.double_value > 0.5".to_owned(),
                vec![scores],
            ),
            (
                "custom_properties.accuracy.double_value IS NULL".to_owned(),
                vec![data, model],
            ),
            (
                "type = 'system.Model' OR custom_properties.accuracy.double_value = 0.97".to_owned(),
                vec![model, scores],
            ),
            (
                "NOT (type = 'system.Model' OR type = 'system.Metrics')".to_owned(),
                vec![data],
            ),
            (
                "contexts_r.name = 'run-1' AND events_0.type = INPUT".to_owned(),
                vec![data],
            ),
            (
                "events_0.type = OUTPUT AND events_1.type = INPUT".to_owned(),
                vec![data],
            ),
            (
                "events_0.type IN (INPUT, OUTPUT) AND contexts_a_b.type = 'system.PipelineRun'".to_owned(),
                all.clone(),
            ),
            ("contexts_r.name = 'other'".to_owned(), vec![]),
            (
                "create_time_since_epoch > 0 AND last_update_time_since_epoch >= create_time_since_epoch"
                    .to_owned(),
                all.clone(),
            ),
            ("state IS NULL".to_owned(), all.clone()),
        ];
        for (filter, expected) in cases {
            assert_eq!(listed(&mut mlmd, &filter).await.unwrap(), expected, "{filter}");
        }
        for (filter, says) in [
            ("uri = 3", "a quoted text"),
            ("state = SLEEPING", "is none of UNKNOWN, PENDING, LIVE"),
            ("nothing = 'x'", "is not a field of a node of kind artifact"),
            ("properties.x.uri = 'x'", "is not a field"),
            ("executions_a.name = 'x'", "is not a field"),
            ("1 = 1", "no field"),
            ("name = '", "never closed"),
            ("uri = 'x' ; DROP TABLE nodes", "unexpected ';'"),
        ] {
            let status = listed(&mut mlmd, filter).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{filter}");
            assert!(status.message().contains(says), "{filter}: {}", status.message());
        }
    }
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_list() {
    for f in engines().await {
        let mut mlmd = f.mlmd("a");
        story(&mut mlmd).await;
        let page = |token: Option<String>, filter: &str| pb::GetArtifactsRequest {
            options: Some(pb::ListOperationOptions {
                max_result_size: Some(2),
                next_page_token: token,
                filter_query: Some(filter.to_owned()),
                order_by_field: Some(pb::list_operation_options::OrderByField {
                    field: Some(pb::list_operation_options::order_by_field::Field::CreateTime.into()),
                    is_asc: Some(false),
                }),
            }),
            ..Default::default()
        };
        let first = mlmd
            .get_artifacts(page(None, "id > 0"))
            .await
            .unwrap()
            .into_inner();
        let second = mlmd
            .get_artifacts(page(first.next_page_token.clone(), "id > 0"))
            .await
            .unwrap()
            .into_inner();
        let ids: Vec<i64> = first
            .artifacts
            .iter()
            .chain(&second.artifacts)
            .map(pb::Artifact::id)
            .collect();
        let mut sorted = ids.clone();
        sorted.sort_by(|a, b| b.cmp(a));
        assert_eq!((ids.len(), &ids), (3, &sorted));
        assert_eq!(second.next_page_token, None);
        let other = mlmd
            .get_artifacts(page(first.next_page_token, "id > 1"))
            .await
            .unwrap_err();
        assert_eq!(other.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn racing_writers_of_one_name_have_one_winner() {
    for f in engines().await {
        let mut mlmd = f.mlmd("a");
        let of = pb::PutContextTypeRequest {
            context_type: Some(pb::ContextType {
                name: Some("t".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let of = mlmd.put_context_type(of).await.unwrap().into_inner().type_id;
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let mut mlmd = f.mlmd("a");
                tokio::spawn(async move {
                    let context = pb::Context {
                        name: Some("one".to_owned()),
                        type_id: of,
                        ..Default::default()
                    };
                    mlmd.put_contexts(pb::PutContextsRequest {
                        contexts: vec![context],
                        ..Default::default()
                    })
                    .await
                })
            })
            .collect();
        let mut codes = Vec::new();
        for task in tasks {
            codes.push(
                task.await
                    .unwrap()
                    .map_or_else(|status| status.code(), |_| Code::Ok),
            );
        }
        assert_eq!(
            codes.iter().filter(|code| **code == Code::Ok).count(),
            1,
            "{codes:?}"
        );
        assert_eq!(
            codes.iter().filter(|code| **code == Code::AlreadyExists).count(),
            7,
            "{codes:?}"
        );
    }
}
