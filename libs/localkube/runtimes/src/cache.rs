//! The folder that environments live in: locks, atomic placement, cheap copies.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};

/// Layout of the cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Uses `root`, made if needed.
    pub fn open(root: &Path) -> io::Result<Self> {
        for folder in ["envs", "layers", "locks", "tmp", "builtin", "stubs"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self {
            root: root.canonicalize()?,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of an environment.
    pub fn environment(&self, key: &str) -> PathBuf {
        self.root.join("envs").join(key)
    }

    /// The file that says which environment a set of packages on top of another gives.
    pub fn layer(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(key)
    }

    /// A path for something unfinished; left-overs of killed builds are removed by [`Cache::sweep`].
    pub fn unfinished(&self, name: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        self.root
            .join("tmp")
            .join(format!("{name}.{}.{serial}", std::process::id()))
    }

    /// Holds a lock across processes until it is dropped.
    pub fn lock(&self, name: &str) -> io::Result<Flock<File>> {
        lock_file(&self.root.join("locks").join(name))
    }

    /// Removes what builds that were killed left behind: unfinished folders older than a day.
    pub fn sweep(&self) {
        let day = std::time::Duration::from_secs(24 * 3600);
        for entry in std::fs::read_dir(self.root.join("tmp"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let old = entry
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|t| t.elapsed().is_ok_and(|age| age > day));
            if old {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Locks a file, made if needed, for this process alone.
pub fn lock_file(path: &Path) -> io::Result<Flock<File>> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o644)
        .open(path)?;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((f, nix::errno::Errno::EINTR)) => file = f,
            Err((_, e)) => return Err(e.into()),
        }
    }
}

/// Writes a whole file so that readers see the old or the new one.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(
        ".{}.{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    drop(file);
    std::fs::rename(&beside, path)
}

/// Copies a tree by hard links, so that it costs no space; symbolic links are copied as such.
///
/// Safe for trees whose files are only ever replaced, never written in place. Falls back to copying across file systems.
pub fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(std::fs::read_link(entry.path())?, &target)?;
        } else if std::fs::hard_link(entry.path(), &target).is_err() {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Makes `to` show the files of `from` by symbolic links inside folders of its own, so that new files may be put beside them.
pub fn mirror_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            mirror_tree(&entry.path(), &target)?;
        } else {
            replace_symlink(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Points `link` at `target`, whatever it was.
pub fn replace_symlink(target: &Path, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::read_link(link).is_ok_and(|t| t == target) {
                return Ok(());
            }
            std::fs::remove_file(link)?;
            symlink(target, link)
        }
        other => other,
    }
}

/// What identifies the installed distributions of a packages folder: names, versions and the files that record them.
pub fn distributions(site_packages: &Path) -> Vec<(String, u64)> {
    let mut list: Vec<(String, u64)> = std::fs::read_dir(site_packages)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if !(name.ends_with(".dist-info") || name.ends_with(".egg-link") || name.ends_with(".egg-info")) {
                return None;
            }
            let inode = std::fs::metadata(entry.path().join("METADATA"))
                .or_else(|_| entry.metadata())
                .map_or(0, |m| m.ino());
            Some((name, inode))
        })
        .collect();
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_tree_is_independent_of_replacements() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(a.join("x")).unwrap();
        std::fs::write(a.join("x/f"), "one").unwrap();
        symlink("x/f", a.join("l")).unwrap();
        link_tree(&a, &b).unwrap();
        write_atomically(&b.join("x/f"), b"two").unwrap();
        assert_eq!(std::fs::read_to_string(a.join("x/f")).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(b.join("l")).unwrap(), "two");
    }

    #[test]
    fn a_lock_is_exclusive_between_handles() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let held = cache.lock("k").unwrap();
        let other = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("locks/k"))
            .unwrap();
        assert!(Flock::lock(other, FlockArg::LockExclusiveNonblock).is_err());
        drop(held);
        let other = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("locks/k"))
            .unwrap();
        assert!(Flock::lock(other, FlockArg::LockExclusiveNonblock).is_ok());
    }
}
