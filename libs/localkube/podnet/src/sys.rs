//! The system calls of the supervisor: notifications, memory and descriptors of another process, socket addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libc::{c_int, c_long, c_void, seccomp_notif, seccomp_notif_resp};

mod accept;

pub use accept::{
    Accepted, Readiness, accept, accept_timeout, give_descriptor, is_ready, is_tcp_listener, read_int,
    set_nonblocking, write_memory,
};

/// Longest address that is read (`sizeof(struct sockaddr_storage)`).
const LONGEST: usize = 128;

fn result(code: c_int) -> io::Result<c_int> {
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(code)
    }
}

/// Asks the kernel to run the waiting call on the processor of the answering thread, which halves the time of a round trip.
pub fn wake_synchronously(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a number; kernels before 6.6 answer EINVAL, which only leaves it slower
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1u64) };
}

/// Waits for a notification. `None`: a signal, or the caller ended meanwhile.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<seccomp_notif>> {
    // SAFETY: plain data; the kernel wants it zeroed
    let mut notification: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the type that this request fills
    let code = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    };
    match result(code) {
        Ok(_) => Ok(Some(notification)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::ENOENT | libc::EAGAIN)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the interrupted call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries the call out as it stands.
    Continue,
    Success,
    Error(c_int),
}

/// Answers a notification; whether the caller got it: it may be gone, or a signal may have ended its call.
pub fn respond(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<bool> {
    let (error, flags) = match answer {
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Success => (0, 0),
        Answer::Error(errno) => (-errno, 0),
    };
    match send(listener, id, error, 0, flags) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

fn send(listener: BorrowedFd<'_>, id: u64, error: c_int, value: i64, flags: u32) -> io::Result<()> {
    let mut response = seccomp_notif_resp {
        id,
        val: value,
        error,
        flags,
    };
    // SAFETY: the pointer is valid for the type that this request reads
    result(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut response,
        )
    })
    .map(drop)
}

/// Whether the caller still waits: what was read under its process id belongs to it only then.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    let mut id = id;
    // SAFETY: the pointer is valid for the type that this request reads
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw mut id,
        ) == 0
    }
}

/// Reads the socket address that a thread passed to `bind` or `connect`; `None` for families other than the Internet's.
pub fn read_address(thread: u32, pointer: u64, length: u64) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0u8; LONGEST];
    let wanted = usize::try_from(length).unwrap_or(LONGEST).min(LONGEST);
    if wanted < 2 {
        return Ok(None);
    }
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: wanted,
    };
    let remote = libc::iovec {
        iov_base: pointer as *mut c_void,
        iov_len: wanted,
    };
    // SAFETY: the local buffer is live and as long as stated; the remote one is checked by the kernel
    let read = unsafe { libc::process_vm_readv(thread as i32, &raw const local, 1, &raw const remote, 1, 0) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(decode(&bytes[..read as usize]))
}

fn decode(bytes: &[u8]) -> Option<SocketAddr> {
    let array = |at: usize, n: usize| bytes.get(at..at + n);
    let family = c_int::from(u16::from_ne_bytes(array(0, 2)?.try_into().ok()?));
    let port = u16::from_be_bytes(array(2, 2)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = array(4, 4)?.try_into().ok()?;
            array(8, 8)?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = array(8, 16)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0).into())
        }
        _ => None,
    }
}

/// Duplicates a descriptor of the process that a thread belongs to.
pub fn take_descriptor(thread: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let process = open_process(thread)?;
    // SAFETY: plain numbers
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    owned(fd)
}

fn open_process(thread: u32) -> io::Result<OwnedFd> {
    static BY_THREAD: AtomicBool = AtomicBool::new(true);
    const PIDFD_THREAD: c_int = libc::O_EXCL;
    let open = |id: u32, flags: c_int| {
        // SAFETY: plain numbers
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, id, flags) })
    };
    if BY_THREAD.load(Ordering::Relaxed) {
        match open(thread, PIDFD_THREAD) {
            // kernels before 6.9 open processes only
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => BY_THREAD.store(false, Ordering::Relaxed),
            other => return other,
        }
    }
    open(process_of(thread)?, 0)
}

/// The process that a thread belongs to.
pub fn process_of(thread: u32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let process = status
        .lines()
        .find_map(|l| l.strip_prefix("Tgid:")?.trim().parse().ok());
    process.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A number that no other socket has had since the machine started.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: value and length are live and agree
    result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

/// A new TCP socket for IPv6.
pub fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers
    owned(c_long::from(unsafe {
        libc::socket(libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
    }))
}

pub fn listen(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain numbers
    result(unsafe { libc::listen(socket.as_raw_fd(), 16) }).map(drop)
}

/// Puts `socket` in the place of descriptor `fd` of the process that waits for the answer to notification `id`.
pub fn replace_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    socket: BorrowedFd<'_>,
    fd: RawFd,
) -> io::Result<()> {
    let mut request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: socket.as_raw_fd() as u32,
        newfd: fd as u32,
        newfd_flags: libc::O_CLOEXEC as u32,
    };
    // SAFETY: the pointer is valid for the type that this request reads
    result(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD,
            &raw mut request,
        )
    })
    .map(drop)
}

