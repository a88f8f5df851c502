//! The two streams of a forwarded connection, which a SPDY client opens one after the other.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::spdy::Opened;
use super::streams::{Output, Stream};

/// The second stream comes within so long.
const WAIT: Duration = Duration::from_secs(30);
/// Connections of which one stream is there.
const MOST: usize = 256;

/// Connections of which one stream is there, by request.
#[derive(Default)]
pub struct Pairs(HashMap<String, Half>);

struct Half {
    port: u16,
    data: Option<Stream>,
    errors: Option<Stream>,
    until: Instant,
}

impl Pairs {
    /// Takes a stream in; gives port, bytes and errors when it is the second of its request. A stream that says nonsense is refused.
    pub async fn add(&mut self, opened: Opened) -> Option<(u16, Stream, Output)> {
        let Opened { headers, stream } = opened;
        let header = |name| headers.get(name).unwrap_or_default();
        let (kind, request) = (header("streamtype"), header("requestid"));
        let port = header("port").parse::<u16>().ok().filter(|port| *port > 0);
        let (Some(port), false) = (port, request.is_empty()) else {
            debug!(?headers, "a forwarded stream has no port or no requestid");
            return None;
        };
        if !self.0.contains_key(request) && self.0.len() >= MOST {
            debug!("too many forwarded connections have one stream of two");
            return None;
        }
        let half = self.0.entry(request.to_owned()).or_insert_with(|| Half {
            port,
            data: None,
            errors: None,
            until: Instant::now() + WAIT,
        });
        let place = match kind {
            "data" => &mut half.data,
            "error" => &mut half.errors,
            _ => {
                debug!(kind, "a forwarded stream is neither data nor error");
                self.clear(request);
                return None;
            }
        };
        if half.port != port || place.is_some() {
            debug!(
                request,
                "a forwarded connection has two streams of one kind, or two ports"
            );
            return None;
        }
        stream.output.accept().await.ok()?;
        *place = Some(stream);
        if half.data.is_none() || half.errors.is_none() {
            return None;
        }
        let whole = self.0.remove(request)?;
        Some((whole.port, whole.data?, whole.errors?.output))
    }

    /// Forgets a request of which nothing has come.
    fn clear(&mut self, request: &str) {
        self.0
            .retain(|known, half| known != request || half.data.is_some() || half.errors.is_some());
    }

    /// Waits until a stream has been alone for too long, and gives it up.
    pub async fn expire(&mut self) {
        match self.0.values().map(|half| half.until).min() {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        self.0.retain(|_, half| half.until > now);
    }
}
