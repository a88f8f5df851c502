//! Outcomes that their callers did not get.
//!
//! A signal ends the wait for our answer, also of a call that we carry out at this moment; the kernel (or the program) then makes the same
//! call again. A second bind or connect of the same socket would fail, so it gets the outcome of the first. A connect that is still under way
//! is made a second time, which waits for the same connection; only that there is one already is no error then.
//!
//! A signal may also come between our answer and the moment when the caller would take it (`seccomp_do_user_notification` in Linux'
//! kernel/seccomp.c looks at the signal first): the kernel tells us that the answer was delivered, and makes the call again. So outcomes
//! that were delivered are remembered as well, for a call that is the same to the last register.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use libc::seccomp_notif;
use parking_lot::Mutex;

use crate::sys::{self, Answer};

/// A call is made again as soon as the signal's handler has run; after an error, later ones are new.
const SOON: Duration = Duration::from_secs(2);

/// A call that succeeded may be interrupted again and again, and each time it is made is new.
const LONG: Duration = Duration::from_secs(10);

/// When so many are remembered, the older half is dropped; calls that are under way are as many as threads at most.
const MOST: usize = 1024;

/// What is known of sockets, by their cookies.
#[derive(Debug, Default)]
pub struct Undelivered {
    sockets: Mutex<HashMap<u64, Outcome>>,
}

/// A call as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Rises with each call.
    id: u64,
    number: i32,
    asked: SocketAddr,
    thread: u32,
    instruction: u64,
    registers: [u64; 6],
}

impl Call {
    pub fn new(notification: &seccomp_notif, asked: SocketAddr) -> Self {
        Self {
            id: notification.id,
            number: notification.data.nr,
            asked,
            thread: notification.pid,
            instruction: notification.data.instruction_pointer,
            registers: notification.data.args,
        }
    }

    fn asks_the_same(&self, earlier: &Self) -> bool {
        self.number == earlier.number && self.asked == earlier.asked
    }

    fn is_made_again(&self, earlier: &Self) -> bool {
        let registers = |call: &Self| (call.thread, call.instruction, call.registers);
        self.asks_the_same(earlier) && registers(self) == registers(earlier)
    }

    /// The outcome of a call made again counts, whichever of the two ends first.
    fn is_older(&self, other: &Self) -> bool {
        self.id.wrapping_sub(other.id) > u64::MAX / 2
    }
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    call: Call,
    state: State,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A thread carries it out.
    UnderWay,
    Lost(Answer),
    /// Unless a signal came in between.
    Delivered(Answer),
}

impl Outcome {
    /// What came to be stays so, however often signals interrupt the call; what did not is tried anew some time.
    fn counts(&self) -> bool {
        let done = matches!(
            self.state,
            State::Lost(Answer::Success) | State::Delivered(Answer::Success)
        );
        self.at.elapsed() < if done { LONG } else { SOON }
    }
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
    pub fn begins(&self, socket: BorrowedFd<'_>, call: Call) {
        self.insert(socket, call, State::UnderWay);
    }

    /// The outcome found nobody who waits for it.
    pub fn lost(&self, socket: BorrowedFd<'_>, call: Call, answer: Answer) {
        self.insert(socket, call, State::Lost(answer));
    }

    /// The kernel took the outcome. To be told of streams only: others may be connected again, and to another endpoint.
    pub fn delivered(&self, socket: BorrowedFd<'_>, call: Call, answer: Answer) {
        if matches!(answer, Answer::Success | Answer::Error(libc::EINPROGRESS)) {
            self.insert(socket, call, State::Delivered(answer));
        } else {
            // what failed can be tried again
            self.forget(socket, call);
        }
    }

    fn forget(&self, socket: BorrowedFd<'_>, call: Call) {
        let mut sockets = self.sockets.lock();
        if !sockets.is_empty()
            && let Ok(cookie) = sys::cookie(socket)
            && sockets
                .get(&cookie)
                .is_some_and(|known| !call.is_older(&known.call))
        {
            sockets.remove(&cookie);
        }
    }

    /// What is known of an earlier call.
    pub fn earlier(&self, socket: BorrowedFd<'_>, call: Call) -> Earlier {
        let sockets = self.sockets.lock();
        if sockets.is_empty() {
            return Earlier::None;
        }
        let Some(known) = sys::cookie(socket).ok().and_then(|cookie| sockets.get(&cookie)) else {
            return Earlier::None;
        };
        match known.state {
            State::UnderWay if call.asks_the_same(&known.call) => Earlier::UnderWay,
            State::Lost(answer) if known.counts() && call.asks_the_same(&known.call) => Earlier::Done(answer),
            State::Delivered(answer) if known.counts() && call.is_made_again(&known.call) => match answer {
                // a program may ask in this way whether it is connected by now
                Answer::Error(_) => Earlier::UnderWay,
                answer => Earlier::Done(answer),
            },
            _ => Earlier::None,
        }
    }

    fn insert(&self, socket: BorrowedFd<'_>, call: Call, state: State) {
        let Ok(cookie) = sys::cookie(socket) else {
            return;
        };
        let mut sockets = self.sockets.lock();
        let newer = |known: &Outcome| call.is_older(&known.call);
        if sockets.get(&cookie).is_some_and(newer) {
            return;
        }
        if sockets.len() >= MOST {
            let mut times: Vec<_> = sockets.values().map(|outcome| outcome.at).collect();
            let middle = times.len() / 2;
            let middle = *times.select_nth_unstable(middle).1;
            sockets.retain(|_, outcome| outcome.at > middle || matches!(outcome.state, State::UnderWay));
        }
        let at = Instant::now();
        sockets.insert(cookie, Outcome { call, state, at });
    }
}
