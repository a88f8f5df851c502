//! Objects with their owners and rights: what HTTP, S3 and gRPC all call.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_blob::{
    Blob, BlobError, ByteRange, ByteStream, ListQuery, Mode, ObjectInfo, PutOptions, Reading, check_key,
    check_prefix,
};
use ferroflow_kernel::{Clock, Code, Error};
use jiff::Timestamp;

use crate::domain::claims;
use crate::domain::grant::Grant;
use crate::error::Failure;
use crate::store::{Attributes, ClaimError, Store};

/// The API group that rights on objects are asked in.
pub const GROUP: &str = "artifacts.ferroflow.dev";

/// The bucket that KFP writes to. It exists from the start.
pub const PIPELINES_BUCKET: &str = "mlpipeline";

/// The sum of a writer's own words on an object, in bytes, as in S3.
const METADATA_LIMIT: usize = 2048;

/// What limits a caller besides the rights of its principal.
#[derive(Debug, Clone)]
pub enum Limit {
    /// Nothing.
    None,
    /// A credential made by this service.
    Grant(Grant),
    /// A signed URL, already checked, on an object of this namespace. It carries the right itself.
    Signed(String),
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The principal and its own namespace.
    pub caller: Caller,
    /// What narrows it down.
    pub limit: Limit,
}

impl From<Caller> for Actor {
    fn from(caller: Caller) -> Self {
        Self {
            caller,
            limit: Limit::None,
        }
    }
}

/// An object and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Whose it is.
    pub namespace: String,
    /// Bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// Entity tag without quotes.
    pub etag: String,
    /// SHA-256 in hexadecimal; empty when it was not written through this service.
    pub sha256: String,
    /// When it was written.
    pub last_modified: Timestamp,
    /// The writer's own words.
    pub metadata: BTreeMap<String, String>,
}

/// How to write an object.
#[derive(Debug, Clone, Default)]
pub struct Write {
    /// May it replace one?
    pub mode: Mode,
    /// Media type; guessed from the key when absent.
    pub content_type: Option<String>,
    /// Promised SHA-256.
    pub sha256: Option<String>,
    /// Promised size.
    pub size: Option<u64>,
    /// The writer's own words.
    pub metadata: BTreeMap<String, String>,
    /// For whom a new prefix is claimed; the caller's own namespace when absent.
    pub namespace: Option<String>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Listing {
    /// Objects in the order of their keys.
    pub objects: Vec<Object>,
    /// Folders, each with a slash at its end.
    pub prefixes: Vec<String>,
    /// Where the next page starts.
    pub next: Option<String>,
}

/// How tenants share the storage.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Buckets that several namespaces write to; any other belongs to who writes first.
    pub shared_buckets: Vec<String>,
    /// Whom bytes belong to that did not come through this service.
    pub unclaimed_namespace: String,
}

/// The service itself.
#[derive(Debug, Clone)]
pub struct Objects {
    pub(crate) blob: Arc<dyn Blob>,
    pub(crate) store: Store,
    authorizer: Arc<dyn Authorizer>,
    pub(crate) clock: Arc<dyn Clock>,
    policy: Policy,
}

impl Objects {
    /// Objects in `blob`, whose keys are `<bucket>/<key>`.
    pub fn new(
        blob: Arc<dyn Blob>,
        store: Store,
        authorizer: Arc<dyn Authorizer>,
        clock: Arc<dyn Clock>,
        policy: Policy,
    ) -> Self {
        Self {
            blob,
            store,
            authorizer,
            clock,
            policy,
        }
    }

    pub(crate) fn shared(&self, bucket: &str) -> bool {
        self.policy.shared_buckets.iter().any(|shared| shared == bucket)
    }

    /// Asks for a right in a namespace.
    pub(crate) async fn right(
        &self,
        actor: &Actor,
        namespace: &str,
        verb: &str,
        resource: &str,
    ) -> Result<(), Error> {
        match &actor.limit {
            Limit::Signed(own) if own == namespace => return Ok(()),
            Limit::Signed(own) => {
                return Err(Error::denied(format!(
                    "the url is signed for namespace {own:?}, not {namespace:?}"
                )));
            }
            Limit::Grant(grant) if grant.namespace != namespace => {
                let own = &grant.namespace;
                return Err(Error::denied(format!(
                    "the credential covers namespace {own:?}, and the object belongs to another"
                )));
            }
            Limit::Grant(_) | Limit::None => {}
        }
        let review = AccessReview::new(namespace, verb, GROUP, resource);
        self.authorizer.authorize(&actor.caller.principal, &review).await
    }

