//! Binds of the wildcard and of localhost.
//!
//! A server for both families often opens two sockets, one of them for IPv6 alone (asyncio does, in either order). A Pod has one
//! address, so both cannot have the port there: the IPv4 socket gets it, all clients come to it, and the other one
//! listens on a port that nobody knows. A server that opens only the IPv6 socket gets the port.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use parking_lot::Mutex;

use crate::supervisor::{answer_of, is_stream};
use crate::sys::{self, Answer};

/// More binds than this are not remembered; a Pod has few listening ports.
const MOST: usize = 4096;

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub listener: BorrowedFd<'a>,
    pub id: u64,
    pub thread: u32,
    pub fd: RawFd,
}

/// TCP sockets that were bound to the Pod's address.
#[derive(Debug, Default)]
pub struct Listeners {
    bound: Mutex<HashMap<(u16, Family), Bound>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    V4,
    /// For IPv6 alone, until we bound it.
    OnlyV6,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    process: u32,
    fd: RawFd,
    cookie: u64,
}

impl Listeners {
    /// Binds `socket` of the caller, who asked for `asked`, to the Pod's address `to`.
    pub fn bind(
        &self,
        caller: &Caller<'_>,
        socket: BorrowedFd<'_>,
        asked: SocketAddr,
        to: SocketAddr,
    ) -> Answer {
        let stream = is_stream(socket);
        if !stream && asked.port() == 0 && asked.ip().is_unspecified() {
            // a datagram client: it must stay free to send anywhere
            return Answer::Continue;
        }
        let only_v6 = asked.is_ipv6()
            && sys::option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_ok_and(|v| v != 0);
        if only_v6 && let Err(e) = sys::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0) {
            return answer_of(Err(e));
        }
        if !stream {
            return answer_of(sys::bind(socket, to));
        }
        if only_v6 && self.twin(caller, to.port(), Family::V4).is_some() {
            return answer_of(sys::bind(socket, SocketAddr::new(to.ip(), 0)));
        }
        if asked.is_ipv4()
            && let Some((fd, twin)) = self.twin(caller, to.port(), Family::OnlyV6)
        {
            let moved = move_away(caller, fd, &twin, to);
            if let Err(error) = moved {
                tracing::debug!(%error, port = to.port(), "the ipv6 socket of a server for both families keeps its port");
            }
        }
        let outcome = sys::bind(socket, to);
        if outcome.is_ok() && (asked.is_ipv4() || only_v6) {
            self.remember(caller, socket, if only_v6 { Family::OnlyV6 } else { Family::V4 });
        }
        answer_of(outcome)
    }

    /// The caller's own socket of the other family on this port.
    fn twin(&self, caller: &Caller<'_>, port: u16, family: Family) -> Option<(RawFd, OwnedFd)> {
        if port == 0 {
            return None;
        }
        let bound = self.bound.lock().get(&(port, family)).copied()?;
        if sys::process_of(caller.thread).ok()? != bound.process {
            return None;
        }
        let socket = sys::take_descriptor(caller.thread, bound.fd).ok()?;
        // the descriptor may be another socket's by now
        (sys::cookie(socket.as_fd()).ok()? == bound.cookie).then_some((bound.fd, socket))
    }

    fn remember(&self, caller: &Caller<'_>, socket: BorrowedFd<'_>, family: Family) {
        let port = sys::local_address(socket).map_or(0, |a| a.port());
        if let (Ok(process), Ok(cookie)) = (sys::process_of(caller.thread), sys::cookie(socket)) {
            let mut bound = self.bound.lock();
            if bound.len() >= MOST {
                bound.clear();
            }
            bound.insert(
                (port, family),
                Bound {
                    process,
                    fd: caller.fd,
                    cookie,
                },
            );
        }
    }
}

/// Replaces a bound IPv6 socket of the caller by one on another port, which frees the port.
fn move_away(caller: &Caller<'_>, fd: RawFd, old: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let ip = match to {
        SocketAddr::V4(to) => to.ip().to_ipv6_mapped(),
        SocketAddr::V6(to) => *to.ip(),
    };
    let new = sys::new_socket()?;
    sys::set_option(new.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    sys::bind(new.as_fd(), SocketAddr::new(ip.into(), 0))?;
    sys::copy_blocking(new.as_fd(), old.as_fd())?;
    if sys::option(old.as_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0 {
        sys::listen(new.as_fd())?;
    }
    sys::replace_descriptor(caller.listener, caller.id, new.as_fd(), fd)
}
