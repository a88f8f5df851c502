//! The whole service against a Kubernetes API: its own account and rights, webhooks, controllers and gRPC. Jobs are played.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_api::api::v1::beta1 as katib;
use ferroflow_api::api::v1::beta1::db_manager_client::DbManagerClient;
use ferroflow_api::api::v1::beta1::suggestion_client::SuggestionClient;
use ferroflow_api::crd::tuning::{Experiment, Suggestion, Trial};
use ferroflow_auth::{Caller, CallerKey, Principal, SubjectAccessAuthorizer};
use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::SystemClock;
use ferroflow_rpc::{LateRoutes, Transport};
use ferroflow_telemetry::Readiness;
use ferroflow_tuning::domain::condition::is_true;
use ferroflow_tuning::domain::observation::Report;
use ferroflow_tuning::store::{LogQuery, ObservationLogs};
use ferroflow_tuning::{Deps, Options, Tuning};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use localkube_apiserver::{ApiServer, ApiServerConfig, service_account, user};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct World {
    admin: Client,
    transport: Transport,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn apply(client: &Client, manifest: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&manifest["apiVersion"]), text(&manifest["kind"]));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match manifest["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let object = serde_json::from_value(manifest.clone()).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => drop(result.unwrap_or_else(|error| panic!("{}: {error}", manifest["metadata"]["name"]))),
    }
}

async fn world() -> World {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let server = ApiServer::open(ApiServerConfig::new(folder.path().join("api")))
        .await
        .unwrap();
    let admin = server.client(user("admin", &["system:masters"]), "default");
    for namespace in ["kubeflow", "team-a", "team-b"] {
        apply(
            &admin,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
        let account = json!({"name": "default", "namespace": namespace});
        apply(
            &admin,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}),
        )
        .await;
    }
    let ours = |manifest: &Value| {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        name.contains("tuning") || name.contains("katib") || name.ends_with("s.kubeflow.org")
    };
    for manifest in ferroflow_api::manifests::crds()
        .unwrap()
        .iter()
        .filter(|m| ours(m))
    {
        apply(&admin, manifest).await;
    }
    for manifest in ferroflow_api::manifests::rbac()
        .unwrap()
        .iter()
        .filter(|m| ours(m))
    {
        apply(&admin, manifest).await;
    }
    let client = server.client(service_account("kubeflow", "tuning"), "kubeflow");
    let db = Db::open(
        &DbOptions::sqlite(&folder.path().join("tuning.db"), "tuning"),
        Tuning::MIGRATIONS,
    )
    .await
    .unwrap();
    let key = CallerKey::random();
    let deps = Deps {
        client: client.clone(),
        db,
        authorizer: Arc::new(SubjectAccessAuthorizer::new(client)),
        key: key.clone(),
        clock: Arc::new(SystemClock),
        readiness: Readiness::default(),
    };
    let tuning = Tuning::new(deps, Options::default());
    server.register_backend("kubeflow", "tuning", tuning.webhooks());
    let routes = LateRoutes::default();
    routes.bind(tuning.grpc());
    for manifest in ferroflow_api::manifests::webhooks()
        .unwrap()
        .iter()
        .filter(|m| ours(m))
    {
        apply(&admin, manifest).await;
    }
    let cancel = CancellationToken::new();
    tokio::spawn(tuning.run(cancel.clone()));
    World {
        admin,
        transport: Transport::in_process(routes, key, "test"),
        cancel,
        _folder: folder,
    }
}

impl World {
    fn db_manager(&self, namespace: &str, account: &str) -> DbManagerClient<ferroflow_rpc::CallAs> {
        let caller = Caller::new(Principal::service_account(namespace, account));
        DbManagerClient::new(self.transport.call_as(&caller))
    }

    async fn report(&self, namespace: &str, trial: &str, name: &str, value: &str) {
        let metric = katib::Metric {
            name: name.into(),
            value: value.into(),
        };
        let log = katib::MetricLog {
            time_stamp: "2026-01-02T03:04:05Z".into(),
            metric: Some(metric),
        };
        let request = katib::ReportObservationLogRequest {
            trial_name: trial.into(),
            observation_log: Some(katib::ObservationLog {
                metric_logs: vec![log],
            }),
        };
        self.db_manager(namespace, "default")
            .report_observation_log(request)
            .await
            .unwrap();
    }

    async fn log(&self, namespace: &str, trial: &str) -> Vec<String> {
        let request = katib::GetObservationLogRequest {
            trial_name: trial.into(),
            ..Default::default()
        };
        let reply = self
            .db_manager(namespace, "default")
            .get_observation_log(request)
            .await
            .unwrap()
            .into_inner();
        reply
            .observation_log
            .unwrap()
            .metric_logs
            .into_iter()
            .map(|l| l.metric.unwrap().value)
            .collect()
    }

