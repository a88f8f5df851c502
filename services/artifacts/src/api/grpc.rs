//! `ferroflow.artifacts.v1.ArtifactService`.

use ferroflow_api::ferroflow::artifacts::v1 as pb;
use ferroflow_api::ferroflow::artifacts::v1::artifact_service_server::ArtifactService;
use ferroflow_auth::Caller;
use ferroflow_blob::{BlobError, ByteRange, Mode};
use ferroflow_kernel::Error;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tonic::{Request, Response, Status, Streaming};

use super::credentials::{MintRequest, Service};
use super::http::{delimiter, page_size, page_start, page_token};
use super::{uri, wire};
use crate::error::Failure;
use crate::objects::{Actor, Object, Write};

/// Bytes of one message.
const CHUNK: usize = 256 * 1024;

pub(crate) struct Grpc(pub Service);

fn timestamp(time: Timestamp) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

fn duration(duration: Option<pbjson_types::Duration>) -> Option<SignedDuration> {
    duration.map(|duration| SignedDuration::new(duration.seconds, duration.nanos))
}

fn message(object: &Object) -> pb::Object {
    pb::Object {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        namespace: object.namespace.clone(),
        size: i64::try_from(object.size).unwrap_or(i64::MAX),
        content_type: object.content_type.clone(),
        etag: object.etag.clone(),
        sha256: object.sha256.clone(),
        last_modified: Some(timestamp(object.last_modified)),
        uri: wire::uri_of(object),
        metadata: object.metadata.clone().into_iter().collect(),
    }
}

fn actor<T>(request: &Request<T>) -> Result<Actor, Status> {
    Ok(Caller::of(request)?.into())
}

#[tonic::async_trait]
impl ArtifactService for Grpc {
    type GetStream = BoxStream<'static, Result<pb::GetResponse, Status>>;

    async fn put(&self, request: Request<Streaming<pb::PutRequest>>) -> Result<Response<pb::Object>, Status> {
        let actor = actor(&request)?;
        let mut parts = request.into_inner();
        let Some(pb::PutRequest {
            part: Some(pb::put_request::Part::Header(header)),
        }) = parts.message().await?
        else {
            return Err(Error::invalid("the first message must carry the header").into());
        };
        let (bucket, key) = uri::object(&header.uri)?;
        let name = key.clone();
        let body = parts.map(move |part| match part {
            Ok(pb::PutRequest {
                part: Some(pb::put_request::Part::Chunk(chunk)),
            }) => Ok(chunk.into()),
            Ok(_) => Err(BlobError::Body {
                key: name.clone(),
                reason: "a message carries no chunk".to_owned(),
            }),
            Err(status) => Err(BlobError::Body {
                key: name.clone(),
                reason: status.message().to_owned(),
            }),
        });
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let write = Write {
            mode: if header.create_only {
                Mode::CreateOnly
            } else {
                Mode::Overwrite
            },
            content_type: some(header.content_type),
            sha256: some(header.sha256),
            size: None,
            metadata: header.metadata.into_iter().collect(),
            namespace: some(header.namespace),
        };
        let object = self
            .0
            .objects
            .put(&actor, &bucket, &key, body.boxed(), write)
            .await?;
        Ok(Response::new(message(&object)))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (bucket, key) = uri::object(&asked.uri)?;
        let offset = asked.offset.unsigned_abs();
        let range = match (asked.offset, u64::try_from(asked.length)) {
            (_, Err(_)) => return Err(Error::field("length", "is negative").into()),
            (0, Ok(0)) => None,
            (..0, Ok(0)) => Some(ByteRange::Last(offset)),
            (..0, Ok(_)) => {
                return Err(Error::field("length", "cannot be given with a negative offset").into());
            }
            (_, Ok(0)) => Some(ByteRange::From(offset)),
            (_, Ok(length)) => Some(ByteRange::Bounded(offset, offset.saturating_add(length - 1))),
        };
        let (object, reading) = self.0.objects.get(&actor, &bucket, &key, range).await?;
        let first = pb::GetResponse {
            part: Some(pb::get_response::Part::Object(message(&object))),
        };
        let chunks = reading
            .body
            .map_err(|error| Status::from(Failure::from(error)))
            .map_ok(|bytes| {
                let pieces: Vec<_> = bytes.chunks(CHUNK).map(|piece| bytes.slice_ref(piece)).collect();
                stream::iter(pieces.into_iter().map(|piece| {
                    Ok(pb::GetResponse {
                        part: Some(pb::get_response::Part::Chunk(piece.to_vec())),
                    })
                }))
            });
        let answer = stream::once(async move { Ok(first) }).chain(chunks.try_flatten());
        Ok(Response::new(answer.boxed()))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (bucket, prefix) = uri::bucket(&asked.uri)?;
        let folders = delimiter(&asked.delimiter)?;
        let size = usize::try_from(asked.page_size).map_err(|_| Error::field("page_size", "is negative"))?;
        let after = page_start(&asked.page_token, &bucket, &prefix, folders)?;
        let page = self
            .0
            .objects
            .list(&actor, &bucket, &prefix, folders, after, page_size(Some(size))?)
            .await?;
        Ok(Response::new(pb::ListResponse {
            objects: page.objects.iter().map(message).collect(),
            common_prefixes: page.prefixes,
            next_page_token: page
                .next
                .map(|after| page_token(&bucket, &prefix, folders, after))
                .unwrap_or_default(),
        }))
    }

