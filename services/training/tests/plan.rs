//! The plan of a job: Pods, environment, statuses.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;

use ferroflow_training::domain::job::Job;
use ferroflow_training::domain::kind::Kind;
use ferroflow_training::domain::plan::{Action, Plan, plan};
use ferroflow_training::domain::status::is_true;
use ferroflow_training::domain::validation::validate;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use proptest::prelude::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn replica(container: &str, replicas: i32) -> Value {
    json!({"replicas": replicas, "template": {"spec": {"containers": [{"name": container, "image": "python:3.11"}]}}})
}

fn job(kind: &str, spec: Value) -> Job {
    let kind = Kind::named(kind).unwrap();
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "kubeflow.org/v1", "kind": kind.kind,
        "metadata": {"name": "train", "namespace": "team", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    Job::read(kind, &object).unwrap()
}

fn xgboost() -> Job {
    job(
        "XGBoostJob",
        json!({"xgbReplicaSpecs": {"Worker": replica("xgboost", 2), "Master": replica("xgboost", 1)}}),
    )
}

/// A cluster of one job: applies plans as an API server would.
struct World {
    job: Job,
    pods: BTreeMap<String, Pod>,
    services: BTreeMap<String, Service>,
    now: Timestamp,
}

impl World {
    fn new(job: Job) -> Self {
        Self {
            job,
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            now: now(),
        }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<Pod> = self.pods.values().cloned().collect();
        let services: Vec<Service> = self.services.values().cloned().collect();
        plan(&self.job, &pods, &services, self.now).unwrap()
    }

    fn step(&mut self) -> Plan {
        let plan = self.plan();
        for action in plan.actions.clone() {
            match action {
                Action::CreatePod(pod) => {
                    assert!(
                        self.pods.insert(pod.name_any(), *pod).is_none(),
                        "a pod is created twice"
                    );
                }
                Action::CreateService(service) => {
                    self.services.insert(service.name_any(), *service);
                }
                Action::DeletePod(name) => drop(self.pods.remove(&name)),
                Action::DeleteService(name) => drop(self.services.remove(&name)),
                Action::DeleteJob => {}
            }
        }
        self.job.status = plan.status.clone();
        plan
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            let before = self.job.status.clone();
            if self.step().actions.is_empty() && before == self.job.status {
                return;
            }
        }
        panic!("the plan does not settle");
    }

    fn set(&mut self, pod: &str, phase: &str, exit: Option<i32>) {
        let container = self.job.kind.container;
        let pod = self.pods.get_mut(pod).unwrap();
        let state = exit
            .map(|code| json!({"terminated": {"exitCode": code}}))
            .unwrap_or(json!({"running": {}}));
        pod.status = serde_json::from_value(json!({
            "phase": phase, "podIP": "127.1.0.1",
            "containerStatuses": [{"name": container, "state": state, "ready": true, "restartCount": 0, "image": "i", "imageID": ""}],
        }))
        .unwrap();
    }

    fn states(&self) -> Vec<String> {
        self.job
            .status
            .conditions
            .iter()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect()
    }
}

fn env(pod: &Pod) -> BTreeMap<String, String> {
    let env = pod.spec.as_ref().unwrap().containers[0]
        .env
        .clone()
        .unwrap_or_default();
    env.into_iter()
        .map(|v| (v.name, v.value.unwrap_or_default()))
        .collect()
}

