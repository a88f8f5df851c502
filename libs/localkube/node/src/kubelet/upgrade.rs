//! How a client asks for streams: a WebSocket, or `Upgrade: SPDY/3.1`, and the protocol that both speak on it.

use std::future::Future;
use std::io;

use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tracing::debug;

use super::Refusal;

pub const SPDY: &str = "SPDY/3.1";
/// What the name of a WebSocket's subprotocol begins with when it carries SPDY frames.
const TUNNEL: &str = "SPDY/3.1+";
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A request to upgrade.
pub(crate) enum Client {
    WebSocket(WebSocketUpgrade),
    Spdy {
        upgrade: OnUpgrade,
        /// as the client prefers them
        offered: Vec<String>,
    },
}

/// A request whose protocol is agreed on.
pub(crate) enum Agreed {
    WebSocket(WebSocketUpgrade),
    Spdy { upgrade: OnUpgrade, protocol: String },
}

/// What there is after the upgrade.
pub(crate) enum Connection {
    Channels(WebSocket),
    /// SPDY frames, on the connection itself or within a WebSocket
    Spdy(Box<dyn Duplex>),
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let wanted = listed(&parts.headers, &header::UPGRADE);
        if wanted.iter().any(|name| name.eq_ignore_ascii_case(SPDY)) {
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let upgrade = upgrade
                .ok_or_else(|| Refusal::bad("unable to upgrade: the connection cannot be upgraded"))?;
            let offered = listed(&parts.headers, &VERSION);
            return Ok(Self::Spdy { upgrade, offered });
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        upgrade.map(Self::WebSocket).map_err(|error| {
            let text = error.body_text();
            Refusal::bad(format!(
                "unable to upgrade: this is neither a WebSocket nor {SPDY}: {text}"
            ))
        })
    }
}

/// The values of a header that may be repeated or hold a list.
fn listed(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let names = texts.flat_map(|text| text.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The first that the client offers and we speak; the first of ours for a client that names none, as the oldest do.
fn choose(offered: &[String], spoken: &[&'static str]) -> Result<&'static str, Refusal> {
    let first = if offered.is_empty() { spoken.first() } else { None };
    let mut common = offered
        .iter()
        .filter_map(|name| spoken.iter().find(|known| *known == name));
    first.or_else(|| common.next()).copied().ok_or_else(|| {
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spoken:?}"
        );
        Refusal(StatusCode::FORBIDDEN, text)
    })
}

impl Client {
    /// Agrees on one of the protocols of each way, in the order in which we prefer a WebSocket's; refuses a client that speaks none.
    pub fn agree(
        self,
        over_websocket: &[&'static str],
        over_spdy: &[&'static str],
    ) -> Result<Agreed, Refusal> {
        match self {
            Self::WebSocket(upgrade) => {
                let offered = upgrade.requested_protocols();
                let offered = offered.filter_map(|value| value.to_str().ok().map(str::to_owned));
                choose(&offered.collect::<Vec<_>>(), over_websocket)?;
                Ok(Agreed::WebSocket(upgrade.protocols(over_websocket.to_vec())))
            }
            Self::Spdy { upgrade, offered } => {
                let protocol = choose(&offered, over_spdy)?.to_owned();
                Ok(Agreed::Spdy { upgrade, protocol })
            }
        }
    }
}

impl Agreed {
    /// Whether SPDY frames will come, on the connection itself or within a WebSocket.
    pub fn is_spdy(&self) -> bool {
        match self {
            Self::WebSocket(upgrade) => tunnels(upgrade.selected_protocol()),
            Self::Spdy { .. } => true,
        }
    }

    /// The answer; what is done with the connection begins when it is sent.
    pub fn on_upgrade<F>(self, work: impl FnOnce(Connection) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::WebSocket(upgrade) => upgrade.on_upgrade(|socket| {
                work(if tunnels(socket.protocol()) {
                    Connection::Spdy(Box::new(tunnel(socket)))
                } else {
                    Connection::Channels(socket)
                })
            }),
            Self::Spdy { upgrade, protocol } => {
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok(upgraded) => work(Connection::Spdy(Box::new(TokioIo::new(upgraded)))).await,
                        Err(error) => debug!(%error, "a connection was not upgraded"),
                    }
                });
                let headers = [
                    (header::CONNECTION, "Upgrade"),
                    (header::UPGRADE, SPDY),
                    (VERSION, protocol.as_str()),
                ];
                (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
            }
        }
    }
}

fn tunnels(protocol: Option<&HeaderValue>) -> bool {
    protocol.is_some_and(|protocol| protocol.as_bytes().starts_with(TUNNEL.as_bytes()))
}

/// The bytes in a WebSocket's binary messages, however they are cut.
fn tunnel(socket: WebSocket) -> impl Duplex {
    let (output, input) = socket.split();
    let input = input
        .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let output = output
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(io::Result::Ok(Message::Binary(bytes))));
    tokio::io::join(
        StreamReader::new(input),
        SinkWriter::new(CopyToBytes::new(output)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_client_chooses_among_what_is_spoken() {
        let spoken = ["v5", "v4"];
        assert_eq!(choose(&offered(&["v9", "v4", "v5"]), &spoken).ok(), Some("v4"));
        assert_eq!(choose(&[], &spoken).ok(), Some("v5"));
        let refused = choose(&offered(&["v1"]), &spoken).err().unwrap();
        assert_eq!(refused.0, StatusCode::FORBIDDEN);
        assert!(
            refused.1.contains("[\"v1\"], server accepts [\"v5\", \"v4\"]"),
            "{}",
            refused.1
        );
    }

    #[test]
    fn a_header_is_a_list_or_is_repeated() {
        let mut headers = HeaderMap::new();
        headers.append(VERSION, HeaderValue::from_static("v5, v4"));
        headers.append(VERSION, HeaderValue::from_static("v3"));
        assert_eq!(listed(&headers, &VERSION), ["v5", "v4", "v3"]);
    }
}
