//! Addresses for Pods: a block of 127/8 that no other Ferroflow on this machine uses, or the Pod CIDR of a Node, and a lease per Pod.
//!
//! A block is claimed by a file in a folder that all users share. A claim names the owner's state file and the boot, and stays while
//! that file exists, whether the owner runs or not: its Pods outlive it.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cidr::PodCidr;

/// Blocks of 4096 addresses from 127.16.0.0 to 127.95.255.255.
const BLOCKS: u32 = 80 * 16;
const FIRST: u32 = u32::from_be_bytes([127, 16, 0, 0]);
const BLOCK_SIZE: u32 = 4096;

/// Addresses of this node's Pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AddressPool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    /// First address and number of addresses.
    range: (u32, u32),
    state: Mutex<State>,
}

/// What `addresses.json` holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    boot: String,
    block: u32,
    next: u32,
    leases: BTreeMap<String, Ipv4Addr>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    boot: String,
    file: PathBuf,
}

impl AddressPool {
    /// Opens the pool of a Node that was given a range of its own. Leases outlive this process as long as the machine runs.
    pub fn open_range(state_dir: &Path, range: PodCidr) -> io::Result<Self> {
        Self::open_range_with(state_dir, range, &boot_id())
    }

    fn open_range_with(state_dir: &Path, range: PodCidr, boot: &str) -> io::Result<Self> {
        std::fs::create_dir_all(state_dir)?;
        let file = state_dir.canonicalize()?.join("addresses.json");
        let known: Option<State> = std::fs::read(&file)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok());
        let mut state = known.filter(|s| s.boot == boot).unwrap_or_default();
        boot.clone_into(&mut state.boot);
        state.leases.retain(|_, ip| range.contains(*ip));
        let inner = Inner {
            file,
            range: (range.first(), range.size()),
            state: Mutex::new(state.clone()),
        };
        inner.save(&state)?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Opens the pool whose leases are in `state_dir`; claims a block if this boot has none yet.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Self::open_with(state_dir, Path::new("/tmp/ferroflow-net"), &boot_id())
    }

    fn open_with(state_dir: &Path, claims: &Path, boot: &str) -> io::Result<Self> {
        std::fs::create_dir_all(state_dir)?;
        let file = state_dir.canonicalize()?.join("addresses.json");
        let known: Option<State> = std::fs::read(&file)
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok());
        // the processes of another boot are gone, and their addresses free
        let known = known.filter(|s| s.boot == boot && s.block < BLOCKS);
        let mine = Claim {
            boot: boot.to_owned(),
            file: file.clone(),
        };
        // a claim counts while its file exists, so the file is written before the lock is given up
        with_claims(claims, || {
            let inner = |state: State| {
                let inner = Inner {
                    file: file.clone(),
                    range: (FIRST + state.block * BLOCK_SIZE, BLOCK_SIZE),
                    state: Mutex::new(state.clone()),
                };
                inner.save(&state)?;
                Ok(Self {
                    inner: Arc::new(inner),
                })
            };
            if let Some(state) = known.filter(|s| claim(claims, s.block, &mine).unwrap_or(false)) {
                return inner(state);
            }
            let start = file
                .as_os_str()
                .as_encoded_bytes()
                .iter()
                .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(*b)));
            for i in 0..BLOCKS {
                let block = start.wrapping_add(i) % BLOCKS;
                if claim(claims, block, &mine)? {
                    return inner(State {
                        boot: boot.to_owned(),
                        block,
                        ..State::default()
                    });
                }
            }
            Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!(
                    "all {BLOCKS} blocks of pod addresses are claimed in {}; remove the claims of folders that are not used any more",
                    claims.display()
                ),
            ))
        })
    }

    /// The address of a Pod: always the same one for the same uid until it is released.
    pub fn lease(&self, pod_uid: &str) -> io::Result<Ipv4Addr> {
        let mut state = self.inner.state.lock();
        if let Some(ip) = state.leases.get(pod_uid) {
            return Ok(*ip);
        }
        let used: HashSet<Ipv4Addr> = state.leases.values().copied().collect();
        let (base, size) = self.inner.range;
        for _ in 0..size {
            // in turn, so that an address rests before it is used again
            let ip = Ipv4Addr::from(base + state.next % size);
            state.next = (state.next + 1) % size;
            // the first address of a Node's range is the Node's own
            let of_node = !ip.is_loopback() && u32::from(ip) == base + 1;
            if !of_node && !matches!(ip.octets()[3], 0 | 255) && !used.contains(&ip) {
                let mut changed = state.clone();
                changed.leases.insert(pod_uid.to_owned(), ip);
                self.inner.save(&changed)?;
                *state = changed;
                return Ok(ip);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!(
                "all {} pod addresses of this node are in use; delete pods",
                used.len()
            ),
        ))
    }

    /// Gives an address back; an unknown uid is no error.
    pub fn release(&self, pod_uid: &str) -> io::Result<()> {
        let mut state = self.inner.state.lock();
        let mut changed = state.clone();
        if changed.leases.remove(pod_uid).is_some() {
            self.inner.save(&changed)?;
            *state = changed;
        }
        Ok(())
    }

    /// Uids with an address, for releasing those of Pods that are gone.
    pub fn leases(&self) -> BTreeMap<String, Ipv4Addr> {
        self.inner.state.lock().leases.clone()
    }
}

