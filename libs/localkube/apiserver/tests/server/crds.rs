use std::time::Duration;

use serde_json::{Value, json};

use crate::{Server, server};

pub fn definition() -> Value {
    let schema = |extra: Value| {
        json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "mode": {"type": "string", "default": "fast"}, "extra": extra}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true,
             "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
             "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
             "schema": {"openAPIV3Schema": schema(json!({"type": "string"}))}},
            {"name": "v1beta1", "served": true, "storage": false, "subresources": {"status": {}},
             "schema": {"openAPIV3Schema": schema(json!({"type": "string"}))}}]}})
}

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

async fn with_definition() -> Server {
    let s = server().await;
    s.ok("POST", CRDS, definition()).await;
    let made = s
        .ok("GET", &format!("{CRDS}/widgets.example.com"), json!(null))
        .await;
    assert!(
        made["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    );
    s
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_validated() {
    let s = with_definition().await;
    let made = s.ok("POST", WIDGETS, json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 2, "junk": 1}, "status": {"x": 1}})).await;
    assert_eq!(made["spec"], json!({"size": 2, "mode": "fast"}));
    assert!(made.get("status").is_none());
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, status) = s.fails("POST", WIDGETS, json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "b"}, "spec": {"size": 0}})).await;
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "Widget.example.com \"b\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
    );
    let (_, done) = s
        .send(
            "PATCH",
            &format!("{WIDGETS}/a/status"),
            "application/merge-patch+json",
            json!({"status": {"size": 7}, "spec": {"size": 9}}),
        )
        .await;
    assert_eq!(
        (
            &done["status"]["size"],
            &done["spec"]["size"],
            &done["metadata"]["generation"]
        ),
        (&json!(7), &json!(2), &json!(1))
    );
    let scale = s.ok("GET", &format!("{WIDGETS}/a/scale"), json!(null)).await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(2), &json!(7))
    );
    let other = s
        .ok(
            "GET",
            "/apis/example.com/v1beta1/namespaces/default/widgets/a",
            json!(null),
        )
        .await;
    assert_eq!(other["apiVersion"], "example.com/v1beta1");
}

#[tokio::test]
async fn deleting_the_definition_deletes_its_objects() {
    let s = with_definition().await;
    s.ok(
        "POST",
        WIDGETS,
        json!({"metadata": {"name": "a"}, "spec": {"size": 2}}),
    )
    .await;
    s.ok("DELETE", &format!("{CRDS}/widgets.example.com"), json!(null))
        .await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while s
            .send(
                "GET",
                &format!("{CRDS}/widgets.example.com"),
                "application/json",
                json!(null),
            )
            .await
            .0
            != 404
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    s.ok("POST", CRDS, definition()).await;
    let list = s.ok("GET", WIDGETS, json!(null)).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn tables_have_the_columns() {
    let s = with_definition().await;
    s.ok(
        "POST",
        WIDGETS,
        json!({"metadata": {"name": "a"}, "spec": {"size": 2}}),
    )
    .await;
    let request = http::Request::get(WIDGETS)
        .header(
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        )
        .body(Vec::new())
        .unwrap();
    let table: Value = s.client.request(request).await.unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Size");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 2]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}
