//! Rows: claims, what the bytes do not carry themselves, and uploads in parts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferroflow_db::{Db, DbError, Row, Value, params};
use jiff::Timestamp;
use moka::future::Cache;

use crate::domain::claims::candidates;

/// The store's migrations, in order.
pub const MIGRATIONS: &[&str] = &["
CREATE TABLE claims (bucket TEXT NOT NULL, prefix TEXT NOT NULL, namespace TEXT NOT NULL, made TEXT NOT NULL,
  PRIMARY KEY (bucket, prefix));
CREATE TABLE buckets (name TEXT PRIMARY KEY, made TEXT NOT NULL);
CREATE TABLE attributes (bucket TEXT NOT NULL, object TEXT NOT NULL, namespace TEXT NOT NULL, version TEXT NOT NULL,
  sha256 TEXT NOT NULL, content_type TEXT NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (bucket, object));
CREATE TABLE uploads (id TEXT PRIMARY KEY, bucket TEXT NOT NULL, object TEXT NOT NULL, namespace TEXT NOT NULL,
  content_type TEXT NOT NULL, metadata TEXT NOT NULL, made TEXT NOT NULL);
CREATE TABLE parts (upload TEXT NOT NULL, number BIGINT NOT NULL, size BIGINT NOT NULL, sha256 TEXT NOT NULL,
  PRIMARY KEY (upload, number));
"];

/// What an object has besides its bytes. It counts only while the bytes are those of `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Entity tag that the blob gave the bytes.
    pub version: String,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Media type.
    pub content_type: String,
    /// The writer's own words.
    pub metadata: BTreeMap<String, String>,
}

/// An upload in parts that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its identifier.
    pub id: String,
    /// Where the object will be.
    pub bucket: String,
    /// Key of the object.
    pub key: String,
    /// Whose it will be.
    pub namespace: String,
    /// Its media type.
    pub content_type: String,
    /// The writer's own words.
    pub metadata: BTreeMap<String, String>,
    /// When it was begun.
    pub made: Timestamp,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: i64,
    /// Bytes.
    pub size: i64,
    /// SHA-256, which is also its entity tag.
    pub sha256: String,
}

/// A claim that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else has it, or something in it.
    #[error("it belongs to namespace {0:?}")]
    Taken(String),
    /// The rows could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The rows of the service.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    /// Claims never change, so what was found once stays true.
    known: Cache<(String, String), String>,
}

impl Store {
    /// A store over a database that has [`MIGRATIONS`].
    pub fn new(db: Db) -> Self {
        Self {
            db,
            known: Cache::new(50_000),
        }
    }

    /// Whose each key is, by the outermost claim on it. Keys without a claim are left out.
    pub async fn owners(&self, bucket: &str, keys: &[&str]) -> Result<HashMap<String, String>, DbError> {
        let lists: Vec<(&str, Vec<String>)> = keys.iter().map(|key| (*key, candidates(key))).collect();
        let mut asked = BTreeSet::new();
        for (_, prefixes) in &lists {
            for prefix in prefixes {
                // nothing behind a known claim can hold, because the outermost does; but one before it may
                if self.known.contains_key(&(bucket.to_owned(), prefix.clone())) {
                    break;
                }
                asked.insert(prefix.clone());
            }
        }
        let asked: Vec<String> = asked.into_iter().collect();
        for chunk in asked.chunks(400) {
            let marks: Vec<String> = (2..chunk.len() + 2).map(|n| format!("${n}")).collect();
            let sql = format!(
                "SELECT prefix, namespace FROM claims WHERE bucket = $1 AND prefix IN ({})",
                marks.join(", ")
            );
            let mut values = params![bucket];
            values.extend(chunk.iter().map(Value::from));
            for row in self.db.fetch_all(&sql, values).await? {
                self.known
                    .insert((bucket.to_owned(), row.text(0)?), row.text(1)?)
                    .await;
            }
        }
        let mut owners = HashMap::new();
        for (key, prefixes) in lists {
            for prefix in prefixes {
                if let Some(owner) = self.known.get(&(bucket.to_owned(), prefix)).await {
                    owners.insert(key.to_owned(), owner);
                    break;
                }
            }
        }
        Ok(owners)
    }

