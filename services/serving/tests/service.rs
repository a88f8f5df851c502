//! The whole service against a Kubernetes API: its own account and rights, webhooks, controller and gRPC. What the Deployment
//! controller and the node do is played.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use ferroflow_api::crd::serving::{ClusterServingRuntime, InferenceService};
use ferroflow_api::ferroflow::serving::v1::serving_service_client::ServingServiceClient;
use ferroflow_api::ferroflow::serving::v1::{GetModelRequest, ListModelsRequest};
use ferroflow_auth::{Caller, CallerKey, Principal, SubjectAccessAuthorizer};
use ferroflow_kernel::SystemClock;
use ferroflow_rpc::{LateRoutes, Transport};
use ferroflow_serving::{Deps, Serving, ServingConfig};
use ferroflow_telemetry::{Metrics, Readiness};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use localkube_apiserver::{ApiServer, ApiServerConfig, service_account, user};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "team-a";

struct World {
    admin: Client,
    transport: Transport,
    readiness: Readiness,
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
    for namespace in ["kubeflow", NAMESPACE, "team-b"] {
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
        name.ends_with("serving.kserve.io") || name == "ferroflow-serving" || name == "kubeflow-view"
    };
    for manifests in [ferroflow_api::manifests::crds(), ferroflow_api::manifests::rbac()] {
        for manifest in manifests.unwrap().iter().filter(|manifest| ours(manifest)) {
            apply(&admin, manifest).await;
        }
    }
    let reader = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "reader", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubeflow-view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    apply(&admin, &reader).await;
    let client = server.client(service_account("kubeflow", "serving"), "kubeflow");
    let (key, readiness) = (CallerKey::random(), Readiness::default());
    let deps = Deps {
        client: client.clone(),
        authorizer: Arc::new(SubjectAccessAuthorizer::new(client)),
        key: key.clone(),
        clock: Arc::new(SystemClock),
        readiness: readiness.clone(),
        metrics: Metrics::default(),
        artifacts: None,
    };
    let serving = Serving::new(
        deps,
        ServingConfig {
            port: Some(8080),
            ..ServingConfig::default()
        },
    );
    server.register_backend("kubeflow", "serving", serving.webhooks());
    let routes = LateRoutes::default();
    routes.bind(serving.grpc());
    for manifest in ferroflow_api::manifests::webhooks()
        .unwrap()
        .iter()
        .filter(|manifest| ours(manifest))
    {
        apply(&admin, manifest).await;
    }
    let cancel = CancellationToken::new();
    tokio::spawn(serving.run(cancel.clone()));
    let world = World {
        admin,
        transport: Transport::in_process(routes, key, "test"),
        readiness,
        cancel,
        _folder: folder,
    };
    tokio::time::timeout(Duration::from_secs(20), world.readiness.wait())
        .await
        .unwrap();
    world
}