    async fn owner(&self, bucket: &str, key: &str) -> Result<Option<String>, Failure> {
        if let Some(owner) = claims::owner_by_name(self.shared(bucket), key) {
            return Ok(Some(owner.to_owned()));
        }
        Ok(self.store.owners(bucket, &[key]).await?.remove(key))
    }

    /// Whose an existing object is, if the actor may `verb` it.
    async fn allowed(&self, actor: &Actor, bucket: &str, key: &str, verb: &str) -> Result<String, Failure> {
        check_bucket(bucket)?;
        check_key(key)?;
        if let Limit::Grant(grant) = &actor.limit {
            let covered = if verb == "get" {
                grant.may_read(bucket, key)
            } else {
                grant.may_write(bucket, key)
            };
            if !covered {
                return Err(Error::denied(format!(
                    "the credential does not cover {verb} of s3://{bucket}/{key}"
                ))
                .into());
            }
        }
        let owner = match self.owner(bucket, key).await? {
            Some(owner) => owner,
            None => {
                // nobody may learn by a refusal that nothing is there
                self.blob
                    .head(&place(bucket, key))
                    .await
                    .map_err(|error| at(error, key))?;
                self.policy.unclaimed_namespace.clone()
            }
        };
        self.right(actor, &owner, verb, "objects").await?;
        Ok(owner)
    }

    /// Makes sure that the actor may write here, and claims the place if nobody has it.
    pub(crate) async fn reserve(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        namespace: Option<&str>,
    ) -> Result<String, Failure> {
        check_bucket(bucket)?;
        check_key(key)?;
        if let Limit::Grant(grant) = &actor.limit
            && !grant.may_write(bucket, key)
        {
            return Err(Error::denied(format!(
                "the credential does not cover writing s3://{bucket}/{key}"
            ))
            .into());
        }
        if let Some(owner) = self.owner(bucket, key).await? {
            self.right(actor, &owner, "create", "objects")
                .await
                .map_err(|error| {
                    error.context(format!("s3://{bucket}/{key} belongs to namespace {owner:?}"))
                })?;
            return Ok(owner);
        }
        let namespace = match &actor.limit {
            Limit::Signed(own) => own.clone(),
            _ => namespace
                .filter(|n| !n.is_empty())
                .unwrap_or(&actor.caller.namespace)
                .to_owned(),
        };
        self.right(actor, &namespace, "create", "objects").await?;
        self.claim(bucket, &claims::unit(self.shared(bucket), key), &namespace)
            .await?;
        self.store.make_bucket(bucket, self.clock.now()).await?;
        Ok(namespace)
    }

    /// Claims a folder or key for a namespace. Bytes that came past this service are not given away by it.
    pub(crate) async fn claim(&self, bucket: &str, prefix: &str, namespace: &str) -> Result<(), Failure> {
        if let Some(owner) = claims::owner_by_name(self.shared(bucket), &format!("{prefix}x")) {
            return if owner == namespace {
                Ok(())
            } else {
                Err(taken(bucket, prefix, owner))
            };
        }
        if namespace != self.policy.unclaimed_namespace
            && !self.store.owners(bucket, &[prefix]).await?.contains_key(prefix)
        {
            let query = ListQuery {
                prefix: place(bucket, prefix),
                limit: 1,
                ..ListQuery::default()
            };
            let there = self.blob.list(query).await?;
            // what lies there and is claimed is the claim's business; what is not claimed is not free either
            if let Some(object) = there.objects.first() {
                let key = object.key.split_once('/').map_or("", |(_, key)| key).to_owned();
                if !self
                    .store
                    .owners(bucket, &[key.as_str()])
                    .await?
                    .contains_key(&key)
                {
                    return Err(taken(bucket, prefix, &self.policy.unclaimed_namespace));
                }
            }
        }
        match self
            .store
            .claim(bucket, prefix, namespace, self.clock.now())
            .await
        {
            Ok(()) => Ok(()),
            Err(ClaimError::Taken(owner)) => Err(taken(bucket, prefix, &owner)),
            Err(ClaimError::Db(error)) => Err(error.into()),
        }
    }