    /// Claims a prefix (a folder with its slash, a key, or the whole bucket as "") unless the namespace has it already.
    pub async fn claim(
        &self,
        bucket: &str,
        prefix: &str,
        namespace: &str,
        now: Timestamp,
    ) -> Result<(), ClaimError> {
        let taken = self.db.retry(|| async {
            let mut tx = self.db.begin().await?;
            let mut around = candidates(prefix);
            around.retain(|outer| outer.is_empty() || outer.ends_with('/') || outer == prefix);
            for outer in around {
                let sql = "SELECT namespace FROM claims WHERE bucket = $1 AND prefix = $2";
                if let Some(row) = tx.fetch_optional(sql, params![bucket, outer]).await? {
                    let owner = row.text(0)?;
                    return Ok((owner != namespace).then_some(owner));
                }
            }
            if prefix.is_empty() || prefix.ends_with('/') {
                let sql = "SELECT namespace FROM claims WHERE bucket = $1 AND namespace <> $2
                           AND substr(prefix, 1, length($3)) = $3 LIMIT 1";
                if let Some(row) = tx.fetch_optional(sql, params![bucket, namespace, prefix]).await? {
                    return Ok(Some(row.text(0)?));
                }
            }
            let sql = "INSERT INTO claims (bucket, prefix, namespace, made) VALUES ($1, $2, $3, $4)";
            tx.execute(sql, params![bucket, prefix, namespace, now]).await?;
            tx.commit().await?;
            Ok::<_, DbError>(None)
        });
        taken.await?.map_or(Ok(()), |owner| Err(ClaimError::Taken(owner)))
    }

