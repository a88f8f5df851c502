//! The storage initializer: copies a model from its URI into a folder.

use anyhow::{Context, bail, ensure};
use ferroflow_blob::{Blob, BlobError, ListQuery, ObjectInfo, Options};
use futures::{StreamExt, TryStreamExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// How long a storage may be silent. Its client tries again on its own within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects that are copied at a time.
const AT_ONCE: usize = 4;

/// Copies the object at `uri`, or everything below it when it is a folder, into `target`. Archives (`.zip`, `.tar`,
/// `.tar.gz`, `.tgz`) of http(s) are unpacked.
pub async fn fetch(uri: &str, target: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    let fetched = fetch_from(uri, target)
        .await
        .with_context(|| format!("cannot fetch {uri}"));
    let (files, bytes) = fetched.map_err(|error| anyhow::anyhow!(told(&error)))?;
    tracing::info!(
        uri,
        files,
        bytes,
        millis = start.elapsed().as_millis(),
        "model fetched"
    );
    Ok(())
}

/// What was tried, what failed, and the cause at the bottom, in one line: the client of a storage wraps an error many times
/// and says the same at each level.
fn told(error: &anyhow::Error) -> String {
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    let mut text = chain.iter().take(2).cloned().collect::<Vec<_>>().join(": ");
    if let Some(root) = chain.last().filter(|root| !text.contains(root.as_str())) {
        text.push_str(": ");
        text.push_str(root);
    }
    text.split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

async fn fetch_from(uri: &str, target: &Path) -> anyhow::Result<(usize, u64)> {
    std::fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    if let Some(path) = uri.strip_prefix("file://") {
        return copy_local(Path::new(path), target);
    }
    ensure!(!uri.starts_with("pvc://"), "a claim is mounted, not fetched");
    let (blob, key) = ferroflow_blob::resolve(uri, &Options::from_env(std::env::vars()))?;
    let key = key.trim_end_matches('/').to_owned();
    let is_web = uri.starts_with("http://") || uri.starts_with("https://");
    if !key.is_empty() {
        match patient(blob.head(&key)).await {
            Ok(info) => {
                let name = key.rsplit('/').next().unwrap_or(&key);
                let file = inside(target, name)?;
                download(&blob, &info, &file).await?;
                if is_web {
                    unpack(&file, target)?;
                }
                return Ok((1, info.size));
            }
            Err(error) if matches!(error.downcast_ref(), Some(BlobError::NotFound { .. })) && !is_web => {}
            Err(error) => return Err(error),
        }
    }
    let prefix = if key.is_empty() {
        String::new()
    } else {
        format!("{key}/")
    };
    let mut objects = Vec::new();
    let mut query = ListQuery {
        prefix: prefix.clone(),
        limit: 1000,
        ..ListQuery::default()
    };
    loop {
        let page = patient(blob.list(query.clone())).await?;
        objects.extend(page.objects);
        match page.next {
            Some(after) => query.after = Some(after),
            None => break,
        }
    }
    // Some tools leave an empty object to stand for a folder.
    objects.retain(|info| !info.key.ends_with('/'));
    ensure!(
        !objects.is_empty(),
        "there is no object {key:?} and none below {prefix:?}"
    );
    let copies = objects.iter().map(|info| {
        let blob = blob.clone();
        let name = info.key.strip_prefix(&prefix).unwrap_or(&info.key);
        let file = inside(target, name);
        async move { download(&blob, info, &file?).await.map(|()| info.size) }
    });
    let sizes: Vec<u64> = futures::stream::iter(copies)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok((sizes.len(), sizes.iter().sum()))
}

async fn patient<T>(call: impl Future<Output = Result<T, BlobError>>) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => bail!("the storage did not answer within {} s", PATIENCE.as_secs()),
    }
}

/// A file below the target, never beside it.
fn inside(target: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let relative = Path::new(name);
    let plain = relative
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    ensure!(
        plain && !name.is_empty(),
        "key {name:?} would leave the model folder"
    );
    Ok(target.join(relative))
}

