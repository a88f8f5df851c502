//! Systems without seccomp user notification: Pods share the machine's loopback, and a Pod whose port is taken cannot run.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

const TEXT: &str = "addresses of Pods need Linux on x86-64 or arm64 (seccomp user notification)";

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, TEXT))
}

/// Whether Pods can have addresses of their own here; says why not.
pub fn supported() -> Result<(), String> {
    Err(TEXT.to_owned())
}

/// Not available here.
pub fn install_filter() -> io::Result<OwnedFd> {
    unsupported()
}

/// Not available here.
pub fn send_listener(_via: BorrowedFd<'_>, _listener: BorrowedFd<'_>) -> io::Result<()> {
    unsupported()
}

/// Not available here.
pub fn receive_listener(_via: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    unsupported()
}

/// Not available here.
#[derive(Debug)]
pub struct Supervisor;

impl Supervisor {
    /// Not available here.
    pub fn new(_listener: OwnedFd, _pod_ip: Ipv4Addr, _table: PathBuf) -> Self {
        Self
    }

    /// Not available here.
    #[must_use]
    pub fn with_resolv_conf(self, _path: PathBuf) -> Self {
        self
    }

    /// Not available here.
    pub fn run(self, _stop: BorrowedFd<'_>) -> io::Result<()> {
        unsupported()
    }
}
