//! Linux: namespaces, overlay roots, cgroups, process file descriptors.

mod cgroup;
mod child;
mod launch;
mod root;
mod system;

pub use cgroup::{Group, group_name, probe_cgroups, remove_groups};
pub use launch::{Command, Joined, Launched, Space, Spawner, Stdio, Terminal, WaitStatus};
pub use root::{plan_root, remove_scratch};
pub use system::{
    Capacity, FolderWatch, become_subreaper, boot_id, capacity, new_session, oom_kills, probe, send_signal,
    socket_address,
};
