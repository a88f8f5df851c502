//! HTTP/1.1 in front of one model.

mod body;
mod metrics;
mod routes;

pub use metrics::{Metrics, Protocol};

use crate::model::Model;
use crate::protocol::{Fault, InferError};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds of what a client may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request body, also after decompression.
    pub body: usize,
    /// From the first byte of a request to the last of its head, and to the end of its body.
    pub read: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            read: Duration::from_secs(30),
        }
    }
}

/// One model and everything that serving it needs.
pub struct Server {
    /// Name in the paths.
    pub name: String,
    /// Bounds.
    pub limits: Limits,
    /// Counters.
    pub metrics: Metrics,
    model: OnceLock<Model>,
    stopping: CancellationToken,
}

impl Server {
    /// A server whose model is still to come.
    pub fn new(name: String, limits: Limits, stopping: CancellationToken) -> Self {
        Self {
            name,
            limits,
            metrics: Metrics::default(),
            model: OnceLock::new(),
            stopping,
        }
    }

    /// Makes the server ready. A second model is not taken.
    pub fn set_model(&self, model: Model) {
        let _already = self.model.set(model);
    }

    /// The model, once it is loaded.
    pub fn model(&self) -> Option<&Model> {
        self.model.get()
    }

    /// The model by its name and version; an empty version means any.
    pub fn named(&self, name: &str, version: &str) -> Result<&Model, InferError> {
        if name != self.name {
            let text = format!(
                "model {name:?} does not exist here; this server has {:?}",
                self.name
            );
            return Err(InferError::new(Fault::NotFound, text));
        }
        if !version.is_empty() && version != "1" {
            let text = format!("model version {version:?} does not exist here; this server has \"1\"");
            return Err(InferError::new(Fault::NotFound, text));
        }
        match self.model.get() {
            Some(model) if self.ready() => Ok(model),
            _ => Err(InferError::new(
                Fault::Unavailable,
                format!("model {name:?} is not ready"),
            )),
        }
    }

    /// Whether requests are answered: the model is there and the server is not stopping.
    pub fn ready(&self) -> bool {
        self.model.get().is_some_and(Model::ready) && !self.stopping.is_cancelled()
    }
}

/// Serves until the server stops; then finishes what has begun.
pub async fn serve(server: Arc<Server>, listener: TcpListener) -> std::io::Result<()> {
    let tracker = TaskTracker::new();
    let stopping = server.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others finish meanwhile.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _best_effort = stream.set_nodelay(true);
        let server = server.clone();
        let stopping = stopping.clone();
        tracker.spawn(async move {
            let limits = server.limits.clone();
            let service = hyper::service::service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(routes::answer(&server, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.read)
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}
