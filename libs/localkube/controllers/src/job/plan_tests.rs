use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, finish, plan, settle};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"containers": [], "restartPolicy": "Never"}});
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "job"}, "spec": spec, "status": status}),
    )
    .unwrap()
}

fn pod(uid: &str, phase: &str) -> Arc<Pod> {
    pod_with(uid, phase, json!({}))
}

fn pod_with(uid: &str, phase: &str, annotations: Value) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "n", "uid": uid, "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["batch.kubernetes.io/job-tracking"]}, "status": {"phase": phase}}))
        .unwrap(),
    )
}

fn condition_types(plan: &Plan) -> Vec<String> {
    plan.status
        .conditions
        .iter()
        .flatten()
        .map(|condition| condition.type_.clone())
        .collect()
}

#[test]
fn a_new_job_creates_up_to_its_parallelism() {
    let plan = plan(
        &job(
            json!({"completions": 5, "parallelism": 2, "backoffLimit": 6}),
            json!({}),
        ),
        &[],
        now(),
    );
    assert_eq!(plan.create, vec![None, None]);
    assert_eq!(plan.status.active, Some(2));
    assert!(plan.status.start_time.is_some() && plan.write && plan.end.is_none());
}

#[test]
fn the_last_completions_need_fewer_pods() {
    let status = json!({"succeeded": 4, "startTime": "2026-01-01T00:00:00Z"});
    let plan = plan(
        &job(
            json!({"completions": 5, "parallelism": 2, "backoffLimit": 6}),
            status,
        ),
        &[],
        now(),
    );
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn success_is_counted_before_the_job_completes() {
    let pods = [pod("a", "Succeeded")];
    let mut plan = plan(
        &job(
            json!({"completions": 1, "parallelism": 1, "backoffLimit": 6}),
            json!({"active": 1}),
        ),
        &pods,
        now(),
    );
    assert_eq!(condition_types(&plan), ["SuccessCriteriaMet"]);
    assert_eq!(
        plan.status.uncounted_terminated_pods.as_ref().unwrap().succeeded,
        Some(vec!["a".to_owned()])
    );
    assert_eq!(plan.release.len(), 1);
    let end = plan.end.take().unwrap();
    assert!(
        !finish(&mut plan.status, &end, now()),
        "an uncounted pod holds the end back"
    );
    assert!(settle(&mut plan.status, |_| false));
    assert_eq!(plan.status.succeeded, Some(1));
    assert!(finish(&mut plan.status, &end, now()));
    assert_eq!(condition_types(&plan), ["SuccessCriteriaMet", "Complete"]);
    assert!(plan.status.completion_time.is_some());
}

#[test]
fn a_failure_waits_before_the_next_pod() {
    let mut failed = (*pod("a", "Failed")).clone();
    failed.status = serde_json::from_value(json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:09:55Z"}}}]}))
    .unwrap();
    let job = job(
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 6}),
        json!({"startTime": "2026-01-01T00:00:00Z"}),
    );
    let plan = plan(&job, &[Arc::new(failed)], now());
    assert!(plan.create.is_empty());
    assert_eq!(plan.again, Some(std::time::Duration::from_secs(5)));
}

#[test]
fn too_many_failures_fail_the_job_and_stop_the_rest() {
    let pods = [pod("a", "Failed"), pod("b", "Running")];
    let plan = plan(
        &job(
            json!({"completions": 2, "parallelism": 2, "backoffLimit": 0}),
            json!({"active": 2}),
        ),
        &pods,
        now(),
    );
    assert_eq!(condition_types(&plan), ["FailureTarget"]);
    assert_eq!(plan.stop.len(), 1);
    assert_eq!(plan.status.active, None);
    assert_eq!(plan.status.terminating, Some(1));
    let end = plan.end.unwrap();
    assert_eq!(
        (end.type_.as_str(), end.reason.as_deref()),
        ("Failed", Some("BackoffLimitExceeded"))
    );
}

#[test]
fn indexed_pods_fill_the_gaps() {
    let index = |value: &str| json!({"batch.kubernetes.io/job-completion-index": value});
    let pods = [
        pod_with("a", "Succeeded", index("0")),
        pod_with("b", "Running", index("2")),
    ];
    let spec = json!({"completions": 5, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 6});
    let plan = plan(&job(spec, json!({"active": 2})), &pods, now());
    assert_eq!(plan.create, vec![Some(1), Some(3)]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.status.succeeded, Some(1));
}

#[test]
fn a_repeated_index_is_removed() {
    let index = json!({"batch.kubernetes.io/job-completion-index": "1"});
    let pods = [
        pod_with("a", "Running", index.clone()),
        pod_with("b", "Pending", index),
    ];
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 6});
    let plan = plan(&job(spec, json!({"active": 2})), &pods, now());
    assert_eq!(plan.delete.len(), 1);
    assert!(plan.create.is_empty());
}

#[test]
fn the_deadline_fails_the_job() {
    let job = job(
        json!({"completions": 1, "backoffLimit": 6, "activeDeadlineSeconds": 60}),
        json!({"startTime": "2026-01-01T00:09:00Z"}),
    );
    assert_eq!(
        plan(&job, &[pod("a", "Running")], now())
            .end
            .unwrap()
            .reason
            .as_deref(),
        Some("DeadlineExceeded")
    );
}

#[test]
fn suspension_removes_pods_and_says_so() {
    let job = job(
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "suspend": true}),
        json!({}),
    );
    let plan = plan(&job, &[pod("a", "Running")], now());
    assert_eq!(plan.delete.len(), 1);
    assert_eq!(condition_types(&plan), ["Suspended"]);
    assert_eq!(plan.event.map(|(reason, _)| reason), Some("Suspended"));
}

#[test]
fn nothing_to_do_writes_nothing() {
    let status = json!({"active": 1, "ready": 0, "terminating": 0, "startTime": "2026-01-01T00:00:00Z"});
    let plan = plan(
        &job(
            json!({"completions": 1, "parallelism": 1, "backoffLimit": 6}),
            status,
        ),
        &[pod("a", "Running")],
        now(),
    );
    assert!(!plan.write && plan.create.is_empty() && plan.release.is_empty() && plan.end.is_none());
}
