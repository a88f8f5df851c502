//! The whole service against a Kubernetes API: its own account and rights, webhook and controllers. Pods are played.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_api::crd::training::XGBoostJob;
use ferroflow_auth::{CallerKey, SubjectAccessAuthorizer};
use ferroflow_kernel::SystemClock;
use ferroflow_telemetry::Readiness;
use ferroflow_training::domain::status::is_true;
use ferroflow_training::{Deps, Training};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use localkube_apiserver::{ApiServer, ApiServerConfig, service_account, user};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

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

struct World {
    admin: Client,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn world() -> World {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let server = ApiServer::open(ApiServerConfig::new(folder.path().join("api")))
        .await
        .unwrap();
    let admin = server.client(user("admin", &["system:masters"]), "default");
    for namespace in ["kubeflow", "team"] {
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
    let ours = |manifest: &&Value| {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        name.contains("training") || name.ends_with("jobs.kubeflow.org")
    };
    for manifest in ferroflow_api::manifests::crds().unwrap().iter().filter(ours) {
        apply(&admin, manifest).await;
    }
    for manifest in ferroflow_api::manifests::rbac().unwrap().iter().filter(ours) {
        apply(&admin, manifest).await;
    }
    let client = server.client(service_account("kubeflow", "training"), "kubeflow");
    let training = Training::new(Deps {
        client: client.clone(),
        authorizer: Arc::new(SubjectAccessAuthorizer::new(client)),
        key: CallerKey::random(),
        clock: Arc::new(SystemClock),
        readiness: Readiness::default(),
    });
    server.register_backend("kubeflow", "training", training.webhooks());
    for manifest in ferroflow_api::manifests::webhooks().unwrap().iter().filter(ours) {
        apply(&admin, manifest).await;
    }
    let cancel = CancellationToken::new();
    tokio::spawn(training.run(cancel.clone()));
    World {
        admin,
        cancel,
        _folder: folder,
    }
}

fn job(workers: i32) -> XGBoostJob {
    let replica = |replicas: i32| {
        let containers = json!([{"name": "xgboost", "image": "python:3.11", "command": ["train"]}]);
        json!({"replicas": replicas, "template": {"spec": {"containers": containers}}})
    };
    serde_json::from_value(json!({
        "apiVersion": "kubeflow.org/v1", "kind": "XGBoostJob", "metadata": {"name": "boost", "namespace": "team"},
        "spec": {"runPolicy": {"cleanPodPolicy": "All"}, "xgbReplicaSpecs": {"Master": replica(1), "Worker": replica(workers)}},
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

async fn names(pods: &Api<Pod>) -> Vec<String> {
    let mut names: Vec<String> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end_with_the_services_own_rights() {
    let world = world().await;
    let jobs: Api<XGBoostJob> = Api::namespaced(world.admin.clone(), "team");
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "team");
    let services: Api<Service> = Api::namespaced(world.admin.clone(), "team");
    jobs.create(&PostParams::default(), &job(2)).await.unwrap();
    until("the master", || async {
        (names(&pods).await == ["boost-master-0"]).then_some(())
    })
    .await;
    let status = |phase: &str| Patch::Merge(json!({"status": {"phase": phase, "podIP": "127.1.0.9"}}));
    pods.patch_status("boost-master-0", &PatchParams::default(), &status("Running"))
        .await
        .unwrap();
    until("the workers", || async {
        (names(&pods).await.len() == 3).then_some(())
    })
    .await;
    let service = services.get("boost-worker-1").await.unwrap();
    assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    pods.patch_status("boost-master-0", &PatchParams::default(), &status("Succeeded"))
        .await
        .unwrap();
    let done = until("the job ends", || async {
        let job = jobs.get("boost").await.unwrap();
        job.status.clone().filter(|s| is_true(s, "Succeeded"))
    })
    .await;
    assert_eq!(
        done.conditions.last().unwrap().message,
        "XGBoostJob boost is successfully completed."
    );
    until("every pod is deleted", || async {
        let left = pods.list(&ListParams::default()).await.unwrap().items;
        left.iter()
            .all(|p| p.metadata.deletion_timestamp.is_some())
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_job_is_refused() {
    let world = world().await;
    let jobs: Api<XGBoostJob> = Api::namespaced(world.admin.clone(), "team");
    let mut bad = job(1);
    bad.spec.xgb_replica_specs.remove("Master");
    let error = jobs.create(&PostParams::default(), &bad).await.unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!(
        status.message,
        "admission webhook \"validator.jobs.training-operator.kubeflow.org\" denied the request: \
         spec.xgbReplicaSpecs[Master]: Required value: must be present"
    );
}
