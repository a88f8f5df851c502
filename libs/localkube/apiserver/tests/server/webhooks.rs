use axum::extract::Json;
use axum::routing::post;
use base64::Engine as _;
use serde_json::{Value, json};

use crate::server;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

fn hook(kind: &str, path: &str) -> Value {
    json!({"metadata": {"name": kind}, "webhooks": [{"name": format!("{kind}.example.com"), "admissionReviewVersions": ["v1"],
        "sideEffects": "None", "failurePolicy": "Fail", "objectSelector": {"matchLabels": {"hook": "yes"}},
        "clientConfig": {"service": {"namespace": "kubeflow", "name": "hooks", "path": path}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]})
}

/// Adds `data.added`, and refuses objects with `data.bad`.
async fn answer(Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let allowed = request["object"]["data"]["bad"].is_null();
    let patch = json!([{"op": "add", "path": "/data/added", "value": "by hook"}]).to_string();
    let patch = base64::engine::general_purpose::STANDARD.encode(patch);
    Json(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": request["uid"],
        "allowed": allowed, "status": {"message": "data.bad is bad"}, "patchType": "JSONPatch", "patch": patch}}),
    )
}

#[tokio::test]
async fn webhooks_in_process() {
    let s = server().await;
    s.api.register_backend(
        "kubeflow",
        "hooks",
        axum::Router::new()
            .route("/mutate", post(answer))
            .route("/validate", post(answer)),
    );
    s.ok(
        "POST",
        &format!("{HOOKS}/mutatingwebhookconfigurations"),
        hook("mutating", "/mutate"),
    )
    .await;
    s.ok(
        "POST",
        &format!("{HOOKS}/validatingwebhookconfigurations"),
        hook("validating", "/validate"),
    )
    .await;
    let labels = json!({"hook": "yes"});
    let made = s
        .ok(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": "a", "labels": labels}, "data": {"x": "1"}}),
        )
        .await;
    assert_eq!(made["data"]["added"], "by hook");
    let plain = s
        .ok(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": "b"}, "data": {"x": "1"}}),
        )
        .await;
    assert!(plain["data"].get("added").is_none());
    let (code, status) = s
        .fails(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": "c", "labels": labels}, "data": {"bad": "1"}}),
        )
        .await;
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "admission webhook \"mutating.example.com\" denied the request: data.bad is bad"
    );
}

#[tokio::test]
async fn a_webhook_that_is_not_there() {
    let s = server().await;
    let mut config = hook("mutating", "/mutate");
    s.ok(
        "POST",
        &format!("{HOOKS}/mutatingwebhookconfigurations"),
        config.clone(),
    )
    .await;
    let object = json!({"metadata": {"name": "a", "labels": {"hook": "yes"}}, "data": {"x": "1"}});
    let (code, status) = s.fails("POST", CONFIG_MAPS, object.clone()).await;
    assert_eq!(code, 500);
    assert!(status["message"].as_str().unwrap().starts_with(
        "Internal error occurred: failed calling webhook \"mutating.example.com\": failed to call webhook: Post \"https://hooks.kubeflow.svc:443/mutate?timeout=10s\""
    ));
    config["webhooks"][0]["failurePolicy"] = "Ignore".into();
    s.ok(
        "PUT",
        &format!("{HOOKS}/mutatingwebhookconfigurations/mutating"),
        config,
    )
    .await;
    s.ok("POST", CONFIG_MAPS, object).await;
}
