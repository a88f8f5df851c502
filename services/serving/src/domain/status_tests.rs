use super::*;
use crate::domain::FailureReason;
use serde_json::{Value, json};

fn service(status: Value) -> InferenceService {
    serde_json::from_value(json!({
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "digits", "namespace": "team", "generation": 3}, "spec": {"predictor": {}}, "status": status,
    }))
    .unwrap()
}

fn deployment(available: i32, updated: i32, replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "digits-predictor", "generation": 2},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"observedGeneration": 2, "availableReplicas": available, "updatedReplicas": updated, "replicas": replicas,
            "conditions": [{"type": "Available", "status": if available > 0 { "True" } else { "False" },
                "reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."}]},
    }))
    .unwrap()
}

fn pod(init: Value, main: Value) -> Pod {
    let container = |name: &str, state: Value| {
        let mut status =
            json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        status
            .as_object_mut()
            .unwrap()
            .extend(state.as_object().unwrap().clone());
        status
    };
    serde_json::from_value(json!({
        "metadata": {"name": "digits-predictor-1"},
        "status": {"phase": "Pending", "initContainerStatuses": [container("storage-initializer", init)],
            "containerStatuses": [container("kserve-container", main)]},
    }))
    .unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn summary(status: &InferenceServiceStatus) -> Vec<String> {
    let mut lines: Vec<String> = status
        .conditions
        .iter()
        .map(|condition| format!("{}={}", condition.type_, condition.status))
        .collect();
    let states = status.model_status.states.clone().unwrap_or_default();
    lines.push(format!(
        "{} {}>{}",
        status.model_status.transition_status, states.active_model_state, states.target_model_state
    ));
    lines
}

fn compute(deployment: Option<&Deployment>, pods: &[Pod]) -> InferenceServiceStatus {
    let observed = Observed {
        deployment,
        pods,
        ..Observed::default()
    };
    status(
        &service(Value::Null),
        &observed,
        at(100),
        &ServingConfig {
            port: Some(8080),
            ..ServingConfig::default()
        },
    )
}

#[test]
fn from_nothing_to_ready() {
    let done = json!({"state": {"terminated": {"exitCode": 0}}, "ready": true});
    let fetching = pod(
        json!({"state": {"running": {}}}),
        json!({"state": {"waiting": {"reason": "PodInitializing"}}}),
    );
    let loading = pod(done.clone(), json!({"state": {"running": {}}}));
    let loaded = pod(done, json!({"state": {"running": {}}, "ready": true}));
    assert_eq!(
        summary(&compute(None, &[])),
        [
            "IngressReady=False",
            "PredictorReady=Unknown",
            "Ready=Unknown",
            "InProgress >Pending"
        ]
    );
    let none = deployment(0, 1, 1);
    assert_eq!(
        summary(&compute(Some(&none), &[fetching])),
        [
            "IngressReady=False",
            "PredictorReady=False",
            "Ready=False",
            "InProgress >Pending"
        ]
    );
    assert_eq!(
        summary(&compute(Some(&none), &[loading]))[3],
        "InProgress >Loading"
    );
    let whole = compute(Some(&deployment(1, 1, 1)), &[loaded]);
    assert_eq!(
        summary(&whole),
        [
            "IngressReady=True",
            "PredictorReady=True",
            "Ready=True",
            "UpToDate Loaded>Loaded"
        ]
    );
    assert_eq!(whole.url.as_deref(), Some("http://digits.team.localhost:8080"));
    assert_eq!(
        whole.address.unwrap().url.as_deref(),
        Some("http://digits-predictor.team.svc.cluster.local")
    );
    assert_eq!(
        (whole.observed_generation, whole.deployment_mode.as_deref()),
        (Some(3), Some("Standard"))
    );
}

#[test]
fn an_unreachable_model_blocks_with_its_reason() {
    let message = "fetching...\nerror: cannot fetch s3://b/none: no object below this key\n";
    let crashed = pod(
        json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "message": message}}}),
        json!({"state": {"waiting": {"reason": "PodInitializing"}}}),
    );
    let status = compute(Some(&deployment(0, 1, 1)), &[crashed]);
    assert_eq!(
        summary(&status),
        [
            "IngressReady=False",
            "PredictorReady=False",
            "Ready=False",
            "BlockedByFailedLoad >FailedToLoad"
        ]
    );
    let info = status.model_status.last_failure_info.unwrap();
    assert_eq!(info.reason.as_deref(), Some("ModelLoadFailed"));
    assert_eq!(
        info.message.as_deref(),
        Some("cannot fetch s3://b/none: no object below this key")
    );
    assert_eq!(
        (info.exit_code, info.location.as_deref()),
        (Some(1), Some("digits-predictor-1"))
    );
    assert_eq!(status.conditions[2].message, info.message, "Ready says why");
    assert_eq!(
        status.model_status.copies,
        Some(ModelCopies {
            failed_copies: 1,
            total_copies: 1
        })
    );
}

#[test]
fn an_image_that_nothing_maps_is_told() {
    let stuck = pod(
        json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "nothing maps x"}}}),
        json!({"state": {"waiting": {}}}),
    );
    let info = compute(Some(&deployment(0, 1, 1)), &[stuck])
        .model_status
        .last_failure_info
        .unwrap();
    assert_eq!(
        (info.reason.as_deref(), info.message.as_deref()),
        (Some("RuntimeUnhealthy"), Some("ErrImagePull: nothing maps x"))
    );
}

#[test]
fn the_old_model_answers_while_the_new_one_fails() {
    let crashed = pod(
        json!({"state": {"terminated": {"exitCode": 1}}}),
        json!({"state": {"waiting": {}}}),
    );
    let status = compute(Some(&deployment(1, 1, 2)), &[crashed]);
    assert_eq!(
        summary(&status),
        [
            "IngressReady=True",
            "PredictorReady=True",
            "Ready=True",
            "BlockedByFailedLoad Loaded>FailedToLoad"
        ]
    );
}

#[test]
fn a_spec_without_runtime_is_invalid_and_times_stand_still() {
    let failure = Failure {
        reason: FailureReason::NoSupportingRuntime,
        message: "none".into(),
    };
    let observed = Observed {
        failure: Some(&failure),
        ..Observed::default()
    };
    let config = ServingConfig::default();
    let first = status(&service(Value::Null), &observed, at(100), &config);
    assert_eq!(
        summary(&first),
        [
            "IngressReady=False",
            "PredictorReady=False",
            "Ready=False",
            "InvalidSpec >Pending"
        ]
    );
    assert_eq!(first.conditions[2].reason.as_deref(), Some("NoSupportingRuntime"));
    let later = status(
        &service(serde_json::to_value(&first).unwrap()),
        &observed,
        at(500),
        &config,
    );
    assert_eq!(first, later, "nothing changed, so nothing is written");
}
