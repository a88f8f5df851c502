//! Facts about the machine, and calls on processes.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::ptr;

use super::launch::{Command, Space, Stdio, launch};
use super::root::{plan_root, remove_scratch};
use crate::os::{Isolation, LaunchError};

pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Orphans of this process's descendants come to it.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with constants.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves the session and process group of whoever started us.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid().map(drop).map_err(io::Error::from)
}

/// Signals through a pidfd, so never a recycled pid. A process that has ended already is fine.
pub fn send_signal(process: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal on an owned descriptor.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// The number of processes that the kernel has killed for memory since boot.
pub fn oom_kills() -> u64 {
    let table = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    table
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// A path for a unix socket in `folder`, however long that folder's own path is (108 bytes is the limit of the address).
pub fn socket_address(folder: &fs::File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Tells when something in a folder is written, made or renamed.
#[derive(Debug)]
pub struct FolderWatch(tokio::io::unix::AsyncFd<OwnedFd>);

impl FolderWatch {
    pub fn new(folder: &Path) -> io::Result<Self> {
        use std::os::fd::FromRawFd;
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: a new descriptor that is owned from here on; the path outlives the call.
        let watch = unsafe {
            let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let watch = OwnedFd::from_raw_fd(fd);
            if libc::inotify_add_watch(
                fd,
                path.as_ptr(),
                libc::IN_MODIFY | libc::IN_CREATE | libc::IN_MOVE,
            ) < 0
            {
                return Err(io::Error::last_os_error());
            }
            watch
        };
        // SAFETY: the result owns the descriptor.
        Ok(Self(
            unsafe { tokio::io::unix::AsyncFd::register(watch) }.map_err(io::Error::from)?,
        ))
    }

    /// Returns after the next change, or at once if there was one since the last call.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0u8; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            let read = |fd: &tokio::io::unix::AsyncFd<OwnedFd>| {
                nix::unistd::read(fd.get_ref(), &mut buffer).map_err(io::Error::from)
            };
            if let Ok(outcome) = ready.try_io(read) {
                return outcome.map(drop);
            }
        }
    }
}

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    pub cores: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

pub fn capacity(folder: &Path) -> io::Result<Capacity> {
    let cores = std::thread::available_parallelism()?.get() as u64;
    let table = fs::read_to_string("/proc/meminfo")?;
    let memory = table
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .unwrap_or(0);
    let disk = nix::sys::statvfs::statvfs(folder).map_err(io::Error::from)?;
    Ok(Capacity {
        cores,
        memory_bytes: memory << 10,
        disk_bytes: disk.blocks() as u64 * disk.fragment_size() as u64,
    })
}

/// Tries what this machine allows, most first, by really starting `/bin/true` with a volume where nothing exists.
pub fn probe(scratch: &Path) -> Isolation {
    let root = nix::unistd::geteuid().is_root();
    let mut notes = Vec::new();
    // The kernel lays no overlay over a root with mounts below it for an unprivileged user.
    let ways: &[(bool, bool)] = if root {
        &[(false, true), (false, false), (true, false)]
    } else {
        &[(true, false)]
    };
    for (user_namespace, layers) in ways.iter().copied() {
        for pids in [true, false] {
            let isolation = Isolation {
                user_namespace,
                mounts: true,
                layers,
                pids,
                hostname: true,
                notes: notes.clone(),
            };
            match try_isolation(&isolation, scratch) {
                Ok(()) => return isolation,
                Err(error) => notes.push(format!(
                    "with a user namespace {user_namespace}, layers {layers}, a process namespace {pids}: {error}"
                )),
            }
        }
    }
    let mut none = Isolation::none("no mount namespaces: volumes are told by a mapping".to_owned());
    none.notes.extend(notes);
    none
}

fn try_isolation(isolation: &Isolation, scratch: &Path) -> Result<(), LaunchError> {
    let folder = scratch.join("probe");
    let io = |error| LaunchError::stage("probe folder", error);
    remove_scratch(&folder).map_err(io)?;
    fs::create_dir_all(folder.join("volume")).map_err(io)?;
    let mount = crate::plan::Mount {
        source: folder.join("volume"),
        target: PathBuf::from("/ferroflow-probe/volume"),
        read_only: false,
    };
    let root = plan_root(
        isolation,
        &folder,
        &[mount],
        Path::new("/ferroflow-probe/volume"),
        "probe",
    )?;
    let (_peer, stdin) = UnixStream::pair().map_err(io)?;
    let stdio = Stdio {
        stdin: OwnedFd::from(stdin.try_clone().map_err(io)?),
        stdout: OwnedFd::from(stdin.try_clone().map_err(io)?),
        stderr: OwnedFd::from(stdin),
        terminal: false,
    };
    let command = Command {
        argv: vec!["true".to_owned()],
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        working_dir: PathBuf::from("/ferroflow-probe/volume"),
        stdio,
        space: Space::New {
            isolation: isolation.clone(),
            root,
            group: None,
        },
    };
    let launched = launch(&command)?;
    let outcome = launched.wait().map_err(io)?;
    remove_scratch(&folder).map_err(io)?;
    if outcome == super::WaitStatus::Exited(0) {
        Ok(())
    } else {
        Err(LaunchError::stage(
            "probe",
            io::Error::other(format!("/bin/true ended with {outcome:?}")),
        ))
    }
}
