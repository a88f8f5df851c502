//! Whoever has no rights in a namespace gets nothing of it, by any route.

#[expect(dead_code, reason = "this test uses a part of it")]
mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::{Play, World, behave};

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_denied_on_every_route() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(
        folder.path(),
        Arc::new(|step| {
            if step.task == "root/make" {
                Play::Hang
            } else {
                behave(step)
            }
        }),
    )
    .await;
    let package =
        ferroflow_pipelines::domain::package::Package::from_text(include_str!("fixtures/chain.yaml"))
            .unwrap();
    let spec = package.to_json();
    let run = world
        .submit(include_str!("fixtures/chain.yaml"), &json!({}))
        .await;
    let experiment =
        world.call("GET", "/apis/v2beta1/experiments", None).await["experiments"][0]["experiment_id"].clone();
    let experiment = experiment.as_str().unwrap();
    let both = json!({"pipeline": {"name": "p"}, "pipeline_version": {"name": "v", "pipeline_spec": spec}});
    let pipeline = world
        .call("POST", "/apis/v2beta1/pipelines/create", Some(&both))
        .await;
    let pipeline = pipeline["pipeline_id"].as_str().unwrap();
    let versions = world
        .call(
            "GET",
            &format!("/apis/v2beta1/pipelines/{pipeline}/versions"),
            None,
        )
        .await;
    let version = versions["pipeline_versions"][0]["pipeline_version_id"]
        .as_str()
        .unwrap();
    let often = json!({"display_name": "often", "pipeline_spec": spec, "max_concurrency": "1", "mode": "DISABLE",
        "trigger": {"periodic_schedule": {"interval_second": "3600"}}});
    let recurring = world
        .call("POST", "/apis/v2beta1/recurringruns", Some(&often))
        .await;
    let recurring = recurring["recurring_run_id"].as_str().unwrap();
    world.wait(&run, |_| !world.seen.lock().unwrap().is_empty()).await;

    let new_run = json!({"pipeline_spec": spec});
    let by_version =
        json!({"pipeline_version_reference": {"pipeline_id": pipeline, "pipeline_version_id": version}});
    let p = |path: &str| format!("/apis/v2beta1{path}");
    let cases: Vec<(&str, String, Option<&Value>)> = vec![
        ("POST", p("/experiments"), None),
        ("GET", p("/experiments"), None),
        ("GET", p(&format!("/experiments/{experiment}")), None),
        ("POST", p(&format!("/experiments/{experiment}:archive")), None),
        ("POST", p(&format!("/experiments/{experiment}:unarchive")), None),
        ("DELETE", p(&format!("/experiments/{experiment}")), None),
        ("POST", p("/runs"), Some(&new_run)),
        ("POST", p("/runs"), Some(&by_version)),
        (
            "POST",
            p(&format!("/experiments/{experiment}/runs")),
            Some(&new_run),
        ),
        ("GET", p("/runs"), None),
        ("GET", p(&format!("/runs?experiment_id={experiment}")), None),
        ("GET", p(&format!("/experiments/{experiment}/runs")), None),
        ("GET", p(&format!("/runs/{run}")), None),
        ("POST", p(&format!("/runs/{run}:archive")), None),
        ("POST", p(&format!("/runs/{run}:unarchive")), None),
        ("POST", p(&format!("/runs/{run}:terminate")), None),
        ("POST", p(&format!("/runs/{run}:retry")), None),
        ("DELETE", p(&format!("/runs/{run}")), None),
        (
            "GET",
            p(&format!("/runs/{run}/nodes/x/artifacts/data:read")),
            None,
        ),
        ("GET", format!("/apis/v1alpha1/runs/{run}/nodes/x/log"), None),
        (
            "GET",
            format!("/apis/ferroflow/v1/pipelines/runs/{run}/graph"),
            None,
        ),
        ("POST", p("/recurringruns"), Some(&often)),
        ("GET", p("/recurringruns"), None),
        ("GET", p(&format!("/recurringruns/{recurring}")), None),
        ("POST", p(&format!("/recurringruns/{recurring}:enable")), None),
        ("POST", p(&format!("/recurringruns/{recurring}:disable")), None),
        ("DELETE", p(&format!("/recurringruns/{recurring}")), None),
        ("POST", p("/pipelines/create"), Some(&both)),
        ("GET", p("/pipelines"), None),
        ("GET", p("/pipelines/names/p"), None),
        ("GET", p(&format!("/pipelines/{pipeline}")), None),
        ("PATCH", p(&format!("/pipelines/{pipeline}")), None),
        ("DELETE", p(&format!("/pipelines/{pipeline}?cascade=true")), None),
        ("GET", p(&format!("/pipelines/{pipeline}/versions")), None),
        ("POST", p(&format!("/pipelines/{pipeline}/versions")), None),
        (
            "GET",
            p(&format!("/pipelines/{pipeline}/versions/{version}")),
            None,
        ),
        (
            "PATCH",
            p(&format!("/pipelines/{pipeline}/versions/{version}")),
            None,
        ),
        (
            "DELETE",
            p(&format!("/pipelines/{pipeline}/versions/{version}")),
            None,
        ),
    ];
    let empty = json!({"display_name": "x"});
    for (method, path, body) in cases {
        let create = matches!(method, "POST" | "PATCH");
        let body = body.or(if create && !path.contains(':') {
            Some(&empty)
        } else {
            None
        });
        let (status, answer) = world.call_as("eve", method, &path, body).await;
        assert_eq!(status, 403, "{method} {path}: {answer}");
        assert_eq!(answer["code"], 7, "{method} {path}: {answer}");
    }
    let (status, _) = world
        .call_as(
            "eve",
            "POST",
            &format!("/apis/ferroflow/v1/pipelines/hints/{run}/t/0/00"),
            None,
        )
        .await;
    assert_eq!(status, 403);
    let left = world
        .call("GET", &format!("/apis/v2beta1/runs/{run}"), None)
        .await;
    assert_eq!(left["state"], "RUNNING", "nothing was changed");
}
