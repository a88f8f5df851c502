//! Frames on the shim's socket: a length (u32, little endian), then JSON. A stream (exec, attach) uses the same
//! frames with one more byte that names the channel.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::plan::ContainerSpec;
use crate::state::PodState;

/// A frame larger than this is a bug or an attack.
const LARGEST: u32 = 16 << 20;

/// From the agent. A connection starts with one of these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// this connection gets each new state, beginning with the present one
    Watch,
    /// a container's image is ready
    Prepare(Box<ContainerSpec>),
    /// stop the Pod within so many seconds; a later request may only shorten it
    Terminate { grace_seconds: i64 },
    /// the state was taken note of; a finished shim may end
    Release,
    /// run a command in a container; the connection becomes a stream
    Exec {
        container: String,
        argv: Vec<String>,
        stdin: bool,
        tty: bool,
    },
    /// the container's own streams; the connection becomes a stream
    Attach { container: String, stdin: bool },
}

/// To the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    State(Box<PodState>),
    /// the stream begins
    Opened,
    Refused {
        message: String,
    },
}

/// The channels of a stream, numbered as Kubernetes numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// JSON [`StreamEnd`], and then nothing more
    End = 3,
    /// JSON [`TerminalSize`]
    Resize = 4,
    /// the other side sends no more on stdin
    CloseStdin = 5,
}

impl Channel {
    fn from_byte(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::End,
            4 => Self::Resize,
            5 => Self::CloseStdin,
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("stream channel {other} is not one of 0 to 5"),
                ));
            }
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamEnd {
    pub exit_code: i32,
    /// why the command could not be run at all
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

pub async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame).await
}

/// None when the other side closed between two frames. Not safe to cancel in the middle of a frame.
pub async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let body = read_body(from, u32::from_le_bytes(length)).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

pub async fn send_chunk(
    to: &mut (impl AsyncWrite + Unpin),
    channel: Channel,
    bytes: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    frame.push(channel as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(bytes);
    to.write_all(&frame).await
}

pub async fn receive_chunk(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Channel, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let channel = Channel::from_byte(head[0])?;
    let body = read_body(from, u32::from_le_bytes([head[1], head[2], head[3], head[4]])).await?;
    Ok(Some((channel, body)))
}

async fn read_body(from: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<Vec<u8>> {
    if length > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes is over {LARGEST}"),
        ));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    Ok(body)
}
