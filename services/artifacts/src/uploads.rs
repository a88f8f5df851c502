//! Uploads in parts, as S3 has them. Parts lie in the blob's reserved `.uploads/<id>/<number>` until they are put together.

use std::collections::BTreeMap;
use std::time::Duration;

use ferroflow_blob::{BlobError, ByteStream, PutOptions, list_all};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;

use crate::error::Failure;
use crate::objects::{Actor, Object, Objects, Write};
use crate::store::{Part, Upload};

/// An upload that nobody completed is removed after this time.
const ABANDONED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A write that was cut off by a crash is removed after this time.
const CUT_OFF: Duration = Duration::from_secs(24 * 3600);

fn folder(id: &str) -> String {
    format!(".uploads/{id}/")
}

fn part_key(id: &str, number: i64) -> String {
    format!(".uploads/{id}/{number:05}")
}

impl Objects {
    /// Begins an upload in parts.
    pub async fn begin_upload(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        content_type: Option<String>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Upload, Failure> {
        let namespace = self.reserve(actor, bucket, key, None).await?;
        let upload = Upload {
            id: uuid::Uuid::new_v4().simple().to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            namespace,
            content_type: content_type.unwrap_or_else(|| crate::objects::guess_type(key)),
            metadata,
            made: self.clock.now(),
        };
        self.store.add_upload(&upload).await?;
        Ok(upload)
    }

    /// The upload, if the actor may go on with it.
    async fn own_upload(&self, actor: &Actor, bucket: &str, key: &str, id: &str) -> Result<Upload, Failure> {
        self.reserve(actor, bucket, key, None).await?;
        let upload = self.store.upload(id).await?;
        upload
            .filter(|upload| upload.bucket == bucket && upload.key == key)
            .ok_or_else(|| Failure::NoSuchUpload(id.to_owned()))
    }

    /// Uploads one part, whose number is 1 to 10,000.
    pub async fn put_part(
        &self,
        actor: &Actor,
        (bucket, key, id): (&str, &str, &str),
        number: i64,
        body: ByteStream,
        options: PutOptions,
    ) -> Result<Part, Failure> {
        self.own_upload(actor, bucket, key, id).await?;
        if !(1..=10_000).contains(&number) {
            return Err(Failure::InvalidPart(number));
        }
        let stored = self.blob.put(&part_key(id, number), body, options).await?;
        let size = i64::try_from(stored.size).unwrap_or(i64::MAX);
        let part = Part {
            number,
            size,
            sha256: stored.sha256,
        };
        self.store.set_part(id, &part).await?;
        Ok(part)
    }

    /// Parts uploaded so far.
    pub async fn parts(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<Vec<Part>, Failure> {
        let upload = self.own_upload(actor, bucket, key, id).await?;
        Ok(self.store.parts(&upload.id).await?)
    }

    /// Uploads in parts to a bucket that the actor may go on with.
    pub async fn open_uploads(&self, actor: &Actor, bucket: &str) -> Result<Vec<Upload>, Failure> {
        let mut own = Vec::new();
        for upload in self.store.uploads(Some(bucket)).await? {
            if self
                .right(actor, &upload.namespace, "create", "objects")
                .await
                .is_ok()
            {
                own.push(upload);
            }
        }
        Ok(own)
    }

    /// Puts the named parts together to the object. Parts that are not named are dropped.
    pub async fn complete_upload(
        &self,
        actor: &Actor,
        (bucket, key, id): (&str, &str, &str),
        named: &[(i64, String)],
        write: Write,
    ) -> Result<Object, Failure> {
        let upload = self.own_upload(actor, bucket, key, id).await?;
        let parts = self.store.parts(id).await?;
        let mut size = 0;
        let mut chosen = Vec::new();
        for (number, etag) in named {
            let ascending = chosen.last().is_none_or(|last| last < number);
            let part = parts
                .iter()
                .find(|part| part.number == *number && part.sha256 == *etag);
            let part = part.filter(|_| ascending).ok_or(Failure::InvalidPart(*number))?;
            size += u64::try_from(part.size).unwrap_or(0);
            chosen.push(*number);
        }
        let (blob, upload_id) = (self.blob.clone(), id.to_owned());
        let body = stream::iter(chosen)
            .map(Ok)
            .and_then(move |number| {
                let (blob, place) = (blob.clone(), part_key(&upload_id, number));
                async move { Ok::<_, BlobError>(blob.get(&place, None).await?.body) }
            })
            .try_flatten()
            .boxed();
        let write = Write {
            content_type: Some(upload.content_type),
            metadata: upload.metadata,
            size: Some(size),
            ..write
        };
        let object = self
            .store_object(bucket, key, upload.namespace, body, write)
            .await?;
        self.remove_upload(id).await?;
        Ok(object)
    }

    /// Gives an upload up.
    pub async fn abort_upload(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        id: &str,
    ) -> Result<(), Failure> {
        self.own_upload(actor, bucket, key, id).await?;
        self.remove_upload(id).await
    }

    async fn remove_upload(&self, id: &str) -> Result<(), Failure> {
        // the row first: parts without a row are swept later, a row without parts would be a lie
        self.store.drop_upload(id).await?;
        let parts: Vec<_> = list_all(self.blob.clone(), &folder(id)).try_collect().await?;
        for part in parts {
            self.blob.delete(&part.key).await?;
        }
        Ok(())
    }

    /// Removes what crashes and forgetful clients left behind.
    pub async fn sweep(&self) -> Result<(), Failure> {
        let cut_off = self.blob.clean(CUT_OFF).await?;
        let mut abandoned = 0;
        for upload in self.store.uploads(None).await? {
            if self.clock.now().duration_since(upload.made) > ABANDONED {
                self.remove_upload(&upload.id).await?;
                abandoned += 1;
            }
        }
        let mut parts = list_all(self.blob.clone(), ".uploads/");
        while let Some(part) = parts.try_next().await? {
            let id = part.key.split('/').nth(1).unwrap_or_default();
            if self.store.upload(id).await?.is_none() {
                self.blob.delete(&part.key).await?;
            }
        }
        if cut_off + abandoned > 0 {
            tracing::info!(cut_off, abandoned, "removed unfinished writes");
        }
        Ok(())
    }
}
