//! Objects as plain files below a folder.
//!
//! A write goes to `<root>/.staging/<uuid>`, is synced, and then appears by `rename` (replace) or `link` (create only),
//! so a killed process leaves at most a staging file, which [`Blob::clean`] removes. Objects are never changed in place.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::folder_list::list_folder;
use crate::{
    Blob, BlobError, ByteRange, ByteStream, Digest, ListPage, ListQuery, Mode, ObjectInfo, PutOptions,
    Reading, STAGING, Stored, check_key, check_prefix,
};

/// Chunks of this size are read ahead, a few at a time.
const CHUNK: usize = 256 * 1024;

/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// File and folder are on the disk before a write is reported done, so it survives a power loss.
    Always,
    /// Leave it to the operating system: survives `kill -9`, not a power loss.
    Never,
}

/// What the writing thread is sent. Only `None` ends a body: a channel that just closes is a body that was cut off.
type Piece = Result<Option<Bytes>, BlobError>;

/// A local folder of objects.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    sync: Sync,
}

impl Folder {
    /// A folder, which is created when the first object is written.
    pub fn new(root: impl Into<PathBuf>, sync: Sync) -> Self {
        Self {
            root: root.into(),
            sync,
        }
    }

    /// The file that holds an object.
    pub fn path_of(&self, key: &str) -> Result<PathBuf, BlobError> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    fn staging_file(&self, key: &str) -> Result<(PathBuf, File), BlobError> {
        let folder = self.root.join(STAGING);
        let path = folder.join(uuid::Uuid::new_v4().simple().to_string());
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&folder).map_err(|error| BlobError::io(key, error))?;
                File::create_new(&path)
            }
            other => other,
        };
        Ok((path, file.map_err(|error| BlobError::io(key, error))?))
    }

    /// Makes a staged file the object.
    fn publish(&self, staged: &Path, key: &str, mode: Mode) -> Result<ObjectInfo, BlobError> {
        let target = self.path_of(key)?;
        // a concurrent delete may remove the folder that was just made, so try a few times
        for _ in 0..16 {
            let done = match mode {
                Mode::Overwrite => fs::rename(staged, &target),
                Mode::CreateOnly => fs::hard_link(staged, &target),
            };
            match done {
                Ok(()) => {
                    if mode == Mode::CreateOnly {
                        fs::remove_file(staged).map_err(|error| BlobError::io(key, error))?;
                    }
                    if self.sync == Sync::Always {
                        sync_folder(target.parent()).map_err(|error| BlobError::io(key, error))?;
                    }
                    return info(key, &target);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => self.create_parents(&target, key)?,
                Err(error) => return Err(in_the_way(key, &target, error)),
            }
        }
        Err(BlobError::backend(
            key,
            "its folder is removed again and again by other writers",
        ))
    }

    fn create_parents(&self, target: &Path, key: &str) -> Result<(), BlobError> {
        let Some(parent) = target.parent() else {
            return Ok(());
        };
        fs::create_dir_all(parent).map_err(|error| in_the_way(key, target, error))?;
        if self.sync == Sync::Always {
            for folder in parent
                .ancestors()
                .take_while(|folder| folder.starts_with(&self.root))
            {
                sync_folder(Some(folder)).map_err(|error| BlobError::io(key, error))?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        key: &str,
        mut chunks: mpsc::Receiver<Piece>,
        options: &PutOptions,
    ) -> Result<Stored, BlobError> {
        let target = self.path_of(key)?;
        if options.mode == Mode::CreateOnly && target.is_file() {
            return Err(BlobError::AlreadyExists { key: key.to_owned() });
        }
        let (staged, file) = self.staging_file(key)?;
        let result = self
            .fill(key, file, &mut chunks, options)
            .and_then(|(size, sha256)| {
                let info = self.publish(&staged, key, options.mode)?;
                Ok(Stored {
                    size,
                    sha256,
                    etag: info.etag,
                })
            });
        if result.is_err() {
            // gone already when it was published
            drop(fs::remove_file(&staged));
        }
        result
    }

    fn fill(
        &self,
        key: &str,
        mut file: File,
        chunks: &mut mpsc::Receiver<Piece>,
        options: &PutOptions,
    ) -> Result<(u64, String), BlobError> {
        let mut digest = Digest::new();
        loop {
            let Some(piece) = chunks.blocking_recv() else {
                return Err(BlobError::Body {
                    key: key.to_owned(),
                    reason: "the writer went away".to_owned(),
                });
            };
            let Some(chunk) = piece? else { break };
            digest.update(&chunk);
            file.write_all(&chunk)
                .map_err(|error| BlobError::io(key, error))?;
        }
        let checked = digest.check(key, options)?;
        if self.sync == Sync::Always {
            file.sync_all().map_err(|error| BlobError::io(key, error))?;
        }
        Ok(checked)
    }
}

fn sync_folder(folder: Option<&Path>) -> std::io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Explains why a file could not be put in its place.
fn in_the_way(key: &str, target: &Path, error: std::io::Error) -> BlobError {
    let conflict = |reason: String| BlobError::Conflict {
        key: key.to_owned(),
        reason,
    };
    if target.is_dir() {
        return conflict("a folder has this name, because other objects lie below it".to_owned());
    }
    match error.kind() {
        ErrorKind::NotADirectory => {
            conflict("a part of the key before its last slash is itself an object".to_owned())
        }
        ErrorKind::AlreadyExists if !target.is_file() => {
            conflict("a part of the key before its last slash is itself an object".to_owned())
        }
        _ => BlobError::io(key, error),
    }
}

/// Describes a file as an object; anything but a regular file does not exist.
pub(crate) fn info(key: &str, path: &Path) -> Result<ObjectInfo, BlobError> {
    let metadata = fs::metadata(path).map_err(|error| BlobError::io(key, error))?;
    describe(key, &metadata)
}

pub(crate) fn describe(key: &str, metadata: &fs::Metadata) -> Result<ObjectInfo, BlobError> {
    if !metadata.is_file() {
        return Err(BlobError::NotFound { key: key.to_owned() });
    }
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let last_modified =
        jiff::Timestamp::from_nanosecond(nanoseconds).map_err(|error| BlobError::backend(key, error))?;
    Ok(ObjectInfo {
        key: key.to_owned(),
        size: metadata.len(),
        etag: Some(format!(
            "{:x}-{nanoseconds:x}-{:x}",
            metadata.ino(),
            metadata.len()
        )),
        last_modified,
    })
}

async fn blocking<T: Send + 'static>(
    key: &str,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BlobError::backend(key, error))?
}

