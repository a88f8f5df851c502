//! Bodies of requests and responses.

use axum::body::Body;
use bytes::Bytes;
use ferroflow_blob::{BlobError, ByteStream};
use ferroflow_kernel::Error;
use futures::{StreamExt, TryStreamExt};

/// The bytes of a request. A connection that breaks ends them with an error, so nothing short is stored.
pub(crate) fn incoming(body: Body, key: &str) -> ByteStream {
    let key = key.to_owned();
    body.into_data_stream()
        .map_err(move |error| BlobError::Body {
            key: key.clone(),
            reason: error.to_string(),
        })
        .boxed()
}

/// The bytes of a response. An error breaks the connection, which is all that HTTP can do by then.
pub(crate) fn outgoing(body: ByteStream) -> Body {
    Body::from_stream(body.inspect_err(|error| tracing::warn!(%error, "a response was cut off")))
}

/// A small body as a whole.
pub(crate) async fn small(body: Body, limit: usize) -> Result<Bytes, Error> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        Error::invalid(format!(
            "the body cannot be read, or has more than {limit} bytes: {error}"
        ))
    })
}
