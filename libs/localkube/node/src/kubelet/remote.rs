//! `/exec` and `/attach`: the client's streams on one side, the Pod's shim on the other.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use tokio::net::UnixStream;

use super::channels::{self, V4, V5};
use super::relay::{Asked, CHANNELS, Remote, relay};
use super::streams::attended;
use super::upgrade::{Client, Connection};
use super::{Kubelet, Refusal, check_container, spdy};
use crate::nursery;
use crate::wire::{self, Reply, Request};

/// What the query says; the kubelet spells it `input`, the API `stdin`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    command: Vec<String>,
    streams: Asked,
}

impl Wanted {
    fn parse(query: &str) -> Self {
        let mut wanted = Self::default();
        for (name, value) in form_pairs(query) {
            let on = matches!(value.as_str(), "1" | "true");
            match name.as_str() {
                "command" => wanted.command.push(value),
                "input" | "stdin" => wanted.streams.stdin = on,
                "output" | "stdout" => wanted.streams.stdout = on,
                "error" | "stderr" => wanted.streams.stderr = on,
                "tty" => wanted.streams.tty = on,
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
    client: Client,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        client,
        true,
    )
    .await
}

pub async fn exec_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    client: Client,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        client,
        true,
    )
    .await
}

pub async fn attach(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    client: Client,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        client,
        false,
    )
    .await
}

pub async fn attach_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    client: Client,
) -> Result<Response, Refusal> {
    open(
        &kubelet,
        &namespace,
        &pod,
        container,
        &query.unwrap_or_default(),
        client,
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
    client: Client,
    exec: bool,
) -> Result<Response, Refusal> {
    let entry = kubelet.entry(namespace, pod)?;
    if let Some(object) = entry.pod() {
        check_container(&object, &container)?;
    }
    let wanted = Wanted::parse(query);
    if exec && wanted.command.is_empty() {
        return Err(Refusal::bad(
            "you must specify at least 1 command for the container",
        ));
    }
    let agreed = client.agree(&[V5, V4], &[V5, V4])?;
    let streams = wanted.streams;
    let request = if exec {
        Request::Exec {
            container,
            argv: wanted.command,
            stdin: wanted.streams.stdin,
            tty: wanted.streams.tty,
        }
    } else {
        Request::Attach {
            container,
            stdin: streams.stdin,
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
    Ok(agreed.on_upgrade(move |connection| serve(connection, shim, streams)))
}

async fn serve(connection: Connection, shim: UnixStream, asked: Asked) {
    match connection {
        Connection::Channels(socket) => {
            let (streams, carrier) = channels::open(socket, CHANNELS);
            let work = async {
                if let Some(remote) = Remote::of_channels(streams, asked).await {
                    relay(remote, shim).await;
                }
            };
            attended(carrier, work).await;
        }
        Connection::Spdy(io) => {
            // What the command does not read holds up its client, as a pipe would.
            let (mut accepted, carrier) = spdy::session(io, None);
            let work = async move {
                if let Some(remote) = Remote::of_session(&mut accepted, asked).await {
                    relay(remote, shim).await;
                }
            };
            attended(carrier, work).await;
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
        let streams = Asked {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        assert_eq!(wanted.streams, streams);
    }
}
