//! The streams of a command: between a client, whatever carries them, and the Pod's shim.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::spdy::Accepted;
use super::streams::{Input, Output, Stream};
use crate::wire::{self, Channel, StreamEnd, TerminalSize};

/// A client has so long to open all of its streams.
const OPENING: Duration = Duration::from_secs(30);
/// Bytes of a terminal's size, far more than it takes.
const LARGEST_SIZE: usize = 1 << 10;

/// The streams that a client asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Asked {
    /// What is asked for, by the number of its channel; a terminal has one output.
    fn has(self, channel: Channel) -> bool {
        match channel {
            Channel::Stdin => self.stdin,
            Channel::Stdout => self.stdout,
            Channel::Stderr => self.stderr && !self.tty,
            Channel::End => true,
            Channel::Resize => self.tty,
            Channel::CloseStdin => false,
        }
    }
}

/// Channels by the names that they have as SPDY streams.
const NAMES: [(&str, Channel); 5] = [
    ("stdin", Channel::Stdin),
    ("stdout", Channel::Stdout),
    ("stderr", Channel::Stderr),
    ("error", Channel::End),
    ("resize", Channel::Resize),
];

/// The number of channels of a WebSocket.
pub const CHANNELS: u8 = 5;

/// A client's streams.
pub struct Remote {
    stdin: Option<Input>,
    resize: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    /// for the Status that ends it
    error: Output,
    /// our direction of what only the client sends on; it takes a close for the end of the command
    quiet: Vec<Output>,
}

impl Remote {
    fn new(mut streams: HashMap<u8, Stream>, asked: Asked) -> Option<Self> {
        let mut take = |channel: Channel| {
            let stream = streams.remove(&(channel as u8));
            stream.filter(|_| asked.has(channel))
        };
        let error = take(Channel::End)?.output;
        let (stdout, stderr) = (take(Channel::Stdout), take(Channel::Stderr));
        let (mut inputs, mut quiet) = (Vec::new(), Vec::new());
        for stream in [take(Channel::Stdin), take(Channel::Resize)] {
            let (input, output) = stream.map(|stream| (stream.input, stream.output)).unzip();
            inputs.push(input);
            quiet.extend(output);
        }
        let (resize, stdin) = (inputs.pop()?, inputs.pop()?);
        Some(Self {
            stdin,
            resize,
            stdout: stdout.map(|stream| stream.output),
            stderr: stderr.map(|stream| stream.output),
            error,
            quiet,
        })
    }

    /// The channels of a WebSocket, in their order; the first that the client reads tells it that all are open.
    pub async fn of_channels(streams: Vec<Stream>, asked: Asked) -> Option<Self> {
        let remote = Self::new((0..).zip(streams).collect(), asked)?;
        let first = remote.stdout.as_ref().or(remote.stderr.as_ref());
        first.unwrap_or(&remote.error).accept().await.ok()?;
        Some(remote)
    }

    /// Waits until the client has opened what it asked for. None when it leaves or takes too long.
    pub async fn of_session(accepted: &mut Accepted, asked: Asked) -> Option<Self> {
        let mut streams = HashMap::new();
        let wanted = NAMES.iter().filter(|(_, channel)| asked.has(*channel)).count();
        let opening = async {
            while streams.len() < wanted {
                let opened = accepted.next().await?;
                let name = opened.headers.get("streamtype").unwrap_or_default();
                let known = NAMES.iter().find(|(known, _)| *known == name);
                // One that was not asked for is refused by letting it go.
                if let Some((_, channel)) = known
                    && asked.has(*channel)
                    && !streams.contains_key(&(*channel as u8))
                {
                    opened.stream.output.accept().await.ok()?;
                    streams.insert(*channel as u8, opened.stream);
                }
            }
            Some(())
        };
        tokio::time::timeout(OPENING, opening).await.ok()??;
        Self::new(streams, asked)
    }
}

/// Until the command ends. To be dropped when the client leaves: the shim sees the closed socket and ends the command.
pub async fn relay(remote: Remote, shim: UnixStream) {
    let (mut from_shim, mut to_shim) = shim.into_split();
    let Remote {
        mut stdin,
        mut resize,
        stdout,
        stderr,
        error,
        quiet,
    } = remote;
    let feeding = async {
        let mut sizes = Sizes::default();
        loop {
            let sent = tokio::select! {
                bytes = next(&mut stdin) => match bytes {
                    Some(bytes) => wire::send_chunk(&mut to_shim, Channel::Stdin, &bytes).await,
                    None => {
                        stdin = None;
                        wire::send_chunk(&mut to_shim, Channel::CloseStdin, &[]).await
                    }
                },
                bytes = next(&mut resize) => match bytes {
                    Some(bytes) => match sizes.last(&bytes) {
                        Some(size) => wire::send_chunk(&mut to_shim, Channel::Resize, &size).await,
                        None => Ok(()),
                    },
                    None => {
                        resize = None;
                        Ok(())
                    }
                },
            };
            if sent.is_err() {
                // The command has ended; its last words are still on their way.
                return;
            }
        }
    };
    let reading = async {
        while let Ok(Some((channel, bytes))) = wire::receive_chunk(&mut from_shim).await {
            let to = match channel {
                Channel::Stdout => stdout.as_ref(),
                Channel::Stderr => stderr.as_ref(),
                Channel::End => return Some(bytes),
                _ => None,
            };
            if let Some(output) = to {
                // A client may give up one stream and wait for the end all the same.
                drop(output.send(bytes.into()).await);
            }
        }
        None
    };
    let end = async {
        tokio::pin!(reading);
        tokio::select! {
            end = &mut reading => end,
            () = feeding => reading.await,
        }
    };
    let end = end.await.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let end: StreamEnd = end.unwrap_or_else(|| StreamEnd {
        exit_code: 0,
        error: Some("the stream was cut off".to_owned()),
    });
    for output in stdout.into_iter().chain(stderr) {
        output.close().await;
    }
    let text = status(end.exit_code, end.error.as_deref()).to_string();
    drop(error.send(text.into()).await);
    error.close().await;
    for output in quiet {
        output.close().await;
    }
}

/// Waits for ever where there is nothing to wait for.
async fn next(input: &mut Option<Input>) -> Option<Bytes> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// The sizes of a terminal that a client sends as JSON, cut as the carrier likes.
#[derive(Default)]
struct Sizes(Vec<u8>);

impl Sizes {
    /// The last size that is whole, as the shim reads it. What is no size is dropped.
    fn last(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let mut values = serde_json::Deserializer::from_slice(&self.0).into_iter::<TerminalSize>();
        let mut last = None;
        let cut = loop {
            match values.next() {
                Some(Ok(size)) => last = Some(size),
                Some(Err(error)) => break error.is_eof(),
                None => break true,
            }
        };
        let whole = values.byte_offset();
        if cut && self.0.len() - whole < LARGEST_SIZE {
            self.0.drain(..whole);
        } else {
            self.0.clear();
        }
        last.and_then(|size| serde_json::to_vec(&size).ok())
    }
}

/// The Status that ends an exec, as clients parse it.
fn status(exit_code: i32, error: Option<&str>) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_however_they_are_cut() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.last(b"{\"Width\":80,\"Hei"), None);
        assert_eq!(
            sizes.last(b"ght\":24}\n{"),
            Some(br#"{"Width":80,"Height":24}"#.to_vec())
        );
        assert_eq!(sizes.last(b"nonsense"), None);
        let two = b"{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4}";
        assert_eq!(sizes.last(two), Some(br#"{"Width":3,"Height":4}"#.to_vec()));
        assert!(sizes.0.len() < two.len());
    }
}