#[test]
fn workers_wait_for_the_masters_address_and_know_where_it_is() {
    let mut world = World::new(xgboost());
    world.settle();
    assert_eq!(world.pods.keys().collect::<Vec<_>>(), ["train-master-0"]);
    assert_eq!(world.services.len(), 3);
    assert_eq!(
        world.services["train-worker-1"]
            .spec
            .as_ref()
            .unwrap()
            .cluster_ip
            .as_deref(),
        Some("None")
    );
    world.set("train-master-0", "Running", None);
    world.settle();
    assert_eq!(
        world.pods.keys().collect::<Vec<_>>(),
        ["train-master-0", "train-worker-0", "train-worker-1"]
    );
    let worker = env(&world.pods["train-worker-1"]);
    let expected = [
        ("MASTER_ADDR", "train-master-0"),
        ("MASTER_PORT", "9999"),
        ("PYTHONUNBUFFERED", "1"),
        ("RANK", "2"),
        ("WORKER_ADDRS", "train-worker-0,train-worker-1"),
        ("WORKER_PORT", "9999"),
        ("WORLD_SIZE", "3"),
    ];
    assert_eq!(worker, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    let labels = world.pods["train-master-0"].labels();
    assert_eq!(labels["training.kubeflow.org/job-role"], "master");
    assert_eq!(
        labels["training.kubeflow.org/operator-name"],
        "xgboostjob-controller"
    );
    assert!(
        !world.pods["train-worker-0"]
            .labels()
            .contains_key("training.kubeflow.org/job-role")
    );
    assert_eq!(world.states(), ["Created=True", "Running=True"]);
}

#[test]
fn the_masters_success_is_the_jobs() {
    let mut world = World::new(xgboost());
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    world.set("train-worker-0", "Running", None);
    world.set("train-master-0", "Succeeded", Some(0));
    world.settle();
    assert_eq!(
        world.states(),
        ["Created=True", "Running=False", "Succeeded=True"]
    );
    let last = world.job.status.conditions.last().unwrap();
    assert_eq!(
        (last.reason.as_str(), last.message.as_str()),
        (
            "XGBoostJobSucceeded",
            "XGBoostJob train is successfully completed."
        )
    );
    assert_eq!(world.pods.len(), 3, "cleanPodPolicy None keeps every Pod");
    let workers = &world.job.status.replica_statuses["Worker"];
    assert_eq!(
        (workers.active, workers.succeeded),
        (0, 1),
        "what still runs counts as succeeded"
    );
}

#[test]
fn a_failed_worker_fails_an_xgboost_job() {
    let mut world = World::new(xgboost());
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    world.set("train-worker-0", "Failed", Some(1));
    world.settle();
    assert_eq!(world.states(), ["Created=True", "Running=False", "Failed=True"]);
    let message = &world.job.status.conditions.last().unwrap().message;
    assert_eq!(
        message,
        "XGBoostJob train is failed because 1 Worker replica(s) failed."
    );
    assert!(world.job.status.completion_time.is_some());
}

#[test]
fn exit_codes_from_128_restart_and_others_end_the_job() {
    for (code, restarts) in [(137, true), (1, false)] {
        let mut job = xgboost();
        job.replicas[1].1.restart_policy = Some("ExitCode".into());
        let mut world = World::new(job);
        world.settle();
        world.set("train-master-0", "Running", None);
        world.settle();
        assert_eq!(
            world.pods["train-worker-0"]
                .spec
                .as_ref()
                .unwrap()
                .restart_policy
                .as_deref(),
            Some("Never")
        );
        world.set("train-worker-0", "Failed", Some(code));
        let step = world.step();
        assert_eq!(
            step.actions.contains(&Action::DeletePod("train-worker-0".into())),
            restarts,
            "{code}"
        );
        world.settle();
        assert_eq!(is_true(&world.job.status, "Failed"), !restarts, "{code}");
        assert_eq!(world.job.status.completion_time.is_some(), !restarts);
    }
}

#[test]
fn run_policy_cleans_expires_and_suspends() {
    let mut world = World::new(xgboost());
    world.job.run_policy.clean_pod_policy = Some("Running".into());
    world.job.run_policy.ttl_seconds_after_finished = Some(60);
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    world.set("train-worker-0", "Running", None);
    world.set("train-master-0", "Succeeded", Some(0));
    world.settle();
    assert_eq!(
        world.pods.keys().collect::<Vec<_>>(),
        ["train-master-0"],
        "what runs or waits is deleted"
    );
    assert_eq!(world.plan().again.unwrap().as_secs(), 60);
    world.now += SignedDuration::from_secs(61);
    assert_eq!(world.plan().actions, [Action::DeleteJob]);

    let mut world = World::new(xgboost());
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    world.job.run_policy.suspend = Some(true);
    world.settle();
    assert!(world.pods.is_empty() && world.services.is_empty());
    assert_eq!(
        world.states(),
        ["Created=True", "Running=False", "Suspended=True"]
    );
    world.job.run_policy.suspend = Some(false);
    world.settle();
    assert_eq!(world.pods.len(), 1);
    assert_eq!(
        world.job.status.conditions.last().unwrap().reason,
        "XGBoostJobResumed"
    );
}

#[test]
fn a_deadline_and_a_backoff_limit_fail_the_job() {
    let mut world = World::new(xgboost());
    world.job.run_policy.active_deadline_seconds = Some(30);
    world.settle();
    assert_eq!(world.plan().again.unwrap().as_secs(), 30);
    world.now += SignedDuration::from_secs(30);
    world.settle();
    let message = &world.job.status.conditions.last().unwrap().message;
    assert_eq!(
        message,
        "Job train has failed because it was active longer than specified deadline"
    );

    let mut world = World::new(job(
        "PyTorchJob",
        json!({"runPolicy": {"backoffLimit": 2}, "pytorchReplicaSpecs": {"Master": replica("pytorch", 1)}}),
    ));
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    world
        .pods
        .get_mut("train-master-0")
        .unwrap()
        .status
        .as_mut()
        .unwrap()
        .container_statuses
        .as_mut()
        .unwrap()[0]
        .restart_count = 2;
    world.settle();
    let message = &world.job.status.conditions.last().unwrap().message;
    assert_eq!(
        message,
        "Job train has failed because it has reached the specified backoff limit"
    );
}

#[test]
fn pytorch_environment() {
    let mut world = World::new(job(
        "PyTorchJob",
        json!({"nprocPerNode": "2", "pytorchReplicaSpecs": {"Master": replica("pytorch", 1), "Worker": replica("pytorch", 1)}}),
    ));
    world.settle();
    world.set("train-master-0", "Running", None);
    world.settle();
    let worker = env(&world.pods["train-worker-0"]);
    for (name, value) in [
        ("MASTER_ADDR", "train-master-0"),
        ("PET_MASTER_ADDR", "train-master-0"),
        ("MASTER_PORT", "23456"),
        ("PET_MASTER_PORT", "23456"),
        ("WORLD_SIZE", "4"),
        ("RANK", "1"),
        ("PET_NODE_RANK", "1"),
        ("PET_NPROC_PER_NODE", "2"),
        ("PET_NNODES", "2"),
    ] {
        assert_eq!(worker.get(name).map(String::as_str), Some(value), "{name}");
    }
    let selector = world.job.status.replica_statuses["Worker"].selector.as_deref();
    assert_eq!(
        selector,
        Some(
            "training.kubeflow.org/job-name=train,training.kubeflow.org/operator-name=pytorchjob-controller,training.kubeflow.org/replica-type=worker"
        )
    );

    let elastic = job(
        "PyTorchJob",
        json!({"elasticPolicy": {"minReplicas": 1, "maxReplicas": 3, "rdzvConf": [{"key": "a", "value": "1"}]},
               "pytorchReplicaSpecs": {"Worker": replica("pytorch", 2)}}),
    );
    let mut world = World::new(elastic);
    world.settle();
    let worker = env(&world.pods["train-worker-1"]);
    assert_eq!(worker["PET_RDZV_ENDPOINT"], "train-worker-0:23456");
    assert_eq!(
        (worker["PET_RDZV_BACKEND"].as_str(), worker["PET_NNODES"].as_str()),
        ("c10d", "1:3")
    );
    assert_eq!(worker["PET_RDZV_CONF"], "a=1");
    assert!(!worker.contains_key("MASTER_ADDR"));
    world.set("train-worker-1", "Succeeded", Some(0));
    world.settle();
    assert!(
        is_true(&world.job.status, "Succeeded"),
        "any worker of an elastic job"
    );
}

#[test]
fn tensorflow_jax_and_paddle_environment() {
    let mut world = World::new(job(
        "TFJob",
        json!({"tfReplicaSpecs": {"ps": replica("tensorflow", 1), "Worker": replica("tensorflow", 2)}}),
    ));
    world.settle();
    let config: Value = serde_json::from_str(&env(&world.pods["train-worker-1"])["TF_CONFIG"]).unwrap();
    assert_eq!(
        config,
        json!({"cluster": {"ps": ["train-ps-0.team.svc:2222"], "worker": ["train-worker-0.team.svc:2222", "train-worker-1.team.svc:2222"]},
               "task": {"type": "worker", "index": 1}, "environment": "cloud"})
    );
    world.set("train-worker-0", "Succeeded", Some(0));
    world.settle();
    assert!(is_true(&world.job.status, "Succeeded"), "worker 0 decides");

    let mut world = World::new(job(
        "JAXJob",
        json!({"jaxReplicaSpecs": {"Worker": replica("jax", 2)}}),
    ));
    world.settle();
    world.set("train-worker-0", "Running", None);
    world.settle();
    let second = env(&world.pods["train-worker-1"]);
    assert_eq!(second["COORDINATOR_ADDRESS"], "train-worker-0");
    assert_eq!(
        (second["NUM_PROCESSES"].as_str(), second["PROCESS_ID"].as_str()),
        ("2", "1")
    );

    let mut world = World::new(job(
        "PaddleJob",
        json!({"paddleReplicaSpecs": {"Worker": replica("paddle", 2)}}),
    ));
    world.settle();
    assert_eq!(
        env(&world.pods["train-worker-0"])["PADDLE_MASTER"],
        "$(POD_IP_DUMMY):36543"
    );
    assert_eq!(
        env(&world.pods["train-worker-1"])["PADDLE_MASTER"],
        "train-worker-0:36543"
    );
}

#[test]
fn bad_jobs_are_refused_with_the_field_and_the_remedy() {
    let cases = [
        (
            "XGBoostJob",
            json!({}),
            "spec.xgbReplicaSpecs: Required value: must be required",
        ),
        (
            "XGBoostJob",
            json!({"xgbReplicaSpecs": {"Worker": replica("xgboost", 1)}}),
            "spec.xgbReplicaSpecs[Master]: Required value: must be present",
        ),
        (
            "PyTorchJob",
            json!({"pytorchReplicaSpecs": {"Master": replica("pytorch", 2)}}),
            "spec.pytorchReplicaSpecs[Master].replicas: Forbidden: must be 1",
        ),
        (
            "PyTorchJob",
            json!({"pytorchReplicaSpecs": {"Master": replica("main", 1)}}),
            "spec.pytorchReplicaSpecs[Master].template.spec.containers: Required value: must have at least one container with name pytorch",
        ),
        (
            "PyTorchJob",
            json!({"pytorchReplicaSpecs": {"Boss": replica("pytorch", 1)}}),
            "spec.pytorchReplicaSpecs[Boss]: Unsupported value: \"Boss\": supported values: \"Master\", \"Worker\"",
        ),
    ];
    for (kind, spec, text) in cases {
        let errors = validate(None, &job(kind, spec));
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
    }
    assert!(validate(None, &xgboost()).is_empty());
}

proptest! {
    /// Whatever Pods do, a job never has two Pods for one replica, an end is an end, and the plan settles.
    #[test]
    fn any_history_settles(steps in prop::collection::vec((0usize..3, 0usize..4, 0i32..3), 0..12), policy in 0usize..4) {
        let mut job = xgboost();
        for (_, spec) in &mut job.replicas {
            spec.restart_policy = Some(["Never", "OnFailure", "ExitCode", "Always"][policy].into());
        }
        let mut world = World::new(job);
        world.settle();
        let mut ended = None;
        for (pod, phase, exit) in steps {
            let name = ["train-master-0", "train-worker-0", "train-worker-1"][pod];
            if world.pods.contains_key(name) {
                let phase = ["Pending", "Running", "Succeeded", "Failed"][phase];
                let exit = (phase == "Failed").then_some([1, 137, 255][usize::try_from(exit).unwrap()]);
                world.set(name, phase, exit);
            }
            world.settle();
            let end = world.job.status.conditions.iter().find(|c| ["Succeeded", "Failed"].contains(&c.type_.as_str())).map(|c| c.type_.clone());
            if let Some(before) = &ended {
                prop_assert_eq!(Some(before), end.as_ref());
            }
            prop_assert_eq!(end.is_some(), world.job.status.completion_time.is_some());
            ended = end;
        }
    }
}
