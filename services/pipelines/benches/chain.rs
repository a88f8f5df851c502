//! Time per step of a chain, and of a fan-out, of steps that are played and take no time: what the scheduler and the
//! API server cost. `cargo bench -p ferroflow-pipelines`.

#![expect(clippy::panic, reason = "a bench that cannot start ends")]

#[expect(dead_code, reason = "the bench uses a part of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use support::{Play, World};

fn pipeline(steps: usize, chained: bool) -> String {
    let tasks: serde_json::Map<String, Value> = (0..steps)
        .map(|i| {
            let after: Vec<String> = (i > 0 && chained)
                .then(|| format!("t{:03}", i.saturating_sub(1)))
                .into_iter()
                .collect();
            (
                format!("t{i:03}"),
                json!({"componentRef": {"name": "comp"}, "dependentTasks": after}),
            )
        })
        .collect();
    json!({
        "pipelineInfo": {"name": "bench"}, "schemaVersion": "2.1.0",
        "components": {"comp": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "busybox", "command": ["true"]}}}},
        "root": {"dag": {"tasks": tasks}}
    })
    .to_string()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no folder for the bench: {error}"));
    let world = World::open(folder.path(), Arc::new(|_| Play::Give(json!({})))).await;
    println!("| steps | shape | in all | per step |\n|---|---|---|---|");
    for (steps, chained) in [(5, true), (50, true), (200, false)] {
        let begin = Instant::now();
        let id = world.submit(&pipeline(steps, chained), &json!({})).await;
        let run = world.finish(&id).await;
        assert_eq!(run["state"], "SUCCEEDED");
        let took = begin.elapsed();
        let each = took.as_secs_f64() * 1000.0 / steps as f64;
        println!(
            "| {steps} | {} | {took:.1?} | {each:.1} ms |",
            if chained { "chain" } else { "fan-out" }
        );
    }
}
