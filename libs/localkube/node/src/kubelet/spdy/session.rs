//! A connection's streams: what the client opens is handed on, and what comes and goes on each is carried.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::frames::{BadFrame, Codec, Frame, INITIAL_WINDOW_SIZE, Setting, status};
use super::headers::Headers;
use crate::kubelet::streams::{GOODBYE, OUTBOX, Outbound, Stream};

/// Streams that are open at once; a forwarded connection takes two.
const MOST_STREAMS: usize = 1024;
/// Streams that wait to be looked at.
const WAITING: usize = 16;
/// Our own answers that wait for a client that does not read; more of them are not given.
const ANSWERS: usize = 64;
/// Bytes that are read or written at once.
const BUFFER: usize = 64 << 10;

/// A stream that the client has opened. Dropped, it is refused.
pub struct Opened {
    pub headers: Headers,
    pub stream: Stream,
}

/// What the client opens. The session ends once this and all of its streams are let go.
pub struct Accepted {
    incoming: mpsc::Receiver<Opened>,
    _outbox: mpsc::Sender<Outbound>,
}

impl Accepted {
    /// None when the client has gone.
    pub async fn next(&mut self) -> Option<Opened> {
        self.incoming.recv().await
    }
}

/// Speaks SPDY as the server; the future carries the streams. A stream whose bytes are not taken holds up the others, and after
/// `patience` is given up for them.
pub fn session(
    io: impl AsyncRead + AsyncWrite,
    patience: Option<Duration>,
) -> (Accepted, impl Future<Output = ()>) {
    let (outbox, queued) = mpsc::channel(OUTBOX);
    let (answers, answered) = mpsc::channel(ANSWERS);
    let (arriving, incoming) = mpsc::channel(WAITING);
    let session = Session {
        slots: Mutex::default(),
        gone: CancellationToken::new(),
        outbox: outbox.downgrade(),
        arriving,
        answers,
        patience,
        last: AtomicU32::new(0),
    };
    let accepted = Accepted {
        incoming,
        _outbox: outbox,
    };
    (accepted, session.run(io, queued, answered))
}

/// What is known of an open stream.
struct Slot {
    /// None when the client sends no more
    inbox: Option<mpsc::Sender<Bytes>>,
    gone: CancellationToken,
    accepted: bool,
    /// we send no more
    closed: bool,
}

struct Session {
    slots: Mutex<HashMap<u32, Slot>>,
    gone: CancellationToken,
    /// weak: the session is over when nobody else has it
    outbox: mpsc::WeakSender<Outbound>,
    arriving: mpsc::Sender<Opened>,
    answers: mpsc::Sender<Frame>,
    patience: Option<Duration>,
    /// the client's last stream
    last: AtomicU32,
}

impl Session {
    async fn run(
        self,
        io: impl AsyncRead + AsyncWrite,
        queued: mpsc::Receiver<Outbound>,
        answered: mpsc::Receiver<Frame>,
    ) {
        let _gone = self.gone.clone().drop_guard();
        let (reader, writer) = tokio::io::split(io);
        let mut frames = FramedRead::with_capacity(reader, Codec::default(), BUFFER);
        let mut sink = FramedWrite::new(writer, Codec::default());
        sink.set_backpressure_boundary(BUFFER);
        let ended = {
            let reading = self.read(&mut frames);
            tokio::pin!(reading);
            tokio::select! {
                read = &mut reading => read,
                written = self.write(&mut sink, queued, answered) => match written {
                    Ok(()) => tokio::time::timeout(GOODBYE, reading).await.unwrap_or(Ok(())),
                    Err(error) => Err(error),
                },
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a SPDY session ended badly");
            if !matches!(error, BadFrame::Io(_)) {
                let farewell = sink.send(self.farewell(status::PROTOCOL_ERROR));
                drop(tokio::time::timeout(GOODBYE, farewell).await);
            }
        }
        drop(tokio::time::timeout(GOODBYE, SinkExt::<Frame>::close(&mut sink)).await);
    }

    /// Until the client leaves.
    async fn read(&self, frames: &mut FramedRead<impl AsyncRead + Unpin, Codec>) -> Result<(), BadFrame> {
        while let Some(frame) = frames.next().await {
            let last = self.last.load(Ordering::Relaxed);
            match frame? {
                Frame::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    headers,
                    ..
                } => {
                    // A client's streams have odd numbers that grow.
                    if stream <= last || stream % 2 == 0 {
                        return Err(BadFrame::Order { stream, last });
                    }
                    self.last.store(stream, Ordering::Relaxed);
                    self.open(stream, headers, fin, unidirectional).await;
                }
                Frame::Data { stream, fin, bytes } if stream <= last => self.take(stream, fin, bytes).await,
                Frame::Data { stream, .. } => self.reset(stream, status::INVALID_STREAM),
                Frame::Headers {
                    stream, fin: true, ..
                } => self.finish(stream),
                Frame::Reset { stream, .. } => self.forget(stream),
                // The client's pings have odd numbers; an even one would answer ours.
                Frame::Ping(id) if id % 2 == 1 => drop(self.answers.try_send(Frame::Ping(id))),
                _ => {}
            }
        }
        Ok(())
    }

