//! A folder of objects as one tar.gz, made while it is sent.

use std::io::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ferroflow_blob::BlobError;
use ferroflow_kernel::Error;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Failure;
use crate::objects::{Actor, Object, Objects};

/// Compressed bytes are sent in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// The archive of all that the actor sees below a prefix.
pub(crate) async fn respond(
    objects: &Objects,
    actor: Actor,
    bucket: &str,
    prefix: &str,
) -> Result<Response, Failure> {
    let folder = prefix.trim_end_matches('/').to_owned();
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let first = objects.list(&actor, bucket, &prefix, false, None, 1).await?;
    if first.objects.is_empty() {
        return Err(BlobError::NotFound { key: prefix }.into());
    }
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let (objects, bucket) = (objects.clone(), bucket.to_owned());
    let name = folder
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(&bucket)
        .to_owned();
    let top = name.clone();
    tokio::spawn(async move {
        if let Err(failure) = pack(&objects, &actor, &bucket, &prefix, &top, &sender).await {
            tracing::warn!(%failure, "an archive was cut off");
            let error = std::io::Error::other(failure.to_string());
            // the reader may be gone, which is then no news to it
            drop(sender.send(Err(error)).await);
        }
    });
    let name = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
    let headers = [
        (header::CONTENT_TYPE, "application/gzip".to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename*=UTF-8''{name}.tar.gz"),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(ReceiverStream::new(receiver))).into_response())
}

async fn pack(
    objects: &Objects,
    actor: &Actor,
    bucket: &str,
    prefix: &str,
    top: &str,
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<(), Failure> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut after = None;
    loop {
        let page = objects.list(actor, bucket, prefix, false, after, 500).await?;
        for object in &page.objects {
            let (object, mut reading) = objects.get(actor, bucket, &object.key, None).await?;
            let name = format!("{top}/{}", object.key.strip_prefix(prefix).unwrap_or(&object.key));
            feed(&mut gzip, &header_of(&name, &object)?, sender).await?;
            while let Some(chunk) = reading.body.next().await {
                feed(&mut gzip, &chunk?, sender).await?;
            }
            let padding = usize::try_from((512 - object.size % 512) % 512).unwrap_or(0);
            feed(&mut gzip, &[0; 512][..padding], sender).await?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    feed(&mut gzip, &[0; 1024], sender).await?;
    let last = gzip.finish().map_err(Error::internal)?;
    send(last, sender).await
}

async fn feed(
    gzip: &mut GzEncoder<Vec<u8>>,
    bytes: &[u8],
    sender: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<(), Failure> {
    gzip.write_all(bytes).map_err(Error::internal)?;
    if gzip.get_ref().len() >= PIECE {
        let piece = std::mem::take(gzip.get_mut());
        send(piece, sender).await?;
    }
    Ok(())
}

async fn send(piece: Vec<u8>, sender: &mpsc::Sender<std::io::Result<Bytes>>) -> Result<(), Failure> {
    let gone = |_| Error::new(ferroflow_kernel::Code::Aborted, "the reader went away");
    Ok(sender.send(Ok(Bytes::from(piece))).await.map_err(gone)?)
}

/// The header of a file, preceded by GNU's entry for names that do not fit.
fn header_of(name: &str, object: &Object) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut header = tar::Header::new_gnu();
    if header.set_path(name).is_err() {
        let mut long = tar::Header::new_gnu();
        long.set_path("././@LongLink").map_err(Error::internal)?;
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(name.len() as u64 + 1);
        long.set_cksum();
        bytes.extend_from_slice(long.as_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let cut: String = name.chars().filter(char::is_ascii).take(99).collect();
        header.set_path(cut).map_err(Error::internal)?;
    }
    header.set_size(object.size);
    header.set_mode(0o644);
    header.set_mtime(u64::try_from(object.last_modified.as_second()).unwrap_or(0));
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}
