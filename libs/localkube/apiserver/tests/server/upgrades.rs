//! exec through a kubelet, over an in-memory duplex and TLS.

use std::convert::Infallible;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::server;

/// A kubelet whose exec sends back what it gets, in upper case.
async fn echo_kubelet(tls: rustls::ServerConfig) -> u16 {
    use futures::{SinkExt as _, StreamExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let service =
                hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/exec/default/p/c");
                    assert_eq!(request.uri().query(), Some("input=1&output=1&command=cat"));
                    assert!(
                        request.headers()["authorization"]
                            .to_str()
                            .unwrap()
                            .starts_with("Bearer ")
                    );
                    let key = request.headers()["sec-websocket-key"].as_bytes().to_vec();
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let io = TokioIo::new(upgrade.await.unwrap());
                        let mut ws =
                            tokio_tungstenite::WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                        while let Some(Ok(Message::Binary(data))) = ws.next().await {
                            if data.first() != Some(&0) {
                                continue;
                            }
                            let mut out = vec![1u8];
                            out.extend(data[1..].to_ascii_uppercase());
                            ws.send(Message::Binary(out.into())).await.unwrap();
                        }
                    });
                    Ok::<_, Infallible>(
                        http::Response::builder()
                            .status(101)
                            .header("connection", "Upgrade")
                            .header("upgrade", "websocket")
                            .header("sec-websocket-accept", derive_accept_key(&key))
                            .header("sec-websocket-protocol", "v5.channel.k8s.io")
                            .body(String::new())
                            .unwrap(),
                    )
                });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    });
    port
}

#[tokio::test]
async fn exec_is_tunnelled_to_the_kubelet() {
    let s = server().await;
    let port = echo_kubelet(s.api.serving_config(&["127.0.0.1".into()]).unwrap()).await;
    s.ok("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}}))
        .await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    s.send(
        "PATCH",
        "/api/v1/nodes/n1/status",
        "application/merge-patch+json",
        status,
    )
    .await;
    s.ok(
        "POST",
        "/api/v1/namespaces/default/pods",
        json!({"metadata": {"name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]}}),
    )
    .await;
    let pods: Api<Pod> = Api::default_namespaced(s.client.clone());
    let params = AttachParams::default().stdin(true).stderr(false).container("c");
    let mut attached = pods.exec("p", ["cat"], &params).await.unwrap();
    let mut stdin = attached.stdin().unwrap();
    let mut stdout = attached.stdout().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.flush().await.unwrap();
    let mut got = [0u8; 5];
    tokio::time::timeout(std::time::Duration::from_secs(10), stdout.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&got, b"HELLO");
}
