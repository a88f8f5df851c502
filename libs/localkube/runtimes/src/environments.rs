//! Python environments: built once under a lock, addressed by their content, never changed afterwards.
//!
//! The base of an interpreter is empty. Every change (packages added or removed) on top of an environment gives another one: a
//! copy by hard links in which `uv` makes the change. `layers/<key of parent and change>` remembers which, so a change
//! that was made before costs one small read, and one that changes nothing leads back to its parent.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::change::{Change, FORMAT, digest};
use crate::interpreters::Interpreter;
use crate::packages::Requirement;
use crate::uv::Uv;

/// A finished environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub key: String,
    pub dir: PathBuf,
}

impl Environment {
    /// Names and versions of what is installed, e.g. `("numpy", "2.1.0")`.
    pub fn distributions(&self, python: &Interpreter) -> Vec<(String, String)> {
        cache::distributions(&self.dir.join(python.site_packages()))
            .into_iter()
            .filter_map(|(folder, _)| {
                let (name, version) = folder.strip_suffix(".dist-info")?.split_once('-')?;
                Some((name.to_owned(), version.to_owned()))
            })
            .collect()
    }
}

/// Why an environment cannot be built; the text is for users, its last line says what is wrong in pip's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub String);

/// Builds environments in a cache.
pub struct Environments<'a> {
    pub cache: &'a Cache,
    pub python: &'a Interpreter,
    /// `uv`, or why there is none.
    pub uv: Result<&'a Uv, &'a str>,
}

