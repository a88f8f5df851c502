//! `accept` for the Pod's servers: connections of other OS users are reset before the Pod sees them.
//!
//! Every accept at a TCP listener with an address of the Pod is carried out here, one at a time, so that what was looked at is what
//! the caller gets. A blocking accept that finds nothing waits in a list until its listener has a connection; it keeps no thread, and
//! not the socket either, so that a server that ends leaves its port free at once. A signal ends such a call without a word to us: the list
//! forgets it when it finds out.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use libc::seccomp_notif;

use crate::owner::Owner;
use crate::sys::{self, Accepted, Answer, Readiness};

/// So many connections of others are reset in one go before somebody else has a turn.
const MOST_REFUSED: usize = 64;

/// A connection whose caller was gone before it got it waits so long for another accept at its listener.
const KEPT: Duration = Duration::from_secs(10);

/// Calls and connections that wait for each other.
#[derive(Debug)]
pub struct Accepts {
    readiness: Readiness,
    /// By the cookie of the listening socket.
    waiting: HashMap<u64, VecDeque<Call>>,
    /// Accepted and not delivered, by the same.
    kept: HashMap<u64, VecDeque<(Accepted, Instant)>>,
    /// At so many waiting calls, those that are over are sought.
    tidy_at: usize,
}

/// Whose accepts these are.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub listener: BorrowedFd<'a>,
    pub owner: &'a Owner,
    pub pod: Ipv4Addr,
}

/// An accept as it was called.
#[derive(Clone, Copy, Debug)]
struct Call {
    id: u64,
    thread: u32,
    fd: RawFd,
    /// Where the peer's address is to go, and its length.
    address: u64,
    length: u64,
    nonblocking: bool,
    close_on_exec: bool,
    until: Option<Instant>,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// There is no connection (yet).
    Nothing,
    /// It is over: the caller has its answer, or is gone.
    Over,
}

/// Whether a call is one of ours.
pub fn is_accept(number: i32) -> bool {
    matches!(i64::from(number), libc::SYS_accept | libc::SYS_accept4)
}