    /// Namespaces with claims below a folder.
    pub async fn claimants(&self, bucket: &str, folder: &str) -> Result<Vec<String>, DbError> {
        let sql =
            "SELECT DISTINCT namespace FROM claims WHERE bucket = $1 AND substr(prefix, 1, length($2)) = $2";
        let rows = self.db.fetch_all(sql, params![bucket, folder]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// Makes a bucket, unless it exists.
    pub async fn make_bucket(&self, name: &str, now: Timestamp) -> Result<(), DbError> {
        let sql = "INSERT INTO buckets (name, made) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.write(sql, params![name, now]).await
    }

    /// Forgets a bucket; its claim stays, so that its name does not change hands.
    pub async fn drop_bucket(&self, name: &str) -> Result<(), DbError> {
        self.write("DELETE FROM buckets WHERE name = $1", params![name])
            .await
    }

    /// Buckets and when they were made.
    pub async fn buckets(&self) -> Result<Vec<(String, Timestamp)>, DbError> {
        let rows = self
            .db
            .fetch_all("SELECT name, made FROM buckets ORDER BY name", params![])
            .await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.time(1)?))).collect()
    }

    /// Keeps an object's attributes.
    pub async fn set_attributes(
        &self,
        bucket: &str,
        key: &str,
        namespace: &str,
        attributes: &Attributes,
    ) -> Result<(), DbError> {
        let metadata = json(&attributes.metadata);
        let sql =
            "INSERT INTO attributes (bucket, object, namespace, version, sha256, content_type, metadata)
                   VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (bucket, object) DO UPDATE SET
                   namespace = excluded.namespace, version = excluded.version, sha256 = excluded.sha256,
                   content_type = excluded.content_type, metadata = excluded.metadata";
        let Attributes {
            version,
            sha256,
            content_type,
            ..
        } = attributes;
        self.write(
            sql,
            params![bucket, key, namespace, version, sha256, content_type, metadata],
        )
        .await
    }

    /// Attributes of these objects.
    pub async fn attributes(
        &self,
        bucket: &str,
        keys: &[&str],
    ) -> Result<HashMap<String, Attributes>, DbError> {
        let mut all = HashMap::new();
        for chunk in keys.chunks(400) {
            let marks: Vec<String> = (2..chunk.len() + 2).map(|n| format!("${n}")).collect();
            let sql = format!(
                "SELECT object, version, sha256, content_type, metadata FROM attributes
                 WHERE bucket = $1 AND object IN ({})",
                marks.join(", ")
            );
            let mut values = params![bucket];
            values.extend(chunk.iter().map(|key| Value::from(*key)));
            for row in self.db.fetch_all(&sql, values).await? {
                let attributes = Attributes {
                    version: row.text(1)?,
                    sha256: row.text(2)?,
                    content_type: row.text(3)?,
                    metadata: row.json(4)?,
                };
                all.insert(row.text(0)?, attributes);
            }
        }
        Ok(all)
    }

    /// Forgets an object's attributes.
    pub async fn drop_attributes(&self, bucket: &str, key: &str) -> Result<(), DbError> {
        self.write(
            "DELETE FROM attributes WHERE bucket = $1 AND object = $2",
            params![bucket, key],
        )
        .await
    }

    /// Begins an upload in parts.
    pub async fn add_upload(&self, upload: &Upload) -> Result<(), DbError> {
        let sql = "INSERT INTO uploads (id, bucket, object, namespace, content_type, metadata, made)
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let Upload {
            id,
            bucket,
            key,
            namespace,
            content_type,
            metadata,
            made,
        } = upload;
        self.write(
            sql,
            params![id, bucket, key, namespace, content_type, json(metadata), *made],
        )
        .await
    }

    /// An upload in parts.
    pub async fn upload(&self, id: &str) -> Result<Option<Upload>, DbError> {
        let sql = format!("{UPLOADS} WHERE id = $1");
        let rows = self.db.fetch_all(&sql, params![id]).await?;
        rows.first().map(read_upload).transpose()
    }

    /// Uploads in parts to a bucket, or all.
    pub async fn uploads(&self, bucket: Option<&str>) -> Result<Vec<Upload>, DbError> {
        let rows = match bucket {
            Some(bucket) => {
                let sql = format!("{UPLOADS} WHERE bucket = $1 ORDER BY object, id");
                self.db.fetch_all(&sql, params![bucket]).await?
            }
            None => {
                self.db
                    .fetch_all(&format!("{UPLOADS} ORDER BY made"), params![])
                    .await?
            }
        };
        rows.iter().map(read_upload).collect()
    }

    /// Keeps a part; one of the same number is replaced.
    pub async fn set_part(&self, upload: &str, part: &Part) -> Result<(), DbError> {
        let sql = "INSERT INTO parts (upload, number, size, sha256) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (upload, number) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256";
        self.write(sql, params![upload, part.number, part.size, &part.sha256])
            .await
    }

    /// Parts of an upload by their number.
    pub async fn parts(&self, upload: &str) -> Result<Vec<Part>, DbError> {
        let sql = "SELECT number, size, sha256 FROM parts WHERE upload = $1 ORDER BY number";
        let rows = self.db.fetch_all(sql, params![upload]).await?;
        rows.iter()
            .map(|row| {
                Ok(Part {
                    number: row.int(0)?,
                    size: row.int(1)?,
                    sha256: row.text(2)?,
                })
            })
            .collect()
    }

    /// Forgets an upload and its parts.
    pub async fn drop_upload(&self, id: &str) -> Result<(), DbError> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute("DELETE FROM parts WHERE upload = $1", params![id])
                    .await?;
                tx.execute("DELETE FROM uploads WHERE id = $1", params![id])
                    .await?;
                tx.commit().await
            })
            .await
    }

    async fn write(&self, sql: &str, values: Vec<Value>) -> Result<(), DbError> {
        self.db
            .retry(|| async {
                let mut tx = self.db.begin().await?;
                tx.execute(sql, values.clone()).await?;
                tx.commit().await
            })
            .await
    }
}

const UPLOADS: &str = "SELECT id, bucket, object, namespace, content_type, metadata, made FROM uploads";

fn read_upload(row: &Row) -> Result<Upload, DbError> {
    Ok(Upload {
        id: row.text(0)?,
        bucket: row.text(1)?,
        key: row.text(2)?,
        namespace: row.text(3)?,
        content_type: row.text(4)?,
        metadata: row.json(5)?,
        made: row.time(6)?,
    })
}

fn json(metadata: &BTreeMap<String, String>) -> serde_json::Value {
    serde_json::Value::from_iter(metadata.iter().map(|(name, value)| (name.clone(), value.clone())))
}
