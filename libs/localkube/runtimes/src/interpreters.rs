//! The Python interpreters of this machine.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The oldest Python that today's SDKs accept.
pub const OLDEST: (u32, u32) = (3, 10);

const QUERY: &str = "import sys,os,json;print(json.dumps({'exe':os.path.realpath(getattr(sys,'_base_executable',None) or sys.executable),\
'major':sys.version_info[0],'minor':sys.version_info[1],'micro':sys.version_info[2],'implementation':sys.implementation.name}))";

/// A Python that runs here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interpreter {
    /// The real executable, never one of a virtual environment or a version manager's shim.
    pub exe: PathBuf,
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
    pub implementation: String,
}

impl Interpreter {
    /// `3.11.7`.
    pub fn version(&self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.micro)
    }

    /// Folder of packages inside an environment, e.g. `lib/python3.11/site-packages`.
    pub fn site_packages(&self) -> PathBuf {
        PathBuf::from(format!("lib/python{}.{}/site-packages", self.major, self.minor))
    }

    fn minor_version(&self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

/// What was chosen for a wish, and what to tell the user about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub interpreter: Interpreter,
    pub warning: Option<String>,
}

/// Chooses for a wished version such as `3.11` (`None`: the first, which is the machine's own).
///
/// A version that is not installed gets the closest one that is, the newer of two that are as close.
pub fn choose(installed: &[Interpreter], wish: Option<&str>) -> Result<Choice, String> {
    let usable: Vec<&Interpreter> = installed.iter().filter(|i| i.minor_version() >= OLDEST).collect();
    let Some(first) = usable.first() else {
        return Err(format!(
            "no python {}.{} or newer on PATH; install one, then start the Pod again",
            OLDEST.0, OLDEST.1
        ));
    };
    let mut numbers = wish
        .unwrap_or_default()
        .split('.')
        .map_while(|n| n.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Ok(Choice {
            interpreter: (*first).clone(),
            warning: None,
        });
    };
    let distance = |i: &Interpreter| {
        (
            i.major.abs_diff(major),
            i.minor.abs_diff(minor),
            std::cmp::Reverse(i.minor),
        )
    };
    let interpreter = usable
        .iter()
        .min_by_key(|i| distance(i))
        .map_or(*first, |i| *i)
        .clone();
    let warning = (interpreter.minor_version() != (major, minor)).then(|| {
        format!(
            "python {major}.{minor} is not installed on this machine; using {} ({})",
            interpreter.version(),
            interpreter.exe.display()
        )
    });
    Ok(Choice { interpreter, warning })
}

/// Remembers what an executable answered, by size and time of change.
#[derive(Default, Serialize, Deserialize)]
struct Known(BTreeMap<String, Option<Interpreter>>);

/// Asks the machine for its interpreters, in the order of `PATH` and then of the folders where version managers keep theirs.
///
/// `memory` is a file that makes the next call cheap.
pub fn discover(memory: &Path) -> Vec<Interpreter> {
    let known: Known = std::fs::read(memory)
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let mut now = Known::default();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for candidate in candidates() {
        let key = fingerprint(&candidate);
        let answer = match known.0.get(&key) {
            Some(answer) => answer.clone(),
            None => query(&candidate),
        };
        // what a shim runs may change while the shim stays the same
        if !is_shim(&candidate) {
            now.0.insert(key, answer.clone());
        }
        if let Some(interpreter) = answer
            && interpreter.exe.exists()
            && seen.insert(interpreter.exe.clone())
        {
            found.push(interpreter);
        }
    }
    if now.0 != known.0
        && let Ok(bytes) = serde_json::to_vec(&now)
    {
        // only speed is lost without it
        let _ = crate::cache::write_atomically(memory, &bytes);
    }
    found
}

fn is_shim(path: &Path) -> bool {
    path.parent()
        .and_then(Path::file_name)
        .is_some_and(|n| n == "shims")
}

fn fingerprint(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::metadata(path)
        .map(|m| (m.len(), m.mtime(), m.mtime_nsec()))
        .unwrap_or_default();
    format!("{}|{}|{}.{}", path.display(), stat.0, stat.1, stat.2)
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |file: PathBuf| {
        if file.is_file() && seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
            list.push(file);
        }
    };
    if let Some(first) = folders.iter().map(|f| f.join("python3")).find(|f| f.is_file()) {
        add(first);
    }
    for folder in folders
        .iter()
        .filter(|f| f.file_name().is_none_or(|n| n != "shims"))
    {
        for minor in OLDEST.1..OLDEST.1 + 8 {
            add(folder.join(format!("python3.{minor}")));
        }
        add(folder.join("python3"));
    }
    if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
        for managed in [
            ".pyenv/versions",
            ".local/share/uv/python",
            ".local/share/mise/installs/python",
            ".asdf/installs/python",
        ] {
            let mut versions: Vec<PathBuf> = std::fs::read_dir(home.join(managed))
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect();
            versions.sort();
            versions.into_iter().for_each(|v| add(v.join("bin/python3")));
        }
    }
    list
}

fn query(path: &Path) -> Option<Interpreter> {
    let output = Command::new(path)
        .args(["-I", "-S", "-c", QUERY])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).ok())?
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(minor: u32) -> Interpreter {
        Interpreter {
            exe: format!("/p/{minor}").into(),
            major: 3,
            minor,
            micro: 1,
            implementation: "cpython".to_owned(),
        }
    }

    #[test]
    fn the_closest_installed_version_is_chosen() {
        let installed = [python(11), python(9), python(10), python(12), python(13)];
        let minor = |wish| {
            let c = choose(&installed, wish).unwrap();
            (c.interpreter.minor, c.warning.is_some())
        };
        assert_eq!(minor(None), (11, false));
        assert_eq!(minor(Some("3")), (11, false));
        assert_eq!(minor(Some("3.12")), (12, false));
        assert_eq!(minor(Some("3.12.4")), (12, false));
        assert_eq!(minor(Some("3.9")), (10, true));
        assert_eq!(minor(Some("3.20")), (13, true));
        assert_eq!(
            choose(&[python(10), python(12)], Some("3.11"))
                .unwrap()
                .interpreter
                .minor,
            12
        );
        assert!(choose(&[python(8)], None).is_err());
    }

    #[test]
    fn this_machine_has_a_python_and_it_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("known.json");
        let first = discover(&memory);
        assert!(!first.is_empty());
        assert!(memory.exists());
        assert_eq!(discover(&memory), first);
    }
}
