//! Answers the Pod's `bind`, `connect` and `accept` calls.
//!
//! A call that is rewritten is carried out here, on a duplicate of the caller's socket, so that the caller cannot change the address
//! after it was looked at; a call that is left alone is carried out by the kernel. A blocking connect keeps only its
//! own thread busy: threads take turns at receiving, and another is started when all are busy.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;

use libc::seccomp_notif;
use parking_lot::Mutex;

use crate::accepts::{self, Accepts, Side};
use crate::listeners::{Caller, Listeners};
use crate::owner::{Owner, is_of_this_machine};
use crate::rewrite::{self, Bind, Connect};
use crate::sys::{self, Answer, Event};
use crate::table::{Protocol, ServiceKey, TableReader};
use crate::undelivered::{Call, Earlier, Undelivered};

/// At most so many connects of one Pod may wait at the same time; more wait for one of these.
const MOST_THREADS: usize = 256;

/// The network of one Pod.
#[derive(Debug)]
pub struct Supervisor {
    listener: OwnedFd,
    pod: Ipv4Addr,
    table: TableReader,
    resolv_conf: PathBuf,
    listeners: Listeners,
    owner: Owner,
    undelivered: Undelivered,
    stopped: AtomicBool,
    threads: AtomicUsize,
    /// Threads that cannot receive since their connect may wait.
    waiting: AtomicUsize,
}

impl Supervisor {
    /// For the processes behind `listener`, in the Pod with address `pod_ip`; `table` is the file that the agent publishes, in a folder
    /// where only this user may write.
    pub fn new(listener: OwnedFd, pod_ip: Ipv4Addr, table: PathBuf) -> Self {
        sys::wake_synchronously(listener.as_fd());
        Self {
            listener,
            pod: pod_ip,
            owner: Owner::this_user(&table),
            undelivered: Undelivered::default(),
            table: TableReader::new(table),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            listeners: Listeners::default(),
            stopped: AtomicBool::new(false),
            threads: AtomicUsize::new(1),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The file that names the machine's name servers, where it is not `/etc/resolv.conf`: one on the loopback stays reachable
    /// for Pods.
    #[must_use]
    pub fn with_resolv_conf(mut self, path: PathBuf) -> Self {
        self.resolv_conf = path;
        self
    }

    /// Works until `stop` is readable or closed, or no process under the filter is left. The calling thread must not be
    /// under the filter itself. Calls that are made after the end get `ENOSYS`.
    pub fn run(self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let (this, receiving) = (&self, &Mutex::new(Accepts::new()?));
        std::thread::scope(|scope| this.serve(scope, stop, receiving))
    }

    /// `receiving` is held by the thread whose turn it is.
    fn serve<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        stop: BorrowedFd<'s>,
        receiving: &'s Mutex<Accepts>,
    ) -> io::Result<()> {
        loop {
            let mut accepts = receiving.lock();
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let until = accepts.next_time();
            let Event::Ready { call, connection } =
                sys::wait(self.listener.as_fd(), stop, accepts.readiness(), until)?
            else {
                self.stopped.store(true, Ordering::Relaxed);
                return Ok(());
            };
            if connection {
                accepts.connection(&self.side());
            }
            if until.is_some() {
                accepts.time(&self.side());
            }
            if !call {
                continue;
            }
            let Some(call) = sys::receive(self.listener.as_fd())? else {
                continue;
            };
            match self.look_at(&call, &mut accepts) {
                Step::Answer(answer) => drop(self.respond(&call, answer)),
                Step::Done(socket, asked, answer) => self.tell(&call, &socket, asked, answer),
                Step::Waits => {}
                Step::MayWait(socket, asked, to) => {
                    // known before anybody else can receive the call again
                    let this = Call::new(&call, asked);
                    let again = self.undelivered.earlier(socket.as_fd(), this) != Earlier::None;
                    self.undelivered.begins(socket.as_fd(), this);
                    drop(accepts);
                    self.find_a_receiver(scope, stop, receiving);
                    let answer = connect(socket.as_fd(), to, again);
                    self.note(&socket, to);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.tell(&call, &socket, asked, answer);
                }
            }
        }
    }

    fn side(&self) -> Side<'_> {
        Side {
            listener: self.listener.as_fd(),
            owner: &self.owner,
            pod: self.pod,
        }
    }

    /// Whether the caller got the answer.
    fn respond(&self, call: &seccomp_notif, answer: Answer) -> bool {
        sys::respond(self.listener.as_fd(), call.id, answer).unwrap_or_else(|error| {
            tracing::warn!(%error, process = call.pid, pod = %self.pod, "a call of the pod got no answer");
            true
        })
    }

