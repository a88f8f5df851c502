//! A platform for tests: the real API server, the service itself, artifacts in memory, and a kubelet that plays steps.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a failed test"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ferroflow_api::step::{ENV_HINT_URL, Outcome, OutcomeArtifact, OutcomeState, Step};
use ferroflow_auth::{AccessReview, Authorizer, Caller, CallerKey, Principal};
use ferroflow_bus::MemoryBus;
use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::{Error, Result, SystemClock};
use ferroflow_pipelines::worker::artifacts::{Artifacts, Credentials};
use ferroflow_pipelines::{Deps, Options, Pipelines};
use ferroflow_rpc::{LateRoutes, Transport};
use ferroflow_telemetry::{Metrics, Readiness};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use localkube_apiserver::{ApiServer, ApiServerConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryArtifacts(Mutex<HashMap<String, Vec<u8>>>);

impl MemoryArtifacts {
    /// Creates an object unless it is there.
    pub fn create(&self, uri: &str, bytes: Vec<u8>) -> bool {
        let mut all = self.0.lock().unwrap();
        let new = !all.contains_key(uri);
        if new {
            all.insert(uri.to_owned(), bytes);
        }
        new
    }

    /// Removes an object.
    pub fn remove(&self, uri: &str) {
        self.0.lock().unwrap().remove(uri);
    }
}

#[async_trait]
impl Artifacts for MemoryArtifacts {
    async fn get(&self, uri: &str, _: usize) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().get(uri).cloned())
    }
    async fn exists(&self, uri: &str) -> Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(uri))
    }
    async fn credentials(&self, _: &str, _: &str, _: &str) -> Result<Credentials> {
        Ok(Credentials {
            token: "t".into(),
            ..Credentials::default()
        })
    }
}

/// Lets `admin` and the service itself do anything, and everyone else nothing.
#[derive(Debug)]
pub struct OnlyAdmin;

#[async_trait]
impl Authorizer for OnlyAdmin {
    async fn authorize(&self, principal: &Principal, _: &AccessReview) -> Result<()> {
        let own = "system:serviceaccount:kubeflow:pipelines";
        if principal.user == "admin" || principal.user == own {
            Ok(())
        } else {
            Err(Error::denied("not admin"))
        }
    }
}

/// What a played step does.
#[derive(Debug, Clone)]
pub enum Play {
    /// Succeeds with these parameters.
    Give(Value),
    /// Its command fails with this text.
    Fail(&'static str),
    /// Its Pod fails without an outcome.
    Crash,
    /// Its Pod never starts, for this reason and text.
    Stuck(&'static str, &'static str),
    /// Its Pod runs until it is deleted.
    Hang,
}

/// How steps behave: by step and Pod.
pub type Script = Arc<dyn Fn(&Step) -> Play + Send + Sync>;

/// The platform.
pub struct World {
    pub server: ApiServer,
    pub client: kube::Client,
    pub artifacts: Arc<MemoryArtifacts>,
    pub router: axum::Router,
    pub grpc: Transport,
    pub cancel: CancellationToken,
    pub db: Db,
    /// Every Pod that a kubelet saw for the first time: name.
    pub seen: Arc<Mutex<Vec<String>>>,
    key: CallerKey,
    working: tokio::task::JoinHandle<anyhow::Result<()>>,
}

pub fn options() -> Options {
    Options {
        step_service_account: "default".into(),
        image_grace: Duration::from_millis(100),
        ..Options::default()
    }
}

impl World {
    /// A platform in a folder; steps behave as the script says.
    pub async fn open(folder: &Path, script: Script) -> Self {
        let server = ApiServer::open(ApiServerConfig::new(folder.join("kube")))
            .await
            .unwrap();
        let client = server.client(localkube_apiserver::user("admin", &["system:masters"]), "default");
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(client.clone(), "default");
        let params = PatchParams::default();
        if accounts.get_opt("default").await.unwrap().is_none() {
            accounts
                .create(&Default::default(), &serde_json::from_value(account).unwrap())
                .await
                .unwrap();
        }
        drop(params);
        let db = Db::open(
            &DbOptions::sqlite(&folder.join("pipelines.db"), "pipelines"),
            Pipelines::MIGRATIONS,
        )
        .await
        .unwrap();
        let artifacts = Arc::new(MemoryArtifacts::default());
        let cancel = CancellationToken::new();
        let seen = Arc::default();
        let kubelet = Kubelet {
            client: client.clone(),
            artifacts: artifacts.clone(),
            script,
            seen: Arc::clone(&seen),
        };
        let key = CallerKey::random();
        let (router, grpc, working) = serve(&client, &db, &artifacts, &key, &cancel);
        tokio::spawn(kubelet.run(router.clone(), cancel.clone()));
        Self {
            server,
            client,
            artifacts,
            router,
            grpc,
            cancel,
            db,
            seen,
            key,
            working,
        }
    }

