//! `/portForward`: connections to ports of a Pod over a WebSocket. Port number i has the channels 2i (data) and
//! 2i + 1 (errors), each opened by a message with the port (u16, little endian).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::channels::{self, Received, V4};
use super::remote::{form_pairs, spdy};
use super::{Kubelet, Refusal};

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

/// Chunks on their way to a client that reads slowly.
const BACKLOG: usize = 16;
/// Channels are one byte.
const MOST_PORTS: usize = 100;

pub async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(&kubelet, &namespace, &pod, &query.unwrap_or_default(), upgrade)
}

pub async fn serve_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(&kubelet, &namespace, &pod, &query.unwrap_or_default(), upgrade)
}

fn open(
    kubelet: &Kubelet,
    namespace: &str,
    pod: &str,
    query: &str,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let entry = kubelet.entry(namespace, pod)?;
    let status = entry.pod().and_then(|pod| pod.status.clone()).unwrap_or_default();
    let address = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
    let running = status.phase.as_deref() == Some("Running");
    let Some(ip) = address.filter(|_| running) else {
        return Err(Refusal::bad(format!(
            "unable to forward port because pod \"{pod}\" is not running"
        )));
    };
    let upgrade = upgrade.map_err(|_| spdy())?;
    let ports = ports(query)?;
    let targets = ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect();
    Ok(upgrade
        .protocols([V4, "portforward.k8s.io"])
        .on_upgrade(move |socket| forward(socket, targets)))
}

fn ports(query: &str) -> Result<Vec<u16>, Refusal> {
    let mut ports = Vec::new();
    for (name, value) in form_pairs(query) {
        if name == "port" || name == "ports" {
            for text in value.split(',') {
                match text.parse::<u16>() {
                    Ok(port) if port > 0 => ports.push(port),
                    _ => return Err(Refusal::bad(format!("port {text} is not one of 1 to 65535"))),
                }
            }
        }
    }
    match ports.len() {
        0 => Err(Refusal::bad("query parameter \"port\" is required")),
        1..=MOST_PORTS => Ok(ports),
        count => Err(Refusal::bad(format!("{count} ports are more than {MOST_PORTS}"))),
    }
}

async fn forward(socket: WebSocket, targets: Vec<SocketAddr>) {
    let (mut output, mut input) = channels::split(socket);
    let (queue, mut outbox) = mpsc::channel::<(u8, Vec<u8>)>(BACKLOG);
    let mut writers: Vec<Option<OwnedWriteHalf>> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let data = u8::try_from(index * 2).unwrap_or(u8::MAX);
        let port = target.port().to_le_bytes();
        for channel in [data, data + 1] {
            if output.send(channel, &port).await.is_err() {
                return;
            }
        }
        match TcpStream::connect(target).await {
            Ok(stream) => {
                let (mut reader, writer) = stream.into_split();
                writers.push(Some(writer));
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 32 << 10];
                    while let Ok(count) = reader.read(&mut buffer).await {
                        if count == 0 || queue.send((data, buffer[..count].to_vec())).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(error) => {
                writers.push(None);
                let text = format!("error forwarding port {} to pod: {error}", target.port());
                drop(queue.try_send((data + 1, text.into_bytes())));
            }
        }
    }
    drop(queue);
    let sending = async {
        while let Some((channel, bytes)) = outbox.recv().await {
            if output.send(channel, &bytes).await.is_err() {
                return None;
            }
        }
        Some(output)
    };
    let feeding = async {
        while let Some(received) = input.next().await {
            if let Received::Data(channel, bytes) = received
                && channel % 2 == 0
                && let Some(slot) = writers.get_mut(usize::from(channel / 2))
                && let Some(writer) = slot
                && writer.write_all(&bytes).await.is_err()
            {
                *slot = None;
            }
        }
    };
    tokio::select! {
        output = sending => {
            if let Some(output) = output {
                output.close().await;
            }
        }
        () = feeding => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_both_spellings() {
        assert_eq!(ports("port=80&port=81").ok(), Some(vec![80, 81]));
        assert_eq!(ports("ports=80,81").ok(), Some(vec![80, 81]));
        assert!(ports("port=0").is_err());
        assert!(ports("").is_err());
    }
}
