use serde_json::json;

use crate::server;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn create_get_update_delete() {
    let s = server().await;
    let made = s
        .ok(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": "a"}, "data": {"x": "1"}}),
        )
        .await;
    assert_eq!(made["kind"], "ConfigMap");
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let (code, status) = s
        .fails("POST", CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await;
    assert_eq!(
        (code, &status["reason"], &status["message"]),
        (
            409,
            &json!("AlreadyExists"),
            &json!("configmaps \"a\" already exists")
        )
    );

    let path = format!("{CONFIG_MAPS}/a");
    let mut next = made.clone();
    next["data"]["x"] = "2".into();
    let second = s.ok("PUT", &path, next.clone()).await;
    assert_ne!(
        second["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let (code, status) = s.fails("PUT", &path, next).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // A write that changes nothing makes no new version.
    let third = s.ok("PUT", &path, second.clone()).await;
    assert_eq!(
        third["metadata"]["resourceVersion"],
        second["metadata"]["resourceVersion"]
    );

    let gone = s.ok("DELETE", &path, json!(null)).await;
    assert_eq!(
        (&gone["kind"], &gone["status"], &gone["details"]["name"]),
        (&json!("Status"), &json!("Success"), &json!("a"))
    );
    let (code, status) = s.fails("GET", &path, json!(null)).await;
    assert_eq!(
        (code, &status["message"]),
        (404, &json!("configmaps \"a\" not found"))
    );
}

#[tokio::test]
async fn lists_in_pages_and_by_selectors() {
    let s = server().await;
    for i in 0..5 {
        s.ok(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": format!("c{i}"), "labels": {"n": format!("{i}")}}}),
        )
        .await;
    }
    let first = s.ok("GET", &format!("{CONFIG_MAPS}?limit=2"), json!(null)).await;
    assert_eq!(
        (
            first["items"].as_array().unwrap().len(),
            &first["metadata"]["remainingItemCount"]
        ),
        (2, &json!(3))
    );
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = s
        .ok(
            "GET",
            &format!("{CONFIG_MAPS}?limit=5&continue={token}"),
            json!(null),
        )
        .await;
    assert_eq!(second["items"][0]["metadata"]["name"], "c2");
    assert!(second["metadata"]["continue"].is_null());
    let chosen = s
        .ok(
            "GET",
            &format!("{CONFIG_MAPS}?labelSelector=n+in+(1,3)"),
            json!(null),
        )
        .await;
    assert_eq!(chosen["items"].as_array().unwrap().len(), 2);
    let one = s
        .ok(
            "GET",
            &format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc4"),
            json!(null),
        )
        .await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let (code, _) = s
        .fails(
            "GET",
            &format!("{CONFIG_MAPS}?fieldSelector=spec.x%3D1"),
            json!(null),
        )
        .await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn patches() {
    let s = server().await;
    s.ok(
        "POST",
        CONFIG_MAPS,
        json!({"metadata": {"name": "p"}, "data": {"a": "1", "b": "2"}}),
    )
    .await;
    let path = format!("{CONFIG_MAPS}/p");
    let (_, v) = s
        .send(
            "PATCH",
            &path,
            "application/merge-patch+json",
            json!({"data": {"a": null, "c": "3"}}),
        )
        .await;
    assert_eq!(v["data"], json!({"b": "2", "c": "3"}));
    let ops = json!([{"op": "replace", "path": "/data/b", "value": "x"}]);
    let (_, v) = s.send("PATCH", &path, "application/json-patch+json", ops).await;
    assert_eq!(v["data"]["b"], "x");
    let bad = json!([{"op": "remove", "path": "/data/none"}]);
    let (code, v) = s.send("PATCH", &path, "application/json-patch+json", bad).await;
    assert_eq!((code, &v["reason"]), (422, &json!("Invalid")));
    let (code, v) = s.send("PATCH", &path, "application/foo", json!({})).await;
    assert_eq!((code, &v["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let s = server().await;
    s.ok(
        "POST",
        CONFIG_MAPS,
        json!({"metadata": {"name": "f", "finalizers": ["example.com/hold"]}}),
    )
    .await;
    let path = format!("{CONFIG_MAPS}/f");
    let pending = s.ok("DELETE", &path, json!(null)).await;
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    s.ok("GET", &path, json!(null)).await;
    s.send(
        "PATCH",
        &path,
        "application/merge-patch+json",
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    assert_eq!(s.fails("GET", &path, json!(null)).await.0, 404);
}

#[tokio::test]
async fn pods_end_gracefully() {
    let s = server().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"generateName": "p-"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}});
    let made = s.ok("POST", pods, pod).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("p-") && name.len() == 7);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert!(
        made["spec"]["volumes"][0]["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access-")
    );
    let path = format!("{pods}/{name}");
    let ending = s.ok("DELETE", &path, json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 5);
    s.ok("GET", &path, json!(null)).await;
    s.ok("DELETE", &path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(s.fails("GET", &path, json!(null)).await.0, 404);
}

#[tokio::test]
async fn unknown_fields_and_types() {
    let s = server().await;
    let odd = json!({"metadata": {"name": "u"}, "data": {"a": "1"}, "bogus": true});
    let (code, status) = s
        .fails(
            "POST",
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            odd.clone(),
        )
        .await;
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"bogus\""
    );
    let made = s.ok("POST", CONFIG_MAPS, odd).await;
    assert!(made.get("bogus").is_none());
    let (code, status) = s
        .fails(
            "POST",
            CONFIG_MAPS,
            json!({"metadata": {"name": "t"}, "data": {"a": 1}}),
        )
        .await;
    assert_eq!(code, 400);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("cannot unmarshal number into Go struct field ConfigMap.data of type string")
    );
    let (code, status) = s
        .fails("POST", CONFIG_MAPS, json!({"metadata": {"name": "Bad_Name"}}))
        .await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["field"]),
        (422, &json!("metadata.name"))
    );
}

#[tokio::test]
async fn namespaces_end_and_refuse() {
    let s = server().await;
    s.ok("POST", "/api/v1/namespaces", json!({"metadata": {"name": "tmp"}}))
        .await;
    let (code, _) = s
        .fails(
            "POST",
            "/api/v1/namespaces/none/configmaps",
            json!({"metadata": {"name": "x"}}),
        )
        .await;
    assert_eq!(code, 404);
    let ns = s.ok("DELETE", "/api/v1/namespaces/tmp", json!(null)).await;
    assert_eq!(ns["status"]["phase"], "Terminating");
    let (code, status) = s
        .fails(
            "POST",
            "/api/v1/namespaces/tmp/configmaps",
            json!({"metadata": {"name": "x"}}),
        )
        .await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["reason"]),
        (403, &json!("NamespaceTerminating"))
    );
    let mut last = s.ok("GET", "/api/v1/namespaces/tmp", json!(null)).await;
    last["spec"]["finalizers"] = json!([]);
    s.ok("PUT", "/api/v1/namespaces/tmp/finalize", last).await;
    assert_eq!(s.fails("GET", "/api/v1/namespaces/tmp", json!(null)).await.0, 404);
}

