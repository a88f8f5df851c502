//! Answers the Pod's `bind` and `connect` calls.
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

use crate::listeners::{Caller, Listeners};
use crate::rewrite::{self, Bind, Connect};
use crate::sys::{self, Answer, Event};
use crate::table::{Protocol, ServiceKey, TableReader};

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
    receiving: Mutex<()>,
    stopped: AtomicBool,
    threads: AtomicUsize,
    /// Threads that cannot receive since their connect may wait.
    waiting: AtomicUsize,
}

impl Supervisor {
    /// For the processes behind `listener`, in the Pod with address `pod_ip`; `table` is the file that the agent publishes.
    pub fn new(listener: OwnedFd, pod_ip: Ipv4Addr, table: PathBuf) -> Self {
        sys::wake_synchronously(listener.as_fd());
        Self {
            listener,
            pod: pod_ip,
            table: TableReader::new(table),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            listeners: Listeners::default(),
            receiving: Mutex::new(()),
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
        let this = &self;
        std::thread::scope(|scope| this.serve(scope, stop))
    }

    fn serve<'s>(&'s self, scope: &'s Scope<'s, '_>, stop: BorrowedFd<'s>) -> io::Result<()> {
        loop {
            let receiving = self.receiving.lock();
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            if sys::wait(self.listener.as_fd(), stop)? == Event::Stop {
                self.stopped.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let Some(call) = sys::receive(self.listener.as_fd())? else {
                continue;
            };
            match self.look_at(&call) {
                Step::Answer(answer) => self.respond(&call, answer),
                Step::MayWait(socket, to) => {
                    drop(receiving);
                    self.find_a_receiver(scope, stop);
                    let answer = answer_of(sys::connect(socket.as_fd(), to));
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.respond(&call, answer);
                }
            }
        }
    }

    fn respond(&self, call: &seccomp_notif, answer: Answer) {
        if let Err(error) = sys::respond(self.listener.as_fd(), call.id, answer) {
            tracing::warn!(%error, process = call.pid, pod = %self.pod, "a call of the pod got no answer");
        }
    }

    /// Makes sure that another thread receives while this one may have to wait.
    fn find_a_receiver<'s>(&'s self, scope: &'s Scope<'s, '_>, stop: BorrowedFd<'s>) {
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
                if let Err(error) = self.serve(scope, stop) {
                    tracing::warn!(%error, pod = %self.pod, "pod network thread ended");
                }
            };
            if let Err(error) = thread.spawn_scoped(scope, run) {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, pod = %self.pod, "no thread for another connect of the pod");
            }
        }
    }

    fn look_at(&self, call: &seccomp_notif) -> Step {
        let [fd, pointer, length, ..] = call.data.args;
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
                Bind::At(to) => {
                    let caller = Caller {
                        listener: self.listener.as_fd(),
                        id: call.id,
                        thread: call.pid,
                        fd: fd as i32,
                    };
                    self.with_socket(call, fd, |socket| {
                        Step::Answer(self.listeners.bind(&caller, socket.as_fd(), asked, to))
                    })
                }
            }
        } else if rewrite::may_be_name_server(asked)
            && std::fs::read_to_string(&self.resolv_conf)
                .is_ok_and(|conf| rewrite::is_name_server(asked, &conf))
        {
            Step::Answer(Answer::Continue)
        } else {
            match rewrite::connect(asked, self.pod) {
                Connect::Pod(to) => self.with_socket(call, fd, |socket| self.connect(socket, asked, to)),
                Connect::Service(service) => {
                    self.with_socket(call, fd, |socket| self.connect_service(socket, asked, service))
                }
                Connect::Outside(to) if self.table.is_service(*to.ip()) => {
                    self.with_socket(call, fd, |socket| self.connect_service(socket, asked, to))
                }
                Connect::Outside(to) if is_of_this_machine(*to.ip()) => {
                    self.with_socket(call, fd, |socket| self.connect(socket, asked, to))
                }
                Connect::Leave | Connect::Outside(_) => Step::Answer(Answer::Continue),
            }
        }
    }

    fn with_socket(&self, call: &seccomp_notif, fd: u64, act: impl FnOnce(OwnedFd) -> Step) -> Step {
        let socket = sys::take_descriptor(call.pid, fd as i32);
        // the process id may have passed on to another process meanwhile
        if !sys::still_waits(self.listener.as_fd(), call.id) {
            return Step::Answer(Answer::Continue);
        }
        match socket {
            Ok(socket) => act(socket),
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => Step::Answer(Answer::Error(libc::EBADF)),
            Err(e) => {
                tracing::warn!(error = %e, process = call.pid, "the descriptor of a process in the pod cannot be reached");
                Step::Answer(Answer::Error(libc::EACCES))
            }
        }
    }

    fn endpoint(&self, socket: &OwnedFd, address: SocketAddrV4) -> Option<SocketAddr> {
        let protocol = if is_stream(socket.as_fd()) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        self.table.choose(&ServiceKey { protocol, address })
    }

    fn connect_service(&self, socket: OwnedFd, asked: SocketAddr, service: SocketAddrV4) -> Step {
        match self.endpoint(&socket, service) {
            Some(SocketAddr::V4(to)) => self.connect(socket, asked, to),
            _ => Step::Answer(Answer::Error(libc::ECONNREFUSED)),
        }
    }

    fn connect(&self, socket: OwnedFd, asked: SocketAddr, to: SocketAddrV4) -> Step {
        let target = rewrite::in_family_of(asked, to);
        if asked.is_ipv6() {
            // a socket for IPv6 alone cannot reach an IPv4 address
            let _ = sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0);
        }
        if !is_stream(socket.as_fd()) {
            return Step::Answer(answer_of(sys::connect(socket.as_fd(), target)));
        }
        let here = if self.pod.is_loopback() {
            to.ip().is_loopback()
        } else {
            is_of_this_machine(*to.ip())
        };
        if here {
            self.be_the_pod(socket.as_fd(), asked);
        }
        if sys::is_nonblocking(socket.as_fd()) {
            return Step::Answer(answer_of(sys::connect(socket.as_fd(), target)));
        }
        Step::MayWait(socket, target)
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
    /// A blocking connect.
    MayWait(OwnedFd, SocketAddr),
}

/// Whether the machine itself has this address: then it is also what a connection to it would come from.
fn is_of_this_machine(ip: Ipv4Addr) -> bool {
    let source = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((ip, 9)).and_then(|()| socket.local_addr()));
    source.is_ok_and(|source| source.ip() == ip)
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
