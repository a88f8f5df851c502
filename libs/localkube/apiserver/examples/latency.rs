//! Prints how long calls of the in-process client take.
//!
//!     cargo run --release -p localkube-apiserver --example latency

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use localkube_apiserver::{ApiServer, ApiServerConfig, user};
use serde_json::json;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!("{what:32} median {:>9.1?}  p99 {:>9.1?}", at(0.5), at(0.99));
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let server = ApiServer::open(ApiServerConfig::new(dir.path())).await?;
    println!("open an empty folder             {:?}", started.elapsed());
    let client = server.client(user("admin", &["system:masters"]), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::default_namespaced(client.clone());
    accounts
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "default"}}))?,
        )
        .await?;
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); 6];
    for i in 0..500 {
        let name = format!("p{i}");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "busybox", "env": [{"name": "A", "value": "b"}]}]}}))?;
        let t = Instant::now();
        pods.create(&PostParams::default(), &pod).await?;
        times[0].push(t.elapsed());
        let t = Instant::now();
        pods.get(&name).await?;
        times[1].push(t.elapsed());
        let t = Instant::now();
        let status = json!({"status": {"phase": "Running", "podIP": "127.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        times[2].push(t.elapsed());
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}}))?;
        let t = Instant::now();
        maps.create(&PostParams::default(), &map).await?;
        times[3].push(t.elapsed());
        let t = Instant::now();
        maps.delete(&name, &Default::default()).await?;
        times[4].push(t.elapsed());
    }
    for _ in 0..50 {
        let t = Instant::now();
        pods.list(&ListParams::default()).await?;
        times[5].push(t.elapsed());
    }
    for (what, t) in [
        "create pod",
        "get pod",
        "patch pod status",
        "create configmap",
        "delete configmap",
        "list 500 pods (decoded)",
    ]
    .iter()
    .zip(times)
    {
        report(what, t);
    }
    server.shutdown().await;
    Ok(())
}
