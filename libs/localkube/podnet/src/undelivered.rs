//! Outcomes that their callers did not get.
//!
//! A signal ends the wait for our answer, also of a call that we carry out at this moment; the kernel (or the program) then makes the same
//! call again. A second bind or connect of the same socket would fail, so it gets the outcome of the first. A connect that is still under way
//! is made a second time, which waits for the same connection; only that there is one already is no error then.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::sys::{self, Answer};

/// A call is made again as soon as the signal's handler has run; later ones are new.
const SOON: Duration = Duration::from_secs(2);

/// More are not remembered.
const MOST: usize = 1024;

/// What is known of sockets, by their cookies.
#[derive(Debug, Default)]
pub struct Undelivered {
    sockets: Mutex<HashMap<u64, Outcome>>,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    call: i32,
    asked: SocketAddr,
    /// `None` while a thread still carries it out.
    answer: Option<Answer>,
    at: Instant,
}

/// What an earlier call, the same as this one, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    None,
    UnderWay,
    Done(Answer),
}

impl Undelivered {
    /// A connect begins that may take long.
    pub fn begins(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr) {
        self.insert(socket, call, asked, None);
    }

    /// Keeps the outcome of system call number `call` for `asked`.
    pub fn keep(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr, answer: Answer) {
        self.insert(socket, call, asked, Some(answer));
    }

    /// The outcome was delivered.
    pub fn forget(&self, socket: BorrowedFd<'_>) {
        let mut sockets = self.sockets.lock();
        if !sockets.is_empty()
            && let Ok(cookie) = sys::cookie(socket)
        {
            sockets.remove(&cookie);
        }
    }

    /// What is known of an earlier call.
    pub fn earlier(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr) -> Earlier {
        let sockets = self.sockets.lock();
        if sockets.is_empty() {
            return Earlier::None;
        }
        let known = sys::cookie(socket).ok().and_then(|cookie| sockets.get(&cookie));
        match known.filter(|known| known.call == call && known.asked == asked) {
            Some(Outcome { answer: None, .. }) => Earlier::UnderWay,
            Some(Outcome {
                answer: Some(answer),
                at,
                ..
            }) if at.elapsed() < SOON => Earlier::Done(*answer),
            _ => Earlier::None,
        }
    }

    fn insert(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr, answer: Option<Answer>) {
        let Ok(cookie) = sys::cookie(socket) else {
            return;
        };
        let mut sockets = self.sockets.lock();
        if sockets.len() >= MOST {
            sockets.retain(|_, outcome| outcome.answer.is_none());
        }
        let at = Instant::now();
        sockets.insert(
            cookie,
            Outcome {
                call,
                asked,
                answer,
                at,
            },
        );
    }
}
