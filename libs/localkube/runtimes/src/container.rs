//! The Python of one container: a small virtual environment of its own in front of a shared one.
//!
//! `<root>/env` is a symbolic link to the environment in use, so `pip install` inside the container switches it in one step, and
//! a process that runs already sees what was added (as a notebook expects).

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache;
use crate::entry;
use crate::environments::{Environment, write_skeleton};
use crate::interpreters::Interpreter;
use crate::packages::Indexes;
use crate::uv::Uv;

const STATE: &str = "ferroflow.json";

/// What `pip` inside the container must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub cache_dir: PathBuf,
    pub python: Interpreter,
    pub uv: Result<Uv, String>,
    /// The image's and the user's indexes, behind those that a command names itself.
    pub indexes: Indexes,
    pub environment: Environment,
    /// Folder of our `pip` and `ensurepip` modules, with `bin/pip` and `bin/uv`.
    pub stubs: PathBuf,
}

/// A container's own virtual environment.
#[derive(Debug)]
pub struct ContainerPython {
    root: PathBuf,
    pub state: State,
}

impl ContainerPython {
    /// Makes it anew at `root`.
    pub fn create(root: &Path, state: State) -> io::Result<Self> {
        match std::fs::remove_dir_all(root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        write_skeleton(root, &state.python)?;
        let root = root.canonicalize()?;
        let this = Self { root, state };
        this.write_entry_points()?;
        this.point_at_environment()?;
        this.save()?;
        Ok(this)
    }

    /// Finds it at `root`, or `None` where no container's Python is.
    pub fn load(root: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(root.join(STATE)) {
            Ok(bytes) => Ok(Some(Self {
                root: root.to_owned(),
                state: serde_json::from_slice(&bytes)?,
            })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Changes which environment is in use.
    pub fn switch(&mut self, environment: Environment) -> io::Result<()> {
        if environment == self.state.environment {
            return Ok(());
        }
        self.state.environment = environment;
        self.point_at_environment()?;
        self.save()
    }

    /// The virtual environment's folder (`sys.prefix`).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folders for `PATH`: the interpreter and `pip`, then the scripts of the packages.
    pub fn path(&self) -> Vec<PathBuf> {
        vec![self.root.join("bin"), self.root.join("env/bin")]
    }

    /// Interpreter that sees only the environment in use, for `uv pip list` and the like.
    pub fn environment_python(&self) -> PathBuf {
        self.state.environment.dir.join("bin/python3")
    }

    /// Folder for environments that only this container may use.
    pub fn private_environments(&self) -> PathBuf {
        self.root.join("private")
    }

    /// Lock that serialises changes inside the container.
    pub fn lock(&self) -> io::Result<nix::fcntl::Flock<std::fs::File>> {
        cache::lock_file(&self.root.join("lock"))
    }

    fn save(&self) -> io::Result<()> {
        cache::write_atomically(&self.root.join(STATE), &serde_json::to_vec(&self.state)?)
    }

    fn write_entry_points(&self) -> io::Result<()> {
        let site_packages = self.state.python.site_packages();
        // `python3 -m pip` leaves for our executable before the interpreter has finished starting; otherwise our pip and ensurepip
        // come before the interpreter's, and the packages of the environment come last, with their own .pth files
        let pip = python_string(&self.state.stubs.join("bin/pip"));
        let chain = format!(
            "import sys; sys.orig_argv[1:3] == ['-m', 'pip'] and __import__('os').execv({pip}, [{pip}, '--ferroflow-venv', {root}, *sys.orig_argv[3:]])\n\
             import sys; sys.path.insert(0, {stubs})\n\
             import site; site.addsitedir({packages})\n",
            root = python_string(&self.root),
            stubs = python_string(&self.state.stubs),
            packages = python_string(&self.root.join("env").join(&site_packages)),
        );
        std::fs::write(self.root.join(&site_packages).join("_ferroflow.pth"), chain)?;
        for (name, tool) in [("pip", "pip"), ("pip3", "pip"), ("uv", "uv")] {
            let script = format!(
                "#!/bin/sh\nexec {} --ferroflow-venv {} \"$@\"\n",
                shell_string(&self.state.stubs.join("bin").join(tool)),
                shell_string(&self.root)
            );
            let path = self.root.join("bin").join(name);
            std::fs::write(&path, script)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        let python = &self.state.python;
        let stub = self.state.stubs.join("bin").join(entry::NAME);
        let interpreter = self
            .root
            .join(format!("bin/python{}.{}", python.major, python.minor));
        for name in ["python", "python3"] {
            entry::write(&self.root.join("bin").join(name), &stub, &interpreter)?;
        }
        Ok(())
    }

    fn point_at_environment(&self) -> io::Result<()> {
        let next = self.root.join(".env-next");
        let _ = std::fs::remove_file(&next);
        symlink(&self.state.environment.dir, &next)?;
        std::fs::rename(&next, self.root.join("env"))?;
        // data files (Jupyter's kernels and extensions, say) are looked for under sys.prefix
        for folder in ["share", "etc"] {
            let from = self.state.environment.dir.join(folder);
            if from.is_dir() {
                cache::mirror_tree(&from, &self.root.join(folder))?;
            }
        }
        Ok(())
    }
}

fn python_string(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

fn shell_string(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}
