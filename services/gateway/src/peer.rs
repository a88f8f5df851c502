use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

/// Both ends of the connection a request came over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub client: SocketAddr,
    pub server: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self {
            client: *stream.remote_addr(),
            server: stream.io().local_addr().ok(),
        }
    }
}
