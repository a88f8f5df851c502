//! Which OS user is at the other end of a loopback TCP connection.

use std::net::SocketAddr;

/// The uid that owns the client's end of a connection, asked of the kernel by `sock_diag(7)`: `client` is the peer's address
/// and `server` ours; addresses of IPv4 in IPv6 are those of IPv4. `None` if the kernel does not know the socket (a remote peer), if
/// the client closed it already (the kernel then names root, whoever it was), or if the system has no such question.
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
    const TCP_LISTEN: u8 = 10;
    /// Length of `struct nlmsghdr`.
    const HEADER: usize = 16;

    /// What `struct inet_diag_msg` says of a socket.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Socket {
        state: u8,
        uid: u32,
        inode: u32,
    }

    impl Socket {
        /// A closed socket that is still in the kernel has no inode, and uid 0. A listener is what the kernel finds at the
        /// client's address where the connection itself is gone.
        pub(super) fn owner(&self) -> Option<u32> {
            (self.inode != 0 && self.state != TCP_LISTEN).then_some(self.uid)
        }

        fn parse(message: &[u8]) -> Option<Self> {
            let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
            (kind == SOCK_DIAG_BY_FAMILY).then_some(())?;
            Some(Self {
                state: *message.get(HEADER + 1)?,
                uid: word(HEADER + 64)?,
                inode: word(HEADER + 68)?,
            })
        }
    }

    pub(super) fn owner(client: SocketAddr, server: SocketAddr) -> Option<u32> {
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let (client, server) = (canonical(client), canonical(server));
        // a kernel without the question answers as if there were no such socket; what everybody may read says the same, only slower
        let found = ask(client, server).or_else(|| {
            ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
                let text = std::fs::read_to_string(table).ok()?;
                text.lines().find_map(|line| listed(line, client, server))
            })
        });
        found?.owner()
    }

    fn ask(client: SocketAddr, server: SocketAddr) -> Option<Socket> {
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
        Socket::parse(answer.get(..length)?)
    }

    /// A line of `/proc/net/tcp` or `tcp6`, if it is of this connection: number, both addresses, state, queues, timer, retries, uid, timeout,
    /// inode.
    pub(super) fn listed(line: &str, client: SocketAddr, server: SocketAddr) -> Option<Socket> {
        let mut words = line.split_whitespace().skip(1);
        let mut end = || {
            let (ip, port) = words.next()?.split_once(':')?;
            let bytes: Vec<u8> = (0..ip.len() / 8)
                .filter_map(|word| u32::from_str_radix(ip.get(8 * word..8 * word + 8)?, 16).ok())
                .flat_map(u32::to_ne_bytes)
                .collect();
            let ip: IpAddr = match bytes.len() {
                4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
                _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
            };
            Some(SocketAddr::new(
                ip.to_canonical(),
                u16::from_str_radix(port, 16).ok()?,
            ))
        };
        (end()? == client && end()? == server).then_some(())?;
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let uid = words.nth(3)?.parse().ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        Some(Socket { state, uid, inode })
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::peer_uid;

    #[test]
    fn the_kernel_tells_who_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let client = TcpStream::connect(here).unwrap();
        let (_server, peer) = listener.accept().unwrap();
        assert_eq!(peer_uid(peer, here), Some(nix::unistd::geteuid().as_raw()));
        drop(client);
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert_eq!(peer_uid(nobody, here), None);
    }

    #[test]
    fn the_table_says_the_same() {
        for (here, there) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::ffff:127.0.0.1]:0", "127.0.0.1"),
        ] {
            let Ok(listener) = TcpListener::bind(here) else {
                continue; // no IPv6 on this machine
            };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect((there, server.port())).unwrap();
            let (client, server) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let table = if server.is_ipv4() { "tcp" } else { "tcp6" };
            let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap();
            let found = text
                .lines()
                .find_map(|line| super::linux::listed(line, client, server));
            assert_eq!(
                found.unwrap().owner(),
                Some(nix::unistd::geteuid().as_raw()),
                "{here}"
            );
        }
    }

    #[test]
    fn an_ipv4_connection_to_an_ipv6_listener_is_found() {
        let Ok(listener) = TcpListener::bind("[::ffff:127.0.0.1]:0") else {
            return; // no IPv6 on this machine
        };
        let here = listener.local_addr().unwrap();
        let _client = TcpStream::connect(("127.0.0.1", here.port())).unwrap();
        let (_server, peer) = listener.accept().unwrap();
        assert!(peer.is_ipv6());
        assert_eq!(peer_uid(peer, here), Some(nix::unistd::geteuid().as_raw()));
    }

    #[test]
    fn who_hung_up_is_nobody_and_not_root() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(here).unwrap();
        client.write_all(b"and away").unwrap();
        let peer = client.local_addr().unwrap();
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(5);
        while peer_uid(peer, here).is_some() {
            assert!(Instant::now() < deadline, "a closed socket has an owner");
        }
        // a listener at the client's address is not the client
        let reuse = |address: SocketAddr| {
            use nix::sys::socket::{
                AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt,
                socket, sockopt,
            };
            use std::os::fd::AsRawFd;
            let other = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
            setsockopt(&other, sockopt::ReuseAddr, &true).unwrap();
            bind(other.as_raw_fd(), &SockaddrStorage::from(address))
                .and_then(|()| listen(&other, Backlog::new(1).unwrap()))
                .map(|()| other)
        };
        if let Ok(_other) = reuse(peer) {
            assert_eq!(peer_uid(peer, here), None);
        }
    }
}