impl Environments<'_> {
    /// The empty environment of the interpreter.
    pub fn base(&self) -> Result<Environment, BuildError> {
        let Environment { key, dir } = self.base_environment();
        if !dir.is_dir() {
            let _lock = self.cache.lock(&key).map_err(io_error)?;
            if !dir.is_dir() {
                let unfinished = self.cache.unfinished(&key);
                self.skeleton(&unfinished).map_err(io_error)?;
                std::fs::rename(&unfinished, &dir).map_err(io_error)?;
            }
        }
        Ok(Environment { key, dir })
    }

    /// What [`Environments::apply`] gives for these changes in turn, if all of it is there already.
    pub fn known(&self, changes: &[Change]) -> Option<Environment> {
        let environment = self.base_environment();
        let start = environment.dir.is_dir().then_some(environment);
        changes.iter().try_fold(start?, |environment, change| {
            self.lookup(&change.key(&environment.key)?)
        })
    }

    fn base_environment(&self) -> Environment {
        let key = format!("{}-{}", self.python.version(), digest(&(FORMAT, self.python)));
        let dir = self.cache.environment(&key);
        Environment { key, dir }
    }

    /// Makes `change` on top of `parent`, or finds it made. What must not be shared is built under `private`.
    /// `say` gets the lines that `uv` prints while it works.
    pub fn apply(
        &self,
        parent: &Environment,
        change: &Change,
        private: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<Environment, BuildError> {
        // a private environment's path may be another one's tomorrow, so nothing on top of it is shared either
        let shared = parent.dir.starts_with(self.cache.root());
        let Some(layer) = change.key(&parent.key).filter(|_| shared) else {
            return self.apply_privately(parent, change, private, say);
        };
        if let Some(known) = self.lookup(&layer) {
            return Ok(known);
        }
        let _lock = self.cache.lock(&layer).map_err(io_error)?;
        if let Some(known) = self.lookup(&layer) {
            return Ok(known);
        }
        let unfinished = self.cache.unfinished(&layer);
        let built = self.build(parent, change, &unfinished, say).and_then(|changed| {
            if !changed {
                return Ok(parent.clone());
            }
            let environment = Environment {
                key: layer.clone(),
                dir: self.cache.environment(&layer),
            };
            if environment.dir.exists() {
                // left by a process that ended between the two steps below
                std::fs::remove_dir_all(&environment.dir).map_err(io_error)?;
            }
            std::fs::rename(&unfinished, &environment.dir).map_err(io_error)?;
            Ok(environment)
        });
        if unfinished.exists() {
            let _ = std::fs::remove_dir_all(&unfinished);
        }
        let built = built?;
        cache::write_atomically(&self.cache.layer(&layer), built.key.as_bytes()).map_err(io_error)?;
        Ok(built)
    }

    fn apply_privately(
        &self,
        parent: &Environment,
        change: &Change,
        private: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<Environment, BuildError> {
        std::fs::create_dir_all(private).map_err(io_error)?;
        let serial = std::fs::read_dir(private).map_err(io_error)?.count();
        let dir = private.join(serial.to_string());
        match self.build(parent, change, &dir, say) {
            Ok(true) => Ok(Environment {
                key: format!("private:{}", dir.display()),
                dir,
            }),
            Ok(false) => {
                let _ = std::fs::remove_dir_all(&dir);
                Ok(parent.clone())
            }
            Err(e) => {
                let _ = std::fs::remove_dir_all(&dir);
                Err(e)
            }
        }
    }

    fn lookup(&self, layer: &str) -> Option<Environment> {
        let key = std::fs::read_to_string(self.cache.layer(layer)).ok()?;
        let dir = self.cache.environment(&key);
        dir.is_dir().then_some(Environment { key, dir })
    }

    /// Says whether the environment differs from its parent.
    fn build(
        &self,
        parent: &Environment,
        change: &Change,
        dir: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<bool, BuildError> {
        let uv = self.uv.map_err(|e| BuildError(e.to_owned()))?;
        self.skeleton(dir).map_err(io_error)?;
        copy_contents(&parent.dir, dir).map_err(io_error)?;
        let site_packages = dir.join(self.python.site_packages());
        let before = cache::distributions(&site_packages);
        let mut command = uv.pip(
            if change.uninstall { "uninstall" } else { "install" },
            &dir.join("bin/python3"),
        );
        if !change.uninstall {
            command.args(["--link-mode", "hardlink", "--compile-bytecode"]);
        }
        command
            .args(change.arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let failed = |e: std::io::Error| BuildError(format!("{}: {e}", uv.exe.display()));
        let mut child = command.spawn().map_err(failed)?;
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if !line.starts_with("Using Python ") {
                    say(&line);
                    let _ = writeln!(said, "{line}");
                }
            }
        }
        if !child.wait().map_err(failed)?.success() {
            return Err(BuildError(explain(&said, change)));
        }
        rewrite_shebangs(&dir.join("bin"), dir).map_err(io_error)?;
        Ok(cache::distributions(&site_packages) != before)
    }

    fn skeleton(&self, dir: &Path) -> std::io::Result<()> {
        write_skeleton(dir, self.python)
    }
}

/// An empty virtual environment, as `python3 -m venv --without-pip` lays it out.
pub fn write_skeleton(dir: &Path, python: &Interpreter) -> std::io::Result<()> {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(dir.join(python.site_packages()))?;
    let home = python.exe.parent().unwrap_or(Path::new("/usr/bin"));
    let config = format!(
        "home = {}\nimplementation = CPython\nversion_info = {}\nversion = {}\ninclude-system-site-packages = false\nexecutable = {}\n",
        home.display(),
        python.version(),
        python.version(),
        python.exe.display()
    );
    std::fs::write(dir.join("pyvenv.cfg"), config)?;
    for name in [
        "python3".to_owned(),
        "python".to_owned(),
        format!("python{}.{}", python.major, python.minor),
    ] {
        symlink(&python.exe, bin.join(name))?;
    }
    Ok(())
}

/// Copies what was installed: packages by hard links, scripts (which are rewritten in place) by value.
fn copy_contents(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_name().to_str() {
            Some("pyvenv.cfg" | "lib64") => {}
            Some("bin") => {
                for script in std::fs::read_dir(entry.path())? {
                    let script = script?;
                    if script.file_type()?.is_file() {
                        std::fs::copy(script.path(), target.join(script.file_name()))?;
                    }
                }
            }
            _ if entry.file_type()?.is_dir() => cache::link_tree(&entry.path(), &target)?,
            _ => {}
        }
    }
    Ok(())
}

