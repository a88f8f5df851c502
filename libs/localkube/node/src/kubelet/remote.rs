//! `/exec` and `/attach`: a WebSocket to the client on one side, the Pod's shim on the other.

use std::sync::Arc;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::net::UnixStream;

use super::channels::{self, ERROR, Received, V4, V5};
use super::{Kubelet, Refusal, check_container};
use crate::nursery;
use crate::wire::{self, Channel, Reply, Request, StreamEnd};

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

/// What the query says; the kubelet spells it `input`, the API `stdin`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn parse(query: &str) -> Self {
        let mut wanted = Self::default();
        for (name, value) in form_pairs(query) {
            let on = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "command" => wanted.command.push(value),
                "input" | "stdin" => wanted.stdin = on,
                "output" | "stdout" => wanted.stdout = on,
                "error" | "stderr" => wanted.stderr = on,
                "tty" => wanted.tty = on,
                _ => {}
            }
        }
        wanted
    }
}

/// The pairs of a query, decoded.
pub(super) fn form_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub async fn exec(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        upgrade,
        true,
    )
    .await
}

pub async fn exec_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        upgrade,
        true,
    )
    .await
}

pub async fn attach(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        upgrade,
        false,
    )
    .await
}

pub async fn attach_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        upgrade,
        false,
    )
    .await
}

/// Connects to the shim first, so that a refusal is an answer and not a broken stream.
async fn open(
    kubelet: &Kubelet,
    namespace: &str,
    pod: &str,
    container: String,
    query: &str,
    upgrade: Upgrade,
    exec: bool,
) -> Result<Response, Refusal> {
    let entry = kubelet.entry(namespace, pod)?;
    if let Some(object) = entry.pod() {
        check_container(&object, &container)?;
    }
    let upgrade = upgrade.map_err(|_| spdy())?;
    let wanted = Wanted::parse(query);
    if exec && wanted.command.is_empty() {
        return Err(Refusal::bad(
            "you must specify at least 1 command for the container",
        ));
    }
    let request = if exec {
        Request::Exec {
            container,
            argv: wanted.command.clone(),
            stdin: wanted.stdin,
            tty: wanted.tty,
        }
    } else {
        Request::Attach {
            container,
            stdin: wanted.stdin,
        }
    };
    let mut shim = nursery::connect(&kubelet.agent.folder(&entry.uid))
        .await
        .map_err(|error| Refusal::internal(format!("the Pod's shim does not answer: {error}")))?;
    wire::send(&mut shim, &request).await.map_err(Refusal::internal)?;
    match wire::receive::<Reply>(&mut shim)
        .await
        .map_err(Refusal::internal)?
    {
        Some(Reply::Opened) => {}
        Some(Reply::Refused { message }) => return Err(Refusal::bad(message)),
        _ => return Err(Refusal::internal("the Pod's shim ended")),
    }
    Ok(upgrade
        .protocols([V5, V4])
        .on_upgrade(move |socket| relay(socket, shim, wanted)))
}

/// The older protocol is not spoken; clients that have both try WebSockets first.
pub(super) fn spdy() -> Refusal {
    let text =
        "this kubelet streams over WebSockets only (v5.channel.k8s.io, v4.channel.k8s.io), not SPDY/3.1";
    Refusal(StatusCode::BAD_REQUEST, text.to_owned())
}

async fn relay(socket: WebSocket, shim: UnixStream, wanted: Wanted) {
    let (mut output, mut input) = channels::split(socket);
    let (mut from_shim, mut to_shim) = shim.into_split();
    // An empty message tells the client that the streams are open.
    let first = if wanted.stdout {
        1
    } else if wanted.stderr {
        2
    } else {
        ERROR
    };
    if output.send(first, &[]).await.is_err() {
        return;
    }
    let feeding = async {
        while let Some(received) = input.next().await {
            let sent = match received {
                Received::Data(0, bytes) => wire::send_chunk(&mut to_shim, Channel::Stdin, &bytes).await,
                Received::Data(4, bytes) => wire::send_chunk(&mut to_shim, Channel::Resize, &bytes).await,
                Received::Closed(0) => wire::send_chunk(&mut to_shim, Channel::CloseStdin, &[]).await,
                _ => Ok(()),
            };
            if sent.is_err() {
                // The command has ended; its last words are still on their way.
                std::future::pending::<()>().await;
            }
        }
    };
    let reading = async {
        while let Ok(Some((channel, bytes))) = wire::receive_chunk(&mut from_shim).await {
            let sent = match channel {
                Channel::Stdout if wanted.stdout => output.send(1, &bytes).await,
                Channel::Stderr if wanted.stderr => output.send(2, &bytes).await,
                Channel::End => {
                    let end = serde_json::from_slice::<StreamEnd>(&bytes).unwrap_or(StreamEnd {
                        exit_code: 0,
                        error: Some("the stream was cut off".to_owned()),
                    });
                    let status = channels::status(end.exit_code, end.error.as_deref());
                    drop(output.send(ERROR, status.to_string().as_bytes()).await);
                    break;
                }
                _ => Ok(()),
            };
            if sent.is_err() {
                return None;
            }
        }
        Some(output)
    };
    tokio::select! {
        // A client that leaves takes its command with it: the shim sees the closed socket.
        () = feeding => {}
        output = reading => {
            if let Some(output) = output {
                output.close().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_with_repeated_commands() {
        let wanted = Wanted::parse("command=sh&command=-c&command=echo%20a+b&input=1&output=1&tty=true");
        assert_eq!(wanted.command, ["sh", "-c", "echo a b"]);
        assert_eq!(
            (wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty),
            (true, true, false, true)
        );
    }
}
