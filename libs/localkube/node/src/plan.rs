//! What the agent asks a shim to run: the Pod's fixed plan, and one specification per container
//! that follows as soon as the container's image is prepared. Both are plain data on disk and on the socket.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Lifecycle, Probe};
use serde::{Deserialize, Serialize};

use crate::os::{Cgroups, Isolation, Resources};

/// Who a shim works for. A shim of another boot or another Pod of the same name is never mistaken for this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// the kernel's boot id when the shim started
    pub boot_id: String,
}

/// The part of a Pod that never changes while it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodPlan {
    pub identity: Identity,
    pub hostname: String,
    /// None for Pods of the host's network
    pub network: Option<PodNetwork>,
    pub restart_policy: RestartPolicy,
    /// init containers in their order, then the others
    pub containers: Vec<ContainerPlan>,
    pub active_deadline_seconds: Option<i64>,
    /// seconds between the polite and the hard signal when nothing else is said
    pub grace_seconds: i64,
    pub started_at: Timestamp,
    pub isolation: Isolation,
    /// where the shim makes a group for each container
    #[serde(default)]
    pub cgroups: Cgroups,
    pub logs: LogLimits,
}

/// The address that the Pod's processes bind, and the table that rewrites their connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodNetwork {
    pub address: Ipv4Addr,
    pub service_table: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Reads `spec.restartPolicy`; absent means Always, as Kubernetes defaults it.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// runs to its end before the next one starts
    Init,
    /// an init container with restartPolicy Always: runs beside the Pod's containers
    Sidecar,
    Main,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerPlan {
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub startup: Option<Probe>,
    #[serde(default)]
    pub liveness: Option<Probe>,
    #[serde(default)]
    pub readiness: Option<Probe>,
    #[serde(default)]
    pub lifecycle: Option<Lifecycle>,
    /// named ports, for probes and hooks
    #[serde(default)]
    pub ports: Vec<(String, u16)>,
    pub termination_message_from_logs: bool,
    #[serde(default)]
    pub resources: Resources,
}

/// Log files of a container: at most `files` of `bytes` each.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LogLimits {
    pub bytes: u64,
    pub files: u32,
}

impl Default for LogLimits {
    /// The kubelet's own default: five files of 10 MiB.
    fn default() -> Self {
        Self {
            bytes: 10 << 20,
            files: 5,
        }
    }
}

/// Everything one container needs to be started, and restarted, without asking anyone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: String,
    pub argv: Vec<String>,
    /// complete: nothing is inherited
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    pub mounts: Vec<Mount>,
    /// where the container leaves its last words, as it sees the path
    pub termination_message_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub image: String,
    pub image_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// on the host
    pub source: PathBuf,
    /// in the container
    pub target: PathBuf,
    pub read_only: bool,
}
