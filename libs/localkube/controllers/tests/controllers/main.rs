//! The controllers against localkube's API server in process. What they do in detail is compared with
//! Kubernetes in `e2e/conformance`; here is what must hold without it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use localkube_apiserver::{ApiServer, ApiServerConfig, user};
use localkube_controllers::ControllerConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Cluster {
    client: Client,
    dir: tempfile::TempDir,
    cancel: CancellationToken,
    controllers: tokio::task::JoinHandle<anyhow::Result<()>>,
    server: ApiServer,
}

impl Cluster {
    async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    /// A server, controllers, and one ready node on a data folder.
    async fn on(dir: tempfile::TempDir) -> Self {
        let server = ApiServer::open(ApiServerConfig::new(dir.path())).await.unwrap();
        let client = server.client(user("admin", &["system:masters"]), "default");
        let cancel = CancellationToken::new();
        let config = ControllerConfig::new(server.ca_pem(), dir.path().join("volumes"));
        let controllers = tokio::spawn(localkube_controllers::run(client.clone(), config, cancel.clone()));
        let cluster = Self {
            client,
            dir,
            cancel,
            controllers,
            server,
        };
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        if nodes.get_opt("node-1").await.unwrap().is_none() {
            nodes
                .create(
                    &PostParams::default(),
                    &object(json!({"metadata": {"name": "node-1"}})),
                )
                .await
                .unwrap();
        }
        let amounts = json!({"cpu": "8", "memory": "8Gi", "pods": "100"});
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let status = json!({"status": {"capacity": amounts, "allocatable": amounts, "conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
        nodes
            .patch_status("node-1", &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
        cluster
            .until("the default account", || async {
                cluster
                    .exists("/api/v1/namespaces/default/serviceaccounts/default")
                    .await
            })
            .await;
        cluster
    }

    /// Stops everything and starts again on the same folder.
    async fn restart(self) -> Self {
        let Self {
            dir,
            cancel,
            controllers,
            server,
            ..
        } = self;
        cancel.cancel();
        controllers.await.unwrap().unwrap();
        server.shutdown().await;
        Self::on(dir).await
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn exists(&self, path: &str) -> bool {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.client.request::<Value>(request).await.is_ok()
    }

    async fn until<F, Fut>(&self, what: &str, condition: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        let wait = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(),
            "{what} did not happen within 20 s"
        );
    }

    /// Waits for Pods of a selector that satisfy `test`, as many as `count`.
    async fn pods(&self, selector: &str, count: usize, test: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        let api: Api<Pod> = self.api();
        let params = ListParams::default().labels(selector);
        let list = || async {
            api.list(&params)
                .await
                .unwrap()
                .items
                .into_iter()
                .filter(&test)
                .collect::<Vec<_>>()
        };
        self.until(&format!("{count} pods of {selector}"), || async {
            list().await.len() == count
        })
        .await;
        list().await
    }

    async fn set(&self, pod: &Pod, status: &Value) {
        let name = pod.metadata.name.as_deref().unwrap();
        let patch = Patch::Strategic(json!({"status": status}));
        self.api::<Pod>()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn running() -> Value {
    json!({"phase": "Running", "podIP": "127.1.2.3", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn bound(pod: &Pod) -> bool {
    pod.spec.as_ref().unwrap().node_name.is_some()
}

fn holds(job: &Job, kind: &str) -> bool {
    job.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|one| one.type_ == kind && one.status == "True")
}

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "busybox"}]}})
}

#[tokio::test]
async fn a_job_runs_and_is_counted_once() {
    let cluster = Cluster::start().await;
    let jobs: Api<Job> = cluster.api();
    let job = object(
        json!({"metadata": {"name": "j"}, "spec": {"completions": 2, "parallelism": 2, "template": template("Never")}}),
    );
    jobs.create(&PostParams::default(), &job).await.unwrap();
    for pod in cluster.pods("job-name=j", 2, bound).await {
        cluster.set(&pod, &json!({"phase": "Succeeded"})).await;
    }
    cluster
        .until("the job's end", || async {
            holds(&jobs.get("j").await.unwrap(), "Complete")
        })
        .await;
    assert_eq!(jobs.get("j").await.unwrap().status.unwrap().succeeded, Some(2));
    let kept = cluster
        .pods("job-name=j", 2, |pod| pod.metadata.finalizers.is_none())
        .await;
    assert_eq!(kept.len(), 2);
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart() {
    let cluster = Cluster::start().await;
    let job = object(
        json!({"metadata": {"name": "j"}, "spec": {"completions": 2, "parallelism": 1, "template": template("Never")}}),
    );
    cluster
        .api::<Job>()
        .create(&PostParams::default(), &job)
        .await
        .unwrap();
    let first = cluster.pods("job-name=j", 1, bound).await;
    let cluster = cluster.restart().await;
    cluster.set(&first[0], &json!({"phase": "Succeeded"})).await;
    let all = cluster.pods("job-name=j", 2, bound).await;
    for pod in &all {
        cluster.set(pod, &json!({"phase": "Succeeded"})).await;
    }
    let jobs: Api<Job> = cluster.api();
    cluster
        .until("the job's end", || async {
            holds(&jobs.get("j").await.unwrap(), "Complete")
        })
        .await;
    assert_eq!(jobs.get("j").await.unwrap().status.unwrap().succeeded, Some(2));
}

#[tokio::test]
async fn a_deployment_serves_through_its_service() {
    let cluster = Cluster::start().await;
    let deployment = object::<Deployment>(json!({"metadata": {"name": "d"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "a"}}, "template": template("Always")}}));
    cluster
        .api::<Deployment>()
        .create(&PostParams::default(), &deployment)
        .await
        .unwrap();
    let service = object::<Service>(
        json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}}),
    );
    cluster
        .api::<Service>()
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
    for pod in cluster.pods("app=a", 2, bound).await {
        cluster.set(&pod, &running()).await;
    }
    let deployments: Api<Deployment> = cluster.api();
    let available = || async {
        deployments
            .get("d")
            .await
            .unwrap()
            .status
            .and_then(|status| status.available_replicas)
            == Some(2)
    };
    cluster.until("the deployment is available", available).await;
    let slices: Api<EndpointSlice> = cluster.api();
    let params = ListParams::default().labels("kubernetes.io/service-name=s");
    let ready = || async {
        slices
            .list(&params)
            .await
            .unwrap()
            .items
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .filter(|one| one.conditions.as_ref().and_then(|all| all.ready) == Some(true))
            .count()
            == 2
    };
    cluster.until("two ready endpoints", ready).await;
}

