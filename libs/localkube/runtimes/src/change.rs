//! What a `pip` command asks to change, and what names the result.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::packages::{Indexes, Requirement};

/// Bumped when environments are laid out differently.
pub const FORMAT: u32 = 1;

/// What `pip install` or `pip uninstall` asks for.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub requirements: Vec<Requirement>,
    /// Folders or repositories to install as links (`-e`); an environment with one is never shared.
    pub editables: Vec<String>,
    /// Requirement files (`-r`) and constraint files (`-c`).
    pub requirement_files: Vec<PathBuf>,
    pub constraint_files: Vec<PathBuf>,
    pub uninstall: bool,
    pub no_deps: bool,
    pub upgrade: bool,
    /// Further options, as `uv` spells them.
    pub options: Vec<String>,
    pub indexes: Indexes,
}

impl Change {
    /// Installs these requirements, written as for pip.
    pub fn install(requirements: &[String], indexes: Indexes) -> Self {
        let requirements = requirements
            .iter()
            .map(|r| Requirement::parse(r, Path::new("/")))
            .collect();
        Self {
            requirements,
            indexes,
            ..Self::default()
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && self.requirement_files.is_empty() && self.editables.is_empty()
    }

    /// What names the result on top of `parent`; `None` when the same change may give something else tomorrow.
    pub fn key(&self, parent: &str) -> Option<String> {
        if !self.editables.is_empty() {
            return None;
        }
        let mut requirements = self
            .requirements
            .iter()
            .map(Requirement::identity)
            .collect::<Option<Vec<_>>>()?;
        requirements.sort();
        requirements.dedup();
        let file = |f: &PathBuf| file_identity(f, 0);
        let files = self
            .requirement_files
            .iter()
            .map(file)
            .collect::<Option<Vec<_>>>()?;
        let constraints = self
            .constraint_files
            .iter()
            .map(file)
            .collect::<Option<Vec<_>>>()?;
        // the newest version is looked for once a day
        let day = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() / 86_400);
        let day = self.upgrade.then_some(day);
        let what = (
            FORMAT,
            parent,
            requirements,
            files,
            constraints,
            self.uninstall,
            self.no_deps,
            day,
            &self.options,
            &self.indexes,
        );
        Some(digest(&what))
    }

    /// Requirements and options for `uv pip install` or `uninstall`.
    pub fn arguments(&self) -> Vec<String> {
        let mut out: Vec<String> = self.requirements.iter().map(Requirement::argument).collect();
        for (flag, files) in [("-r", &self.requirement_files), ("-c", &self.constraint_files)] {
            out.extend(
                files
                    .iter()
                    .flat_map(|f| [flag.to_owned(), f.display().to_string()]),
            );
        }
        if self.uninstall {
            return out;
        }
        out.extend(
            self.editables
                .iter()
                .flat_map(|e| ["--editable".to_owned(), e.clone()]),
        );
        out.extend(self.indexes.arguments());
        if self.no_deps {
            out.push("--no-deps".to_owned());
        }
        if self.upgrade && self.requirement_files.is_empty() {
            // pip upgrades what is named and leaves its dependencies where they satisfy
            out.extend(
                self.requirements
                    .iter()
                    .filter_map(Requirement::name)
                    .flat_map(|n| ["--upgrade-package".to_owned(), n.to_owned()]),
            );
        } else if self.upgrade {
            out.push("--upgrade".to_owned());
        }
        out.extend(self.options.iter().cloned());
        out
    }
}

/// A short name for a value.
pub fn digest<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    blake3::hash(&text).to_hex()[..32].to_owned()
}

/// Digest of a requirements file with the files it includes; `None` if it names something that may change.
fn file_identity(path: &Path, depth: usize) -> Option<String> {
    let text = std::fs::read_to_string(path).ok().filter(|_| depth < 8)?;
    let base = path.parent().unwrap_or(Path::new("/"));
    let mut all = String::new();
    for line in text
        .lines()
        .map(|l| l.split(" #").next().unwrap_or(l).trim())
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        if line.starts_with("-e") || line.starts_with("--editable") {
            return None;
        }
        let included = ["-r", "--requirement", "-c", "--constraint"]
            .iter()
            .find_map(|f| line.strip_prefix(f));
        if let Some(file) = included {
            all.push_str(&file_identity(
                &base.join(file.trim_start_matches(['=', ' '])),
                depth + 1,
            )?);
        } else if line.starts_with('-') {
            all.push_str(line);
        } else {
            all.push_str(&Requirement::parse(line, base).identity()?);
        }
        all.push('\n');
    }
    Some(blake3::hash(all.as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(list: &[&str]) -> Change {
        Change::install(
            &list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            Indexes::default(),
        )
    }

    #[test]
    fn a_key_depends_on_what_is_asked_and_not_on_its_order() {
        let key = |c: &Change| c.key("p").unwrap();
        assert_eq!(
            key(&install(&["numpy", "Kfp == 2"])),
            key(&install(&["kfp==2", "numpy"]))
        );
        assert_ne!(key(&install(&["numpy"])), key(&install(&["numpy<2"])));
        assert_ne!(
            key(&install(&["numpy"])),
            key(&Change {
                no_deps: true,
                ..install(&["numpy"])
            })
        );
        assert_ne!(install(&["numpy"]).key("p"), install(&["numpy"]).key("q"));
        let indexes = Indexes {
            index_url: Some("https://x/simple".to_owned()),
            ..Default::default()
        };
        assert_ne!(
            key(&install(&["numpy"])),
            key(&Change {
                indexes,
                ..install(&["numpy"])
            })
        );
        assert!(install(&["git+https://x/y.git"]).key("p").is_none());
    }

    #[test]
    fn a_requirements_file_counts_by_content() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.txt"), dir.path().join("b.txt"));
        std::fs::write(&a, "# note\nnumpy\n-r b.txt\n").unwrap();
        std::fs::write(&b, "kfp\n").unwrap();
        let before = file_identity(&a, 0).unwrap();
        std::fs::write(&b, "kfp # same\n").unwrap();
        assert_eq!(file_identity(&a, 0).unwrap(), before);
        std::fs::write(&b, "kfp<2\n").unwrap();
        assert_ne!(file_identity(&a, 0).unwrap(), before);
        std::fs::write(&b, "-e .\n").unwrap();
        assert_eq!(file_identity(&a, 0), None);
    }
}
