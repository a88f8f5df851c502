//! Frames (sections 2.2 and 2.6 of the draft), both ways.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::headers::{self, BadBlock, Headers};

const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;
/// Stream numbers have 31 bits.
const NUMBER: u32 = 0x7fff_ffff;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
/// Bytes of a control frame that is read; those of a data frame come on as they arrive.
const LARGEST_CONTROL: usize = 64 << 10;
/// Bytes of a data frame that is written; the length has 24 bits.
const LARGEST_DATA: usize = 1 << 20;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GOAWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream, or the connection, is given up.
pub mod status {
    /// of a connection
    pub const OK: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INVALID_STREAM: u32 = 2;
    pub const REFUSED_STREAM: u32 = 3;
    pub const CANCEL: u32 = 5;
    pub const FLOW_CONTROL_ERROR: u32 = 7;
}

/// The setting that says how many bytes a stream may send before its reader says more.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub flags: u8,
    /// 24 bits
    pub id: u32,
    pub value: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        associated: u32,
        /// 0 (first) to 7
        priority: u8,
        /// the sender sends no data
        fin: bool,
        /// the receiver may send no data
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Settings(Vec<Setting>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A whole data frame when it is written; what has arrived of one when it is read, `fin` with its last part.
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
}

/// Why the connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BadFrame {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("control frame is of SPDY version {0}, not {VERSION}")]
    Version(u16),
    #[error("control frame of {0} bytes is over {LARGEST_CONTROL}")]
    Large(usize),
    #[error("control frame of kind {kind} does not have the length {length}")]
    Length { kind: u16, length: usize },
    #[error(transparent)]
    Headers(#[from] BadBlock),
    /// what the session says of a frame that cannot come now
    #[error("stream {stream} does not follow stream {last}")]
    Order { stream: u32, last: u32 },
}

/// Frames from and to bytes. Header blocks share one zlib stream per direction, so a codec belongs to one connection.
#[derive(Debug, Default)]
pub struct Codec {
    reader: headers::Reader,
    writer: headers::Writer,
    /// the data frame that is being read
    data: Option<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = BadFrame;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, BadFrame> {
        loop {
            if let Some(part) = self.data {
                return Ok(self.part(part, from));
            }
            let Some(head) = from.first_chunk::<8>().copied() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, l0, l1, l2] = head;
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if a & CONTROL == 0 {
                from.advance(head.len());
                self.data = Some(Part {
                    stream: u32::from_be_bytes([a, b, c, d]),
                    fin: flags & FIN != 0,
                    left: length,
                });
                continue;
            }
            let version = u16::from_be_bytes([a & !CONTROL, b]);
            if version != VERSION {
                return Err(BadFrame::Version(version));
            }
            if length > LARGEST_CONTROL {
                return Err(BadFrame::Large(length));
            }
            if from.len() < head.len() + length {
                from.reserve(head.len() + length - from.len());
                return Ok(None);
            }
            from.advance(head.len());
            let body = from.split_to(length).freeze();
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags, body)? {
                return Ok(Some(frame));
            }
        }
    }
}

impl Codec {
    /// What is there of a data frame.
    fn part(&mut self, part: Part, from: &mut BytesMut) -> Option<Frame> {
        let count = part.left.min(from.len());
        if count == 0 && part.left > 0 {
            return None;
        }
        let left = part.left - count;
        self.data = (left > 0).then_some(Part { left, ..part });
        Some(Frame::Data {
            stream: part.stream,
            fin: part.fin && left == 0,
            bytes: from.split_to(count).freeze(),
        })
    }

    /// None for a kind that is not known, which is to be ignored.
    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, BadFrame> {
        let length = body.len();
        let least = match kind {
            kind::SYN_STREAM => 10,
            kind::RST_STREAM | kind::GOAWAY | kind::WINDOW_UPDATE => 8,
            kind::SYN_REPLY | kind::HEADERS | kind::SETTINGS | kind::PING => 4,
            _ => return Ok(None),
        };
        if length < least {
            return Err(BadFrame::Length { kind, length });
        }
        let fin = flags & FIN != 0;
        let first = body.get_u32();
        let stream = first & NUMBER;
        Ok(Some(match kind {
            kind::SYN_STREAM => Frame::SynStream {
                stream,
                associated: body.get_u32() & NUMBER,
                // What follows in the two bytes is unused.
                priority: (body.get_u16() >> 13) as u8,
                fin,
                unidirectional: flags & UNIDIRECTIONAL != 0,
                headers: self.reader.read(&body)?,
            },
            kind::SYN_REPLY => Frame::SynReply {
                stream,
                fin,
                headers: self.reader.read(&body)?,
            },
            kind::HEADERS => Frame::Headers {
                stream,
                fin,
                headers: self.reader.read(&body)?,
            },
            kind::RST_STREAM => Frame::Reset {
                stream,
                status: body.get_u32(),
            },
            kind::PING => Frame::Ping(first),
            kind::GOAWAY => Frame::GoAway {
                last: stream,
                status: body.get_u32(),
            },
            kind::WINDOW_UPDATE => Frame::WindowUpdate {
                stream,
                delta: body.get_u32() & NUMBER,
            },
            _ => Frame::Settings(settings(first, &body).ok_or(BadFrame::Length { kind, length })?),
        }))
    }
}

