use std::time::Duration;

use localkube_apiserver::{TokenRequest, service_account, user};
use serde_json::json;

use crate::{send, server};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn rights_are_enforced() {
    let s = server().await;
    let client = s.api.client(service_account("default", "default"), "default");
    let path = "/api/v1/namespaces/default/pods";
    let (code, status) = send(&client, "GET", path, "application/json", json!(null)).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    s.ok(
        "POST",
        &format!("{RBAC}/namespaces/default/rolebindings"),
        json!({"metadata": {"name": "v"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]}),
    )
    .await;
    assert_eq!(
        send(&client, "GET", path, "application/json", json!(null))
            .await
            .0,
        200
    );
    assert_eq!(
        send(&client, "POST", path, "application/json", json!({})).await.0,
        403
    );
    assert_eq!(
        send(
            &client,
            "GET",
            "/api/v1/namespaces/default/secrets",
            "application/json",
            json!(null)
        )
        .await
        .0,
        403
    );
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let s = server().await;
    s.ok(
        "POST",
        &format!("{RBAC}/namespaces/default/rolebindings"),
        json!({"metadata": {"name": "e"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]}),
    )
    .await;
    let ann = s.api.client(user("ann", &[]), "default");
    let roles = format!("{RBAC}/namespaces/default/roles");
    let role = |resource: &str| {
        json!({"metadata": {"name": format!("r-{resource}")},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
    };
    assert_eq!(
        send(&ann, "POST", &roles, "application/json", role("pods"))
            .await
            .0,
        201
    );
    let (code, status) = send(&ann, "POST", &roles, "application/json", role("nodes")).await;
    assert_eq!(code, 403);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("is attempting to grant RBAC permissions not currently held")
    );
}

#[tokio::test]
async fn tokens_of_service_accounts() {
    let s = server().await;
    let made = s
        .ok(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts/default/token",
            json!({"spec": {}}),
        )
        .await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let review = |token: &str| json!({"spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = s.ok("POST", path, review(&token)).await;
    assert_eq!(
        known["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
    let other = s
        .api
        .issue_token(&TokenRequest {
            namespace: "default".into(),
            service_account: "default".into(),
            audiences: vec!["else".into()],
            ttl: Duration::from_secs(600),
            pod: None,
        })
        .unwrap();
    assert!(s.ok("POST", path, review(&other)).await["status"]["authenticated"].is_null());
    // A token ends with its account.
    s.ok(
        "DELETE",
        "/api/v1/namespaces/default/serviceaccounts/default",
        json!(null),
    )
    .await;
    assert!(s.ok("POST", path, review(&token)).await["status"]["authenticated"].is_null());
    assert!(s.ok("POST", path, review("nonsense")).await["status"]["authenticated"].is_null());
}

#[tokio::test]
async fn access_reviews() {
    let s = server().await;
    let ask = |user: &str| {
        json!({"spec": {"user": user, "groups": ["system:authenticated"],
        "nonResourceAttributes": {"path": "/version", "verb": "get"}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(s.ok("POST", path, ask("any")).await["status"]["allowed"], true);
    let pods = json!({"spec": {"user": "any", "resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    assert_eq!(s.ok("POST", path, pods).await["status"]["allowed"], false);
}