#[async_trait]
impl Blob for Folder {
    async fn put(&self, key: &str, mut body: ByteStream, options: PutOptions) -> Result<Stored, BlobError> {
        check_key(key)?;
        let (sender, receiver) = mpsc::channel(8);
        let writer = {
            let (this, key) = (self.clone(), key.to_owned());
            tokio::task::spawn_blocking(move || this.write(&key, receiver, &options))
        };
        loop {
            let piece = body.next().await.transpose();
            let last = !matches!(piece, Ok(Some(_)));
            // a writer that has stopped says why below
            if sender.send(piece).await.is_err() || last {
                break;
            }
        }
        writer.await.map_err(|error| BlobError::backend(key, error))?
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Reading, BlobError> {
        let path = self.path_of(key)?;
        let name = key.to_owned();
        let (info, range, file, first) = blocking(key, move || {
            let mut file = File::open(&path).map_err(|error| BlobError::io(&name, error))?;
            let metadata = file.metadata().map_err(|error| BlobError::io(&name, error))?;
            let info = describe(&name, &metadata)?;
            let range = match range {
                None => 0..info.size,
                Some(range) => range.within(info.size).ok_or_else(|| BlobError::InvalidRange {
                    key: name.clone(),
                    size: info.size,
                })?,
            };
            if range.start > 0 {
                file.seek(SeekFrom::Start(range.start))
                    .map_err(|error| BlobError::io(&name, error))?;
            }
            let first = read_chunk(&mut file, range.end - range.start)
                .map_err(|error| BlobError::io(&name, error))?;
            Ok((info, range, file, first))
        })
        .await?;
        let left = range.end - range.start - first.len() as u64;
        let key = info.key.clone();
        let rest = stream::try_unfold((file, left), move |(mut file, left)| {
            let key = key.clone();
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let name = key.clone();
                let (file, chunk) = blocking(&key, move || {
                    let chunk = read_chunk(&mut file, left).map_err(|error| BlobError::io(&name, error))?;
                    Ok((file, chunk))
                })
                .await?;
                if chunk.is_empty() {
                    return Err(BlobError::backend(
                        &key,
                        "the file became shorter while it was read",
                    ));
                }
                let left = left - chunk.len() as u64;
                Ok(Some((chunk, (file, left))))
            }
        });
        let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
        Ok(Reading {
            info,
            range,
            content_type: None,
            body: first.chain(rest).boxed(),
        })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, BlobError> {
        let path = self.path_of(key)?;
        let name = key.to_owned();
        blocking(key, move || info(&name, &path)).await
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        let path = self.path_of(key)?;
        let (root, sync, name) = (self.root.clone(), self.sync, key.to_owned());
        blocking(key, move || {
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => return Ok(()),
                _ => {}
            }
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(());
                }
                Err(error) => return Err(BlobError::io(&name, error)),
            }
            if sync == Sync::Always {
                drop(sync_folder(path.parent()));
            }
            // a folder without objects does not exist; the one directly below the root is a bucket and stays
            for folder in path
                .ancestors()
                .skip(1)
                .take_while(|f| f.parent().is_some_and(|p| p.starts_with(&root)))
            {
                if folder.parent() == Some(root.as_path()) || fs::remove_dir(folder).is_err() {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, BlobError> {
        check_prefix(&query.prefix)?;
        let root = self.root.clone();
        let prefix = query.prefix.clone();
        blocking(&prefix, move || list_folder(&root, &query)).await
    }

    async fn copy(&self, from: &str, to: &str, mode: Mode) -> Result<(), BlobError> {
        let source = self.path_of(from)?;
        self.path_of(to)?;
        let (this, from, name) = (self.clone(), from.to_owned(), to.to_owned());
        blocking(to, move || {
            let mut reader = File::open(&source).map_err(|error| BlobError::io(&from, error))?;
            let metadata = reader.metadata().map_err(|error| BlobError::io(&from, error))?;
            describe(&from, &metadata)?;
            let (staged, mut file) = this.staging_file(&name)?;
            let copied = std::io::copy(&mut reader, &mut file)
                .and_then(|_| {
                    if this.sync == Sync::Always {
                        file.sync_all()
                    } else {
                        Ok(())
                    }
                })
                .map_err(|error| BlobError::io(&name, error))
                .and_then(|()| this.publish(&staged, &name, mode));
            if copied.is_err() {
                drop(fs::remove_file(&staged));
            }
            copied.map(drop)
        })
        .await
    }

    async fn clean(&self, older_than: Duration) -> Result<usize, BlobError> {
        let folder = self.root.join(STAGING);
        blocking(STAGING, move || {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                other => other.map_err(|error| BlobError::io(STAGING, error))?,
            };
            let mut removed = 0;
            for entry in entries.flatten() {
                let old = entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|modified| {
                        SystemTime::now()
                            .duration_since(modified)
                            .is_ok_and(|age| age >= older_than)
                    });
                if old && fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }
}

fn read_chunk(file: &mut File, left: u64) -> std::io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    let mut buffer = Vec::with_capacity(size);
    file.take(size as u64).read_to_end(&mut buffer)?;
    Ok(Bytes::from(buffer))
}
