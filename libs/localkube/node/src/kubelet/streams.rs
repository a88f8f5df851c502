//! What exec, attach and port-forward see of a client: streams of bytes, each with a number, whatever carries them
//! ([`channels`](super::channels) over a WebSocket, [`spdy`](super::spdy)). Every queue is bounded.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Chunks that wait for the client, over all streams of a connection.
pub const OUTBOX: usize = 16;
/// Chunks of one stream that wait for whoever takes them.
const INBOX: usize = 16;
/// A client that was told goodbye has so long to read what is left and to leave. Whoever closes first may lose what the other side has
/// not looked at yet: a connection that is closed with something unread is reset, and moby/spdystream forgets what waits in its queues.
pub const GOODBYE: Duration = Duration::from_secs(10);
/// The most bytes of a chunk of our own.
pub const CHUNK: usize = 32 << 10;

/// What a carrier is asked to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// the stream that the client opened is taken
    Accept(u32),
    Data(u32, Bytes),
    /// nothing more comes on this stream; the client may still send
    Close(u32),
    /// the stream is given up both ways
    Reset(u32),
}

/// The client has gone, or has given up the stream.
#[derive(Debug)]
pub struct Gone;

/// The chunks that the client sends on a stream; None once it says that it sends no more.
pub type Input = mpsc::Receiver<Bytes>;

/// Our direction of a stream. One that is dropped and not closed is given up.
#[derive(Debug)]
pub struct Output {
    number: u32,
    outbox: mpsc::Sender<Outbound>,
    gone: CancellationToken,
    closed: bool,
}

#[derive(Debug)]
pub struct Stream {
    pub input: Input,
    pub output: Output,
}

impl Stream {
    /// A stream, and where its carrier puts what the client sends.
    pub fn new(
        number: u32,
        outbox: mpsc::Sender<Outbound>,
        gone: CancellationToken,
    ) -> (Self, mpsc::Sender<Bytes>) {
        let (inbox, input) = mpsc::channel(INBOX);
        let output = Output {
            number,
            outbox,
            gone,
            closed: false,
        };
        (Self { input, output }, inbox)
    }
}

impl Output {
    async fn put(&self, what: Outbound) -> Result<(), Gone> {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(Gone),
            sent = self.outbox.send(what) => sent.map_err(|_| Gone),
        }
    }

    /// Tells the client that its stream is taken.
    pub async fn accept(&self) -> Result<(), Gone> {
        self.put(Outbound::Accept(self.number)).await
    }

    /// Waits while the client has too much to read already.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.put(Outbound::Data(self.number, bytes)).await
    }

    /// Says that nothing more comes.
    pub async fn close(mut self) {
        self.closed = true;
        drop(self.put(Outbound::Close(self.number)).await);
    }

    /// Cancelled when the client has gone or has given up the stream.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.closed {
            // With a full queue the carrier learns it when the connection ends.
            drop(self.outbox.try_send(Outbound::Reset(self.number)));
        }
    }
}

/// Runs what is done with a connection's streams beside the future that carries them. A client that leaves ends both; once the work is
/// done, the carrier sends what is left and says goodbye.
pub async fn attended(carrier: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    tokio::pin!(carrier);
    tokio::select! {
        biased;
        () = &mut carrier => return,
        () = work => {}
    }
    carrier.await;
}