    async fn open(&self, number: u32, headers: Headers, fin: bool, unidirectional: bool) {
        let (Some(outbox), false) = (self.outbox.upgrade(), self.slots.lock().len() >= MOST_STREAMS) else {
            return self.reset(number, status::REFUSED_STREAM);
        };
        let gone = self.gone.child_token();
        let (stream, inbox) = Stream::new(number, outbox, gone.clone());
        let slot = Slot {
            inbox: (!fin).then_some(inbox),
            gone,
            accepted: false,
            closed: unidirectional,
        };
        self.slots.lock().insert(number, slot);
        drop(self.arriving.send(Opened { headers, stream }).await);
    }

    /// Hands on what came for a stream; what comes for one that is over is late, and means nothing.
    async fn take(&self, stream: u32, fin: bool, bytes: Bytes) {
        let known = self.slots.lock().get(&stream).and_then(|slot| slot.inbox.clone());
        let Some(inbox) = known else { return };
        if !bytes.is_empty() {
            // A receiver that is gone takes everything.
            let taking = async { drop(inbox.send(bytes).await) };
            let late = match self.patience {
                Some(patience) => tokio::time::timeout(patience, taking).await.is_err(),
                None => {
                    taking.await;
                    false
                }
            };
            if late {
                self.reset(stream, status::FLOW_CONTROL_ERROR);
                self.forget(stream);
            }
        }
        if fin {
            self.finish(stream);
        }
    }

    /// The client sends no more on the stream.
    fn finish(&self, stream: u32) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(&stream) {
            slot.inbox = None;
            if slot.closed {
                slots.remove(&stream);
            }
        }
    }

    /// The stream is over both ways.
    fn forget(&self, stream: u32) {
        if let Some(slot) = self.slots.lock().remove(&stream) {
            slot.gone.cancel();
        }
    }

    fn reset(&self, stream: u32, status: u32) {
        drop(self.answers.try_send(Frame::Reset { stream, status }));
    }

    /// Until all streams are let go.
    async fn write(
        &self,
        sink: &mut FramedWrite<impl AsyncWrite + Unpin, Codec>,
        mut queued: mpsc::Receiver<Outbound>,
        mut answered: mpsc::Receiver<Frame>,
    ) -> Result<(), BadFrame> {
        // For a client that keeps windows after all.
        let window = Setting {
            flags: 0,
            id: INITIAL_WINDOW_SIZE,
            value: i32::MAX.unsigned_abs(),
        };
        sink.send(Frame::Settings(vec![window])).await?;
        loop {
            let frame = tokio::select! {
                biased;
                Some(answer) = answered.recv() => Some(answer),
                next = queued.recv() => match next {
                    Some(next) => self.frame(next),
                    None => break,
                },
            };
            if let Some(frame) = frame {
                sink.feed(frame).await?;
            }
            if queued.is_empty() && answered.is_empty() {
                SinkExt::<Frame>::flush(sink).await?;
            }
        }
        sink.send(self.farewell(status::OK)).await
    }

    fn farewell(&self, status: u32) -> Frame {
        Frame::GoAway {
            last: self.last.load(Ordering::Relaxed),
            status,
        }
    }

    /// Keeps the books of what goes out; None for a stream that is over.
    fn frame(&self, next: Outbound) -> Option<Frame> {
        let mut slots = self.slots.lock();
        match next {
            Outbound::Accept(stream) => {
                slots.get_mut(&stream)?.accepted = true;
                Some(Frame::SynReply {
                    stream,
                    fin: false,
                    headers: Headers::default(),
                })
            }
            Outbound::Data(stream, bytes) => (!slots.get(&stream)?.closed).then_some(Frame::Data {
                stream,
                fin: false,
                bytes,
            }),
            Outbound::Close(stream) => {
                let slot = slots.get_mut(&stream)?;
                if std::mem::replace(&mut slot.closed, true) {
                    return None;
                }
                if slot.inbox.is_none() {
                    slots.remove(&stream);
                }
                Some(Frame::Data {
                    stream,
                    fin: true,
                    bytes: Bytes::new(),
                })
            }
            Outbound::Reset(stream) => {
                let slot = slots.remove(&stream)?;
                slot.gone.cancel();
                let status = if slot.accepted {
                    status::CANCEL
                } else {
                    status::REFUSED_STREAM
                };
                Some(Frame::Reset { stream, status })
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
