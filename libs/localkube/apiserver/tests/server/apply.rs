use serde_json::{Value, json};

use crate::{Server, server};

const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(s: &Server, manager: &str, force: bool, body: Value) -> (u16, Value) {
    let path = format!("{DEPLOYMENTS}/d?fieldManager={manager}&force={force}");
    s.send("PATCH", &path, APPLY, body).await
}

fn deployment(replicas: i64, containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"from": "a"}}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}}})
}

#[tokio::test]
async fn apply_creates_merges_conflicts_and_removes() {
    let s = server().await;
    let one = json!([{"name": "c", "image": "busybox"}]);
    let (code, made) = apply(&s, "a", false, deployment(1, one.clone())).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    // The same again changes nothing.
    let (code, again) = apply(&s, "a", false, deployment(1, one.clone())).await;
    assert_eq!(
        (code, &again["metadata"]["resourceVersion"]),
        (200, &made["metadata"]["resourceVersion"])
    );
    // Another manager adds a container and disagrees about replicas.
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5,
        "template": {"spec": {"containers": [{"name": "side", "image": "alpine"}]}}}});
    let (code, status) = apply(&s, "b", false, other.clone()).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    assert_eq!(status["details"]["causes"][0]["field"], ".spec.replicas");
    let (code, forced) = apply(&s, "b", true, other).await;
    assert_eq!(code, 200, "{forced}");
    assert_eq!(forced["spec"]["replicas"], 5);
    let names = |v: &Value| -> Vec<String> {
        let list = v["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&forced), ["c", "side"]);
    // What a manager no longer applies goes away; what the other has stays.
    let mut less = deployment(5, one);
    less["metadata"]["labels"] = json!({});
    let (code, after) = apply(&s, "a", false, less).await;
    assert_eq!(code, 200, "{after}");
    assert!(after["metadata"]["labels"].get("from").is_none(), "{after}");
    let rest = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    let (_, after) = apply(&s, "b", false, rest).await;
    assert_eq!(names(&after), ["c"]);
}

#[tokio::test]
async fn updates_take_ownership() {
    let s = server().await;
    apply(
        &s,
        "a",
        false,
        deployment(1, json!([{"name": "c", "image": "busybox"}])),
    )
    .await;
    let path = format!("{DEPLOYMENTS}/d?fieldManager=scaler");
    s.send(
        "PATCH",
        &path,
        "application/merge-patch+json",
        json!({"spec": {"replicas": 3}}),
    )
    .await;
    let (code, status) = apply(
        &s,
        "a",
        false,
        deployment(1, json!([{"name": "c", "image": "busybox"}])),
    )
    .await;
    assert_eq!(code, 409);
    assert!(
        status["message"].as_str().unwrap().starts_with(
            "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
        ),
        "{status}"
    );
    let (code, status) = s
        .send("PATCH", &format!("{DEPLOYMENTS}/d"), APPLY, json!({}))
        .await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
}