impl World {
    fn services(&self) -> Api<InferenceService> {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    async fn create(&self, name: &str, predictor: Value) -> Result<InferenceService, String> {
        let object = json!({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"predictor": predictor}});
        let created = self
            .services()
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await;
        created.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => error.to_string(),
        })
    }

    /// Waits for a status that fits.
    async fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        let mut last = Value::Null;
        while Instant::now() < end {
            let found = self.services().get(name).await.unwrap();
            last = serde_json::to_value(&found.status).unwrap();
            if fits(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name}: not {what} within 20 s, but {last:#}");
    }

    /// Plays the node: a Pod of the predictor with these statuses.
    async fn pod(&self, service: &str, status: Value) {
        let api: Api<Pod> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let deployment: Api<Deployment> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let template = deployment
            .get(&format!("{service}-predictor"))
            .await
            .unwrap()
            .spec
            .unwrap()
            .template;
        let name = format!("{service}-predictor-1");
        if api.get_opt(&name).await.unwrap().is_none() {
            let mut pod = Pod {
                metadata: template.metadata.unwrap(),
                spec: template.spec,
                status: None,
            };
            pod.metadata.name = Some(name.clone());
            api.create(&PostParams::default(), &pod).await.unwrap();
        }
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Plays the Deployment controller.
    async fn available(&self, service: &str, replicas: i32) {
        let api: Api<Deployment> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let name = format!("{service}-predictor");
        let generation = api.get(&name).await.unwrap().metadata.generation;
        let status = json!({"status": {"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas}});
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let all = status["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    all.iter()
        .find(|condition| condition["type"] == kind)
        .and_then(|found| found["status"].as_str())
        .unwrap_or("")
}

fn container(name: &str, state: Value) -> Value {
    let ready = state["running"].is_object();
    json!({"name": name, "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": state})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_becomes_ready_and_is_listed() {
    let world = world().await;
    let created = world
        .create("digits", json!({"xgboost": {"storageUri": "s3://mlpipeline/m"}}))
        .await
        .unwrap();
    let model = created.spec.predictor.model.unwrap();
    assert_eq!(
        (
            model.model_format.name.as_str(),
            model.protocol_version.as_deref()
        ),
        ("xgboost", Some("v1"))
    );
    let first = world
        .until("digits", "seen", |status| status["observedGeneration"] == 1)
        .await;
    assert_eq!(first["url"], "http://digits.team-a.localhost:8080");
    assert_eq!(first["modelStatus"]["transitionStatus"], "InProgress");
    assert_eq!(first["clusterServingRuntimeName"], "kserve-xgbserver");
    let services: Api<Service> = Api::namespaced(world.admin.clone(), NAMESPACE);
    for name in ["digits", "digits-predictor"] {
        let service = services.get(name).await.unwrap();
        assert_eq!(service.owner_references()[0].kind, "InferenceService");
    }
    world
        .pod(
            "digits",
            json!({"phase": "Running",
        "initContainerStatuses": [container("storage-initializer", json!({"terminated": {"exitCode": 0}}))],
        "containerStatuses": [container("kserve-container", json!({"running": {}}))]}),
        )
        .await;
    world.available("digits", 1).await;
    let ready = world
        .until("digits", "ready", |status| condition(status, "Ready") == "True")
        .await;
    assert_eq!(
        ready["modelStatus"]["states"],
        json!({"activeModelState": "Loaded", "targetModelState": "Loaded"})
    );

    let client =
        |user: &str| ServingServiceClient::new(world.transport.call_as(&Caller::new(Principal::user(user))));
    let list = ListModelsRequest {
        namespace: NAMESPACE.into(),
    };
    let models = client("ann")
        .list_models(list.clone())
        .await
        .unwrap()
        .into_inner()
        .models;
    assert_eq!(models.len(), 1);
    assert!(models[0].ready && models[0].path == "/serving/team-a/digits/" && models[0].format == "xgboost");
    let refused = client("eve").list_models(list).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let get = GetModelRequest {
        namespace: NAMESPACE.into(),
        name: "none".into(),
    };
    assert_eq!(
        client("ann").get_model(get).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_fetched_blocks_with_the_reason() {
    let world = world().await;
    world
        .create(
            "digits",
            json!({"model": {"modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/none"}}),
        )
        .await
        .unwrap();
    world
        .until("digits", "seen", |status| status["observedGeneration"] == 1)
        .await;
    let ended = json!({"terminated": {"exitCode": 1, "message": "error: cannot fetch s3://b/none: there is nothing\n"}});
    world.pod("digits", json!({"phase": "Pending",
        "initContainerStatuses": [container("storage-initializer", ended)],
        "containerStatuses": [container("kserve-container", json!({"waiting": {"reason": "PodInitializing"}}))]})).await;
    let blocked = world
        .until("digits", "blocked", |status| {
            status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
        })
        .await;
    let info = &blocked["modelStatus"]["lastFailureInfo"];
    assert_eq!(
        (&info["reason"], &info["message"]),
        (
            &json!("ModelLoadFailed"),
            &json!("cannot fetch s3://b/none: there is nothing")
        )
    );
    assert_eq!(condition(&blocked, "Ready"), "False");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_services_are_refused_when_they_are_created() {
    let world = world().await;
    let text = world
        .create(
            "m",
            json!({"model": {"modelFormat": {"name": "foo"}, "storageUri": "s3://b/m"}}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        text,
        "admission webhook \"inferenceservice.kserve-webhook-server.validator\" denied the request: \
         spec.predictor.model.modelFormat.name: Unsupported value: \"foo\": no serving runtime takes it; known formats: onnx, sklearn, \
         xgboost; or add a ServingRuntime"
    );
    // A runtime that the namespace has not is waited for, and taken when it comes.
    world
        .create(
            "m",
            json!({"model": {"modelFormat": {"name": "foo"}, "runtime": "mine"}}),
        )
        .await
        .unwrap();
    let status = world
        .until("m", "invalid", |status| {
            status["modelStatus"]["transitionStatus"] == "InvalidSpec"
        })
        .await;
    assert_eq!(
        status["modelStatus"]["lastFailureInfo"]["reason"],
        "RuntimeNotRecognized"
    );
    let runtime = json!({"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime",
        "metadata": {"name": "mine", "namespace": NAMESPACE}, "spec": {"supportedModelFormats": [{"name": "foo"}],
        "containers": [{"name": "kserve-container", "image": "foo:1", "args": ["{{.Name}}"]}]}});
    apply(&world.admin, &runtime).await;
    let status = world
        .until("m", "taken", |status| status["servingRuntimeName"] == "mine")
        .await;
    assert_eq!(status["modelStatus"]["transitionStatus"], "InProgress");
    let deployments: Api<Deployment> = Api::namespaced(world.admin.clone(), NAMESPACE);
    let pod = deployments
        .get("m-predictor")
        .await
        .unwrap()
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    assert_eq!(pod.containers[0].args.as_deref(), Some(&["m".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_not_touched() {
    let world = world().await;
    let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits", "namespace": NAMESPACE},
        "spec": {"ports": [{"port": 1234}], "selector": {"app": "other"}}});
    apply(&world.admin, &foreign).await;
    world
        .create("digits", json!({"model": {"modelFormat": {"name": "xgboost"}}}))
        .await
        .unwrap();
    let services: Api<Service> = Api::namespaced(world.admin.clone(), NAMESPACE);
    let invalid = |status: &Value| status["modelStatus"]["transitionStatus"] == "InvalidSpec";
    let status = world.until("digits", "refused", invalid).await;
    assert_eq!(
        status["modelStatus"]["lastFailureInfo"]["message"],
        "\"digits\" exists and does not belong to this InferenceService; delete or rename it"
    );
    let theirs = services.get("digits").await.unwrap().spec.unwrap().ports.unwrap();
    assert_eq!(theirs[0].port, 1234);
    services.delete("digits", &DeleteParams::default()).await.unwrap();
    let going = |status: &Value| status["modelStatus"]["transitionStatus"] == "InProgress";
    world.until("digits", "going on", going).await;
    // What the API refuses is told as well.
    let wrong =
        json!({"containers": [{"name": "kserve-container", "image": "x", "imagePullPolicy": "Sometimes"}]});
    world.create("wrong", wrong).await.unwrap();
    let status = world.until("wrong", "refused", invalid).await;
    let text = status["modelStatus"]["lastFailureInfo"]["message"].to_string();
    assert!(
        text.contains("imagePullPolicy") && text.contains("Sometimes"),
        "{text}"
    );
    let runtimes: Api<ClusterServingRuntime> = Api::all(world.admin.clone());
    assert!(runtimes.get_opt("kserve-sklearnserver").await.unwrap().is_some());
}
