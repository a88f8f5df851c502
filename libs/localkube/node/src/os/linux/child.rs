//! What runs between `clone` and `exec`. The parent has several threads, so nothing here may allocate or lock:
//! everything is prepared beforehand, and each step is a plain system call.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::ptr;

use libc::{c_char, c_int, c_ulong, c_void};

use super::cgroup;

/// One prepared step of making the container's surroundings.
#[derive(Debug)]
pub(super) struct Step {
    /// what it is, for the error text
    pub name: String,
    pub call: Call,
    /// go on when it fails
    pub optional: bool,
}

#[derive(Debug)]
pub(super) enum Call {
    Mount {
        source: CString,
        target: CString,
        kind: Option<CString>,
        flags: c_ulong,
        data: Option<CString>,
    },
    Write {
        path: CString,
        text: CString,
    },
    Folder(CString),
    /// an empty file, to mount on
    File(CString),
    Link {
        path: CString,
        to: CString,
    },
    /// makes the folder the root and forgets the old one
    Pivot(CString),
    Hostname(CString),
}

/// Pointers to everything the child needs; they stay valid because the child has its own copy of the memory.
pub(super) struct Prepared<'a> {
    pub steps: &'a [Step],
    pub join: Option<(RawFd, c_int)>,
    pub main_stage: u32,
    /// `cgroup.procs` of the groups that the command is to be in; its first process is not, so that it lives to tell of the end
    pub groups: &'a [RawFd],
    pub stdio: [RawFd; 3],
    pub terminal: bool,
    pub report: RawFd,
    pub status: RawFd,
    pub working_dir: &'a CString,
    pub candidates: &'a [CString],
    pub argv: &'a [*const c_char],
    pub envp: &'a [*const c_char],
    /// end every orphan when the command ends, where no PID namespace does it
    pub reap_all: bool,
}

/// Stages after the steps, counted from `Prepared::main_stage`.
pub(super) const STAGE_JOIN: u32 = 0;
pub(super) const STAGE_FORK: u32 = 1;
pub(super) const STAGE_STDIO: u32 = 2;
pub(super) const STAGE_CHDIR: u32 = 3;
pub(super) const STAGE_EXEC: u32 = 4;
pub(super) const STAGE_GROUP: u32 = 5;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// `fork` with namespaces; returns the child's pid and pidfd, or 0 in the child.
pub(super) fn clone_process(namespaces: u64) -> Result<(i32, RawFd), c_int> {
    let mut pidfd: c_int = -1;
    let args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: clone3 without CLONE_VM and without a stack behaves as fork; args outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid < 0 {
        Err(errno())
    } else {
        Ok((pid as i32, pidfd))
    }
}

fn errno() -> c_int {
    // SAFETY: errno's location is always valid for this thread.
    unsafe { *libc::__errno_location() }
}

