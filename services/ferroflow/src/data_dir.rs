//! The folder that holds all state: private, of a known version, and used by one Ferroflow at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::failure::usage;

/// Version of the folder's layout.
const VERSION: u32 = 1;

/// A data folder that is locked for this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the folder, makes it where it is missing, and locks it.
    ///
    /// # Errors
    /// If it cannot be written, is of a newer version, or is in use.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let shown = root.display();
        let unwritable = |error: std::io::Error| {
            usage(format!(
                "data folder {shown} is not writable: {error}; choose another with --data-dir or change its owner"
            ))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(unwritable)?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(unwritable)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root.join("run"))
            .map_err(unwritable)?;
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(root.join("run/lock"))
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(usage(format!(
                    "data folder {shown} is in use by another ferroflow; stop it, or choose another with --data-dir"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        check_version(root)?;
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    /// A path inside the folder.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// A folder inside, made where it is missing.
    pub(crate) fn folder(&self, inside: &str) -> std::io::Result<PathBuf> {
        let path = self.path(inside);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Writes a private file as a whole or not at all.
    pub(crate) fn write(&self, inside: &str, content: &[u8]) -> std::io::Result<()> {
        write_private(&self.path(inside), content)
    }
}

/// Makes the folder of Python environments, and makes sure that they can be built there.
pub(crate) fn cache(folder: &Path) -> anyhow::Result<()> {
    let file = folder.join(format!(".writable-{}", std::process::id()));
    let tried = DirBuilder::new()
        .recursive(true)
        .create(folder)
        .and_then(|()| fs::write(&file, ""))
        .and_then(|()| fs::remove_file(&file));
    tried.map_err(|error| {
        usage(format!(
            "cache folder {} cannot be written: {error}; make it writable, or choose another with --cache-dir",
            folder.display()
        ))
    })
}

fn check_version(root: &Path) -> anyhow::Result<()> {
    let file = root.join("version");
    match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(write_private(&file, format!("{VERSION}\n").as_bytes())?)
        }
        Err(error) => Err(usage(format!("{}: {error}; make it readable", file.display()))),
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found <= VERSION => Ok(()),
            Ok(found) => Err(usage(format!(
                "data folder {} has version {found}, newer than {VERSION} of this ferroflow ({}); use a newer ferroflow or another --data-dir",
                root.display(),
                ferroflow_kernel::VERSION
            ))),
            Err(_) => Err(usage(format!(
                "{}: {:?} is no version number; is {} the data folder of a ferroflow? choose another with --data-dir",
                file.display(),
                text.trim(),
                root.display()
            ))),
        },
    }
}

fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ferroflow_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let first = DataDir::open(&root).unwrap();
        let second = DataDir::open(&root).unwrap_err().to_string();
        assert!(
            second.contains("is in use by another ferroflow; stop it"),
            "{second}"
        );
        drop(first);
        DataDir::open(&root).unwrap();
    }

    #[test]
    fn the_folder_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let _data = DataDir::open(&root).unwrap();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_newer_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "99\n").unwrap();
        let error = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has version 99, newer than 1"), "{error}");
    }
}
