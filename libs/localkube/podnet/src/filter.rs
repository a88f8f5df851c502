//! The seccomp filter: `bind` and `connect` of the Internet families and every `accept` go to the listener, everything else runs at full
//! speed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_uint, c_ulong, sock_filter, sock_fprog};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

// offsets into struct seccomp_data; both architectures are little-endian
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const LENGTH: u32 = 16 + 2 * 8;

/// x86-64 calls of the x32 kind start here; they are not ours.
const X32: u32 = 0x4000_0000;

/// `sizeof(struct sockaddr_un)`: what nearly every connect to a Unix socket passes, and no Internet one.
const UNIX_LENGTH: u32 = 110;

const fn load(offset: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

const fn jump(test: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt: yes,
        jf: no,
        k: value,
    }
}

const fn answer(action: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: action,
    }
}

static PROGRAM: [sock_filter; 14] = [
    load(ARCH),
    jump(libc::BPF_JEQ, ARCHITECTURE, 0, 9),
    load(NUMBER),
    jump(libc::BPF_JGE, X32, 7, 0),
    jump(libc::BPF_JEQ, libc::SYS_accept as u32, 7, 0),
    jump(libc::BPF_JEQ, libc::SYS_accept4 as u32, 6, 0),
    jump(libc::BPF_JEQ, libc::SYS_connect as u32, 2, 0),
    jump(libc::BPF_JEQ, libc::SYS_bind as u32, 1, 0),
    jump(libc::BPF_JEQ, libc::SYS_io_uring_setup as u32, 4, 2),
    load(LENGTH),
    jump(libc::BPF_JEQ, UNIX_LENGTH, 0, 1),
    answer(libc::SECCOMP_RET_ALLOW),
    answer(libc::SECCOMP_RET_USER_NOTIF),
    // its queues would carry connects and accepts past us; container engines refuse it as well, and programs go without
    answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
];

/// Puts the filter on the calling thread and on every process and thread that it starts from now on; other threads stay free.
///
/// Makes no allocation and takes no lock, so it may run between fork and exec. The listener is close-on-exec. Sets
/// `no_new_privs` where the caller lacks `CAP_SYS_ADMIN`. `EBUSY` means that a filter with a listener is there already
/// (Ferroflow inside a Pod of Ferroflow).
///
/// Not with `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a server that is blocked in accept must run its handlers of signals. What a signal
/// takes from a bind or connect is given to the next one (`Undelivered`).
pub fn install_filter() -> io::Result<OwnedFd> {
    match seccomp_once() {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
            // SAFETY: prctl with constant arguments
            if unsafe {
                libc::prctl(
                    libc::PR_SET_NO_NEW_PRIVS,
                    1 as c_ulong,
                    0 as c_ulong,
                    0 as c_ulong,
                    0 as c_ulong,
                )
            } != 0
            {
                return Err(io::Error::last_os_error());
            }
            seccomp_once()
        }
        other => other,
    }
}

fn seccomp_once() -> io::Result<OwnedFd> {
    let program = sock_fprog {
        len: PROGRAM.len() as u16,
        filter: PROGRAM.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program during the call and does not write to it
    let fd: c_long = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as c_uint,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as c_uint,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the call above just gave us
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Whether Pods can have addresses of their own here; says why not. Tries it on a thread of its own.
pub fn supported() -> Result<(), String> {
    let tried = std::thread::Builder::new()
        .name("podnet-probe".to_owned())
        .spawn(|| install_filter().map(drop));
    let outcome = tried.and_then(|thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the probe ended early")))
    });
    outcome.map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => "this process runs under a seccomp listener already (ferroflow inside a pod?): pods cannot have addresses of their own".to_owned(),
        Some(libc::ENOSYS | libc::EINVAL) => "this kernel lacks seccomp user notification (linux 5.9 or newer has it): pods cannot have addresses of their own".to_owned(),
        _ => format!("seccomp user notification is refused here ({e}): pods cannot have addresses of their own"),
    })
}

/// Sends a listener over a Unix socket; makes no allocation, so a forked child may call it.
pub fn send_listener(via: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = 1u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 4];
    // SAFETY: the message points at the live locals above; `control` is aligned and larger than CMSG_SPACE(4)
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header)
            .cast::<c_int>()
            .write_unaligned(listener.as_raw_fd());
        if libc::sendmsg(via.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receives what [`send_listener`] sent; `UnexpectedEof` when the sender ended first.
pub fn receive_listener(via: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = 0u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0u64; 4];
    // SAFETY: as in send_listener; a descriptor is read only from a complete SCM_RIGHTS header
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let read = loop {
            let read = libc::recvmsg(via.as_fd().as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
            if read >= 0 {
                break read;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if read == 0 || header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(OwnedFd::from_raw_fd(
            libc::CMSG_DATA(header).cast::<c_int>().read_unaligned(),
        ))
    }
}
