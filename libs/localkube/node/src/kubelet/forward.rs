//! `/portForward`: connections to ports of a Pod. Each takes two streams, one for bytes and one for what goes wrong.
//!
//! Over SPDY the client opens both whenever it has a connection to forward, with the headers `port`, `requestid` (which both have in
//! common) and `streamtype`. Over a WebSocket's channels there is one connection per port of the query: port number i has the channels
//! 2i (bytes) and 2i + 1 (errors), each opened by a message with the port (u16, little endian).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocket;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::channels::{self, V4};
use super::pairs::Pairs;
use super::remote::form_pairs;
use super::streams::{CHUNK, Output, Stream, attended};
use super::upgrade::{Client, Connection, Duplex};
use super::{Kubelet, Refusal, spdy};

/// What SPDY clients speak, within a WebSocket or not.
const V1: &str = "portforward.k8s.io";
const V1_TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";

/// Channels are one byte.
const MOST_PORTS: usize = 100;
/// A port that does not answer is given up.
const DIAL: Duration = Duration::from_secs(30);
/// A connection whose other side takes nothing is given up after so long, when it holds up what is forwarded beside it.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    client: Client,
) -> Result<Response, Refusal> {
    open(&kubelet, &namespace, &pod, &query.unwrap_or_default(), client)
}

pub async fn serve_uid(
    State(kubelet): State<Arc<Kubelet>>,
    Path((namespace, pod, _uid)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    client: Client,
) -> Result<Response, Refusal> {
    open(&kubelet, &namespace, &pod, &query.unwrap_or_default(), client)
}

fn open(
    kubelet: &Kubelet,
    namespace: &str,
    pod: &str,
    query: &str,
    client: Client,
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
    let agreed = client.agree(&[V1_TUNNELLED, V4, V1], &[V1])?;
    // SPDY's streams say their ports.
    let ports = if agreed.is_spdy() {
        Vec::new()
    } else {
        ports(query)?
    };
    let pod = pod.to_owned();
    Ok(agreed.on_upgrade(move |connection| async move {
        match connection {
            Connection::Channels(socket) => over_channels(socket, ip, &ports, pod).await,
            Connection::Spdy(io) => over_spdy(io, ip, pod).await,
        }
    }))
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

async fn over_channels(socket: WebSocket, ip: IpAddr, ports: &[u16], pod: String) {
    let count = u8::try_from(ports.len() * 2).unwrap_or(u8::MAX);
    let (streams, carrier) = channels::open(socket, count);
    let work = async move {
        let (mut streams, mut forwarded) = (streams.into_iter(), JoinSet::new());
        for port in ports {
            let (Some(data), Some(errors)) = (streams.next(), streams.next()) else {
                return;
            };
            for output in [&data.output, &errors.output] {
                let opening = Bytes::copy_from_slice(&port.to_le_bytes());
                if output.send(opening).await.is_err() {
                    return;
                }
            }
            forwarded.spawn(forward(
                SocketAddr::new(ip, *port),
                data,
                errors.output,
                pod.clone(),
            ));
        }
        while forwarded.join_next().await.is_some() {}
    };
    attended(carrier, work).await;
}

async fn over_spdy(io: Box<dyn Duplex>, ip: IpAddr, pod: String) {
    let (mut accepted, carrier) = spdy::session(io, Some(PATIENCE));
    let work = async move {
        let (mut pairs, mut forwarded) = (Pairs::default(), JoinSet::new());
        loop {
            tokio::select! {
                opened = accepted.next() => {
                    let Some(opened) = opened else { return };
                    if let Some((port, data, errors)) = pairs.add(opened).await {
                        forwarded.spawn(forward(SocketAddr::new(ip, port), data, errors, pod.clone()));
                    }
                }
                () = pairs.expire() => {}
                Some(_) = forwarded.join_next() => {}
            }
        }
    };
    attended(carrier, work).await;
}

/// Until the port has closed its side, or the client has given up. Only a port that cannot be reached is an error: kubectl ends at the
/// first error, so a connection that breaks later just ends.
async fn forward(target: SocketAddr, data: Stream, errors: Output, pod: String) {
    let dialed = match tokio::time::timeout(DIAL, TcpStream::connect(target)).await {
        Ok(dialed) => dialed,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    match dialed {
        Ok(connection) => {
            let gone = data.output.gone();
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = carry(connection, data) => {}
            }
        }
        Err(error) => {
            let text = format!("error forwarding port {} to pod {pod}: {error}", target.port());
            drop(errors.send(text.into()).await);
            data.output.close().await;
        }
    }
    errors.close().await;
}

async fn carry(connection: TcpStream, data: Stream) {
    let Stream { mut input, output } = data;
    drop(connection.set_nodelay(true));
    let (mut reader, mut writer) = connection.into_split();
    // What the port does not take any more is let go; what it has still to say comes below.
    let up = async move {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        drop(writer.shutdown().await);
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return output.close().await,
                Ok(count) => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if output.send(bytes).await.is_err() {
                        return;
                    }
                }
                // The client's stream breaks as well, and does not seem to end well.
                Err(_) => return,
            }
        }
    };
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = up => down.await,
    }
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
