//! S3, Google Cloud Storage, Azure Blob, HTTP and memory, through `object_store`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, CopyMode, CopyOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutPayload, WriteMultipart,
};
use url::Url;

use crate::{
    Blob, BlobError, ByteRange, ByteStream, Digest, ListPage, ListQuery, Mode, ObjectInfo, Options,
    PutOptions, Reading, STAGING, Stored, check_key, check_prefix,
};

/// Objects up to this size are written by one request; larger ones in parts of this size (at most 10,000 of them).
const PART: usize = 16 * 1024 * 1024;
/// Parts on the way at the same time.
const PARTS_AT_ONCE: usize = 4;

/// A bucket, or a prefix in one.
#[derive(Debug)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    /// Key of the root in the bucket: empty, or ending in a slash.
    root: String,
}

impl Remote {
    pub(crate) fn open(url: &Url, options: &Options) -> Result<Self, BlobError> {
        let mut pairs: Vec<(String, String)> = options
            .pairs()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if url.scheme() == "s3" {
            // a copy that must not replace has no request of its own in S3; this does it by a conditional multipart
            pairs.push(("aws_copy_if_not_exists".to_owned(), "multipart".to_owned()));
        }
        if url.scheme() == "http" {
            // who writes http means it
            pairs.push(("allow_http".to_owned(), "true".to_owned()));
        }
        let (store, path) = object_store::parse_url_opts(url, pairs).map_err(|error| BlobError::Url {
            url: url.to_string(),
            reason: error.to_string(),
        })?;
        let root = if path.as_ref().is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        Ok(Self {
            store: Arc::from(store),
            root,
        })
    }

    fn path(&self, key: &str) -> Result<Path, BlobError> {
        check_key(key)?;
        self.raw_path(key)
    }

    fn raw_path(&self, key: &str) -> Result<Path, BlobError> {
        Path::parse(format!("{}{key}", self.root)).map_err(|error| BlobError::InvalidKey {
            key: key.to_owned(),
            reason: error.to_string(),
        })
    }

    fn info(&self, meta: &ObjectMeta) -> Option<ObjectInfo> {
        let key = meta.location.as_ref().strip_prefix(&self.root)?.to_owned();
        let last_modified = jiff::Timestamp::from_millisecond(meta.last_modified.timestamp_millis()).ok()?;
        let etag = meta.e_tag.as_deref().map(unquoted);
        Some(ObjectInfo {
            key,
            size: meta.size,
            etag,
            last_modified,
        })
    }

    /// Uploads in parts what did not fit into one request.
    async fn put_parts(
        &self,
        key: &str,
        first: Bytes,
        mut body: ByteStream,
        mut digest: Digest,
        options: &PutOptions,
    ) -> Result<Stored, BlobError> {
        // parts cannot be create-only, so such an object is prepared aside and copied into place
        let staged = match options.mode {
            Mode::Overwrite => None,
            Mode::CreateOnly => Some(self.raw_path(&format!("{STAGING}/{}", uuid::Uuid::new_v4().simple()))?),
        };
        let target = self.path(key)?;
        let place = staged.as_ref().unwrap_or(&target);
        let multipart = PutMultipartOptions {
            attributes: attributes(options),
            ..Default::default()
        };
        let upload = self
            .store
            .put_multipart_opts(place, multipart)
            .await
            .map_err(|error| failed(key, error))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART);
        writer.put(first);
        let filled = async {
            while let Some(chunk) = body.next().await {
                let chunk = chunk?;
                digest.update(&chunk);
                writer
                    .wait_for_capacity(PARTS_AT_ONCE)
                    .await
                    .map_err(|error| failed(key, error))?;
                writer.put(chunk);
            }
            digest.check(key, options)
        }
        .await;
        let (size, sha256) = match filled {
            Ok(checked) => checked,
            Err(error) => {
                if let Err(abort) = writer.abort().await {
                    tracing::warn!(key, error = %abort, "an unfinished upload could not be removed");
                }
                return Err(error);
            }
        };
        let put = writer.finish().await.map_err(|error| failed(key, error))?;
        let Some(staged) = staged else {
            return Ok(Stored {
                size,
                sha256,
                etag: put.e_tag.as_deref().map(unquoted),
            });
        };
        let create = CopyOptions {
            mode: CopyMode::Create,
            ..Default::default()
        };
        let copied = self
            .store
            .copy_opts(&staged, &target, create)
            .await
            .map_err(|error| failed(key, error));
        if let Err(error) = self.store.delete(&staged).await {
            tracing::warn!(key, %error, "a staged object could not be removed");
        }
        copied?;
        let etag = self.head(key).await?.etag;
        Ok(Stored { size, sha256, etag })
    }
}

