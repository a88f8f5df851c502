//! The API server through `kube::Client` in process.

mod apply;
mod crds;
mod crud;
mod durability;
mod rights;
mod upgrades;
mod watches;
mod webhooks;

use kube::Client;
use localkube_apiserver::{ApiServer, ApiServerConfig, user};
use serde_json::{Value, json};

/// A server on a fresh folder, and a client with all rights.
pub struct Server {
    pub api: ApiServer,
    pub client: Client,
    pub dir: tempfile::TempDir,
}

pub async fn server() -> Server {
    server_with(|_| ()).await
}

pub async fn server_with(change: impl FnOnce(&mut ApiServerConfig)) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ApiServerConfig::new(dir.path());
    change(&mut config);
    let api = ApiServer::open(config).await.unwrap();
    let client = api.client(user("admin", &["system:masters"]), "default");
    let server = Server { api, client, dir };
    // The ServiceAccount controller is not part of the API server.
    let account = json!({"metadata": {"name": "default"}});
    server
        .ok("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        .await;
    server
}

impl Server {
    /// Sends a request; the answer's code and body.
    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: Value) -> (u16, Value) {
        send(&self.client, method, path, content_type, body).await
    }
    /// Sends JSON and wants success.
    pub async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (code, value) = self.send(method, path, "application/json", body).await;
        assert!(code < 300, "{method} {path}: {code} {value}");
        value
    }
    /// Sends JSON and wants a failure; its code and Status.
    pub async fn fails(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (code, value) = self.send(method, path, "application/json", body).await;
        assert!(code >= 400, "{method} {path}: {code} {value}");
        (code, value)
    }
}

pub async fn send(
    client: &Client,
    method: &str,
    path: &str,
    content_type: &str,
    body: Value,
) -> (u16, Value) {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        serde_json::to_vec(&body).unwrap()
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(kube::client::Body::from(bytes))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (code, value)
}