    /// Answers a call that was carried out here.
    fn tell(&self, call: &seccomp_notif, socket: &OwnedFd, asked: SocketAddr, answer: Answer) {
        // noted before it is sent: the caller's next call may find another thread
        let this = Call::new(call, asked);
        if is_stream(socket.as_fd()) {
            self.undelivered.delivered(socket.as_fd(), this, answer);
        }
        if !self.respond(call, answer) {
            self.undelivered.lost(socket.as_fd(), this, answer);
        }
    }

    /// Notes a connection to a Pod, so that the other side knows whose it was even if the caller closes it at once.
    fn note(&self, socket: &OwnedFd, to: SocketAddr) {
        if self.pod.is_loopback()
            && sys::is_connected(socket.as_fd())
            && let Some(client) = sys::local_address(socket.as_fd())
        {
            self.owner.connected(client, to);
        }
    }

    /// Makes sure that another thread receives while this one may have to wait.
    fn find_a_receiver<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        stop: BorrowedFd<'s>,
        receiving: &'s Mutex<Accepts>,
    ) {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let threads = self.threads.load(Ordering::Relaxed);
        let started = waiting >= threads
            && threads < MOST_THREADS
            && self
                .threads
                .compare_exchange(threads, threads + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if started {
            let thread = std::thread::Builder::new()
                .name("podnet".to_owned())
                .stack_size(128 * 1024);
            let run = move || {
                if let Err(error) = self.serve(scope, stop, receiving) {
                    tracing::warn!(%error, pod = %self.pod, "pod network thread ended");
                }
            };
            if let Err(error) = thread.spawn_scoped(scope, run) {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, pod = %self.pod, "no thread for another connect of the pod");
            }
        }
    }

    fn look_at(&self, call: &seccomp_notif, accepts: &mut Accepts) -> Step {
        if accepts::is_accept(call.data.nr) {
            return self.accept(call, accepts);
        }
        let [_, pointer, length, ..] = call.data.args;
        let asked = match sys::read_address(call.pid, pointer, length) {
            Ok(Some(address)) => address,
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                return Step::Answer(Answer::Error(libc::EACCES));
            }
            // not of the Internet, or memory that the kernel will refuse as well
            Ok(None) | Err(_) => return Step::Answer(Answer::Continue),
        };
        if i64::from(call.data.nr) == libc::SYS_bind {
            match rewrite::bind(asked, self.pod) {
                Bind::Leave => Step::Answer(Answer::Continue),
                Bind::NotOurs => Step::Answer(Answer::Error(libc::EADDRNOTAVAIL)),
                Bind::At(to) => self.with_socket(call, asked, |socket, _| self.bind(call, socket, asked, to)),
            }
        } else if rewrite::may_be_name_server(asked)
            && std::fs::read_to_string(&self.resolv_conf)
                .is_ok_and(|conf| rewrite::is_name_server(asked, &conf))
        {
            Step::Answer(Answer::Continue)
        } else {
            match rewrite::connect(asked, self.pod) {
                Connect::Pod(to) => self.with_socket(call, asked, |socket, again| {
                    self.connect(socket, asked, to, again)
                }),
                Connect::Service(service) => self.with_socket(call, asked, |socket, again| {
                    self.connect_service(socket, asked, service, again)
                }),
                Connect::Outside(to) if self.table.is_service(*to.ip()) => {
                    self.with_socket(call, asked, |socket, again| {
                        self.connect_service(socket, asked, to, again)
                    })
                }
                Connect::Outside(to) if is_of_this_machine((*to.ip()).into()) => {
                    self.with_socket(call, asked, |socket, again| {
                        self.connect(socket, asked, to, again)
                    })
                }
                Connect::Leave | Connect::Outside(_) => Step::Answer(Answer::Continue),
            }
        }
    }

    fn accept(&self, call: &seccomp_notif, accepts: &mut Accepts) -> Step {
        // a Node's Pods are reached as those of any cluster
        if !self.pod.is_loopback() {
            return Step::Answer(Answer::Continue);
        }
        match self.socket(call) {
            Ok(socket) => accepts
                .call(&self.side(), call, &socket)
                .map_or(Step::Waits, Step::Answer),
            Err(answer) => Step::Answer(answer),
        }
    }

    fn bind(&self, call: &seccomp_notif, socket: OwnedFd, asked: SocketAddr, to: SocketAddr) -> Step {
        let caller = Caller {
            listener: self.listener.as_fd(),
            id: call.id,
            thread: call.pid,
            fd: call.data.args[0] as i32,
        };
        let answer = self.listeners.bind(&caller, socket.as_fd(), asked, to);
        Step::Done(socket, asked, answer)
    }

    /// `act` learns whether the same call was begun before.
    fn with_socket(
        &self,
        call: &seccomp_notif,
        asked: SocketAddr,
        act: impl FnOnce(OwnedFd, bool) -> Step,
    ) -> Step {
        match self.socket(call) {
            Ok(socket) => match self.undelivered.earlier(socket.as_fd(), Call::new(call, asked)) {
                Earlier::Done(answer) => Step::Done(socket, asked, answer),
                Earlier::None => act(socket, false),
                Earlier::UnderWay => act(socket, true),
            },
            Err(answer) => Step::Answer(answer),
        }
    }

    /// The socket that a call is about.
    fn socket(&self, call: &seccomp_notif) -> Result<OwnedFd, Answer> {
        let socket = sys::take_descriptor(call.pid, call.data.args[0] as i32);
        // the process id may have passed on to another process meanwhile
        if !sys::still_waits(self.listener.as_fd(), call.id) {
            return Err(Answer::Continue);
        }
        socket.map_err(|e| {
            if e.raw_os_error() == Some(libc::EBADF) {
                return Answer::Error(libc::EBADF);
            }
            tracing::warn!(error = %e, process = call.pid, "the descriptor of a process in the pod cannot be reached");
            Answer::Error(libc::EACCES)
        })
    }

    fn endpoint(&self, socket: &OwnedFd, address: SocketAddrV4) -> Option<SocketAddr> {
        let protocol = if is_stream(socket.as_fd()) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        self.table.choose(&ServiceKey { protocol, address })
    }

    fn connect_service(
        &self,
        socket: OwnedFd,
        asked: SocketAddr,
        service: SocketAddrV4,
        again: bool,
    ) -> Step {
        match self.endpoint(&socket, service) {
            Some(SocketAddr::V4(to)) => self.connect(socket, asked, to, again),
            _ => Step::Answer(Answer::Error(libc::ECONNREFUSED)),
        }
    }

    /// `again`: the same connect was begun before.
    fn connect(&self, socket: OwnedFd, asked: SocketAddr, to: SocketAddrV4, again: bool) -> Step {
        let target = rewrite::in_family_of(asked, to);
        if asked.is_ipv6() {
            // a socket for IPv6 alone cannot reach an IPv4 address
            let _ = sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
        }
        if !is_stream(socket.as_fd()) {
            let answer = answer_of(sys::connect(socket.as_fd(), target));
            return Step::Done(socket, asked, answer);
        }
        let here = if self.pod.is_loopback() {
            to.ip().is_loopback()
        } else {
            is_of_this_machine((*to.ip()).into())
        };
        if here {
            self.be_the_pod(socket.as_fd(), asked);
        }
        if sys::is_nonblocking(socket.as_fd()) {
            let answer = connect(socket.as_fd(), target, again);
            self.note(&socket, target);
            return Step::Done(socket, asked, answer);
        }
        Step::MayWait(socket, asked, target)
    }

    /// The other side is to see the Pod's address: peers call back to it (xgboost's tracker, for one).
    fn be_the_pod(&self, socket: BorrowedFd<'_>, asked: SocketAddr) {
        let unbound = sys::local_address(socket).is_none_or(|a| a.port() == 0 && a.ip().is_unspecified());
        if unbound {
            let source = rewrite::in_family_of(asked, SocketAddrV4::new(self.pod, 0));
            // the port is then chosen at the connect, by both addresses, so that ports do not run out
            let chosen = sys::set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
                .and_then(|()| sys::bind(socket, source));
            if let Err(error) = chosen {
                tracing::debug!(%error, pod = %self.pod, "a connection does not carry the pod's address");
            }
        }
    }
}

/// What to do about a call.
enum Step {
    Answer(Answer),
    /// Carried out, for this address.
    Done(OwnedFd, SocketAddr, Answer),
    /// A blocking connect: what was asked for, and where it goes.
    MayWait(OwnedFd, SocketAddr, SocketAddr),
    /// An accept that is answered, or will be when there is a connection.
    Waits,
}

/// A connect that was begun before has no error of its own.
fn connect(socket: BorrowedFd<'_>, to: SocketAddr, again: bool) -> Answer {
    match answer_of(sys::connect(socket, to)) {
        Answer::Error(libc::EISCONN) if again => Answer::Success,
        Answer::Error(libc::EALREADY) if again => Answer::Error(libc::EINPROGRESS),
        answer => answer,
    }
}

pub(crate) fn answer_of(outcome: io::Result<()>) -> Answer {
    match outcome {
        Ok(()) => Answer::Success,
        Err(e) => Answer::Error(e.raw_os_error().unwrap_or(libc::EIO)),
    }
}

pub(crate) fn is_stream(socket: BorrowedFd<'_>) -> bool {
    sys::option(socket, libc::SOL_SOCKET, libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_STREAM)
}
