//! Streams over a WebSocket: each binary message begins with the number of its channel (`v4.channel.k8s.io`; `v5` adds a message that
//! closes a channel).

use std::future::Future;
use std::pin::pin;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::streams::{GOODBYE, OUTBOX, Outbound, Stream};

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";

/// In v5: the channel named by the next byte is closed.
const CLOSE: u8 = 255;

enum Received {
    Data(u8, Bytes),
    Closed(u8),
}

/// The channels 0 to `count` - 1 of a socket, and the future that carries them until the client leaves, or until all of them are let go.
pub fn open(socket: WebSocket, count: u8) -> (Vec<Stream>, impl Future<Output = ()>) {
    let (outbox, queued) = mpsc::channel(OUTBOX);
    let gone = CancellationToken::new();
    let (streams, inboxes): (Vec<_>, Vec<_>) = (0..count)
        .map(|number| Stream::new(number.into(), outbox.clone(), gone.clone()))
        .map(|(stream, inbox)| (stream, Some(inbox)))
        .unzip();
    let (output, input) = socket.split();
    let carrier = async move {
        let _gone = gone.drop_guard();
        let receiving = pin!(receive(input, inboxes));
        if let Either::Left(((), receiving)) = select(pin!(send(output, queued)), receiving).await {
            // The client answers our close; until then it may send.
            drop(tokio::time::timeout(GOODBYE, receiving).await);
        }
    };
    (streams, carrier)
}

async fn send(mut output: SplitSink<WebSocket, Message>, mut queued: mpsc::Receiver<Outbound>) {
    while let Some(next) = queued.recv().await {
        let (number, bytes) = match next {
            // An empty message tells the client that the channel is open.
            Outbound::Accept(number) => (number, Bytes::new()),
            Outbound::Data(number, bytes) => (number, bytes),
            // Clients take the end of the whole for the end of each channel.
            Outbound::Close(_) | Outbound::Reset(_) => continue,
        };
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(u8::try_from(number).unwrap_or(CLOSE));
        message.extend_from_slice(&bytes);
        if output.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    let frame = CloseFrame {
        code: 1000,
        reason: "".into(),
    };
    drop(output.send(Message::Close(Some(frame))).await);
    drop(output.close().await);
}

async fn receive(mut input: SplitStream<WebSocket>, mut inboxes: Vec<Option<mpsc::Sender<Bytes>>>) {
    while let Some(received) = next(&mut input).await {
        match received {
            Received::Data(channel, bytes) => {
                if let Some(Some(inbox)) = inboxes.get(usize::from(channel))
                    && !bytes.is_empty()
                {
                    // Whoever takes no more has ended; the others go on.
                    drop(inbox.send(bytes).await);
                }
            }
            Received::Closed(channel) => {
                if let Some(inbox) = inboxes.get_mut(usize::from(channel)) {
                    *inbox = None;
                }
            }
        }
    }
}

/// None when the client has gone.
async fn next(input: &mut SplitStream<WebSocket>) -> Option<Received> {
    loop {
        let bytes = match input.next().await?.ok()? {
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