#[tokio::test]
async fn children_follow_their_owner() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = cluster.api();
    let owner = maps
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "owner"}})),
        )
        .await
        .unwrap();
    let child = json!({"metadata": {"name": "child", "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "blockOwnerDeletion": true}]}});
    maps.create(&PostParams::default(), &object(child)).await.unwrap();
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until("both are gone", || async {
            maps.get_opt("child").await.unwrap().is_none() && maps.get_opt("owner").await.unwrap().is_none()
        })
        .await;
}

#[tokio::test]
async fn a_claim_gets_a_folder_until_it_is_deleted() {
    let cluster = Cluster::start().await;
    let claims: Api<PersistentVolumeClaim> = cluster.api();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}}}});
    claims
        .create(&PostParams::default(), &object(claim))
        .await
        .unwrap();
    let phase = || async {
        claims
            .get("c")
            .await
            .unwrap()
            .status
            .and_then(|status| status.phase)
    };
    cluster
        .until("the claim is bound", || async {
            phase().await.as_deref() == Some("Bound")
        })
        .await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let name = claims.get("c").await.unwrap().spec.unwrap().volume_name.unwrap();
    let path = volumes
        .get(&name)
        .await
        .unwrap()
        .spec
        .unwrap()
        .host_path
        .unwrap()
        .path;
    assert!(std::path::Path::new(&path).is_dir());
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the folder is gone", || async {
            !std::path::Path::new(&path).exists()
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_starts_when_it_does() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = cluster.api();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {"disk": "fast"}, "containers": [{"name": "c", "image": "busybox"}]}});
    pods.create(&PostParams::default(), &object(pod)).await.unwrap();
    let told = || async {
        let status = pods.get("p").await.unwrap().status.unwrap();
        status
            .conditions
            .into_iter()
            .flatten()
            .any(|one| one.reason.as_deref() == Some("Unschedulable"))
    };
    cluster.until("the pod says why", told).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"disk": "fast"}}}));
    nodes
        .patch("node-1", &PatchParams::default(), &patch)
        .await
        .unwrap();
    cluster
        .until("the pod is bound", || async {
            bound(&pods.get("p").await.unwrap())
        })
        .await;
}

#[tokio::test]
async fn a_missed_run_of_a_cron_job_starts() {
    let cluster = Cluster::start().await;
    let crons: Api<CronJob> = cluster.api();
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template("Never")}}}});
    crons.create(&PostParams::default(), &object(cron)).await.unwrap();
    // Its last run was minutes ago, as far as it knows.
    let before = k8s_openapi::jiff::Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_secs(300);
    let patch = Patch::Merge(
        json!({"status": {"lastScheduleTime": before.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}),
    );
    crons
        .patch_status("c", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let jobs: Api<Job> = cluster.api();
    cluster
        .until("a job is made", || async {
            !jobs.list(&ListParams::default()).await.unwrap().items.is_empty()
        })
        .await;
    let made = jobs.list(&ListParams::default()).await.unwrap().items.remove(0);
    assert!(
        made.metadata
            .annotations
            .unwrap()
            .contains_key("batch.kubernetes.io/cronjob-scheduled-timestamp")
    );
}
