//! The agent's side of the shims: asking the nursery for one, and talking to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::os;
use crate::shim::SOCKET;
use crate::state::PodState;
use crate::wire::{self, Reply, Request};

/// A fork takes less than a millisecond; this is for a machine that is swapping.
const ANSWER_LIMIT: i64 = 20;

/// Starts shims. Clones share one nursery process, which is started anew when it dies.
#[derive(Debug, Clone)]
pub struct Nursery {
    requests: mpsc::Sender<(PathBuf, oneshot::Sender<io::Result<()>>)>,
}

struct Process {
    child: Child,
    socket: OwnedFd,
}

impl Nursery {
    /// `executable` becomes a shim when it is called so (`argv[0]`).
    pub fn start(executable: &Path) -> io::Result<Self> {
        let executable = executable.to_owned();
        let mut process = Some(Process::start(&executable)?);
        let (requests, inbox) = mpsc::channel::<(PathBuf, oneshot::Sender<io::Result<()>>)>();
        std::thread::Builder::new()
            .name("nursery".to_owned())
            .spawn(move || {
                while let Ok((folder, answer)) = inbox.recv() {
                    let mut outcome = ask(&mut process, &executable, &folder);
                    if outcome.is_err() && process.is_none() {
                        // The nursery died; no shim was started, or its socket is there and is replaced.
                        outcome = ask(&mut process, &executable, &folder);
                    }
                    drop(answer.send(outcome));
                }
            })?;
        Ok(Self { requests })
    }

    /// Starts the shim of the Pod whose plan is in `folder`; its socket listens when this returns.
    pub async fn start_pod(&self, folder: &Path) -> io::Result<()> {
        let gone = || io::Error::other("the nursery's thread ended");
        let (answer, outcome) = oneshot::channel();
        self.requests
            .send((folder.to_owned(), answer))
            .map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

fn ask(process: &mut Option<Process>, executable: &Path, folder: &Path) -> io::Result<()> {
    if process.is_none() {
        *process = Some(Process::start(executable)?);
    }
    let Some(running) = process.as_mut() else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    match running.start_pod(folder) {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(refusal) => Err(io::Error::other(refusal)),
        Err(error) => {
            *process = None;
            Err(error)
        }
    }
}

impl Process {
    fn start(executable: &Path) -> io::Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_LIMIT))?;
        let child = Command::new(executable)
            .arg0("shim")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn start_pod(&mut self, folder: &Path) -> io::Result<String> {
        let message = folder.as_os_str().as_bytes();
        let mut buffer = vec![0u8; 4096];
        // SAFETY: both calls use local buffers and an owned descriptor.
        let count = unsafe {
            let fd = self.socket.as_raw_fd();
            if libc::send(fd, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0)
        };
        match usize::try_from(count) {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(count) => Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How long a shim may take to say its first word.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// Opens a connection to the shim in `folder`. `ConnectionRefused` or `NotFound` mean that there is none.
pub async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let directory = File::open(folder)?;
    UnixStream::connect(os::socket_address(&directory, SOCKET)).await
}

/// A connection that carries the shim's states and the agent's orders.
#[derive(Debug)]
pub struct ShimLink {
    pub orders: Orders,
    pub states: States,
}

#[derive(Debug)]
pub struct Orders(OwnedWriteHalf);

#[derive(Debug)]
pub struct States(OwnedReadHalf);

impl ShimLink {
    /// Connects and returns the present state too.
    pub async fn open(folder: &Path) -> io::Result<(Self, PodState)> {
        let mut stream = connect(folder).await?;
        wire::send(&mut stream, &Request::Watch).await?;
        let (reader, writer) = stream.into_split();
        let mut states = States(reader);
        let first = tokio::time::timeout(GREETING_LIMIT, states.next())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        Ok((
            Self {
                orders: Orders(writer),
                states,
            },
            first,
        ))
    }
}

impl Orders {
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        wire::send(&mut self.0, request).await
    }
}

impl States {
    /// None when the shim has ended. Do not cancel it in the middle: give it a task of its own.
    pub async fn next(&mut self) -> io::Result<Option<PodState>> {
        loop {
            match wire::receive::<Reply>(&mut self.0).await? {
                None => return Ok(None),
                Some(Reply::State(state)) => return Ok(Some(*state)),
                Some(Reply::Opened) => {}
                Some(Reply::Refused { message }) => return Err(io::Error::other(message)),
            }
        }
    }
}
