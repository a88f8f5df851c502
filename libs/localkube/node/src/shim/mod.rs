//! The shim: one process per Pod, detached from the agent. It owns the Pod's processes, their logs and their exit
//! records, and carries on alone when the agent is gone.
//!
//! The agent starts one *nursery* (this program again, as `shim`). Asked for a Pod, the nursery forks: a shim costs no
//! second start of a large executable, and all shims share its memory. The nursery ends with its agent; shims do not.

mod container;
mod hooks;
mod logs;
mod mapping;
mod pod;
mod probes;
mod record;
mod serve;
mod streams;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{ForkResult, fork};

use crate::os;
use crate::plan::PodPlan;

pub use container::log_path;
pub use logs::{parse_entry, rotated};
pub use record::{Recovered, read_plan, recover};

/// The socket in a Pod's folder.
pub const SOCKET: &str = "shim.sock";
pub const PLAN: &str = "plan.json";

/// The nursery's main loop: standard input is a seqpacket socket to the agent. Each message is the folder of a Pod, and
/// is answered with an empty text once that Pod's socket listens, or with what went wrong.
pub fn shim_main() -> ! {
    let code = match nursery() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("shim nursery: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn nursery() -> io::Result<()> {
    // The agent's terminal is not ours.
    drop(os::new_session());
    // SAFETY: descriptor 0 is the socket that the agent passed; it is owned here from now on.
    let agent = unsafe { OwnedFd::from_raw_fd(0) };
    let mut buffer = vec![0u8; 8192];
    loop {
        // SAFETY: receives into a local buffer.
        let count = unsafe { libc::recv(agent.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        let folder = PathBuf::from(std::ffi::OsString::from_vec(buffer[..count as usize].to_vec()));
        let answer = match start_pod(&folder) {
            Ok(()) => String::from("ok"),
            Err(error) => format!("cannot start the shim in {}: {error}", folder.display()),
        };
        // SAFETY: sends a local buffer.
        unsafe {
            libc::send(
                agent.as_raw_fd(),
                answer.as_ptr().cast(),
                answer.len(),
                libc::MSG_NOSIGNAL,
            )
        };
    }
}

/// Binds the Pod's socket, then forks twice, so that the shim belongs to init and not to us.
fn start_pod(folder: &Path) -> io::Result<()> {
    let plan: PodPlan = serde_json::from_slice(&fs::read(folder.join(PLAN))?)?;
    let directory = File::open(folder)?;
    let address = os::socket_address(&directory, SOCKET);
    drop(fs::remove_file(folder.join(SOCKET)));
    let listener = UnixListener::bind(&address)?;
    // SAFETY: this process has a single thread.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Parent { child } => {
            nix::sys::wait::waitpid(child, None).map_err(io::Error::from)?;
            Ok(())
        }
        ForkResult::Child => {
            // SAFETY: as above; _exit runs nothing of ours.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {}
                _ => unsafe { libc::_exit(0) },
            }
            // `live` replaces descriptor 0, which is the nursery's socket: that must end with the nursery.
            let code = match live(folder, plan, listener) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("shim: {error}");
                    1
                }
            };
            std::process::exit(code)
        }
    }
}

fn live(folder: &Path, plan: PodPlan, listener: UnixListener) -> io::Result<()> {
    os::new_session()?;
    os::become_subreaper()?;
    // Nothing of ours may keep a folder busy, or a pipe of the agent's open.
    std::env::set_current_dir("/")?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("shim.log"))?;
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    // SAFETY: dup2 onto the standard descriptors.
    unsafe {
        libc::dup2(null.as_raw_fd(), 0);
        libc::dup2(log.as_raw_fd(), 1);
        libc::dup2(log.as_raw_fd(), 2);
    }
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(pod::run(folder.to_owned(), plan, listener)))?;
    // Anything that still waits (a stuck hook, a client that does not read) must not keep a finished Pod's shim.
    runtime.shutdown_background();
    Ok(())
}
