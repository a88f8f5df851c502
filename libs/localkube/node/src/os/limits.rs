//! What a container may use of the machine, and by which means that is held.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Microseconds over which a cpu limit is held; the kernel's own default.
pub const CPU_PERIOD: u64 = 100_000;
/// The kernel takes no quota below a millisecond.
const LEAST_QUOTA: u64 = 1000;
/// What a container that asks for nothing counts when cores are scarce, in thousandths of a core: as much as
/// kube-scheduler takes it for (`DefaultMilliCPURequest`). The kubelet gives it next to nothing, which on a machine that
/// people work at would be a step that never ends.
const MODEST: u64 = 100;

/// Where this machine lets us make cgroups; found out once by trying it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cgroups {
    /// groups are made below this one, which is ours alone
    V2 { base: PathBuf, cpu: bool },
    /// groups are made below these, a hierarchy each
    V1 { memory: PathBuf, cpu: Option<PathBuf> },
    /// limits of memory and cpu are not held
    None { why: String },
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::None {
            why: "nobody looked for cgroups".to_owned(),
        }
    }
}

/// The value of the Node's annotation `ferroflow.io/limits`.
impl fmt::Display for Cgroups {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, cpu) = match self {
            Self::V2 { cpu, .. } => ("cgroup-v2", *cpu),
            Self::V1 { cpu, .. } => ("cgroup-v1", cpu.is_some()),
            Self::None { why } => return write!(out, "none: {why}"),
        };
        if cpu {
            write!(out, "{version}")
        } else {
            write!(out, "{version}: memory only, the cpu controller is not there")
        }
    }
}

/// `resources` of a container, as far as the kernel can hold them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// bytes
    pub memory_limit: Option<u64>,
    /// thousandths of a core
    pub cpu_limit: Option<u64>,
    /// thousandths of a core; its share when cores are scarce
    pub cpu_request: Option<u64>,
}

impl Resources {
    /// Something must be refused to the container, not only shared out.
    pub fn limits(&self) -> bool {
        self.memory_limit.is_some() || self.cpu_limit.is_some()
    }

    /// Microseconds of cpu time in each [`CPU_PERIOD`].
    pub fn cpu_quota(&self) -> Option<u64> {
        self.cpu_limit
            .map(|millis| (millis.saturating_mul(CPU_PERIOD) / 1000).max(LEAST_QUOTA))
    }

    /// `cpu.shares` of cgroup v1. As on Kubernetes, a limit without a request is both.
    pub fn cpu_shares(&self) -> u64 {
        shares(self.cpu_request.or(self.cpu_limit).unwrap_or(MODEST))
    }
}

/// `cpu.shares` of so many thousandths of a core (`MilliCPUToShares` of the kubelet).
pub fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// `cpu.weight` of cgroup v2 that stands for these shares (KEP 2254).
pub fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_told_as_the_kubelet_tells_it() {
        let resources = |cpu_limit, cpu_request| Resources {
            cpu_limit,
            cpu_request,
            ..Resources::default()
        };
        assert_eq!(resources(Some(250), None).cpu_quota(), Some(25_000));
        assert_eq!(resources(Some(1), None).cpu_quota(), Some(1000), "the least");
        assert_eq!(resources(None, Some(1)).cpu_quota(), None);
        assert_eq!(resources(Some(4000), Some(500)).cpu_shares(), 512);
        assert_eq!(resources(Some(2000), None).cpu_shares(), 2048);
        assert_eq!(resources(None, None).cpu_shares(), 102);
        assert_eq!(
            (shares(0), weight(2), weight(1024), weight(262_144)),
            (2, 1, 39, 10_000)
        );
    }

    #[test]
    fn what_holds_limits_is_one_short_text() {
        let none = Cgroups::None { why: "no".into() };
        let v2 = Cgroups::V2 {
            base: "/x".into(),
            cpu: true,
        };
        let v1 = Cgroups::V1 {
            memory: "/m".into(),
            cpu: None,
        };
        let texts = [none, v2, v1].map(|cgroups| cgroups.to_string());
        assert_eq!(
            texts,
            [
                "none: no",
                "cgroup-v2",
                "cgroup-v1: memory only, the cpu controller is not there"
            ]
        );
    }
}
