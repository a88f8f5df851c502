//! Starting a process in a container's namespaces, and learning how it ended.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::oneshot;

use super::cgroup::Group;
use super::child::{self, Prepared, Step};
use crate::os::{Isolation, LaunchError};

/// Where a process belongs.
#[derive(Debug)]
pub enum Space {
    /// new namespaces, as far as the machine allows, over this root
    New {
        isolation: Isolation,
        root: super::root::Root,
        group: Option<Arc<Group>>,
    },
    /// the namespaces of a running container
    Join(Joined),
}

/// A running container that others may enter.
#[derive(Debug, Clone)]
pub struct Joined {
    pub init: Arc<OwnedFd>,
    pub isolation: Isolation,
    pub group: Option<Arc<Group>>,
}

#[derive(Debug)]
pub struct Command {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    pub stdio: Stdio,
    pub space: Space,
}

#[derive(Debug)]
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// the three are a terminal, which becomes the controlling one
    pub terminal: bool,
}

/// A started process. Ends with the last of its namespace.
#[derive(Debug)]
pub struct Launched {
    /// readable once the container's first process, and so all of them, has ended
    pub init: OwnedFd,
    pub init_pid: i32,
    /// the command's own process, for polite signals
    pub main: Option<OwnedFd>,
    status: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    Exited(i32),
    Signaled(i32),
}

impl Launched {
    /// How the command ended; call it when `init` is readable. Reaps the first process.
    pub fn wait(&self) -> io::Result<WaitStatus> {
        // SAFETY: waitid on an owned pidfd, result into a local.
        let reaped = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PIDFD,
                self.init.as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | libc::__WALL,
            )
        };
        if reaped != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut raw = [0u8; 4];
        if nix::unistd::read(&self.status, &mut raw).map_err(io::Error::from)? != raw.len() {
            // The first process was itself killed, and everything with it.
            return Ok(WaitStatus::Signaled(libc::SIGKILL));
        }
        let status = i32::from_ne_bytes(raw);
        Ok(if libc::WIFSIGNALED(status) {
            WaitStatus::Signaled(libc::WTERMSIG(status))
        } else {
            WaitStatus::Exited(libc::WEXITSTATUS(status))
        })
    }
}

/// The thread that starts processes. The kernel ties two things to the starting thread: the death signal that ends a
/// container with its shim, and the network filter that its processes inherit.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: mpsc::Sender<(Command, oneshot::Sender<Result<Launched, LaunchError>>)>,
}

impl Spawner {
    /// `setup` runs first in the new thread, for instance to install the network filter.
    pub fn start<T: Send + 'static>(
        setup: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let (requests, inbox) = mpsc::channel::<(Command, oneshot::Sender<Result<Launched, LaunchError>>)>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let outcome = setup();
                let failed = outcome.is_err();
                if ready.send(outcome).is_err() || failed {
                    return;
                }
                while let Ok((command, answer)) = inbox.recv() {
                    // A receiver that went away leaves the process to its death signal.
                    drop(answer.send(launch(&command)));
                }
            })?;
        let value = is_ready
            .recv()
            .map_err(|_| io::Error::other("the spawner thread ended"))??;
        Ok((Self { requests }, value))
    }

    /// Returns once the command has been exec'd, or could not be.
    pub async fn launch(&self, command: Command) -> Result<Launched, LaunchError> {
        let gone = || LaunchError::stage("spawner", io::Error::other("the spawner thread ended"));
        let (answer, outcome) = oneshot::channel();
        self.requests.send((command, answer)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| {
        LaunchError::stage(
            format!("value {:?} holds a zero byte", String::from_utf8_lossy(bytes)),
            io::ErrorKind::InvalidInput.into(),
        )
    })
}

/// The files to try for a command, as `execvp` would.
fn candidates(
    command: &str,
    env: &[(String, String)],
    working_dir: &Path,
) -> Result<Vec<CString>, LaunchError> {
    if command.contains('/') {
        return Ok(vec![c_string(command.as_bytes())?]);
    }
    let path = env
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value);
    path.split(':')
        .map(|folder| {
            let folder = if folder.is_empty() {
                working_dir
            } else {
                Path::new(folder)
            };
            c_string(folder.join(command).as_os_str().as_bytes())
        })
        .collect()
}

