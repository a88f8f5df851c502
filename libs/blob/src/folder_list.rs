//! Listing a folder in the byte order of its keys, without reading more folders than the page needs.
//!
//! A folder `a` sorts as `a/`, so `a-b` and `a.txt` come before what lies in `a`, as in S3.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::folder::describe;
use crate::{BlobError, ListPage, ListQuery, STAGING};

/// One page of the files below `root`.
pub(crate) fn list_folder(root: &Path, query: &ListQuery) -> Result<ListPage, BlobError> {
    let mut walk = Walk {
        query,
        page: ListPage::default(),
        more: false,
    };
    if query.limit > 0 {
        let base = query
            .prefix
            .rfind('/')
            .map_or("", |slash| &query.prefix[..=slash]);
        walk.folder(&root.join(base), base)?;
    }
    if walk.more {
        let object = walk.page.objects.last().map(|object| object.key.clone());
        let prefix = walk.page.prefixes.last().cloned();
        walk.page.next = object.max(prefix);
    }
    Ok(walk.page)
}

struct Walk<'a> {
    query: &'a ListQuery,
    page: ListPage,
    more: bool,
}

impl Walk<'_> {
    fn full(&self) -> bool {
        self.page.objects.len() + self.page.prefixes.len() >= self.query.limit
    }

    /// Does all that begins with `folder` come at or before the place where the page starts?
    fn behind(&self, folder: &str) -> bool {
        self.query
            .after
            .as_deref()
            .is_some_and(|after| after >= folder && !after.starts_with(folder))
    }

    /// Walks one folder; `base` is its key with a slash at the end, or empty. Stops when `more` is set.
    fn folder(&mut self, path: &Path, base: &str) -> Result<(), BlobError> {
        for name in names(path, base)? {
            let key = format!("{base}{name}");
            let is_folder = key.ends_with('/');
            let fits =
                key.starts_with(&self.query.prefix) || (is_folder && self.query.prefix.starts_with(&key));
            if !fits || (is_folder && self.behind(&key)) {
                continue;
            }
            if is_folder {
                let child = path.join(name.trim_end_matches('/'));
                let joined =
                    self.query.folders && key.starts_with(&self.query.prefix) && key != self.query.prefix;
                if !joined {
                    self.folder(&child, &key)?;
                } else if self
                    .query
                    .after
                    .as_deref()
                    .is_none_or(|after| after < key.as_str())
                    && occupied(&child)?
                {
                    if self.full() {
                        self.more = true;
                        return Ok(());
                    }
                    self.page.prefixes.push(key);
                }
            } else if self
                .query
                .after
                .as_deref()
                .is_none_or(|after| after < key.as_str())
            {
                if self.full() {
                    self.more = true;
                    return Ok(());
                }
                // it may have been deleted since the folder was read
                let found = fs::metadata(path.join(&name))
                    .ok()
                    .and_then(|metadata| describe(&key, &metadata).ok());
                self.page.objects.extend(found);
            }
            if self.more {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Names in a folder, in order; those of folders end with a slash.
fn names(path: &Path, base: &str) -> Result<Vec<String>, BlobError> {
    let entries = match fs::read_dir(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(|error| BlobError::io(base, error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| BlobError::io(base, error))?;
        // what has no UTF-8 name was not written here and cannot be addressed
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        if base.is_empty() && name == STAGING {
            continue;
        }
        let kind = entry.file_type().map_err(|error| BlobError::io(base, error))?;
        let folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        if folder {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// Is there any file below?
fn occupied(path: &Path) -> Result<bool, BlobError> {
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
