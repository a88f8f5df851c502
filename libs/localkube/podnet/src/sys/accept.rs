//! The system calls that accept connections for a process of the Pod.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::{c_int, c_long, c_void};

use super::{LONGEST, decode, option, owned, result};

/// A connection that was accepted, with its peer's address as the kernel wrote it.
#[derive(Debug)]
pub struct Accepted {
    pub socket: OwnedFd,
    address: [u8; LONGEST],
    length: usize,
}

impl Accepted {
    /// The peer's address; `None` for families other than the Internet's.
    pub fn peer(&self) -> Option<SocketAddr> {
        decode(self.raw())
    }

    /// The peer's address as a `sockaddr`.
    pub fn raw(&self) -> &[u8] {
        self.address.get(..self.length).unwrap_or(&self.address)
    }

    /// Closes the connection so that the peer sees a reset.
    pub fn reset(self) {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // SAFETY: the value is live and as long as stated; where this fails the peer sees an ordinary end
        unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const now).cast(),
                size_of_val(&now) as libc::socklen_t,
            )
        };
    }
}

/// Whether a socket listens for TCP connections, MPTCP included.
pub fn is_tcp_listener(socket: BorrowedFd<'_>) -> bool {
    let is =
        |name, wanted: &[c_int]| option(socket, libc::SOL_SOCKET, name).is_ok_and(|v| wanted.contains(&v));
    is(libc::SO_DOMAIN, &[libc::AF_INET, libc::AF_INET6])
        && is(libc::SO_PROTOCOL, &[libc::IPPROTO_TCP, libc::IPPROTO_MPTCP])
        && is(libc::SO_ACCEPTCONN, &[1])
}

/// Whether an accept would return at once, with a connection or an error.
pub fn is_ready(listening: BorrowedFd<'_>) -> bool {
    let mut one = libc::pollfd {
        fd: listening.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live entry
    unsafe { libc::poll(&raw mut one, 1, 0) > 0 }
}

/// Accepts a connection.
pub fn accept(listening: BorrowedFd<'_>) -> io::Result<Accepted> {
    let mut address = [0u8; LONGEST];
    let mut length = LONGEST as libc::socklen_t;
    // SAFETY: the buffer is live and as long as stated; the kernel's alignment needs are met by copying bytes
    let fd = unsafe {
        libc::accept4(
            listening.as_raw_fd(),
            address.as_mut_ptr().cast(),
            &raw mut length,
            libc::SOCK_CLOEXEC,
        )
    };
    Ok(Accepted {
        socket: owned(c_long::from(fd))?,
        address,
        length: length as usize,
    })
}

/// Makes the calls of a socket return at once, or wait.
pub fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) {
    let flag: c_int = nonblocking.into();
    // SAFETY: the pointer is valid for the type that this request reads; it cannot fail for a socket
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONBIO, &raw const flag) };
}

/// How long an accept may wait (`SO_RCVTIMEO`); `None`: without end.
pub fn accept_timeout(listening: BorrowedFd<'_>) -> Option<Duration> {
    // SAFETY: all-zero is a valid value
    let mut value: libc::timeval = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length are live and agree
    let code = unsafe {
        libc::getsockopt(
            listening.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    let time = Duration::new(
        value.tv_sec.try_into().ok()?,
        u32::try_from(value.tv_usec).ok()?.saturating_mul(1000),
    );
    (code == 0 && !time.is_zero()).then_some(time)
}

/// Reads an `int` of a thread's memory.
pub fn read_int(thread: u32, pointer: u64) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let local = libc::iovec {
        iov_base: (&raw mut value).cast(),
        iov_len: size_of::<c_int>(),
    };
    let remote = libc::iovec {
        iov_base: pointer as *mut c_void,
        iov_len: size_of::<c_int>(),
    };
    // SAFETY: the local buffer is live and as long as stated; the remote one is checked by the kernel
    let read = unsafe { libc::process_vm_readv(thread as i32, &raw const local, 1, &raw const remote, 1, 0) };
    complete(read, size_of::<c_int>())?;
    Ok(value)
}

/// Writes to a thread's memory.
pub fn write_memory(thread: u32, pointer: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: pointer as *mut c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the local buffer is live, as long as stated and only read; the remote one is checked by the kernel
    let written =
        unsafe { libc::process_vm_writev(thread as i32, &raw const local, 1, &raw const remote, 1, 0) };
    complete(written, bytes.len())
}

fn complete(moved: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(moved) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(moved) if moved < wanted => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Ok(_) => Ok(()),
    }
}

/// Gives `socket` to the process that waits for the answer to notification `id`, whose call returns the new descriptor. `ENOENT`: it
/// does not wait any more and got nothing.
pub fn give_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    socket: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let add = |flags: u32| {
        let mut request = libc::seccomp_notif_addfd {
            id,
            flags,
            srcfd: socket.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the pointer is valid for the type that this request reads
        result(unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw mut request,
            )
        })
    };
    match add(libc::SECCOMP_ADDFD_FLAG_SEND as u32) {
        // kernels before 5.14 take two steps
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            let fd = add(0)?;
            super::send(listener, id, 0, fd.into(), 0)
        }
        other => other.map(drop),
    }
}

/// Tells when listening sockets have a connection, without keeping them open.
///
/// An epoll registration lives as long as the open file, not as the descriptor that it was made with. So the descriptor is
/// closed after it was registered, and the socket ends when the Pod's processes have closed theirs.
#[derive(Debug)]
pub struct Readiness {
    epoll: OwnedFd,
}

impl Readiness {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain number
        let fd = result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            // SAFETY: a descriptor that the kernel just gave us
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Tells `key` once, as soon as `socket` has a connection or an error.
    pub fn watch(&self, socket: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let control = |operation: c_int, fd: RawFd| {
            let mut event = libc::epoll_event {
                events: (libc::EPOLLIN | libc::EPOLLONESHOT) as u32,
                u64: key,
            };
            // SAFETY: the event is live
            result(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })
        };
        let fd = socket.as_raw_fd();
        match control(libc::EPOLL_CTL_ADD, fd) {
            // the same file was registered before, by a descriptor that had this number
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => control(libc::EPOLL_CTL_MOD, fd).map(drop),
            other => other.map(drop),
        }
    }

    /// The keys of sockets that are ready; never waits.
    pub fn ready(&self) -> Vec<u64> {
        const MOST: usize = 16;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
        // SAFETY: the array is live and as long as stated
        let found =
            unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), MOST as c_int, 0) };
        let found = usize::try_from(found).unwrap_or(0);
        events.iter().take(found).map(|e| e.u64).collect()
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