/// Starts one process from the calling thread.
pub(super) fn launch(command: &Command) -> Result<Launched, LaunchError> {
    let os = |stage: &'static str| move |error: nix::Error| LaunchError::stage(stage, error.into());
    let name = command.argv.first().cloned().unwrap_or_default();
    if name.is_empty() {
        return Err(LaunchError::Exec {
            command: "an empty command".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        });
    }
    let candidates = candidates(&name, &command.env, &command.working_dir)?;
    let argv: Vec<CString> = command
        .argv
        .iter()
        .map(|arg| c_string(arg.as_bytes()))
        .collect::<Result<_, _>>()?;
    let env: Vec<CString> = command
        .env
        .iter()
        .map(|(name, value)| c_string(format!("{name}={value}").as_bytes()))
        .collect::<Result<_, _>>()?;
    let working_dir = c_string(command.working_dir.as_os_str().as_bytes())?;
    let argv_pointers: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let env_pointers: Vec<_> = env
        .iter()
        .map(|pair| pair.as_ptr())
        .chain([ptr::null()])
        .collect();

    let (report, report_child) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(os("socketpair"))?;
    let (status, status_child) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(os("pipe"))?;
    let no_steps: &[Step] = &[];
    let (steps, join, namespaces, reap_all, group) = match &command.space {
        Space::New {
            isolation,
            root,
            group,
        } => (
            root.steps.as_slice(),
            None,
            namespaces(isolation),
            !isolation.pids,
            group,
        ),
        Space::Join(joined) => {
            let namespaces = namespaces(&joined.isolation) as libc::c_int;
            let join = (namespaces != 0).then(|| (joined.init.as_raw_fd(), namespaces));
            (no_steps, join, 0, !joined.isolation.pids, &joined.group)
        }
    };
    let groups = group.as_ref().map(|group| group.entries()).unwrap_or_default();
    let prepared = Prepared {
        steps,
        join,
        main_stage: steps.len() as u32,
        groups: &groups,
        stdio: [
            command.stdio.stdin.as_raw_fd(),
            command.stdio.stdout.as_raw_fd(),
            command.stdio.stderr.as_raw_fd(),
        ],
        terminal: command.stdio.terminal,
        report: report_child.as_raw_fd(),
        status: status_child.as_raw_fd(),
        working_dir: &working_dir,
        candidates: &candidates,
        argv: &argv_pointers,
        envp: &env_pointers,
        reap_all,
    };
    let (init_pid, init) = match child::clone_process(namespaces) {
        Ok((0, _)) => child::run_init(&prepared),
        // SAFETY: the kernel just gave us this descriptor.
        Ok((pid, pidfd)) => (pid, unsafe { OwnedFd::from_raw_fd(pidfd) }),
        Err(error) => return Err(LaunchError::stage("clone", io::Error::from_raw_os_error(error))),
    };
    drop(report_child);
    drop(status_child);
    let mut launched = Launched {
        init,
        init_pid,
        main: None,
        status,
    };
    match read_report(&report, &mut launched) {
        Ok(()) => Ok(launched),
        Err((stage, error)) => {
            reap_failed(&launched);
            Err(explain(command, steps, stage, error, &name))
        }
    }
}

fn namespaces(isolation: &Isolation) -> u64 {
    let mut flags = 0;
    if isolation.user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    if isolation.mounts {
        flags |= libc::CLONE_NEWNS;
    }
    if isolation.pids {
        flags |= libc::CLONE_NEWPID;
    }
    if isolation.hostname {
        flags |= libc::CLONE_NEWUTS;
    }
    flags as u64
}

/// Reads the child's messages until it has exec'd (the socket closes) or reports a failure.
fn read_report(report: &OwnedFd, launched: &mut Launched) -> Result<(), (u32, io::Error)> {
    loop {
        let mut buffer = [0u8; 8];
        let mut control = [0u64; 8];
        // SAFETY: buffers outlive the call; the control buffer is aligned for cmsghdr.
        let (count, fd) = unsafe {
            let mut vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut vector;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            let count = libc::recvmsg(report.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
            let header = if count > 0 {
                libc::CMSG_FIRSTHDR(&raw const message)
            } else {
                ptr::null_mut()
            };
            let fd = if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                Some(ptr::read_unaligned(libc::CMSG_DATA(header).cast::<RawFd>()))
            } else {
                None
            };
            (count, fd)
        };
        match count {
            0 => return Ok(()),
            // SAFETY: received just now, owned by nobody else.
            1 => launched.main = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            8 => {
                let stage = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                let error = i32::from_le_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
                return Err((stage, io::Error::from_raw_os_error(error)));
            }
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err((u32::MAX, error));
                }
            }
        }
    }
}

fn explain(command: &Command, steps: &[Step], stage: u32, error: io::Error, name: &str) -> LaunchError {
    let index = stage as usize;
    if let Some(step) = steps.get(index) {
        return LaunchError::stage(step.name.clone(), error);
    }
    match stage.saturating_sub(steps.len() as u32) {
        child::STAGE_EXEC => LaunchError::Exec {
            command: name.to_owned(),
            source: error,
        },
        child::STAGE_CHDIR => LaunchError::stage(
            format!("working directory {}", command.working_dir.display()),
            error,
        ),
        child::STAGE_STDIO => LaunchError::stage("standard streams", error),
        child::STAGE_FORK => LaunchError::stage("fork", error),
        child::STAGE_GROUP => LaunchError::stage("enter the container's cgroup", error),
        _ => LaunchError::stage("enter the container", error),
    }
}

/// A child that failed before exec ends by itself; it is only collected.
fn reap_failed(launched: &Launched) {
    // SAFETY: pidfd_send_signal and waitid on an owned pidfd.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            launched.init.as_raw_fd(),
            libc::SIGKILL,
            ptr::null::<libc::siginfo_t>(),
            0,
        );
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(
            libc::P_PIDFD,
            launched.init.as_raw_fd() as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::__WALL,
        );
    }
}

/// A pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    pub controller: OwnedFd,
    pub user: OwnedFd,
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        let (mut controller, mut user) = (-1, -1);
        // SAFETY: openpty writes two descriptors that we own from then on.
        unsafe {
            if libc::openpty(
                &raw mut controller,
                &raw mut user,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
            ) != 0
            {
                return Err(io::Error::last_os_error());
            }
            libc::fcntl(controller, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(user, libc::F_SETFD, libc::FD_CLOEXEC);
            Ok(Self {
                controller: OwnedFd::from_raw_fd(controller),
                user: OwnedFd::from_raw_fd(user),
            })
        }
    }

    pub fn resize(controller: &OwnedFd, width: u16, height: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCSWINSZ reads one winsize.
        if unsafe { libc::ioctl(controller.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