async fn download(blob: &Arc<dyn Blob>, info: &ObjectInfo, file: &Path) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder)
            .await
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut reading = patient(blob.get(&info.key, None)).await?;
    let write = || format!("cannot write {}", file.display());
    let mut out = tokio::fs::File::create(file).await.with_context(write)?;
    let mut written = 0u64;
    loop {
        let chunk = tokio::time::timeout(PATIENCE, reading.body.next()).await;
        let Ok(chunk) = chunk else {
            bail!("{:?} stopped coming for {} s", info.key, PATIENCE.as_secs())
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk?;
        written += chunk.len() as u64;
        out.write_all(&chunk).await.with_context(write)?;
    }
    out.flush().await.with_context(write)?;
    let expected = reading.range.end - reading.range.start;
    ensure!(
        written == expected,
        "{:?} has {expected} bytes, but {written} came",
        info.key
    );
    Ok(())
}

fn copy_local(from: &Path, target: &Path) -> anyhow::Result<(usize, u64)> {
    let read = || format!("cannot read {}", from.display());
    let meta = std::fs::metadata(from).with_context(|| {
        let hint = "a Pod has a /tmp of its own; use another folder, or upload it and use its s3:// URI";
        let own = if from.starts_with("/tmp") {
            format!(" ({hint})")
        } else {
            String::new()
        };
        format!("cannot read {}{own}", from.display())
    })?;
    if meta.is_file() {
        let Some(name) = from.file_name() else {
            bail!("{} has no name", from.display())
        };
        let bytes = std::fs::copy(from, target.join(name)).with_context(read)?;
        return Ok((1, bytes));
    }
    let (mut files, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(from).with_context(read)? {
        let entry = entry.with_context(read)?;
        let path = entry.path();
        let into = if path.is_dir() {
            target.join(entry.file_name())
        } else {
            target.to_path_buf()
        };
        std::fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
        let (more, size) = copy_local(&path, &into)?;
        files += more;
        bytes += size;
    }
    Ok((files, bytes))
}

/// Unpacks an archive by its name and removes it; other files stay as they are.
fn unpack(file: &Path, target: &Path) -> anyhow::Result<()> {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    let open = || std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()));
    let context = || format!("{name} does not unpack");
    // Both crates refuse entries that would leave the target.
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        tar::Archive::new(flate2::read::GzDecoder::new(open()?))
            .unpack(target)
            .with_context(context)?;
    } else if name.ends_with(".tar") {
        tar::Archive::new(open()?).unpack(target).with_context(context)?;
    } else if name.ends_with(".zip") {
        zip::ZipArchive::new(open()?)
            .with_context(context)?
            .extract(target)
            .with_context(context)?;
    } else {
        return Ok(());
    }
    std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_and_a_folder_are_copied() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("sub")).unwrap();
        std::fs::write(from.path().join("model.json"), "{}").unwrap();
        std::fs::write(from.path().join("sub/x"), "xx").unwrap();
        let uri = format!("file://{}", from.path().display());
        assert_eq!(fetch_from(&uri, to.path()).await.unwrap(), (2, 4));
        assert_eq!(std::fs::read_to_string(to.path().join("sub/x")).unwrap(), "xx");
        let one = tempfile::tempdir().unwrap();
        assert_eq!(
            fetch_from(&format!("{uri}/model.json"), one.path())
                .await
                .unwrap(),
            (1, 2)
        );
    }

    #[tokio::test]
    async fn what_is_not_there_is_told() {
        let to = tempfile::tempdir().unwrap();
        let error = fetch("file:///nowhere/model", to.path())
            .await
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "cannot fetch file:///nowhere/model: cannot read /nowhere/model: No such file or directory (os error 2)"
        );
        let error = fetch("ftp://x/y", to.path()).await.unwrap_err().to_string();
        assert!(
            error.contains("cannot fetch ftp://x/y") && error.contains("is not known"),
            "{error}"
        );
    }

    #[test]
    fn keys_do_not_leave_the_folder() {
        assert!(inside(Path::new("/m"), "a/b").is_ok());
        for bad in ["../a", "/etc/x", "a/../../b", ""] {
            assert!(inside(Path::new("/m"), bad).is_err(), "{bad}");
        }
    }
}
