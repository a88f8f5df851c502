//! What differs between operating systems, and nothing else. On Linux a container is a process in namespaces of its
//! own, over a private copy-on-write view of the machine's files; elsewhere these calls answer `Unsupported`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod limits;
pub use limits::{Cgroups, Resources};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub use unsupported::*;

/// What this machine lets us do for a container; found out once by trying it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// namespaces are made inside a user namespace, because we are not root
    pub user_namespace: bool,
    /// a root of its own, with volumes at their paths
    pub mounts: bool,
    /// what a container writes outside its volumes stays its own (an overlay over `/`); without, it sees the machine's
    /// folders themselves, as far as the user may write to them
    #[serde(default)]
    pub layers: bool,
    /// the kernel ends every process of a container when its first one ends
    pub pids: bool,
    /// the Pod has its own host name
    pub hostname: bool,
    /// why something above is missing; for the log and the Node's condition
    pub notes: Vec<String>,
}

impl Isolation {
    /// Nothing but process groups: volumes are told by a mapping instead of mounted.
    pub fn none(note: String) -> Self {
        Self {
            user_namespace: false,
            mounts: false,
            layers: false,
            pids: false,
            hostname: false,
            notes: vec![note],
        }
    }
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// `exec` itself failed: the command does not exist or is not executable
    #[error("cannot run {command}: {source}")]
    Exec { command: String, source: std::io::Error },
    #[error("{stage}: {source}")]
    Stage { stage: String, source: std::io::Error },
    #[error("volume {target}: {source}")]
    MountPoint { target: PathBuf, source: std::io::Error },
}

impl LaunchError {
    pub(crate) fn stage(stage: impl Into<String>, source: std::io::Error) -> Self {
        Self::Stage {
            stage: stage.into(),
            source,
        }
    }

    /// The shell's convention: 127 not found, 126 not executable, 128 anything before the command.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            _ => 128,
        }
    }
}
