//! Joins two connections: what comes from one goes to the other, both ways.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split};

/// How long the rest may take once one direction broke.
const FAREWELL: Duration = Duration::from_secs(60);

/// Until both directions are over.
///
/// Who ends a connection closes it, often before it has read everything, and then its other end can no longer write. What it sent until then
/// is still delivered, which `tokio::io::copy_bidirectional` does not do: it lets go of both directions when one breaks.
pub async fn join(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) {
    let (from_near, to_near) = split(near);
    let (from_far, to_far) = split(far);
    let there = pin!(carry(from_near, to_far));
    let back = pin!(carry(from_far, to_near));
    match select(there, back).await {
        Either::Left(((from, ended), back)) => finish(from, ended, back).await,
        Either::Right(((from, ended), there)) => finish(from, ended, there).await,
    }
}

type Carried<R> = (R, io::Result<()>);

async fn carry<R: AsyncRead + Unpin>(mut from: R, mut to: impl AsyncWrite + Unpin) -> Carried<R> {
    let copied = copy(&mut from, &mut to).await;
    let ended = match to.shutdown().await {
        Ok(()) => copied.map(drop),
        Err(error) => Err(error),
    };
    (from, ended)
}

/// Goes on with the other direction; how it ends is no news to either side.
///
/// A connection that is closed before all of it is read is reset, and with it goes what is on its way to its other end. So what comes from a
/// side whose data nobody takes any more is read all the same.
async fn finish<R: AsyncRead + Unpin>(
    from: impl AsyncRead + Unpin,
    ended: io::Result<()>,
    other: impl Future<Output = Carried<R>>,
) {
    if ended.is_err() {
        drop(tokio::time::timeout(FAREWELL, async { tokio::join!(other, drain(from)) }).await);
    } else if let (from, Err(_)) = other.await {
        drop(tokio::time::timeout(FAREWELL, drain(from)).await);
    }
}

async fn drain(mut from: impl AsyncRead + Unpin) {
    drop(copy(&mut from, &mut sink()).await);
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncReadExt as _, ReadBuf, duplex};

    use super::*;

    /// Takes nothing any more, and still has something to give.
    struct Leaving(&'static [u8]);

    impl AsyncRead for Leaving {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (now, later) = self.0.split_at(to.remaining().min(self.0.len()).min(3));
            to.put_slice(now);
            self.0 = later;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Leaving {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_one_side_sent_arrives_although_it_takes_no_more() {
        let (near, mut client) = duplex(4);
        let joined = tokio::spawn(join(near, Leaving(b"goodbye, and thanks")));
        client.write_all(b"more").await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "goodbye, and thanks");
        drop(client);
        joined.await.unwrap();
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (near, mut client) = duplex(64);
        let (far, mut server) = duplex(64);
        let joined = tokio::spawn(join(near, far));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
        joined.await.unwrap();
    }
}