    /// Another process of the service, which answers and leads nothing.
    pub fn follower(&self) -> axum::Router {
        build(&self.client, &self.db, &self.artifacts, &self.key).rest()
    }

    /// The service dies and comes back; Pods and objects stay.
    pub async fn restart(&mut self) {
        self.working.abort();
        let _aborted = (&mut self.working).await;
        let (router, grpc, working) = serve(&self.client, &self.db, &self.artifacts, &self.key, &self.cancel);
        self.router = router;
        self.grpc = grpc;
        self.working = working;
    }

    /// Calls the API as a user.
    pub async fn call_as(&self, user: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(axum::body::Body::from(text))
            .unwrap();
        request
            .extensions_mut()
            .insert(Caller::new(Principal::user(user)));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))),
        )
    }

    /// Calls the API as admin, and expects it to work.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.call_as("admin", method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// Submits a pipeline; its id.
    pub async fn submit(&self, yaml: &str, parameters: &Value) -> String {
        let package = ferroflow_pipelines::domain::package::Package::from_text(yaml).unwrap();
        let run = json!({"display_name": "r", "pipeline_spec": package.to_json(), "runtime_config": {"parameters": parameters}});
        let created = self.call("POST", "/apis/v2beta1/runs", Some(&run)).await;
        created["run_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the run is as wanted, and gives it.
    pub async fn wait(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let run = self.call("GET", &format!("/apis/v2beta1/runs/{id}"), None).await;
            if wanted(&run) {
                return run;
            }
            assert!(Instant::now() < deadline, "the run is not as wanted: {run:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the run is over.
    pub async fn finish(&self, id: &str) -> Value {
        self.wait(id, |run| {
            matches!(run["state"].as_str(), Some("SUCCEEDED" | "FAILED" | "CANCELED"))
        })
        .await
    }

    /// Everything the run page shows of a task.
    pub async fn task(&self, id: &str, path: &str) -> Value {
        let graph = self
            .call(
                "GET",
                &format!("/apis/ferroflow/v1/pipelines/runs/{id}/graph"),
                None,
            )
            .await;
        let tasks = graph["tasks"].as_array().unwrap();
        tasks
            .iter()
            .find(|t| t["path"] == path)
            .unwrap_or_else(|| panic!("no task {path} in {graph:#}"))
            .clone()
    }
}

fn build(client: &kube::Client, db: &Db, artifacts: &Arc<MemoryArtifacts>, key: &CallerKey) -> Pipelines {
    let transport = Transport::in_process(LateRoutes::default(), key.clone(), "pipelines");
    let deps = Deps {
        client: client.clone(),
        db: db.clone(),
        bus: Arc::new(MemoryBus::default()),
        authorizer: Arc::new(OnlyAdmin),
        key: key.clone(),
        clock: Arc::new(SystemClock),
        readiness: Readiness::default(),
        metrics: Metrics::default(),
        artifacts: transport.clone(),
        metadata: transport,
    };
    Pipelines::with_artifacts(deps, options(), artifacts.clone())
}

fn serve(
    client: &kube::Client,
    db: &Db,
    artifacts: &Arc<MemoryArtifacts>,
    key: &CallerKey,
    cancel: &CancellationToken,
) -> (
    axum::Router,
    Transport,
    tokio::task::JoinHandle<anyhow::Result<()>>,
) {
    let pipelines = build(client, db, artifacts, key);
    let router = pipelines.rest();
    let routes = LateRoutes::default();
    routes.bind(pipelines.grpc());
    let grpc = Transport::in_process(routes, key.clone(), "test");
    let working = tokio::spawn(pipelines.run(cancel.clone()));
    (router, grpc, working)
}

struct Kubelet {
    client: kube::Client,
    artifacts: Arc<MemoryArtifacts>,
    script: Script,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Kubelet {
    async fn run(self, router: axum::Router, cancel: CancellationToken) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut events = Box::pin(watcher(pods, watcher::Config::default()));
        let mut begun: BTreeMap<String, ()> = BTreeMap::new();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = cancel.cancelled() => return,
            };
            let Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) = event else {
                continue;
            };
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap());
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let now = kube::api::DeleteParams::default().grace_period(0);
                let _gone = api.delete(&name, &now).await;
                continue;
            }
            if begun.insert(pod.uid().unwrap(), ()).is_some() {
                continue;
            }
            self.seen.lock().unwrap().push(name.clone());
            let status = self.play(&pod, &router).await;
            if let Some(status) = status {
                let patch = Patch::Merge(json!({"status": status}));
                let _gone = api.patch_status(&name, &PatchParams::default(), &patch).await;
            }
        }
    }

    async fn play(&self, pod: &Pod, router: &axum::Router) -> Option<Value> {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let args = container.args.as_ref().unwrap();
        let text: String = args[1..].chunks(2).map(|pair| pair[1].clone()).collect();
        let step: Step = serde_json::from_str(&text).unwrap();
        let state = |state: Value| json!([{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        match (self.script)(&step) {
            Play::Give(parameters) => {
                self.outcome(&step, OutcomeState::Succeeded, None, &parameters);
                let hint = container
                    .env
                    .as_ref()
                    .unwrap()
                    .iter()
                    .find(|e| e.name == ENV_HINT_URL)
                    .unwrap();
                let url: http::Uri = hint.value.as_ref().unwrap().parse().unwrap();
                let request = http::Request::post(url.path())
                    .body(axum::body::Body::empty())
                    .unwrap();
                let told = router.clone().oneshot(request).await.unwrap();
                assert_eq!(told.status(), 204);
                Some(json!({"phase": "Succeeded", "containerStatuses": state(ended(0))}))
            }
            Play::Fail(why) => {
                self.outcome(&step, OutcomeState::Failed, Some(why), &json!({}));
                Some(json!({"phase": "Failed", "containerStatuses": state(ended(1))}))
            }
            Play::Crash => Some(json!({"phase": "Failed", "containerStatuses": state(ended(137))})),
            Play::Stuck(reason, message) => {
                let waiting = json!({"waiting": {"reason": reason, "message": message}});
                Some(json!({"phase": "Pending", "containerStatuses": state(waiting)}))
            }
            Play::Hang => Some(json!({"phase": "Running"})),
        }
    }

    fn outcome(&self, step: &Step, state: OutcomeState, message: Option<&str>, parameters: &Value) {
        let mut artifacts: BTreeMap<String, Vec<OutcomeArtifact>> = BTreeMap::new();
        if state == OutcomeState::Succeeded {
            for (name, list) in step.executor_input["outputs"]["artifacts"]
                .as_object()
                .into_iter()
                .flatten()
            {
                let uri = list["artifacts"][0]["uri"].as_str().unwrap().to_owned();
                self.artifacts.create(&uri, b"bytes".to_vec());
                artifacts.insert(
                    name.clone(),
                    vec![OutcomeArtifact {
                        name: name.clone(),
                        uri,
                        schema_title: "system.Dataset".into(),
                        schema_version: "0.0.1".into(),
                        metadata: serde_json::Map::new(),
                        digest: Some("sha256:00".into()),
                        size: Some(5),
                    }],
                );
            }
        }
        let outcome = Outcome {
            run_id: step.run_id.clone(),
            task: step.task.clone(),
            attempt: step.attempt,
            state,
            exit_code: Some(i32::from(state == OutcomeState::Failed)),
            message: message.map(str::to_owned),
            started_at: "2026-01-01T00:00:00Z".into(),
            finished_at: "2026-01-01T00:00:00Z".into(),
            parameters: parameters.as_object().unwrap().clone().into_iter().collect(),
            artifacts,
        };
        let created = self
            .artifacts
            .create(&step.outcome_uri, serde_json::to_vec(&outcome).unwrap());
        assert!(created, "{} attempt {} has two outcomes", step.task, step.attempt);
    }
}

/// What the components of the fixtures do.
pub fn behave(step: &Step) -> Play {
    let input = &step.executor_input["inputs"]["parameterValues"];
    let number = |name: &str| input[name].as_f64().unwrap_or_default();
    Play::Give(match step.args.last().map(String::as_str).unwrap_or_default() {
        "add" => json!({"Output": number("a") + number("b")}),
        "say" | "maybe" => json!({"Output": input["text"]}),
        "flip" => json!({"Output": "heads"}),
        "numbers" => json!({"Output": [1.0, 2.0, 3.0]}),
        "total" => {
            json!({"Output": input["values"].as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>()})
        }
        "make" => json!({"note": "made"}),
        "train" => json!({"loss": number("rate"), "tags": ["a"]}),
        "count_all" => {
            json!({"Output": step.executor_input["inputs"]["artifacts"]["items"]["artifacts"].as_array().unwrap().len()})
        }
        _ => json!({}),
    })
}