/// Scripts name the interpreter of the folder they were built in; they are to run on the one that is first on `PATH`, the
/// container's.
fn rewrite_shebangs(bin: &Path, built_in: &Path) -> std::io::Result<()> {
    let marker = built_in.display().to_string();
    for entry in std::fs::read_dir(bin)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let bytes = std::fs::read(entry.path())?;
        if !bytes.starts_with(b"#!") {
            continue;
        }
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let mut lines: Vec<&str> = text.split('\n').collect();
        let first = lines.first().copied().unwrap_or_default();
        if first.contains(&marker) {
            lines[0] = "#!/usr/bin/env python3";
        } else if lines
            .get(1)
            .is_some_and(|l| l.starts_with("'''exec'") && l.contains(&marker))
        {
            lines[1] = "'''exec' python3 \"$0\" \"$@\"";
        } else {
            continue;
        }
        let permissions = entry.metadata()?.permissions();
        let text = lines.join("\n");
        cache::write_atomically(&entry.path(), text.as_bytes())?;
        std::fs::set_permissions(entry.path(), permissions)?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn io_error(e: std::io::Error) -> BuildError {
    BuildError(format!(
        "python environment cache: {e}; check that the cache folder is writable and has space"
    ))
}

/// Ends what `uv` said with a line that says it in pip's words.
fn explain(said: &str, change: &Change) -> String {
    let flat = said
        .split_whitespace()
        .filter(|w| !matches!(*w, "│" | "×" | "╰─▶"))
        .collect::<Vec<_>>()
        .join(" ");
    let wanted = || {
        change
            .requirements
            .iter()
            .map(Requirement::argument)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let between = |a: &str, b: &str| {
        let start = flat.find(a)? + a.len();
        flat[start..]
            .find(b)
            .map(|end| flat[start..start + end].to_owned())
    };
    let not_word = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let missing = between("Because ", " was not found")
        .or_else(|| between("there is no version of ", " and "))
        .or_else(|| between("there are no versions of ", " and "))
        .or_else(|| {
            between("only the following versions of ", " are available")
                .or_else(|| between("Because only ", " is available"))
        })
        .filter(|name| !name.contains(' '));
    let last = if let Some(name) = missing {
        let given = change.requirements.iter().find(|r| {
            let bare = |t: &str| {
                t.split(not_word)
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase()
                    .replace(['_', '.'], "-")
            };
            bare(&r.argument()) == bare(&name)
        });
        let name = given.map_or(name, Requirement::argument);
        format!(
            "check the name and version of {name}, and the index it is looked for in (--index-url)\nERROR: No matching distribution found for {name}"
        )
    } else if flat.contains("Failed to fetch")
        || flat.contains("error sending request")
        || flat.contains("dns error")
    {
        format!(
            "the package index cannot be reached; check the network or set PIP_INDEX_URL\nERROR: Could not fetch {}",
            wanted()
        )
    } else {
        format!("ERROR: Could not install {}", wanted())
    };
    format!("{}\n{last}", said.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::Indexes;

    fn install(list: &[&str]) -> Change {
        Change::install(
            &list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            Indexes::default(),
        )
    }

    #[test]
    fn uvs_answers_end_in_pips_words() {
        let last =
            |said: &str, list: &[&str]| explain(said, &install(list)).lines().last().unwrap().to_owned();
        let said = "  × No solution found when resolving dependencies:\n  ╰─▶ Because no-such-thing was not found in the package\n      registry and you require no-such-thing, we can conclude\n      that your requirements are unsatisfiable.\n";
        assert_eq!(
            last(said, &["No_Such-Thing"]),
            "ERROR: No matching distribution found for no-such-thing"
        );
        let said = "× No solution found\n ╰─▶ Because there is no version of numpy==999 and you require numpy==999, we can conclude";
        assert_eq!(
            last(said, &["numpy==999"]),
            "ERROR: No matching distribution found for numpy==999"
        );
        assert_eq!(last("error: boom", &["a", "b"]), "ERROR: Could not install a, b");
    }
}
