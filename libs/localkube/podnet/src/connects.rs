//! Which connections come from Pods of this owner, written down for when the kernel cannot tell any more.
//!
//! A client may connect, send and close before the server accepts; the kernel then does not know whose the connection was. So a
//! supervisor notes each connection that a process of its Pod makes to a Pod, in a file that all supervisors of one owner share and
//! nobody else may open. Who accepts strikes the note out, and where it comes before the note was made it leaves a note of its own,
//! which the other side strikes out instead: a connection has a note no longer than it waits to be accepted.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Connections share this many places by their addresses; of two at one place the later one stays.
const PLACES: u64 = 16 * 1024;

/// A note: addresses and ports of both ends, which end made it, seconds of the time.
const LENGTH: usize = 12 + 1 + 4;

/// Seconds after which a note says nothing any more.
const FRESH: u32 = 60;

/// The notes of one owner.
#[derive(Debug)]
pub struct Connects {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client = 1,
    Server = 2,
}

impl Connects {
    /// Notes in a file beside the table of Services.
    pub fn beside(table: &Path) -> Self {
        Self {
            path: table.with_file_name("connects"),
            file: Mutex::new(None),
        }
    }

    /// Notes that a process of this owner's Pods connected `client` to `server`.
    pub fn connected(&self, client: SocketAddr, server: SocketAddr) {
        if let Err(error) = self.meet(client, server, Side::Client) {
            tracing::debug!(%error, path = %self.path.display(), "a connection is not noted");
        }
    }

    /// Whether a process of this owner's Pods made the connection that was accepted. Asked once for each.
    pub fn accepted(&self, client: SocketAddr, server: SocketAddr) -> bool {
        self.meet(client, server, Side::Server).unwrap_or(false)
    }

    /// Strikes the other side's note out, or leaves one; whether there was one.
    fn meet(&self, client: SocketAddr, server: SocketAddr, side: Side) -> io::Result<bool> {
        let Some(key) = key(client, server) else {
            return Ok(false);
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_secs() as u32);
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        let at = place(&key) * LENGTH as u64;
        let mut file = self.file.lock();
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        file.lock()?;
        let met = exchange(file, at, &key, (side, other), now);
        file.unlock()?;
        met
    }
}

fn exchange(file: &File, at: u64, key: &Key, (side, other): (Side, Side), now: u32) -> io::Result<bool> {
    let note = |side: Side, time: u32| {
        let mut note = [0; LENGTH];
        let (ends, rest) = note.split_at_mut(key.len());
        ends.copy_from_slice(key);
        let (by, at) = rest.split_at_mut(1);
        by.copy_from_slice(&[side as u8]);
        at.copy_from_slice(&time.to_ne_bytes());
        note
    };
    let mut found = [0; LENGTH];
    let read = file.read_at(&mut found, at)?;
    let [.., a, b, c, d] = found;
    let time = u32::from_ne_bytes([a, b, c, d]);
    let met = read == LENGTH && found == note(other, time) && now.abs_diff(time) <= FRESH;
    let left = if met { [0; LENGTH] } else { note(side, now) };
    file.write_all_at(&left, at)?;
    Ok(met)
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

type Key = [u8; 12];

/// Both ends; `None` for true IPv6, which no Pod has.
fn key(client: SocketAddr, server: SocketAddr) -> Option<Key> {
    let mut key = [0; 12];
    for (part, end) in key.chunks_exact_mut(6).zip([client, server]) {
        let IpAddr::V4(ip) = end.ip().to_canonical() else {
            return None;
        };
        let (address, port) = part.split_at_mut(4);
        address.copy_from_slice(&ip.octets());
        port.copy_from_slice(&end.port().to_be_bytes());
    }
    Some(key)
}

/// FNV-1a.
fn place(key: &Key) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_once_and_for_its_connection_only() {
        let dir = tempfile::tempdir().unwrap();
        let of_pod = || Connects::beside(&dir.path().join("services"));
        let (client, server) = (of_pod(), of_pod());
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, s) = (at("127.20.0.1:4000"), at("127.20.0.1:4001"), at("127.20.0.2:80"));
        assert!(!server.accepted(a, s), "nothing was noted");
        client.connected(b, s);
        assert!(!server.accepted(b, at("127.20.0.2:81")));
        assert!(server.accepted(at("[::ffff:127.20.0.1]:4001"), s));
        assert!(!server.accepted(b, s), "struck out");
        // accepted before the note was made: none stays
        client.connected(a, s);
        assert!(!server.accepted(a, s));
        client.connected(at("[::1]:4000"), s);
        assert!(!server.accepted(at("[::1]:4000"), s));
    }

    #[test]
    fn an_old_note_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("connects")).unwrap();
        let key = [7; 12];
        let client = (Side::Client, Side::Server);
        let server = (Side::Server, Side::Client);
        assert!(!exchange(&file, 0, &key, client, 1000).unwrap());
        assert!(!exchange(&file, 0, &key, server, 1000 + FRESH + 1).unwrap());
        assert!(!exchange(&file, 0, &key, client, 5000).unwrap());
        assert!(exchange(&file, 0, &key, server, 5000 + FRESH).unwrap());
        assert_eq!(file.metadata().unwrap().len(), LENGTH as u64);
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
