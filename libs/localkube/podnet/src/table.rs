//! The file that tells supervisors where Services lead: written by the agent, read again by each Pod when it has changed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Transport of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A Service's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub protocol: Protocol,
    pub address: SocketAddrV4,
}

/// Services and their ready endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    entries: BTreeMap<ServiceKey, Vec<SocketAddr>>,
}

impl ServiceTable {
    /// Sets the ready endpoints of a Service's port; none is an entry too.
    pub fn insert(&mut self, key: ServiceKey, endpoints: Vec<SocketAddr>) {
        self.entries.insert(key, endpoints);
    }

    /// Endpoints of a Service's port; `None` where no Service has it.
    pub fn get(&self, key: &ServiceKey) -> Option<&[SocketAddr]> {
        self.entries.get(key).map(Vec::as_slice)
    }

    /// Writes the file so that readers see the old or the new table; leaves a file alone that says the same already.
    pub fn publish(&self, path: &Path) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let text = self.to_string();
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(
            ".{}.{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let beside = path.with_file_name(name);
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&beside, path)
    }

    /// Reads what [`ServiceTable::publish`] wrote; a line that makes no sense is an error.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut table = Self::default();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let wrong = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("service table: line {line:?} is not understood"),
                )
            };
            let mut words = line.split(' ');
            let protocol = match words.next() {
                Some("tcp") => Protocol::Tcp,
                Some("udp") => Protocol::Udp,
                _ => return Err(wrong()),
            };
            let address = words.next().and_then(|w| w.parse().ok()).ok_or_else(wrong)?;
            let endpoints = words
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| wrong())?;
            table.insert(ServiceKey { protocol, address }, endpoints);
        }
        Ok(table)
    }
}

impl std::fmt::Display for ServiceTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("# protocol, address of the service, its ready endpoints\n")?;
        for (key, endpoints) in &self.entries {
            f.write_str(match key.protocol {
                Protocol::Tcp => "tcp ",
                Protocol::Udp => "udp ",
            })?;
            write!(f, "{}", key.address)?;
            for endpoint in endpoints {
                f.write_char(' ')?;
                write!(f, "{endpoint}")?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

/// Inode, time of change and length of a file.
type Stamp = (u64, i64, i64, u64);

#[derive(Debug, Default)]
struct LastRead {
    stamp: Option<Stamp>,
    services: HashSet<Ipv4Addr>,
    entries: HashMap<ServiceKey, Vec<SocketAddr>>,
}

/// The table as a supervisor sees it: one `stat` a lookup, a new read when the file is another.
#[derive(Debug)]
pub struct TableReader {
    path: PathBuf,
    read: Mutex<LastRead>,
    turn: AtomicUsize,
}

impl TableReader {
    pub fn new(path: PathBuf) -> Self {
        // two supervisors that start alike should not all begin with the first endpoint
        let turn = AtomicUsize::new(std::process::id() as usize);
        Self {
            path,
            read: Mutex::default(),
            turn,
        }
    }

    /// One ready endpoint, in turn; `None` when there is none.
    pub fn choose(&self, key: &ServiceKey) -> Option<SocketAddr> {
        let read = self.read();
        let endpoints = read.entries.get(key).filter(|e| !e.is_empty())?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        endpoints.get(turn % endpoints.len()).copied()
    }

    /// Whether a Service has this address, on whatever port.
    pub fn is_service(&self, ip: Ipv4Addr) -> bool {
        self.read().services.contains(&ip)
    }

    fn read(&self) -> MutexGuard<'_, LastRead> {
        let stamp = std::fs::metadata(&self.path)
            .ok()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
        let mut read = self.read.lock();
        if read.stamp != stamp || stamp.is_none() {
            // a table that cannot be read leaves the last one in force
            if let Some(table) = std::fs::read_to_string(&self.path)
                .ok()
                .and_then(|t| ServiceTable::parse(&t).ok())
            {
                *read = LastRead {
                    stamp,
                    services: table.entries.keys().map(|key| *key.address.ip()).collect(),
                    entries: table.entries.into_iter().collect(),
                };
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ServiceKey {
        ServiceKey {
            protocol: Protocol::Tcp,
            address: text.parse().unwrap(),
        }
    }

    #[test]
    fn a_table_survives_its_file() {
        let mut table = ServiceTable::default();
        table.insert(key("127.96.0.1:443"), vec!["127.0.0.1:8443".parse().unwrap()]);
        table.insert(
            ServiceKey {
                protocol: Protocol::Udp,
                ..key("127.96.0.2:53")
            },
            vec![],
        );
        assert_eq!(ServiceTable::parse(&table.to_string()).unwrap(), table);
        assert!(ServiceTable::parse("tcp nonsense").is_err());
        assert!(ServiceTable::parse("tcp 127.96.0.1:80 x").is_err());
    }

    #[test]
    fn a_reader_takes_turns_and_sees_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services");
        let reader = TableReader::new(path.clone());
        let k = key("127.96.0.9:80");
        assert_eq!(reader.choose(&k), None);
        let mut table = ServiceTable::default();
        table.insert(
            k,
            vec!["127.1.0.1:1".parse().unwrap(), "127.1.0.2:2".parse().unwrap()],
        );
        table.publish(&path).unwrap();
        let seen: std::collections::HashSet<_> = (0..4).map(|_| reader.choose(&k).unwrap()).collect();
        assert_eq!(seen.len(), 2);
        assert!(reader.is_service(*k.address.ip()) && !reader.is_service(Ipv4Addr::new(127, 96, 0, 8)));
        table.insert(k, vec![]);
        table.publish(&path).unwrap();
        assert_eq!(reader.choose(&k), None);
        let inode = std::fs::metadata(&path).unwrap().ino();
        table.publish(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        // a broken file changes nothing
        table.insert(k, vec!["127.1.0.3:3".parse().unwrap()]);
        table.publish(&path).unwrap();
        assert!(reader.choose(&k).is_some());
        std::fs::write(&path, "broken").unwrap();
        assert!(reader.choose(&k).is_some());
    }
}
