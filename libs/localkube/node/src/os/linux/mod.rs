//! Linux: namespaces, overlay roots, process file descriptors.

mod child;
mod launch;
mod root;
mod system;

pub use launch::{Command, Joined, Launched, Space, Spawner, Stdio, Terminal, WaitStatus};
pub use root::{plan_root, remove_scratch};
pub use system::{
    Capacity, FolderWatch, become_subreaper, boot_id, capacity, new_session, oom_kills, probe, send_signal,
    socket_address,
};
