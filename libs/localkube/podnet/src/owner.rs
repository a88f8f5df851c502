//! Who may reach the servers of a Pod.
//!
//! Anybody who has an account on the machine can connect to 127.x.y.z. A Pod's servers often ask for no password, since on a cluster the
//! network is closed; here only the owner's processes, and root's, get through.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ferroflow_peer::peer_uid;

use crate::connects::Connects;

/// The OS user whose Pods these are.
#[derive(Debug)]
pub struct Owner {
    uid: u32,
    connects: Connects,
}

impl Owner {
    /// The user of this process; `table` is the table of Services, in a folder that is the user's alone.
    pub fn this_user(table: &Path) -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            connects: Connects::beside(table),
        }
    }

    /// Whether the connection that `client` made to `server` may come in. Connections from other machines may.
    pub fn lets_in(&self, client: SocketAddr, server: SocketAddr) -> bool {
        // asked first: who is gone by then has its note
        let uid = peer_uid(client, server);
        let of_a_pod = self.connects.accepted(client, server);
        match uid {
            Some(uid) => uid == self.uid || uid == 0,
            None => of_a_pod || !(is_loopback(server) || is_of_this_machine(client.ip())),
        }
    }

    /// A process of this owner's Pods has connected `client` to `server`.
    pub fn connected(&self, client: SocketAddr, server: SocketAddr) {
        self.connects.connected(client, server);
    }
}

fn is_loopback(end: SocketAddr) -> bool {
    end.ip().to_canonical().is_loopback()
}

/// Whether the machine itself has this address: then it is also what a connection to it would come from.
pub fn is_of_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() {
        return true;
    }
    let any: IpAddr = match ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = std::net::UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((ip, 9)).and_then(|()| socket.local_addr()));
    source.is_ok_and(|source| source.ip() == ip)
}