    async fn stat(&self, request: Request<pb::StatRequest>) -> Result<Response<pb::Object>, Status> {
        let actor = actor(&request)?;
        let (bucket, key) = uri::object(&request.into_inner().uri)?;
        let object = self.0.objects.head(&actor, &bucket, &key).await?;
        Ok(Response::new(message(&object)))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (bucket, key) = uri::object(&asked.uri)?;
        let objects = &self.0.objects;
        if !asked.recursive {
            objects.delete(&actor, &bucket, &key).await?;
            return Ok(Response::new(pb::DeleteResponse { deleted: 1 }));
        }
        let prefix = format!("{}/", key.trim_end_matches('/'));
        let mut deleted = 0;
        let mut after = None;
        loop {
            let page = objects.list(&actor, &bucket, &prefix, false, after, 1000).await?;
            for object in &page.objects {
                objects.delete(&actor, &bucket, &object.key).await?;
                deleted += 1;
            }
            after = page.next;
            if after.is_none() {
                return Ok(Response::new(pb::DeleteResponse { deleted }));
            }
        }
    }

    async fn sign_url(
        &self,
        request: Request<pb::SignUrlRequest>,
    ) -> Result<Response<pb::SignUrlResponse>, Status> {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (path, expires) = self
            .0
            .sign(&actor, &asked.uri, &asked.method, duration(asked.ttl))
            .await?;
        Ok(Response::new(pb::SignUrlResponse {
            path,
            expires_at: Some(timestamp(expires)),
        }))
    }

    async fn mint_credentials(
        &self,
        request: Request<pb::MintCredentialsRequest>,
    ) -> Result<Response<pb::Credentials>, Status> {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let request = MintRequest {
            namespace: asked.namespace,
            principal: asked.principal,
            read: asked.read_prefixes,
            write: asked.write_prefixes,
            read_only: asked.read_only,
            ttl: duration(asked.ttl),
        };
        let minted = self.0.mint(&actor, request).await?;
        Ok(Response::new(pb::Credentials {
            bearer_token: format!("{}.{}", minted.access_key, minted.secret),
            access_key_id: minted.access_key,
            secret_access_key: minted.secret,
            expires_at: Some(timestamp(minted.expires)),
            endpoint_url: self.0.s3_endpoint.to_string(),
        }))
    }
}