fn settings(count: u32, entries: &[u8]) -> Option<Vec<Setting>> {
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() || u32::try_from(entries.len()) != Ok(count) {
        return None;
    }
    let setting = |&[flags, i0, i1, i2, v0, v1, v2, v3]: &[u8; 8]| Setting {
        flags,
        id: u32::from_be_bytes([0, i0, i1, i2]),
        value: u32::from_be_bytes([v0, v1, v2, v3]),
    };
    Some(entries.iter().map(setting).collect())
}

impl Encoder<Frame> for Codec {
    type Error = BadFrame;

    fn encode(&mut self, frame: Frame, to: &mut BytesMut) -> Result<(), BadFrame> {
        let ending = |fin: bool| if fin { FIN } else { 0 };
        let mut body = Vec::new();
        let (kind, flags) = match frame {
            Frame::Data { stream, fin, bytes } => {
                data(stream, fin, &bytes, to);
                return Ok(());
            }
            Frame::SynStream {
                stream,
                associated,
                priority,
                fin,
                unidirectional,
                headers,
            } => {
                body.put_u32(stream & NUMBER);
                body.put_u32(associated & NUMBER);
                body.put_u16(u16::from(priority) << 13);
                body.extend(self.writer.write(&headers)?);
                let one_way = if unidirectional { UNIDIRECTIONAL } else { 0 };
                (kind::SYN_STREAM, ending(fin) | one_way)
            }
            Frame::SynReply { stream, fin, headers } => {
                body.put_u32(stream & NUMBER);
                body.extend(self.writer.write(&headers)?);
                (kind::SYN_REPLY, ending(fin))
            }
            Frame::Headers { stream, fin, headers } => {
                body.put_u32(stream & NUMBER);
                body.extend(self.writer.write(&headers)?);
                (kind::HEADERS, ending(fin))
            }
            Frame::Reset { stream, status } => {
                body.put_u32(stream & NUMBER);
                body.put_u32(status);
                (kind::RST_STREAM, 0)
            }
            Frame::Settings(settings) => {
                body.put_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX));
                for setting in settings {
                    body.put_u8(setting.flags);
                    body.put_uint(u64::from(setting.id & 0x00ff_ffff), 3);
                    body.put_u32(setting.value);
                }
                (kind::SETTINGS, 0)
            }
            Frame::Ping(id) => {
                body.put_u32(id);
                (kind::PING, 0)
            }
            Frame::GoAway { last, status } => {
                body.put_u32(last & NUMBER);
                body.put_u32(status);
                (kind::GOAWAY, 0)
            }
            Frame::WindowUpdate { stream, delta } => {
                body.put_u32(stream & NUMBER);
                body.put_u32(delta & NUMBER);
                (kind::WINDOW_UPDATE, 0)
            }
        };
        if body.len() > LARGEST_CONTROL {
            return Err(BadFrame::Large(body.len()));
        }
        to.reserve(8 + body.len());
        to.put_u16(VERSION | u16::from(CONTROL) << 8);
        to.put_u16(kind);
        to.put_u8(flags);
        to.put_uint(body.len() as u64, 3);
        to.put_slice(&body);
        Ok(())
    }
}

/// One frame, or some where there is too much for one.
fn data(stream: u32, fin: bool, mut bytes: &[u8], to: &mut BytesMut) {
    loop {
        let (part, rest) = bytes.split_at(bytes.len().min(LARGEST_DATA));
        to.reserve(8 + part.len());
        to.put_u32(stream & NUMBER);
        to.put_u8(if fin && rest.is_empty() { FIN } else { 0 });
        to.put_uint(part.len() as u64, 3);
        to.put_slice(part);
        bytes = rest;
        if bytes.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