/// Makes the calls of `socket` return at once if those of `like` do.
pub fn copy_blocking(socket: BorrowedFd<'_>, like: BorrowedFd<'_>) -> io::Result<()> {
    if is_nonblocking(like) {
        // SAFETY: plain numbers
        result(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    }
    Ok(())
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just gave us
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// A `sockaddr` of either family.
enum Raw {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Raw {
    fn new(address: SocketAddr) -> Self {
        // SAFETY: all-zero is a valid value of both
        unsafe {
            match address {
                SocketAddr::V4(a) => {
                    let mut raw: libc::sockaddr_in = std::mem::zeroed();
                    raw.sin_family = libc::AF_INET as u16;
                    raw.sin_port = a.port().to_be();
                    raw.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
                    Self::V4(raw)
                }
                SocketAddr::V6(a) => {
                    let mut raw: libc::sockaddr_in6 = std::mem::zeroed();
                    raw.sin6_family = libc::AF_INET6 as u16;
                    raw.sin6_port = a.port().to_be();
                    raw.sin6_addr.s6_addr = a.ip().octets();
                    Self::V6(raw)
                }
            }
        }
    }

    fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(raw) => (
                std::ptr::from_ref(raw).cast(),
                size_of_val(raw) as libc::socklen_t,
            ),
            Self::V6(raw) => (
                std::ptr::from_ref(raw).cast(),
                size_of_val(raw) as libc::socklen_t,
            ),
        }
    }
}

pub fn bind(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let raw = Raw::new(address);
    let (pointer, length) = raw.parts();
    // SAFETY: pointer and length describe `raw`
    result(unsafe { libc::bind(socket.as_raw_fd(), pointer, length) }).map(drop)
}

pub fn connect(socket: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let raw = Raw::new(address);
    let (pointer, length) = raw.parts();
    // SAFETY: pointer and length describe `raw`
    result(unsafe { libc::connect(socket.as_raw_fd(), pointer, length) }).map(drop)
}

/// Whether a TCP socket's connection is made.
pub fn is_connected(socket: BorrowedFd<'_>) -> bool {
    const TCP_ESTABLISHED: u8 = 1;
    let mut state = 0u8;
    let mut length = 1 as libc::socklen_t;
    // SAFETY: value and length are live and agree; the first byte of `struct tcp_info` is the state
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    code == 0 && state == TCP_ESTABLISHED
}

/// The address that a socket is bound to.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    let mut bytes = [0u8; LONGEST];
    let mut length = LONGEST as libc::socklen_t;
    // SAFETY: the buffer is live and as long as stated; the kernel's alignment needs are met by copying bytes
    let code = unsafe { libc::getsockname(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut length) };
    (code == 0).then(|| decode(&bytes[..(length as usize).min(LONGEST)]))?
}

/// An integer option of a socket.
pub fn option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: value and length are live and agree
    result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: value and length are live and agree
    result(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) })
        .map(drop)
}

/// Whether the socket's calls return at once.
pub fn is_nonblocking(socket: BorrowedFd<'_>) -> bool {
    // SAFETY: plain numbers
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// What [`wait`] saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A call, a connection at a socket where somebody waits, both, or neither when the time is over.
    Ready { call: bool, connection: bool },
    /// `stop` is readable or closed, or nobody is left who could call.
    Stop,
}

/// Waits for a call, a connection, the end of a time or the end of all.
pub fn wait(
    listener: BorrowedFd<'_>,
    stop: BorrowedFd<'_>,
    connections: BorrowedFd<'_>,
    until: Option<Instant>,
) -> io::Result<Event> {
    loop {
        let poll = |fd: BorrowedFd<'_>| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut all = [poll(listener), poll(stop), poll(connections)];
        // a millisecond more, since a time is over only then
        let time = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(Instant::now());
            c_int::try_from(left.as_millis()).map_or(c_int::MAX, |left| left.saturating_add(1))
        });
        // SAFETY: as many live entries as stated
        match result(unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, time) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        let [calls, stop, connections] = all.map(|one| one.revents);
        let (call, connection) = (calls & libc::POLLIN != 0, connections != 0);
        return Ok(if stop != 0 || (calls != 0 && !call) {
            Event::Stop
        } else {
            Event::Ready { call, connection }
        });
    }
}
