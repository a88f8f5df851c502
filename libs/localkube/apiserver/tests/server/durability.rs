use localkube_apiserver::{ApiServer, ApiServerConfig, user};
use serde_json::json;

use crate::{send, server};

#[tokio::test]
async fn objects_versions_and_watches_survive_a_restart() {
    let s = server().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let made = s
        .ok(
            "POST",
            path,
            json!({"metadata": {"name": "a"}, "data": {"x": "1"}}),
        )
        .await;
    s.ok("POST", path, json!({"metadata": {"name": "b"}})).await;
    let token = s.api.static_token(&user("ann", &["system:masters"])).unwrap();
    // No shutdown: what was acknowledged is in the files, as a crash would leave them.
    let crashed = tempfile::tempdir().unwrap();
    std::fs::create_dir(crashed.path().join("pki")).unwrap();
    for file in [
        "localkube.db",
        "localkube.db-wal",
        "pki/ca.crt",
        "pki/ca.key",
        "pki/sa.key",
    ] {
        std::fs::copy(s.dir.path().join(file), crashed.path().join(file)).unwrap();
    }
    let again = ApiServer::open(ApiServerConfig::new(crashed.path()))
        .await
        .unwrap();
    let client = again.client(user("admin", &["system:masters"]), "default");
    let (code, found) = send(
        &client,
        "GET",
        &format!("{path}/a"),
        "application/json",
        json!(null),
    )
    .await;
    assert_eq!((code, &found), (200, &made));
    let rv = made["metadata"]["resourceVersion"].as_str().unwrap();
    let (_, line) = send(
        &client,
        "GET",
        &format!("{path}?watch=1&resourceVersion={rv}&timeoutSeconds=1"),
        "application/json",
        json!(null),
    )
    .await;
    assert_eq!(
        (&line["type"], &line["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("b"))
    );
    let review = json!({"spec": {"token": token}});
    let (_, known) = send(
        &client,
        "POST",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "application/json",
        review,
    )
    .await;
    assert_eq!(known["status"]["user"]["username"], "ann");
}

#[tokio::test]
async fn one_server_per_folder() {
    let s = server().await;
    let error = ApiServer::open(ApiServerConfig::new(s.dir.path()))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("is in use by another process"), "{error}");
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let s = server().await;
    s.api.shutdown().await;
    drop((s.api, s.client));
    let file = s.dir.path().join("localkube.db");
    // Byte 60 of a SQLite file is its user version.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&file, bytes).unwrap();
    let error = ApiServer::open(ApiServerConfig::new(s.dir.path()))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("schema version 99, newer than 1"), "{error}");
}