fn unquoted(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

fn attributes(options: &PutOptions) -> Attributes {
    let mut attributes = Attributes::new();
    if let Some(content_type) = &options.content_type {
        attributes.insert(Attribute::ContentType, content_type.clone().into());
    }
    attributes
}

fn failed(key: &str, error: Error) -> BlobError {
    let key = key.to_owned();
    match error {
        Error::NotFound { .. } => BlobError::NotFound { key },
        Error::AlreadyExists { .. } | Error::Precondition { .. } => BlobError::AlreadyExists { key },
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => BlobError::Denied {
            key,
            reason: source.to_string(),
        },
        Error::InvalidPath { source } => BlobError::InvalidKey {
            key,
            reason: source.to_string(),
        },
        other => BlobError::Backend {
            key,
            source: Box::new(other),
        },
    }
}

#[async_trait]
impl Blob for Remote {
    async fn put(&self, key: &str, mut body: ByteStream, options: PutOptions) -> Result<Stored, BlobError> {
        let path = self.path(key)?;
        let mut digest = Digest::new();
        let mut buffer = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            digest.update(&chunk);
            buffer.extend_from_slice(&chunk);
            if buffer.len() > PART {
                return self.put_parts(key, buffer.freeze(), body, digest, &options).await;
            }
        }
        let (size, sha256) = digest.check(key, &options)?;
        let mode = match options.mode {
            Mode::Overwrite => PutMode::Overwrite,
            Mode::CreateOnly => PutMode::Create,
        };
        let put = object_store::PutOptions {
            mode,
            attributes: attributes(&options),
            ..Default::default()
        };
        let payload = PutPayload::from(buffer.freeze());
        let result = self
            .store
            .put_opts(&path, payload, put)
            .await
            .map_err(|error| failed(key, error))?;
        Ok(Stored {
            size,
            sha256,
            etag: result.e_tag.as_deref().map(unquoted),
        })
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Reading, BlobError> {
        let path = self.path(key)?;
        // backends disagree on ranges behind the end, and azure knows none from the end, so ask the size first
        let range = match range {
            None => None,
            Some(range) => {
                let size = self.head(key).await?.size;
                let outside = || BlobError::InvalidRange {
                    key: key.to_owned(),
                    size,
                };
                Some(GetRange::Bounded(range.within(size).ok_or_else(outside)?))
            }
        };
        let options = GetOptions {
            range,
            ..Default::default()
        };
        let result = self
            .store
            .get_opts(&path, options)
            .await
            .map_err(|error| failed(key, error))?;
        let content_type = result
            .attributes
            .get(&Attribute::ContentType)
            .map(|value| value.as_ref().to_owned());
        let range = result.range.clone();
        let info = self
            .info(&result.meta)
            .ok_or_else(|| BlobError::NotFound { key: key.to_owned() })?;
        let name = key.to_owned();
        let body = result
            .into_stream()
            .map_err(move |error| failed(&name, error))
            .boxed();
        Ok(Reading {
            info,
            range,
            content_type,
            body,
        })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, BlobError> {
        let meta = self
            .store
            .head(&self.path(key)?)
            .await
            .map_err(|error| failed(key, error))?;
        self.info(&meta)
            .ok_or_else(|| BlobError::NotFound { key: key.to_owned() })
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(key, error)),
        }
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, BlobError> {
        check_prefix(&query.prefix)?;
        let mut page = ListPage::default();
        if query.limit == 0 {
            return Ok(page);
        }
        let fail = |error| failed(&query.prefix, error);
        let base = query.prefix.rfind('/').map_or("", |slash| &query.prefix[..slash]);
        let base = self.raw_path(base)?;
        let base = (!base.as_ref().is_empty()).then_some(base);
        let wanted = |key: &str| {
            key.starts_with(&query.prefix)
                && !key.starts_with(".staging/")
                && query.after.as_deref().is_none_or(|after| key > after)
        };
        if query.folders {
            let result = self
                .store
                .list_with_delimiter(base.as_ref())
                .await
                .map_err(fail)?;
            let folders = result.common_prefixes.iter().filter_map(|path| {
                let key = format!("{}/", path.as_ref().strip_prefix(&self.root)?);
                wanted(&key).then_some((key, None))
            });
            let objects = result.objects.into_iter().filter_map(|meta| {
                let info = self.info(&meta)?;
                wanted(&info.key).then_some((info.key.clone(), Some(info)))
            });
            let mut entries: Vec<(String, Option<ObjectInfo>)> = folders.chain(objects).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            if entries.len() > query.limit {
                entries.truncate(query.limit);
                page.next = entries.last().map(|(key, _)| key.clone());
            }
            for (key, info) in entries {
                match info {
                    Some(info) => page.objects.push(info),
                    None => page.prefixes.push(key),
                }
            }
            return Ok(page);
        }
        let mut stream = match &query.after {
            Some(after) => {
                let offset = self.raw_path(after)?;
                self.store.list_with_offset(base.as_ref(), &offset)
            }
            None => self.store.list(base.as_ref()),
        };
        let mut ordered = true;
        let mut found: Vec<ObjectInfo> = Vec::new();
        // one more than the page shows whether there is a next one
        while let Some(meta) = stream.try_next().await.map_err(fail)? {
            let Some(info) = self.info(&meta) else { continue };
            if !wanted(&info.key) {
                continue;
            }
            ordered &= found.last().is_none_or(|last| last.key < info.key);
            found.push(info);
            if ordered && found.len() > query.limit {
                break;
            }
        }
        if !ordered {
            found.sort_by(|a, b| a.key.cmp(&b.key));
        }
        if found.len() > query.limit {
            found.truncate(query.limit);
            page.next = found.last().map(|info| info.key.clone());
        }
        page.objects = found;
        Ok(page)
    }

    async fn copy(&self, from: &str, to: &str, mode: Mode) -> Result<(), BlobError> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        let mode = match mode {
            Mode::Overwrite => CopyMode::Overwrite,
            Mode::CreateOnly => CopyMode::Create,
        };
        let options = CopyOptions {
            mode,
            ..Default::default()
        };
        self.store
            .copy_opts(&source, &target, options)
            .await
            .map_err(|error| match error {
                Error::NotFound { .. } => failed(from, error),
                error => failed(to, error),
            })
    }

    async fn clean(&self, older_than: Duration) -> Result<usize, BlobError> {
        let fail = |error| failed(STAGING, error);
        let folder = self.raw_path(STAGING)?;
        let before = std::time::SystemTime::now().checked_sub(older_than);
        let old: Vec<Path> = self
            .store
            .list(Some(&folder))
            .try_filter(|meta| {
                let modified = std::time::SystemTime::from(meta.last_modified);
                futures::future::ready(before.is_some_and(|before| modified <= before))
            })
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(fail)?;
        let count = old.len();
        let deleted = self
            .store
            .delete_stream(stream::iter(old.into_iter().map(Ok)).boxed());
        deleted
            .try_for_each(|_| futures::future::ready(Ok(())))
            .await
            .map_err(fail)?;
        Ok(count)
    }
}
