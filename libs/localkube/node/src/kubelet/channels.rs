//! Kubernetes' streams over a WebSocket: each binary message begins with the number of its channel
//! (`v4.channel.k8s.io`; `v5` adds a message that closes a channel).

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";

/// The channel that carries the final Status.
pub const ERROR: u8 = 3;
/// In v5: the channel named by the next byte is closed.
const CLOSE: u8 = 255;

pub struct Output(SplitSink<WebSocket, Message>);

pub struct Input(SplitStream<WebSocket>);

pub enum Received {
    Data(u8, Bytes),
    Closed(u8),
}

pub fn split(socket: WebSocket) -> (Output, Input) {
    let (output, input) = socket.split();
    (Output(output), Input(input))
}

impl Output {
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), axum::Error> {
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        self.0.send(Message::Binary(message.into())).await
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let frame = CloseFrame {
            code: 1000,
            reason: "".into(),
        };
        drop(self.0.send(Message::Close(Some(frame))).await);
        drop(self.0.close().await);
    }
}

impl Input {
    /// None when the client has gone.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            let bytes = match self.0.next().await?.ok()? {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            match bytes.first() {
                Some(&CLOSE) if bytes.len() > 1 => return Some(Received::Closed(bytes[1])),
                Some(&channel) => return Some(Received::Data(channel, bytes.slice(1..))),
                None => {}
            }
        }
    }
}

/// The Status that ends an exec, as clients parse it.
pub fn status(exit_code: i32, error: Option<&str>) -> Value {
    match (exit_code, error) {
        (0, None) => json!({"metadata": {}, "status": "Success"}),
        (_, Some(error)) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": error,
                   "details": {"causes": [{"message": error}]}})
        }
        (code, None) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}
        }),
    }
}
