//! cgroup v1: a hierarchy each for memory and cpu (kernel: admin-guide/cgroup-v1, scheduler/sched-bwc).

use std::io;
use std::path::{Path, PathBuf};

use super::{make, set};
use crate::os::limits::{CPU_PERIOD, Resources};

/// Sets the limits of a new group.
pub(super) fn limit(memory: &Path, cpu: Option<&Path>, resources: &Resources) -> io::Result<()> {
    if let Some(bytes) = resources.memory_limit {
        set(memory, "memory.limit_in_bytes", bytes)?;
        // Memory and swap together: without it the container would go on in the swap. Not there without swap accounting.
        drop(set(memory, "memory.memsw.limit_in_bytes", bytes));
    }
    if let Some(cpu) = cpu {
        set(cpu, "cpu.shares", resources.cpu_shares())?;
        if let Some(quota) = resources.cpu_quota() {
            set(cpu, "cpu.cfs_period_us", CPU_PERIOD)?;
            set(cpu, "cpu.cfs_quota_us", quota)?;
        }
    }
    Ok(())
}

/// The folder that holds all containers of a hierarchy; its weight is that of all cores.
pub(super) fn parent(folder: &Path, shares: Option<u64>) -> io::Result<PathBuf> {
    let parent = folder.join(super::PODS);
    make(&parent)?;
    if let Some(shares) = shares {
        set(&parent, "cpu.shares", shares)?;
    }
    Ok(parent)
}

/// Processes of the group that the kernel has killed for memory, from the text of `memory.oom_control`.
pub(super) fn oom_kills(oom_control: &str) -> u64 {
    super::field(oom_control, "oom_kill")
}
