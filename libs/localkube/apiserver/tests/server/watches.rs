use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;

use crate::{server, server_with};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn events_in_order_with_selector() {
    let s = server().await;
    let api: Api<ConfigMap> = Api::default_namespaced(s.client.clone());
    let rv = s.ok("GET", CONFIG_MAPS, json!(null)).await["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let params = WatchParams::default().labels("on=yes").timeout(20);
    let mut events = api.watch(&params, &rv).await.unwrap().boxed();
    s.ok("POST", CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await;
    let path = format!("{CONFIG_MAPS}/a");
    let merge = "application/merge-patch+json";
    s.send(
        "PATCH",
        &path,
        merge,
        json!({"metadata": {"labels": {"on": "yes"}}}),
    )
    .await;
    s.send("PATCH", &path, merge, json!({"data": {"x": "1"}})).await;
    s.send(
        "PATCH",
        &path,
        merge,
        json!({"metadata": {"labels": {"on": "no"}}}),
    )
    .await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(Duration::from_secs(10), events.try_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.push(match event {
            WatchEvent::Added(_) => "ADDED",
            WatchEvent::Modified(_) => "MODIFIED",
            WatchEvent::Deleted(_) => "DELETED",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["ADDED", "MODIFIED", "DELETED"]);
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let s = server().await;
    s.ok("POST", CONFIG_MAPS, json!({"metadata": {"name": "a"}}))
        .await;
    let api: Api<ConfigMap> = Api::default_namespaced(s.client.clone());
    let config = watcher::Config::default().streaming_lists();
    let mut objects = watcher(api, config).applied_objects().boxed();
    let first = tokio::time::timeout(Duration::from_secs(10), objects.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.metadata.name.as_deref(), Some("a"));
    s.ok("POST", CONFIG_MAPS, json!({"metadata": {"name": "b"}}))
        .await;
    let second = tokio::time::timeout(Duration::from_secs(10), objects.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(second.metadata.name.as_deref(), Some("b"));
}

#[tokio::test]
async fn versions_of_the_future_and_the_past() {
    let s = server_with(|config| config.watch_window = 64).await;
    let (code, status) = s
        .fails(
            "GET",
            &format!("{CONFIG_MAPS}?watch=1&resourceVersion=999999"),
            json!(null),
        )
        .await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    let (code, status) = s
        .fails(
            "GET",
            &format!("{CONFIG_MAPS}?watch=1&resourceVersion=abc"),
            json!(null),
        )
        .await;
    assert_eq!((code, &status["reason"]), (500, &json!(null)));
    // Push the first versions out of the window.
    s.ok("POST", CONFIG_MAPS, json!({"metadata": {"name": "w"}}))
        .await;
    for i in 0..80 {
        let patch = json!({"data": {"i": i.to_string()}});
        s.send(
            "PATCH",
            &format!("{CONFIG_MAPS}/w"),
            "application/merge-patch+json",
            patch,
        )
        .await;
    }
    let line = s
        .ok(
            "GET",
            &format!("{CONFIG_MAPS}?watch=1&resourceVersion=3"),
            json!(null),
        )
        .await;
    assert_eq!(
        (&line["type"], &line["object"]["code"], &line["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
}