fn fail(prepared: &Prepared<'_>, stage: u32, error: c_int) -> ! {
    let mut message = [0u8; 8];
    message[..4].copy_from_slice(&stage.to_le_bytes());
    message[4..].copy_from_slice(&error.to_le_bytes());
    // SAFETY: message is a valid buffer, and _exit does not return.
    unsafe {
        libc::write(prepared.report, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

/// The container's first process (or the helper of an exec): makes the surroundings, starts the command, waits for
/// it, writes its wait status and ends. In a PID namespace the kernel then ends whatever the command left behind.
pub(super) fn run_init(prepared: &Prepared<'_>) -> ! {
    // SAFETY: plain system calls with prepared arguments.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
        if prepared.reap_all {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        }
    }
    for (index, step) in prepared.steps.iter().enumerate() {
        let error = run_step(&step.call);
        if error != 0 && !step.optional {
            fail(prepared, index as u32, error);
        }
    }
    if let Some((pidfd, namespaces)) = prepared.join {
        // SAFETY: setns on an open pidfd.
        if unsafe { libc::setns(pidfd, namespaces) } != 0 {
            fail(prepared, prepared.main_stage + STAGE_JOIN, errno());
        }
    }
    let main = match clone_process(0) {
        Ok((0, _)) => run_main(prepared),
        Ok((pid, pidfd)) => {
            send_pidfd(prepared.report, pidfd);
            pid
        }
        Err(error) => fail(prepared, prepared.main_stage + STAGE_FORK, error),
    };
    keep_only(prepared.status);
    let status = wait_for(main);
    if prepared.reap_all {
        end_orphans();
    }
    // SAFETY: the status pipe is descriptor 0 now; _exit does not return.
    unsafe {
        libc::write(0, (&raw const status).cast(), size_of::<c_int>());
        libc::_exit(0)
    }
}

/// Reaps everything until the command itself has ended.
fn wait_for(main: i32) -> c_int {
    let mut status: c_int = 0;
    loop {
        // SAFETY: waitpid writes one int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if pid == main {
            return status;
        }
        if pid < 0 && errno() != libc::EINTR {
            return libc::SIGKILL;
        }
    }
}

/// Without a PID namespace: orphans come to this process, which is a subreaper; it ends them until none is left.
fn end_orphans() {
    for _ in 0..1000 {
        // SAFETY: reads a small proc file into a local buffer, kills only own children.
        unsafe {
            let file = libc::open(
                c"/proc/thread-self/children".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            );
            if file < 0 {
                return;
            }
            let mut buffer = [0u8; 4096];
            let count = libc::read(file, buffer.as_mut_ptr().cast(), buffer.len());
            libc::close(file);
            if count <= 0 {
                return;
            }
            let mut pid: i32 = 0;
            for byte in &buffer[..count as usize] {
                if byte.is_ascii_digit() {
                    pid = pid.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
                } else {
                    if pid > 1 {
                        libc::kill(pid, libc::SIGKILL);
                    }
                    pid = 0;
                }
            }
            let mut status: c_int = 0;
            libc::waitpid(-1, &raw mut status, libc::__WALL);
        }
    }
}

/// Closes every descriptor but the status pipe, which becomes 0: the shim's sockets must end with the shim.
fn keep_only(status: RawFd) {
    // SAFETY: descriptors are plain numbers; nothing else runs in this process.
    unsafe {
        libc::dup2(status, 0);
        libc::syscall(libc::SYS_close_range, 1, c_int::MAX, 0);
    }
}

/// The command itself.
fn run_main(prepared: &Prepared<'_>) -> ! {
    let base = prepared.main_stage;
    // SAFETY: plain system calls; the pointers were prepared by the parent and are valid in this copy.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
        if !cgroup::enter(prepared.groups) {
            fail(prepared, base + STAGE_GROUP, errno());
        }
        for (index, fd) in prepared.stdio.iter().enumerate() {
            if libc::dup2(*fd, index as c_int) < 0 {
                fail(prepared, base + STAGE_STDIO, errno());
            }
        }
        if prepared.terminal {
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        if libc::chdir(prepared.working_dir.as_ptr()) != 0 {
            fail(prepared, base + STAGE_CHDIR, errno());
        }
        // exec resets handlers by itself, but not what is ignored: Rust ignores one, a shell or nohup some others.
        for signal in [
            libc::SIGPIPE,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGCHLD,
        ] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::umask(0o022);
        libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let mut error = libc::ENOENT;
        for path in prepared.candidates {
            libc::execve(path.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
            let this = errno();
            // A folder of PATH that lacks the command says nothing about the next one.
            if this != libc::ENOENT && this != libc::ENOTDIR {
                error = this;
            }
        }
        fail(prepared, base + STAGE_EXEC, error)
    }
}

fn run_step(call: &Call) -> c_int {
    // SAFETY: all strings are terminated and prepared by the parent.
    let result = unsafe {
        match call {
            Call::Mount {
                source,
                target,
                kind,
                flags,
                data,
            } => libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ref().map_or(ptr::null(), |kind| kind.as_ptr()),
                *flags,
                data.as_ref()
                    .map_or(ptr::null(), |data| data.as_ptr().cast::<c_void>()),
            ),
            Call::Write { path, text } => {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if file < 0 {
                    return errno();
                }
                let length = text.as_bytes().len();
                let written = libc::write(file, text.as_ptr().cast(), length);
                let error = errno();
                libc::close(file);
                return if written == length as isize { 0 } else { error };
            }
            Call::Pivot(root) => {
                if libc::chdir(root.as_ptr()) != 0
                    || libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) != 0
                    || libc::umount2(c".".as_ptr(), libc::MNT_DETACH) != 0
                {
                    return errno();
                }
                libc::chdir(c"/".as_ptr())
            }
            Call::Folder(path) => libc::mkdir(path.as_ptr(), 0o755),
            Call::File(path) => libc::mknod(path.as_ptr(), libc::S_IFREG | 0o666, 0),
            Call::Link { path, to } => libc::symlink(to.as_ptr(), path.as_ptr()),
            Call::Hostname(name) => libc::sethostname(name.as_ptr(), name.as_bytes().len()),
        }
    };
    if result == 0 { 0 } else { errno() }
}

/// Hands the command's pidfd to the shim.
fn send_pidfd(to: RawFd, pidfd: RawFd) {
    let mut payload = *b"P";
    let mut control = [0u64; 4];
    // SAFETY: the buffers live until sendmsg returns; the control buffer is aligned and large enough for one fd.
    unsafe {
        let mut vector = libc::iovec {
            iov_base: payload.as_mut_ptr().cast(),
            iov_len: 1,
        };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<c_int>(), pidfd);
        libc::sendmsg(to, &raw const message, libc::MSG_NOSIGNAL);
        libc::close(pidfd);
    }
}
