//! Outcomes that their callers did not get.
//!
//! A signal ends the wait for our answer, also of a call that we carry out at this moment; the kernel (or the program) then makes the same
//! call again. A second bind or connect of the same socket would fail, so it gets the outcome of the first.

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

/// By the socket's cookie.
#[derive(Debug, Default)]
pub struct Undelivered {
    outcomes: Mutex<HashMap<u64, Outcome>>,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    call: i32,
    asked: SocketAddr,
    answer: Answer,
    at: Instant,
}

impl Undelivered {
    /// Keeps the outcome of system call number `call` for `asked`.
    pub fn keep(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr, answer: Answer) {
        let Ok(cookie) = sys::cookie(socket) else {
            return;
        };
        let mut outcomes = self.outcomes.lock();
        if outcomes.len() >= MOST {
            outcomes.clear();
        }
        let at = Instant::now();
        outcomes.insert(
            cookie,
            Outcome {
                call,
                asked,
                answer,
                at,
            },
        );
    }

    /// What an earlier call, the same as this one, had as its outcome.
    pub fn take(&self, socket: BorrowedFd<'_>, call: i32, asked: SocketAddr) -> Option<Answer> {
        let mut outcomes = self.outcomes.lock();
        if outcomes.is_empty() {
            return None;
        }
        let outcome = outcomes.remove(&sys::cookie(socket).ok()?)?;
        let same = outcome.call == call && outcome.asked == asked && outcome.at.elapsed() < SOON;
        same.then_some(outcome.answer)
    }
}