    /// Ends every Job that runs, after its trial has reported `loss`.
    async fn end_jobs(&self, namespace: &str, loss: Option<f64>) {
        let jobs: Api<Job> = Api::namespaced(self.admin.clone(), namespace);
        for job in jobs.list(&ListParams::default()).await.unwrap() {
            if job
                .status
                .as_ref()
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|c| !c.is_empty())
            {
                continue;
            }
            let name = job.name_any();
            if let Some(loss) = loss {
                self.report(namespace, &name, "loss", &loss.to_string()).await;
            }
            let now = "2026-01-02T03:04:05Z";
            let condition = |t: &str| json!({"type": t, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
            let status = json!({"status": {"conditions": [condition("SuccessCriteriaMet"), condition("Complete")], "succeeded": 1,
                "startTime": now, "completionTime": now}});
            // the trial may have deleted it meanwhile
            drop(
                jobs.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                    .await,
            );
        }
    }
}

fn experiment(name: &str, namespace: &str) -> Experiment {
    serde_json::from_value(json!({
        "apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 2, "maxTrialCount": 5, "maxFailedTrialCount": 2,
            "parameters": [{"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.5"}}],
            "trialTemplate": {
                "primaryContainerName": "main", "trialParameters": [{"name": "rate", "reference": "lr"}],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "python", "command": ["train", "--lr=${trialParameters.rate}"]}]}}}},
            },
        },
    }))
    .unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ended(experiments: &Api<Experiment>, name: &str) -> Option<Experiment> {
    let experiment = experiments.get(name).await.unwrap();
    let conditions = experiment
        .status
        .as_ref()
        .map(|s| s.conditions.clone())
        .unwrap_or_default();
    (is_true(&conditions, "Succeeded") || is_true(&conditions, "Failed")).then_some(experiment)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_runs_to_its_end_with_the_services_own_rights() {
    let world = world().await;
    let experiments: Api<Experiment> = Api::namespaced(world.admin.clone(), "team-a");
    let created = experiments
        .create(&PostParams::default(), &experiment("tune", "team-a"))
        .await
        .unwrap();
    assert_eq!(
        created.spec.resume_policy.as_deref(),
        Some("Never"),
        "the webhook fills in defaults"
    );
    let done = until("every trial ran", || async {
        world.end_jobs("team-a", Some(0.25)).await;
        ended(&experiments, "tune").await
    })
    .await;
    let status = done.status.unwrap();
    assert_eq!((status.trials, status.trials_succeeded), (5, 5));
    assert_eq!(
        status.conditions.last().unwrap().reason,
        "ExperimentMaxTrialsReached"
    );
    let suggestions: Api<Suggestion> = Api::namespaced(world.admin.clone(), "team-a");
    let suggestion = until("the suggestion ends", || async {
        let suggestion = suggestions.get("tune").await.unwrap();
        let ended = is_true(&suggestion.status.as_ref()?.conditions, "Succeeded");
        ended.then_some(suggestion)
    })
    .await;
    let points = suggestion.status.unwrap();
    assert_eq!((suggestion.spec.requests, points.suggestion_count), (5, 5));
    assert_eq!(
        points.algorithm_settings[0].name, "random_state",
        "the seed is kept, so that the points can be replayed"
    );

    let trials: Api<Trial> = Api::namespaced(world.admin.clone(), "team-a");
    let best = &status.current_optimal_trial.best_trial_name;
    assert_eq!(world.log("team-a", best).await.len(), 1);
    trials.delete(best, &Default::default()).await.unwrap();
    until("the trial is gone with its log", || async {
        (trials.get_opt(best).await.unwrap().is_none()).then_some(())
    })
    .await;
    assert!(world.log("team-a", best).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_below_a_trial_reports_and_others_are_left_alone() {
    let world = world().await;
    let experiments: Api<Experiment> = Api::namespaced(world.admin.clone(), "team-a");
    experiments
        .create(&PostParams::default(), &experiment("tune", "team-a"))
        .await
        .unwrap();
    let jobs: Api<Job> = Api::namespaced(world.admin.clone(), "team-a");
    let job = until("a job", || async {
        jobs.list(&ListParams::default()).await.unwrap().items.pop()
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "team-a");
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid().unwrap(), "controller": true});
    let pod = |name: &str, owners: Value| -> Pod {
        let container = json!({"name": "main", "image": "python", "command": ["train"], "args": ["-v"]});
        serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": {"containers": [container]}}))
            .unwrap()
    };
    let below = pods
        .create(&PostParams::default(), &pod("below", json!([owner])))
        .await
        .unwrap();
    let container = &below.spec.as_ref().unwrap().containers[0];
    assert_eq!(
        container.command.as_ref().unwrap()[..2],
        ["/ferroflow/launcher", "collect-metrics"]
    );
    assert_eq!(container.args.as_deref().unwrap(), ["train", "-v"]);
    assert_eq!(below.labels()["katib.kubeflow.org/trial"], job.name_any());
    let alone = pods
        .create(&PostParams::default(), &pod("alone", json!([])))
        .await
        .unwrap();
    assert_eq!(
        alone.spec.unwrap().containers[0].command.as_deref().unwrap(),
        ["train"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_apart_and_bad_experiments_are_refused() {
    let world = world().await;
    world.report("team-a", "same-name", "loss", "1").await;
    world.report("team-b", "same-name", "loss", "2").await;
    assert_eq!(world.log("team-a", "same-name").await, ["1"]);
    assert_eq!(world.log("team-b", "same-name").await, ["2"]);
    let stranger = Caller {
        principal: Principal::user("eve@example.com"),
        namespace: "team-a".into(),
    };
    let mut client = DbManagerClient::new(world.transport.call_as(&stranger));
    let request = katib::GetObservationLogRequest {
        trial_name: "same-name".into(),
        ..Default::default()
    };
    let refused = client.get_observation_log(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let request = katib::DeleteObservationLogRequest {
        trial_name: "same-name".into(),
    };
    let refused = world
        .db_manager("team-a", "default")
        .delete_observation_log(request)
        .await
        .unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::PermissionDenied,
        "a trial may report, and not delete"
    );

    let experiments: Api<Experiment> = Api::namespaced(world.admin.clone(), "team-a");
    let mut bad = experiment("bad", "team-a");
    bad.spec.parameters.as_mut().unwrap()[0].feasible_space.max = "0.01".into();
    let error = experiments
        .create(&PostParams::default(), &bad)
        .await
        .unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!(
        status.message,
        "admission webhook \"validator.experiment.katib.kubeflow.org\" denied the request: spec.parameters[0].feasibleSpace.min: \
         Invalid value: \"0.1\": must be less than or equal to feasibleSpace.max \"0.01\""
    );

    let caller = Caller::new(Principal::service_account("team-a", "default"));
    let mut suggestion = SuggestionClient::new(world.transport.call_as(&caller));
    let spec = katib::ExperimentSpec {
        algorithm: Some(katib::AlgorithmSpec {
            algorithm_name: "tpe".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = katib::ValidateAlgorithmSettingsRequest {
        experiment: Some(katib::Experiment {
            name: "e".into(),
            spec: Some(spec),
        }),
    };
    let refused = suggestion.validate_algorithm_settings(request).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "algorithm \"tpe\" is not implemented yet; use one of random, grid"
    );
}

async fn suite(logs: &ObservationLogs) {
    let report = |second: i64, name: &str, value: &str| Report {
        time: jiff::Timestamp::from_second(second).unwrap(),
        name: name.into(),
        value: value.into(),
    };
    let many: Vec<Report> = (0..250)
        .map(|i| report(i, if i % 2 == 0 { "a" } else { "b" }, &i.to_string()))
        .collect();
    logs.append("ns", "t", &many[125..]).await.unwrap();
    logs.append("ns", "t", &many[..125]).await.unwrap();
    logs.append("other", "t", &[report(1, "a", "x")]).await.unwrap();
    assert_eq!(
        logs.read("ns", "t", &LogQuery::default()).await.unwrap(),
        many,
        "by time, whatever the order of arrival"
    );
    let query = LogQuery {
        metric: "a".into(),
        start: Some(jiff::Timestamp::from_second(10).unwrap()),
        end: Some(jiff::Timestamp::from_second(14).unwrap()),
    };
    let some = logs.read("ns", "t", &query).await.unwrap();
    assert_eq!(
        some.iter().map(|r| r.value.as_str()).collect::<Vec<_>>(),
        ["10", "12", "14"]
    );
    logs.delete("ns", "t").await.unwrap();
    assert!(
        logs.read("ns", "t", &LogQuery::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        logs.read("other", "t", &LogQuery::default()).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn logs_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = DbOptions::sqlite(&folder.path().join("t.db"), "tuning");
    suite(&ObservationLogs::new(
        Db::open(&options, Tuning::MIGRATIONS).await.unwrap(),
    ))
    .await;
}

#[tokio::test]
async fn logs_on_postgres() {
    let Ok(url) = std::env::var("FERROFLOW_TEST_POSTGRES") else {
        eprintln!("FERROFLOW_TEST_POSTGRES is not set: PostgreSQL is not tested");
        return;
    };
    let name = format!("tuning_{}", ferroflow_kernel::random_suffix(8));
    let db = Db::open(&DbOptions::url(&url, &name), Tuning::MIGRATIONS)
        .await
        .unwrap();
    suite(&ObservationLogs::new(db)).await;
}