impl Accepts {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            waiting: HashMap::new(),
            kept: HashMap::new(),
            tidy_at: 64,
        })
    }

    /// Readable when [`Self::connection`] has something to do.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }

    /// When [`Self::time`] has something to do.
    pub fn next_time(&self) -> Option<Instant> {
        let calls = self.waiting.values().flatten().filter_map(|call| call.until);
        let kept = self.kept.values().flatten().map(|(_, until)| *until);
        calls.chain(kept).min()
    }

    /// An accept at `listening`. `None`: it has been answered, or waits.
    pub fn call(
        &mut self,
        side: &Side<'_>,
        notification: &seccomp_notif,
        listening: &OwnedFd,
    ) -> Option<Answer> {
        if !sys::is_tcp_listener(listening.as_fd()) || !is_of_pod(listening.as_fd(), side.pod) {
            return Some(Answer::Continue);
        }
        let [fd, address, length, flags, ..] = notification.data.args;
        let flags = if i64::from(notification.data.nr) == libc::SYS_accept4 {
            flags as i32
        } else {
            0
        };
        if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
            return Some(Answer::Error(libc::EINVAL));
        }
        let mut call = Call {
            id: notification.id,
            thread: notification.pid,
            fd: fd as RawFd,
            address,
            length,
            nonblocking: flags & libc::SOCK_NONBLOCK != 0,
            close_on_exec: flags & libc::SOCK_CLOEXEC != 0,
            until: None,
        };
        let cookie = match sys::cookie(listening.as_fd()) {
            Ok(cookie) => cookie,
            Err(error) => return Some(Answer::Error(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        if self.attempt(side, &call, cookie, listening.as_fd()) == Outcome::Over {
            if self.kept.contains_key(&cookie) {
                self.serve(side, cookie);
            }
            return None;
        }
        if sys::is_nonblocking(listening.as_fd()) {
            return Some(Answer::Error(libc::EAGAIN));
        }
        call.until = sys::accept_timeout(listening.as_fd()).map(|time| Instant::now() + time);
        self.wait(side, call, cookie, listening.as_fd())
    }

    /// Serves the calls whose listeners have a connection.
    pub fn connection(&mut self, side: &Side<'_>) {
        for cookie in self.readiness.ready() {
            self.serve(side, cookie);
        }
    }

    /// Ends what has waited long enough.
    pub fn time(&mut self, side: &Side<'_>) {
        let now = Instant::now();
        for calls in self.waiting.values_mut() {
            calls.retain(|call| {
                let over = call.until.is_some_and(|until| until <= now);
                if over {
                    respond(side, call, Answer::Error(libc::EAGAIN));
                }
                !over
            });
        }
        self.waiting.retain(|_, calls| !calls.is_empty());
        for kept in self.kept.values_mut() {
            while let Some((accepted, _)) = kept.pop_front_if(|(_, until)| *until <= now) {
                accepted.reset();
            }
        }
        self.kept.retain(|_, kept| !kept.is_empty());
    }

    /// Puts a call on the list.
    fn wait(
        &mut self,
        side: &Side<'_>,
        call: Call,
        cookie: u64,
        listening: BorrowedFd<'_>,
    ) -> Option<Answer> {
        if let Err(error) = self.readiness.watch(listening, cookie) {
            tracing::warn!(%error, pod = %side.pod, "an accept of the pod cannot wait");
            return Some(Answer::Error(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        // a thread has one call at a time: earlier ones were ended by a signal
        self.forget(|other| other.thread == call.thread);
        let number: usize = self.waiting.values().map(VecDeque::len).sum();
        if number >= self.tidy_at {
            self.forget(|other| !sys::still_waits(side.listener, other.id));
            let left: usize = self.waiting.values().map(VecDeque::len).sum();
            self.tidy_at = 64.max(2 * left);
        }
        self.waiting.entry(cookie).or_default().push_back(call);
        None
    }

    fn forget(&mut self, over: impl Fn(&Call) -> bool) {
        for calls in self.waiting.values_mut() {
            calls.retain(|call| !over(call));
        }
        self.waiting.retain(|_, calls| !calls.is_empty());
    }

    /// Serves the calls that wait at one listener, the longest first, as long as there are connections.
    fn serve(&mut self, side: &Side<'_>, cookie: u64) {
        let mut calls = self.waiting.remove(&cookie).unwrap_or_default();
        while let Some(call) = calls.front().copied() {
            let socket = sys::take_descriptor(call.thread, call.fd);
            let valid = sys::still_waits(side.listener, call.id);
            let same = |socket: &OwnedFd| sys::cookie(socket.as_fd()).is_ok_and(|other| other == cookie);
            match socket {
                _ if !valid => {}
                Ok(socket) if same(&socket) => {
                    if self.attempt(side, &call, cookie, socket.as_fd()) == Outcome::Nothing {
                        match self.readiness.watch(socket.as_fd(), cookie) {
                            Ok(()) => break,
                            Err(error) => {
                                tracing::warn!(%error, pod = %side.pod, "an accept of the pod cannot wait on");
                                respond(side, &call, Answer::Error(libc::EINTR));
                            }
                        }
                    }
                }
                // closed by another thread meanwhile
                _ => respond(side, &call, Answer::Error(libc::EBADF)),
            }
            calls.pop_front();
        }
        if !calls.is_empty() {
            self.waiting.insert(cookie, calls);
        }
    }

    /// Gives a call the next connection that may come in.
    fn attempt(&mut self, side: &Side<'_>, call: &Call, cookie: u64, listening: BorrowedFd<'_>) -> Outcome {
        let room = match room(call) {
            Ok(room) => room,
            Err(errno) => {
                respond(side, call, Answer::Error(errno));
                return Outcome::Over;
            }
        };
        let accepted = match self.next(side, cookie, listening) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return Outcome::Nothing,
            Err(error) => {
                respond(
                    side,
                    call,
                    Answer::Error(error.raw_os_error().unwrap_or(libc::EIO)),
                );
                return Outcome::Over;
            }
        };
        sys::set_nonblocking(accepted.socket.as_fd(), call.nonblocking);
        if let Err(error) = deliver(side, call, room, &accepted) {
            match error.raw_os_error() {
                Some(libc::ENOENT) => {}
                errno => respond(side, call, Answer::Error(errno.unwrap_or(libc::EIO))),
            }
            let until = Instant::now() + KEPT;
            self.kept.entry(cookie).or_default().push_back((accepted, until));
        }
        Outcome::Over
    }

    fn next(
        &mut self,
        side: &Side<'_>,
        cookie: u64,
        listening: BorrowedFd<'_>,
    ) -> io::Result<Option<Accepted>> {
        if let Some(kept) = self.kept.get_mut(&cookie) {
            let first = kept.pop_front();
            if kept.is_empty() {
                self.kept.remove(&cookie);
            }
            if let Some((accepted, _)) = first {
                return Ok(Some(accepted));
            }
        }
        for _ in 0..MOST_REFUSED {
            // looked at first: the accept must not wait
            if !sys::is_ready(listening) {
                return Ok(None);
            }
            let accepted = match sys::accept(listening) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let ends = (accepted.peer(), sys::local_address(accepted.socket.as_fd()));
            if let (Some(client), Some(server)) = ends
                && side.owner.lets_in(client, server)
            {
                return Ok(Some(accepted));
            }
            tracing::debug!(peer = ?ends.0, pod = %side.pod, "a connection of another user is refused");
            accepted.reset();
        }
        Ok(None)
    }
}

/// Whether a socket listens where only the owner may reach it: at the Pod's address, or at the wildcard.
fn is_of_pod(listening: BorrowedFd<'_>, pod: Ipv4Addr) -> bool {
    let here = sys::local_address(listening).map(|here| here.ip().to_canonical());
    here.is_none_or(|ip| ip.is_unspecified() || ip.is_loopback() || ip == IpAddr::V4(pod))
}

/// How many bytes of an address the caller takes; what is wrong with its pointers is found before a connection is lost by it.
fn room(call: &Call) -> Result<usize, i32> {
    if call.address == 0 {
        return Ok(0);
    }
    let length = sys::read_int(call.thread, call.length).map_err(|_| libc::EFAULT)?;
    usize::try_from(length).map_err(|_| libc::EINVAL)
}

/// Writes the peer's address, as much of it as there is room for and its full length, and gives the connection to the caller.
fn deliver(side: &Side<'_>, call: &Call, room: usize, accepted: &Accepted) -> io::Result<()> {
    if call.address != 0 {
        if !sys::still_waits(side.listener, call.id) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let raw = accepted.raw();
        let length = raw.len() as i32;
        sys::write_memory(call.thread, call.address, raw.get(..room).unwrap_or(raw))?;
        sys::write_memory(call.thread, call.length, &length.to_ne_bytes())?;
    }
    sys::give_descriptor(
        side.listener,
        call.id,
        accepted.socket.as_fd(),
        call.close_on_exec,
    )
}

fn respond(side: &Side<'_>, call: &Call, answer: Answer) {
    if let Err(error) = sys::respond(side.listener, call.id, answer) {
        tracing::warn!(%error, process = call.thread, pod = %side.pod, "an accept of the pod got no answer");
    }
}