impl Inner {
    fn save(&self, state: &State) -> io::Result<()> {
        let beside = self.file.with_extension("json.new");
        std::fs::File::create(&beside)?.write_all(&serde_json::to_vec(state)?)?;
        std::fs::rename(&beside, &self.file)
    }
}

/// Runs `act` while no other process looks at the claims.
fn with_claims<T>(claims: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let told = |e: io::Error| {
        io::Error::new(
            e.kind(),
            format!("claims of pod addresses in {}: {e}", claims.display()),
        )
    };
    match std::fs::create_dir(claims) {
        // for every user of the machine, as /tmp is
        Ok(()) => std::fs::set_permissions(claims, std::fs::Permissions::from_mode(0o1777)).map_err(told)?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(told(e)),
    }
    let path = claims.join("lock");
    let open = || match std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
    {
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o644)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path),
        other => other,
    };
    let _lock =
        Flock::lock(open().map_err(told)?, FlockArg::LockExclusive).map_err(|(_, e)| told(e.into()))?;
    act()
}

/// Makes a block ours if it is free or ours already.
fn claim(claims: &Path, block: u32, mine: &Claim) -> io::Result<bool> {
    let path = claims.join(block.to_string());
    if let Ok(bytes) = std::fs::read(&path) {
        match serde_json::from_slice::<Claim>(&bytes) {
            Ok(claim) if claim == *mine => return Ok(true),
            Ok(claim) if claim.boot == mine.boot => {
                let gone = std::fs::symlink_metadata(&claim.file)
                    .is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
                if !gone {
                    return Ok(false);
                }
            }
            _ => {}
        }
    }
    let _ = std::fs::remove_file(&path);
    let created = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o644)
        .open(&path);
    match created {
        Ok(mut file) => file.write_all(&serde_json::to_vec(mine)?).map(|()| true),
        // another user's, which we may not replace
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|t| t.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_on_one_machine_never_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let claims = dir.path().join("claims");
        let open =
            |name: &str, boot: &str| AddressPool::open_with(&dir.path().join(name), &claims, boot).unwrap();
        let mut seen = HashSet::new();
        for name in ["a", "b", "c"] {
            let pool = open(name, "boot");
            for pod in 0..300 {
                let ip = pool.lease(&format!("pod-{pod}")).unwrap();
                assert!(seen.insert(ip), "{ip} twice");
                assert!(ip.octets()[1] >= 16 && ip.octets()[1] < 96);
            }
        }
        // restarted: the same leases; after a boot: none
        let ip = open("a", "boot").lease("pod-7").unwrap();
        assert_eq!(open("a", "boot").lease("pod-7").unwrap(), ip);
        assert_eq!(open("a", "boot").leases().len(), 300);
        assert!(open("a", "boot2").leases().is_empty());
    }

    #[test]
    fn a_node_hands_out_its_own_range() {
        let dir = tempfile::tempdir().unwrap();
        let range: PodCidr = "10.244.7.0/29".parse().unwrap();
        let pool = AddressPool::open_range_with(dir.path(), range, "b").unwrap();
        let given: Vec<Ipv4Addr> = (0..6)
            .map(|pod| pool.lease(&format!("p{pod}")).unwrap())
            .collect();
        assert_eq!(
            given[0],
            Ipv4Addr::new(10, 244, 7, 2),
            "the first is the node's own"
        );
        assert!(given.iter().all(|ip| range.contains(*ip)));
        assert!(pool.lease("one too many").is_err());
        let again = AddressPool::open_range_with(dir.path(), range, "b").unwrap();
        assert_eq!(again.leases().len(), 6);
        let other = "10.244.8.0/24".parse().unwrap();
        assert!(
            AddressPool::open_range_with(dir.path(), other, "b")
                .unwrap()
                .leases()
                .is_empty()
        );
    }

    #[test]
    fn addresses_rest_before_they_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let pool = AddressPool::open_with(&dir.path().join("s"), &dir.path().join("c"), "b").unwrap();
        let first = pool.lease("a").unwrap();
        pool.release("a").unwrap();
        pool.release("a").unwrap();
        assert_ne!(pool.lease("b").unwrap(), first);
        assert_eq!(pool.lease("b").unwrap(), pool.lease("b").unwrap());
    }

    #[test]
    fn the_block_of_a_folder_that_is_gone_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let claims = dir.path().join("claims");
        std::fs::create_dir(&claims).unwrap();
        let old = Claim {
            boot: "b".to_owned(),
            file: dir.path().join("gone/addresses.json"),
        };
        let mine = Claim {
            boot: "b".to_owned(),
            file: dir.path().join("addresses.json"),
        };
        assert!(claim(&claims, 5, &old).unwrap());
        assert!(claim(&claims, 5, &mine).unwrap());
        std::fs::write(&mine.file, "{}").unwrap();
        assert!(!claim(&claims, 5, &old).unwrap());
        assert!(
            claim(
                &claims,
                5,
                &Claim {
                    boot: "next".to_owned(),
                    ..old
                }
            )
            .unwrap()
        );
    }
}
