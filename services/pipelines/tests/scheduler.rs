//! The scheduler against the real API server, with steps that are played.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "this test uses a part of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use support::{Play, World, behave};

const ONE: &str = include_str!("fixtures/one_step.yaml");
const CHAIN: &str = include_str!("fixtures/chain.yaml");
const LOOPS: &str = include_str!("fixtures/loops.yaml");

async fn world(
    script: impl Fn(&ferroflow_api::step::Step) -> Play + Send + Sync + 'static,
) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (World::open(folder.path(), Arc::new(script)).await, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_outputs_and_its_history() {
    let (world, _folder) = world(behave).await;
    let id = world.submit(CHAIN, &json!({"rate": 0.25})).await;
    let run = world.finish(&id).await;
    assert_eq!(run["state"], "SUCCEEDED", "{run:#}");
    let states: Vec<&str> = run["state_history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["PENDING", "RUNNING", "SUCCEEDED"]);
    assert_ne!(run["finished_at"], "1970-01-01T00:00:00Z");
    let train = world.task(&id, "root/train").await;
    assert_eq!(train["outputs"]["parameters"]["loss"], 0.25);
    assert_eq!(train["inputs"]["artifacts"]["data"][0]["type"], "system.Dataset");
    assert_eq!(train["after"], json!(["make"]));
    let details = run["run_details"]["task_details"].as_array().unwrap();
    let names: Vec<&str> = details
        .iter()
        .map(|t| t["display_name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["root", "make", "train", "say"]);
    assert!(
        details
            .iter()
            .all(|t| t["state"] == "SUCCEEDED" && t["end_time"].is_string())
    );
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    let label = format!("pipeline/runid={id}");
    let pods = pods
        .list(&ListParams::default().labels(&label))
        .await
        .unwrap()
        .items;
    assert_eq!(pods.len(), 3, "one Pod per step");
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_run_to_the_end() {
    let (world, _folder) = world(behave).await;
    let id = world.submit(LOOPS, &json!({})).await;
    assert_eq!(world.finish(&id).await["state"], "SUCCEEDED");
    assert_eq!(
        world.task(&id, "root/total").await["outputs"]["parameters"]["Output"],
        12
    );
    assert_eq!(
        world.task(&id, "root/count-all").await["outputs"]["parameters"]["Output"],
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_run_takes_the_first_ones_results_while_they_exist() {
    let (world, _folder) = world(behave).await;
    let id = world.submit(CHAIN, &json!({})).await;
    world.finish(&id).await;
    let pods = world.seen.lock().unwrap().len();
    let second = world.submit(CHAIN, &json!({})).await;
    assert_eq!(world.finish(&second).await["state"], "SUCCEEDED");
    assert_eq!(world.task(&second, "root/make").await["cached"], true);
    assert_eq!(world.task(&second, "root/train").await["cached"], true);
    assert_eq!(
        world.task(&second, "root/say").await["cached"],
        false,
        "its caching is off"
    );
    assert_eq!(world.seen.lock().unwrap().len(), pods + 1);

    let make = world.task(&second, "root/make").await;
    world
        .artifacts
        .remove(make["outputs"]["artifacts"]["data"][0]["uri"].as_str().unwrap());
    let third = world.submit(CHAIN, &json!({})).await;
    world.finish(&third).await;
    assert_eq!(
        world.task(&third, "root/make").await["cached"],
        false,
        "its bytes are gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_is_tried_again_and_then_by_hand() {
    let broken = Arc::new(AtomicBool::new(true));
    let tries = Arc::new(AtomicUsize::new(0));
    let (flag, count) = (broken.clone(), tries.clone());
    let (world, _folder) = world(move |step| {
        if step.task != "root/train" {
            return behave(step);
        }
        count.fetch_add(1, Ordering::SeqCst);
        if flag.load(Ordering::SeqCst) {
            Play::Fail("exit code 3: ValueError: no")
        } else {
            behave(step)
        }
    })
    .await;
    // Retries would wait for seconds.
    let quick = CHAIN.replace("backoffDuration: 1s", "backoffDuration: 0s");
    let id = world.submit(&quick, &json!({})).await;
    let run = world.finish(&id).await;
    assert_eq!(run["state"], "FAILED");
    assert_eq!(
        run["error"]["message"],
        "task \"train\" failed: exit code 3: ValueError: no"
    );
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    assert_eq!(world.task(&id, "root/say").await["state"], "SKIPPED");

    broken.store(false, Ordering::SeqCst);
    world
        .call("POST", &format!("/apis/v2beta1/runs/{id}:retry"), None)
        .await;
    let run = world.finish(&id).await;
    assert_eq!(run["state"], "SUCCEEDED", "{run:#}");
    assert_eq!(tries.load(Ordering::SeqCst), 4);
    let train = world.task(&id, "root/train").await;
    let states: Vec<&Value> = train["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["state"])
        .collect();
    assert_eq!(states, ["FAILED", "FAILED", "FAILED", "SUCCEEDED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_or_vanishes_without_an_outcome_is_a_failed_attempt() {
    let (world, _folder) = world(|step| {
        if step.task == "root/add" {
            Play::Crash
        } else {
            behave(step)
        }
    })
    .await;
    let id = world.submit(ONE, &json!({})).await;
    let run = world.finish(&id).await;
    assert_eq!(
        run["error"]["message"],
        "task \"add\" failed: exit code 137: the launcher could not finish"
    );
    world.cancel.cancel();

    let (world, _folder) = self::world(|_| Play::Hang).await;
    let id = world.submit(ONE, &json!({})).await;
    world.wait(&id, |_| !world.seen.lock().unwrap().is_empty()).await;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    let name = world.seen.lock().unwrap()[0].clone();
    // The kubelet may finish the deletion before the call is answered.
    match pods.delete(&name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("the Pod cannot be deleted: {error}"),
    }
    let run = world.finish(&id).await;
    assert_eq!(
        run["error"]["message"],
        "task \"add\" failed: its Pod was deleted while it ran"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nothing_maps_fails_the_step_with_the_remedy() {
    let (world, _folder) =
        world(|_| Play::Stuck("ErrImagePull", "nothing maps image \"x\"; add a RuntimeImage")).await;
    let id = world.submit(ONE, &json!({})).await;
    let run = world.finish(&id).await;
    assert_eq!(
        run["error"]["message"],
        "task \"add\" failed: ErrImagePull: nothing maps image \"x\"; add a RuntimeImage"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_run_ends_its_pods() {
    let (world, _folder) = world(|_| Play::Hang).await;
    let id = world.submit(LOOPS, &json!({})).await;
    world.wait(&id, |_| world.seen.lock().unwrap().len() >= 5).await;
    world
        .call("POST", &format!("/apis/v2beta1/runs/{id}:terminate"), None)
        .await;
    assert_eq!(world.finish(&id).await["state"], "CANCELED");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    let left = pods.list(&ListParams::default()).await.unwrap().items;
    assert!(left.is_empty(), "{left:#?}");
    // Once more is no error.
    world
        .call("POST", &format!("/apis/v2beta1/runs/{id}:terminate"), None)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_follower_is_told_the_leader_does() {
    let (mut world, _folder) = world(|step| {
        if step.task == "root/say" {
            Play::Hang
        } else {
            behave(step)
        }
    })
    .await;
    let leader = world.router.clone();
    let follower = world.follower();
    world.router = follower;
    let id = world.submit(CHAIN, &json!({"rate": 0.25})).await;
    world.router = leader.clone();
    world.wait(&id, |_| world.seen.lock().unwrap().len() >= 3).await;
    assert_eq!(world.seen.lock().unwrap().len(), 3, "every step has one Pod");

    world.router = world.follower();
    world
        .call("POST", &format!("/apis/v2beta1/runs/{id}:terminate"), None)
        .await;
    assert_eq!(world.finish(&id).await["state"], "CANCELED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_at_any_time_repeats_nothing_and_loses_nothing() {
    let gate = Arc::new(AtomicUsize::new(0));
    let played = gate.clone();
    let (mut world, _folder) = world(move |step| {
        played.fetch_add(1, Ordering::SeqCst);
        behave(step)
    })
    .await;
    let id = world.submit(LOOPS, &json!({})).await;
    for _ in 0..12 {
        // The kubelet goes on while the service is away.
        let before = gate.load(Ordering::SeqCst);
        world.restart().await;
        let run = world.call("GET", &format!("/apis/v2beta1/runs/{id}"), None).await;
        if run["state"] == "SUCCEEDED" {
            break;
        }
        world
            .wait(&id, |run| {
                gate.load(Ordering::SeqCst) > before || run["state"] == "SUCCEEDED"
            })
            .await;
    }
    assert_eq!(world.finish(&id).await["state"], "SUCCEEDED");
    assert_eq!(
        world.task(&id, "root/total").await["outputs"]["parameters"]["Output"],
        12
    );
    let seen = world.seen.lock().unwrap().clone();
    let mut unique = seen.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), seen.len(), "a Pod was made twice");
    let graph = world
        .call(
            "GET",
            &format!("/apis/ferroflow/v1/pipelines/runs/{id}/graph"),
            None,
        )
        .await;
    for task in graph["tasks"].as_array().unwrap() {
        assert!(task["attempts"].as_array().unwrap().len() <= 1, "{task:#}");
    }
}
