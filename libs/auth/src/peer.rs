//! Which OS user is at the other end of a loopback TCP connection.

use std::net::SocketAddr;

/// The uid that owns the client's end of a connection, asked of the kernel by `sock_diag(7)`: `client` is the peer's address
/// and `server` ours. `None` if the kernel does not know the socket (a remote peer) or the system has no such question.
#[cfg(target_os = "linux")]
pub fn peer_uid(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    linux::owner(client, server)
}

/// See the Linux version; other systems cannot tell yet.
#[cfg(not(target_os = "linux"))]
pub fn peer_uid(_: SocketAddr, _: SocketAddr) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{Read as _, Write as _};
    use std::net::{IpAddr, SocketAddr};
    use std::os::fd::{FromRawFd as _, OwnedFd};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const HEADER: usize = 16;
    /// Offset of `idiag_uid` in `struct inet_diag_msg`.
    const UID_OFFSET: usize = 64;

    pub(super) fn owner(client: SocketAddr, server: SocketAddr) -> Option<u32> {
        // SAFETY: plain system call; the descriptor is owned at once.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_SOCK_DIAG,
            )
        };
        if fd < 0 {
            return None;
        }
        // SAFETY: `fd` is open and ours.
        let mut socket = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.write_all(&question(client, server)).ok()?;
        let mut answer = [0_u8; 512];
        let length = socket.read(&mut answer).ok()?;
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        if kind != SOCK_DIAG_BY_FAMILY || length < HEADER + UID_OFFSET + 4 {
            return None;
        }
        let at = HEADER + UID_OFFSET;
        Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?))
    }

    /// `struct nlmsghdr` and `struct inet_diag_req_v2` for exactly the client's socket.
    fn question(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
        let mut body = Vec::with_capacity(72);
        let family = if client.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        body.extend([u8::try_from(family).unwrap_or(0), 6, 0, 0]);
        body.extend(u32::MAX.to_ne_bytes());
        body.extend(client.port().to_be_bytes());
        body.extend(server.port().to_be_bytes());
        body.extend(address(client.ip()));
        body.extend(address(server.ip()));
        body.extend(0_u32.to_ne_bytes());
        body.extend([0xff; 8]);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(u32::try_from(HEADER + body.len()).unwrap_or(0).to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message
    }

    fn address(ip: IpAddr) -> [u8; 16] {
        match ip {
            IpAddr::V4(v4) => {
                let mut padded = [0; 16];
                padded[..4].copy_from_slice(&v4.octets());
                padded
            }
            IpAddr::V6(v6) => v6.octets(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_kernel_tells_who_connected() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let uid = super::peer_uid(peer, server.local_addr().unwrap());
        assert_eq!(uid, Some(nix::unistd::getuid().as_raw()));
        drop(client);
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(super::peer_uid(nobody, server.local_addr().unwrap()), None);
    }
}