#[tokio::test]
async fn services_get_addresses() {
    let s = server().await;
    let path = "/api/v1/namespaces/default/services";
    let made = s
        .ok(
            "POST",
            path,
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
    let ip: std::net::Ipv4Addr = made["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!((96..112).contains(&ip.octets()[1]), "{ip}");
    let (code, status) =
        s.fails("POST", path, json!({"metadata": {"name": "t"}, "spec": {"clusterIP": ip.to_string(), "ports": [{"port": 80}]}})).await;
    assert_eq!(code, 422);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated")
    );
}

#[tokio::test]
async fn quotas_limit_pods() {
    let s = server().await;
    s.ok(
        "POST",
        "/api/v1/namespaces/default/resourcequotas",
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "requests.cpu": "1"}}}),
    )
    .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, cpu: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}]}});
    let (code, status) = s.fails("POST", pods, pod("a", "2")).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods \"a\" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1"
    );
    s.ok("POST", pods, pod("a", "500m")).await;
    let (_, status) = s.fails("POST", pods, pod("b", "100m")).await;
    assert_eq!(
        status["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    let plain =
        json!({"metadata": {"name": "d"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}});
    let (_, status) = s.fails("POST", pods, plain).await;
    assert_eq!(
        status["message"],
        "pods \"d\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
}