    /// Writes an object.
    pub async fn put(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        body: ByteStream,
        write: Write,
    ) -> Result<Object, Failure> {
        check_metadata(&write.metadata)?;
        let namespace = self
            .reserve(actor, bucket, key, write.namespace.as_deref())
            .await?;
        self.store_object(bucket, key, namespace, body, write).await
    }

    pub(crate) async fn store_object(
        &self,
        bucket: &str,
        key: &str,
        namespace: String,
        body: ByteStream,
        write: Write,
    ) -> Result<Object, Failure> {
        let content_type = write
            .content_type
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| guess_type(key));
        let options = PutOptions {
            mode: write.mode,
            content_type: Some(content_type.clone()),
            sha256: write.sha256,
            size: write.size,
        };
        let place = place(bucket, key);
        let stored = self
            .blob
            .put(&place, body, options)
            .await
            .map_err(|error| at(error, key))?;
        let attributes = Attributes {
            version: stored.etag.clone().unwrap_or_default(),
            sha256: stored.sha256.clone(),
            content_type,
            metadata: write.metadata,
        };
        self.store
            .set_attributes(bucket, key, &namespace, &attributes)
            .await?;
        let info = ObjectInfo {
            key: place,
            size: stored.size,
            etag: stored.etag,
            last_modified: self.clock.now(),
        };
        Ok(object(bucket, key, namespace, &info, Some(attributes)))
    }

    /// Describes an object.
    pub async fn head(&self, actor: &Actor, bucket: &str, key: &str) -> Result<Object, Failure> {
        let namespace = self.allowed(actor, bucket, key, "get").await?;
        let info = self
            .blob
            .head(&place(bucket, key))
            .await
            .map_err(|error| at(error, key))?;
        let attributes = self.store.attributes(bucket, &[key]).await?.remove(key);
        Ok(object(bucket, key, namespace, &info, attributes))
    }

    /// Opens an object for reading.
    pub async fn get(
        &self,
        actor: &Actor,
        bucket: &str,
        key: &str,
        range: Option<ByteRange>,
    ) -> Result<(Object, Reading), Failure> {
        let namespace = self.allowed(actor, bucket, key, "get").await?;
        let reading = self
            .blob
            .get(&place(bucket, key), range)
            .await
            .map_err(|error| at(error, key))?;
        let attributes = self.store.attributes(bucket, &[key]).await?.remove(key);
        Ok((object(bucket, key, namespace, &reading.info, attributes), reading))
    }

    /// Deletes an object; one that is not there is no error.
    pub async fn delete(&self, actor: &Actor, bucket: &str, key: &str) -> Result<(), Failure> {
        match self.allowed(actor, bucket, key, "delete").await {
            Ok(_) => {}
            Err(Failure::Blob(BlobError::NotFound { .. })) => return Ok(()),
            Err(failure) => return Err(failure),
        }
        self.blob
            .delete(&place(bucket, key))
            .await
            .map_err(|error| at(error, key))?;
        self.store.drop_attributes(bucket, key).await?;
        Ok(())
    }

    /// Copies an object; `write` may replace its attributes.
    pub async fn copy(
        &self,
        actor: &Actor,
        from: (&str, &str),
        to: (&str, &str),
        replace: Option<Write>,
        mode: Mode,
    ) -> Result<Object, Failure> {
        let source = self.head(actor, from.0, from.1).await?;
        let namespace = self.reserve(actor, to.0, to.1, None).await?;
        let target = place(to.0, to.1);
        self.blob
            .copy(&place(from.0, from.1), &target, mode)
            .await
            .map_err(|error| at(error, to.1))?;
        let info = self.blob.head(&target).await.map_err(|error| at(error, to.1))?;
        let (content_type, metadata) = match replace {
            Some(write) => (
                write.content_type.unwrap_or_else(|| guess_type(to.1)),
                write.metadata,
            ),
            None => (source.content_type, source.metadata),
        };
        let version = info.etag.clone().unwrap_or_default();
        let attributes = Attributes {
            version,
            sha256: source.sha256,
            content_type,
            metadata,
        };
        self.store
            .set_attributes(to.0, to.1, &namespace, &attributes)
            .await?;
        Ok(object(to.0, to.1, namespace, &info, Some(attributes)))
    }

    /// One page of what the actor may see.
    pub async fn list(
        &self,
        actor: &Actor,
        bucket: &str,
        prefix: &str,
        folders: bool,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listing, Failure> {
        check_bucket(bucket)?;
        check_prefix(prefix)?;
        if let Limit::Grant(grant) = &actor.limit
            && !grant.may_list(bucket, prefix)
        {
            return Err(
                Error::denied(format!("the credential does not cover s3://{bucket}/{prefix}")).into(),
            );
        }
        let mut sight = Sight {
            objects: self,
            actor,
            bucket,
            known: HashMap::new(),
        };
        let mut listing = Listing::default();
        let mut after = after;
        loop {
            let room = limit - listing.objects.len() - listing.prefixes.len();
            let query = ListQuery {
                prefix: place(bucket, prefix),
                folders,
                after: after.as_deref().map(|after| place(bucket, after)),
                limit: room,
            };
            let page = self.blob.list(query).await?;
            let strip = |key: &str| {
                key.split_once('/')
                    .map_or_else(String::new, |(_, key)| key.to_owned())
            };
            let keys: Vec<String> = page.objects.iter().map(|info| strip(&info.key)).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let owners = self.store.owners(bucket, &keys).await?;
            let mut attributes = self.store.attributes(bucket, &keys).await?;
            for (info, key) in page.objects.iter().zip(keys) {
                let named = claims::owner_by_name(self.shared(bucket), key).map(str::to_owned);
                let owner = named.or_else(|| owners.get(key).cloned());
                let owner = owner.unwrap_or_else(|| self.policy.unclaimed_namespace.clone());
                if sight.sees(&owner).await? && sight.reads(key) {
                    listing
                        .objects
                        .push(object(bucket, key, owner, info, attributes.remove(key)));
                }
            }
            for folder in &page.prefixes {
                let folder = strip(folder);
                if sight.sees_into(&folder).await? {
                    listing.prefixes.push(folder);
                }
            }
            after = page.next.as_deref().map(strip);
            if after.is_none() || listing.objects.len() + listing.prefixes.len() >= limit {
                listing.next = after;
                return Ok(listing);
            }
        }
    }

    /// Buckets in which the actor may list something.
    pub async fn buckets(&self, actor: &Actor) -> Result<Vec<(String, Timestamp)>, Failure> {
        let mut seen = Vec::new();
        for (name, made) in self.store.buckets().await? {
            if self.sees_bucket(actor, &name).await? {
                seen.push((name, made));
            }
        }
        Ok(seen)
    }

    async fn sees_bucket(&self, actor: &Actor, bucket: &str) -> Result<bool, Failure> {
        if self.shared(bucket) {
            return Ok(true);
        }
        let mut sight = Sight {
            objects: self,
            actor,
            bucket,
            known: HashMap::new(),
        };
        sight.sees_into("").await
    }

    /// Fails unless the bucket exists for the actor.
    pub async fn check_bucket_exists(&self, actor: &Actor, bucket: &str) -> Result<(), Failure> {
        check_bucket(bucket)?;
        let exists = self.store.buckets().await?.iter().any(|(name, _)| name == bucket);
        if !exists {
            return Err(Failure::NoSuchBucket(bucket.to_owned()));
        }
        if !self.sees_bucket(actor, bucket).await? {
            return Err(Error::denied(format!("bucket {bucket:?} belongs to another namespace")).into());
        }
        Ok(())
    }

    /// Makes a bucket for the actor's namespace. Making one's own again is no error.
    pub async fn make_bucket(&self, actor: &Actor, bucket: &str) -> Result<(), Failure> {
        check_bucket(bucket)?;
        let namespace = &actor.caller.namespace;
        self.right(actor, namespace, "create", "objects").await?;
        if !self.shared(bucket) {
            self.claim(bucket, "", namespace).await?;
        }
        Ok(self.store.make_bucket(bucket, self.clock.now()).await?)
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, actor: &Actor, bucket: &str) -> Result<(), Failure> {
        self.check_bucket_exists(actor, bucket).await?;
        if self.shared(bucket) {
            return Err(
                Error::denied(format!("bucket {bucket:?} is shared by all namespaces and stays")).into(),
            );
        }
        let owner = self
            .owner(bucket, "")
            .await?
            .unwrap_or_else(|| self.policy.unclaimed_namespace.clone());
        self.right(actor, &owner, "delete", "objects").await?;
        let query = ListQuery {
            prefix: place(bucket, ""),
            limit: 1,
            ..ListQuery::default()
        };
        if !self.blob.list(query).await?.objects.is_empty() {
            return Err(Failure::BucketNotEmpty(bucket.to_owned()));
        }
        Ok(self.store.drop_bucket(bucket).await?)
    }
}

