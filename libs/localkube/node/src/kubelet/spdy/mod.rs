//! SPDY/3.1, as much as Kubernetes' clients speak of it: streams that the client opens, each with headers.
//!
//! The wire format is that of <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>. Clients (moby/spdystream) keep no
//! flow control windows, so neither do we: a stream that is not read holds up the connection, and TCP tells the other side.

mod dictionary;
mod frames;
mod headers;
mod session;

pub use session::{Accepted, Opened, session};
#[cfg(test)]
pub use {
    frames::{Codec, Frame},
    headers::Headers,
};
