//! What an image name means on a machine without containers.
//!
//! A container of a Pod names an image; here a [`RuntimeImage`](resource::RuntimeImage) (the user's, or a default that ships
//! with Ferroflow) says what stands for it: a Python environment, the machine's own tools, Ferroflow's own executable, or a
//! container engine.
//!
//! Invariants: an environment in the cache is complete, immutable and addressed by its content; a container has a small
//! folder of its own in front of it, so what `pip` does inside a container never changes an environment that others use.

mod builtin;
mod cache;
mod catalog;
mod change;
mod command_line;
mod container;
mod entry;
mod environments;
mod interpreters;
mod packages;
mod pip;
mod prepare;
mod reference;
pub mod resource;
mod uv;

pub use pip::pip_main;
pub use prepare::Runtimes;

use std::path::PathBuf;

/// Names of the executables that are Ferroflow itself, dispatched on `argv[0]`'s file name.
///
/// `pip`, `uv` and `python-entry` are what containers find on their `PATH`; see [`pip_main`].
pub const BUILTIN_NAMES: &[&str] = &["launcher", "modelserver", "shim", "pip", "uv", entry::NAME];

/// Where things are.
#[derive(Clone, Debug)]
pub struct RuntimesConfig {
    /// Folder of environments, shared by every Ferroflow of this user. See [`RuntimesConfig::default_cache_dir`].
    pub cache_dir: PathBuf,
    /// The `uv` to use; otherwise the one on `PATH`, the one of `python3 -m uv`, or one that is fetched into the cache.
    pub uv: Option<PathBuf>,
    /// The `ferroflow` executable.
    pub executable: PathBuf,
}

impl RuntimesConfig {
    /// Configuration with the default cache folder.
    pub fn new(executable: PathBuf) -> Self {
        Self {
            cache_dir: Self::default_cache_dir(),
            uv: None,
            executable,
        }
    }

    /// `$XDG_CACHE_HOME/ferroflow` or `~/.cache/ferroflow`: outside the data folder, so several data folders share it.
    pub fn default_cache_dir() -> PathBuf {
        let home = || {
            std::env::var_os("HOME")
                .map_or_else(|| PathBuf::from("/root"), PathBuf::from)
                .join(".cache")
        };
        std::env::var_os("XDG_CACHE_HOME")
            .filter(|v| !v.is_empty())
            .map_or_else(home, PathBuf::from)
            .join("ferroflow")
    }
}

/// What to prepare.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// Image as the Pod spells it, e.g. `python:3.11`.
    pub image: String,
    /// Private folder of this container; it stays for the container's life, restarts included. `prepare` may be called again on
    /// the same folder (a restarted container starts from the image again: packages that its former life added are gone).
    pub container_dir: PathBuf,
}

/// A folder or file that is to appear at another path inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// Which kind of runtime was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeKind {
    Python,
    Host,
    Builtin,
}

/// What the node agent needs to start a container.
#[derive(Clone, Debug)]
pub struct ContainerRuntime {
    /// The image's environment variables; the container's own `env` wins over them. `PATH` is not among them.
    pub env: Vec<(String, String)>,
    /// Prepended to `PATH` in this order. When `command`/`args` name an executable without a slash, look it up in these first.
    pub path: Vec<PathBuf>,
    /// Wanted mounts; may be empty.
    pub mounts: Vec<BindMount>,
    /// The image's ENTRYPOINT, used when the container has no `command`.
    pub entrypoint: Vec<String>,
    /// The image's CMD, used when the container has neither `command` nor `args`.
    pub cmd: Vec<String>,
    /// The image's WORKDIR; `None` means a private folder of the container.
    pub working_dir: Option<PathBuf>,
    pub kind: RuntimeKind,
    /// For `containerStatuses[].imageID`: names the content, e.g. `ferroflow://python/3.11.7/ab12…`.
    pub image_id: String,
    /// Things to tell the user as events of the Pod (reason `RuntimeImage`), e.g. that 3.11 runs on 3.12.
    pub warnings: Vec<String>,
}

/// Why a container cannot have its image; the text goes into the container's status message.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Reason `ErrImagePull`, then `ImagePullBackOff`. The text says how to map the image.
    #[error("{0}")]
    NotMapped(String),
    /// Reason `ErrImagePull`: the mapping exists but cannot be made real (a package that does not exist, no `uv`, no engine).
    #[error("{0}")]
    Failed(String),
}

/// Why [`Runtimes::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("runtime cache folder {path}: {source}; choose another with --cache-dir")]
    CacheDir { path: PathBuf, source: std::io::Error },
    #[error("built-in runtime image {name}: {text}")]
    Default { name: String, text: String },
}