/// What one actor may see of a bucket; asks once per namespace.
struct Sight<'a> {
    objects: &'a Objects,
    actor: &'a Actor,
    bucket: &'a str,
    known: HashMap<String, bool>,
}

impl Sight<'_> {
    async fn sees(&mut self, namespace: &str) -> Result<bool, Failure> {
        if let Some(known) = self.known.get(namespace) {
            return Ok(*known);
        }
        let seen = match self.objects.right(self.actor, namespace, "list", "objects").await {
            Ok(()) => true,
            Err(error) if error.code() == Code::PermissionDenied => false,
            Err(error) => return Err(error.into()),
        };
        self.known.insert(namespace.to_owned(), seen);
        Ok(seen)
    }

    fn reads(&self, key: &str) -> bool {
        match &self.actor.limit {
            Limit::Grant(grant) => grant.may_read(self.bucket, key),
            Limit::None | Limit::Signed(_) => true,
        }
    }

    async fn sees_into(&mut self, folder: &str) -> Result<bool, Failure> {
        if let Limit::Grant(grant) = &self.actor.limit
            && !grant.may_list(self.bucket, folder)
        {
            return Ok(false);
        }
        if let Some(owner) = self.objects.owner(self.bucket, folder).await? {
            return self.sees(&owner).await;
        }
        let private = self.objects.shared(self.bucket) && matches!(folder, "private/" | "private-artifacts/");
        if private
            || self
                .sees(&self.objects.policy.unclaimed_namespace.clone())
                .await?
        {
            return Ok(true);
        }
        for namespace in self.objects.store.claimants(self.bucket, folder).await? {
            if self.sees(&namespace).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The blob's key of an object.
pub(crate) fn place(bucket: &str, key: &str) -> String {
    format!("{bucket}/{key}")
}

/// Errors of the blob name its own key; callers know the object's.
fn at(error: BlobError, key: &str) -> Failure {
    let key = key.to_owned();
    Failure::Blob(match error {
        BlobError::NotFound { .. } => BlobError::NotFound { key },
        BlobError::AlreadyExists { .. } => BlobError::AlreadyExists { key },
        BlobError::Conflict { reason, .. } => BlobError::Conflict { key, reason },
        BlobError::InvalidRange { size, .. } => BlobError::InvalidRange { key, size },
        BlobError::Mismatch {
            what,
            expected,
            actual,
            ..
        } => BlobError::Mismatch {
            key,
            what,
            expected,
            actual,
        },
        BlobError::Body { reason, .. } => BlobError::Body { key, reason },
        other => other,
    })
}

fn taken(bucket: &str, prefix: &str, owner: &str) -> Failure {
    let whose = format!("s3://{bucket}/{prefix} belongs to namespace {owner:?}");
    Error::denied(format!(
        "{whose}; write to another place, or ask its owner to add you"
    ))
    .into()
}

fn object(
    bucket: &str,
    key: &str,
    namespace: String,
    info: &ObjectInfo,
    attributes: Option<Attributes>,
) -> Object {
    let version = info.etag.clone().unwrap_or_default();
    let attributes = attributes.filter(|attributes| attributes.version == version);
    let (sha256, content_type, metadata) = match attributes {
        Some(attributes) => (attributes.sha256, attributes.content_type, attributes.metadata),
        None => (String::new(), guess_type(key), BTreeMap::new()),
    };
    Object {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        namespace,
        size: info.size,
        content_type,
        etag: if sha256.is_empty() {
            version
        } else {
            sha256.clone()
        },
        sha256,
        last_modified: info.last_modified,
        metadata,
    }
}

/// The media type of a name.
pub(crate) fn guess_type(key: &str) -> String {
    mime_guess::from_path(key).first_or_octet_stream().to_string()
}

/// Refuses names that are no buckets anywhere.
pub(crate) fn check_bucket(name: &str) -> Result<(), Error> {
    let fits = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    if fits && name.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) {
        return Ok(());
    }
    let rule = "use 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
    Err(Error::field(
        "bucket",
        format!("{name:?} is no bucket name; {rule}"),
    ))
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    let size: usize = metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if size <= METADATA_LIMIT {
        return Ok(());
    }
    Err(Error::field(
        "metadata",
        format!("has {size} bytes; at most {METADATA_LIMIT} fit"),
    ))
}
