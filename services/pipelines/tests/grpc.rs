//! KFP `v2beta1` over gRPC.

#[expect(dead_code, reason = "this test uses a part of it")]
mod support;

use std::collections::HashMap;
use std::sync::Arc;

use ferroflow_api::kubeflow::pipelines::backend::api::v2beta1 as proto;
use ferroflow_api::kubeflow::pipelines::backend::api::v2beta1::{
    experiment_service_client::ExperimentServiceClient, run_service_client::RunServiceClient,
};
use ferroflow_auth::{Caller, Principal};
use support::{World, behave};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_things_happen_as_over_rest() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), Arc::new(behave)).await;
    let as_user = |user: &str| world.grpc.call_as(&Caller::new(Principal::user(user)));
    let mut experiments = ExperimentServiceClient::new(as_user("admin"));
    let experiment = proto::Experiment {
        display_name: "e".into(),
        ..Default::default()
    };
    let made = experiments
        .create_experiment(proto::CreateExperimentRequest {
            experiment: Some(experiment.clone()),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (made.display_name.as_str(), made.namespace.as_str()),
        ("e", "default")
    );
    let again = experiments
        .create_experiment(proto::CreateExperimentRequest {
            experiment: Some(experiment),
        })
        .await
        .unwrap_err();
    assert_eq!(
        (again.code(), again.message()),
        (tonic::Code::AlreadyExists, "experiment e already exists")
    );

    let package =
        ferroflow_pipelines::domain::package::Package::from_text(include_str!("fixtures/loops.yaml"))
            .unwrap();
    let spec: pbjson_types::Struct = serde_json::from_value(package.to_json()).unwrap();
    let run = proto::Run {
        experiment_id: made.experiment_id.clone(),
        display_name: "over grpc".into(),
        runtime_config: Some(proto::RuntimeConfig {
            parameters: HashMap::new(),
            ..Default::default()
        }),
        pipeline_source: Some(proto::run::PipelineSource::PipelineSpec(spec)),
        ..Default::default()
    };
    let request = proto::CreateRunRequest {
        run: Some(run),
        ..Default::default()
    };
    let mut runs = RunServiceClient::new(as_user("admin"));
    let id = runs
        .create_run(request.clone())
        .await
        .unwrap()
        .into_inner()
        .run_id;
    world.finish(&id).await;
    let run = runs
        .get_run(proto::GetRunRequest {
            run_id: id.clone(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(run.state(), proto::RuntimeState::Succeeded);
    assert!(run.run_details.unwrap().task_details.len() > 10);
    let listed = runs
        .list_runs(proto::ListRunsRequest {
            experiment_id: made.experiment_id,
            sort_by: "created_at desc".into(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (listed.total_size, listed.runs[0].run_id.as_str()),
        (1, id.as_str())
    );

    let mut stranger = RunServiceClient::new(as_user("eve"));
    assert_eq!(
        stranger.create_run(request).await.unwrap_err().code(),
        tonic::Code::PermissionDenied
    );
}
