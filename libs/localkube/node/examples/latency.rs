//! Prints how long a Pod takes from its creation to its first output, and from its end to the phase that a watcher sees.
//!
//!     cargo run -p localkube-node --example latency -- DATA_DIR [PODS]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{PostParams, WatchEvent, WatchParams};
use serde_json::json;

#[path = "../tests/support/cluster.rs"]
mod cluster;

fn main() -> anyhow::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("shim") => localkube_node::shim_main(),
        _ => tokio::runtime::Runtime::new()?.block_on(measure()),
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

async fn measure() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let Some(dir) = std::env::args().nth(1).map(PathBuf::from) else {
        anyhow::bail!("usage: latency DATA_DIR [PODS]");
    };
    let count: usize = std::env::args().nth(2).map_or(Ok(20), |text| text.parse())?;
    let cluster = cluster::Cluster::start(&dir, &std::env::current_exe()?).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let mut rows = Vec::new();
    for number in 0..count {
        let name = format!("pod-{number}-{}", Timestamp::now().as_millisecond());
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"nodeName": "test-node", "restartPolicy": "Never", "containers": [
                {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo x"]}]}
        }))?;
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let begin = Timestamp::now();
        let made = pods.create(&PostParams::default(), &pod).await?;
        let created = Timestamp::now();
        tracing::debug!("created");
        let version = made.metadata.resource_version.clone().unwrap_or_default();
        let mut watch = pods.watch(&params, &version).await?.boxed();
        let seen = loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Modified(pod))) if cluster::phase(&pod) == "Succeeded" => {
                    tracing::debug!("seen");
                    break Timestamp::now();
                }
                Some(Ok(_)) => {}
                other => anyhow::bail!("the watch ended: {other:?}"),
            }
        };
        let folder = dir
            .join("node/pods")
            .join(made.metadata.uid.clone().unwrap_or_default());
        let log = std::fs::read_to_string(folder.join("logs/main/0.log"))?;
        let output: Timestamp = log.split(' ').next().unwrap_or_default().parse()?;
        let exits = std::fs::read_to_string(folder.join("exits.jsonl"))?;
        let exit: serde_json::Value = serde_json::from_str(exits.lines().next().unwrap_or_default())?;
        let started: Timestamp = exit["started_at"].as_str().unwrap_or_default().parse()?;
        let ended: Timestamp = exit["finished_at"].as_str().unwrap_or_default().parse()?;
        rows.push([
            milliseconds(begin, created),
            milliseconds(created, started),
            milliseconds(created, output),
            milliseconds(ended, seen),
            milliseconds(begin, seen),
        ]);
    }
    let names = [
        "create call",
        "created to exec",
        "created to first output",
        "end to Succeeded at a watcher",
        "whole",
    ];
    println!("{count} Pods of one container, one after the other; milliseconds");
    for (column, name) in names.iter().enumerate() {
        let mut values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
        println!(
            "{name:32} median {:6.2}   p90 {:6.2}   least {:6.2}",
            at(0.5),
            at(0.9),
            at(0.0)
        );
    }
    cluster.stop().await;
    Ok(())
}
