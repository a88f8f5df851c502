//! The kubelet's HTTPS API.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

pub(crate) async fn serve(_agent: Arc<Agent>, _listener: TcpListener, cancel: CancellationToken) {
    cancel.cancelled().await;
}
