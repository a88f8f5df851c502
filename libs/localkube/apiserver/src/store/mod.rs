//! Objects, their versions and the window of past changes.
//!
//! Readers see an in-memory index of what is durable. A write goes into an overlay of pending writes under the state's lock, which
//! assigns its resourceVersion, and then through one writer task that commits groups of writes to SQLite in that same order; only
//! then does it become visible to readers and watchers and is acknowledged. So the order of versions is the order of events, and
//! nothing that anyone saw is lost by `kill -9`. When SQLite fails (disk full) the store refuses further writes.

mod sqlite;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

pub use sqlite::OpenStoreError;

/// Changes kept for watches that resume, and the most JSON that they may hold.
pub const WINDOW: usize = 16_384;
const WINDOW_BYTES: usize = 24 * 1024 * 1024;
/// Changes that one watcher may be behind before it has to list again.
const CHANNEL: usize = 2048;
/// Writes that may wait for the disk.
const PENDING: usize = 1024;

/// Where an object is: storage name of its resource (`apps/deployments`, core is `/pods`), namespace (may be empty), name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub resource: Arc<str>,
    pub namespace: String,
    pub name: String,
}

/// A stored object in one version; the value and its JSON are each made when first needed.
#[derive(Debug)]
pub struct Obj {
    pub rv: u64,
    value: OnceLock<Value>,
    bytes: OnceLock<Bytes>,
}

impl Obj {
    fn from_value(rv: u64, value: Value) -> Self {
        let obj = Self {
            rv,
            value: OnceLock::new(),
            bytes: OnceLock::new(),
        };
        let _ = obj.value.set(value);
        obj
    }
    fn from_bytes(rv: u64, bytes: Bytes) -> Self {
        let obj = Self {
            rv,
            value: OnceLock::new(),
            bytes: OnceLock::new(),
        };
        let _ = obj.bytes.set(bytes);
        obj
    }
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| {
            self.bytes
                .get()
                .and_then(|b| serde_json::from_slice(b).ok())
                .unwrap_or(Value::Null)
        })
    }
    /// JSON of the object as stored.
    pub fn bytes(&self) -> &Bytes {
        self.bytes.get_or_init(|| {
            let value = self.value.get().unwrap_or(&Value::Null);
            Bytes::from(serde_json::to_vec(value).unwrap_or_default())
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    fn code(self) -> i64 {
        match self {
            Self::Added => 0,
            Self::Modified => 1,
            Self::Deleted => 2,
        }
    }
    fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Added,
            1 => Self::Modified,
            _ => Self::Deleted,
        }
    }
}

/// One change of one object. For a deletion `obj` is the last state with the version of the deletion.
#[derive(Debug)]
pub struct Change {
    pub rv: u64,
    pub kind: ChangeKind,
    pub key: Key,
    pub obj: Arc<Obj>,
    /// The state before; `None` for additions, and for changes read back after a restart.
    pub prev: Option<Arc<Obj>>,
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the object exists already")]
    Exists,
    #[error("the object does not exist")]
    Missing,
    #[error("the object has another version than expected")]
    Conflict,
    #[error("the store cannot write: {0}")]
    Broken(String),
}

/// The version asked for is older than the window (410) or does not exist yet.
#[derive(Debug)]
pub enum WatchError {
    Expired { asked: u64, oldest: u64 },
    Future { asked: u64, current: u64 },
}

/// What the write expects of the object that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(u64),
}

struct Write {
    change: Arc<Change>,
    done: oneshot::Sender<Result<(), String>>,
}

type Objects = BTreeMap<(String, String), Arc<Obj>>;

struct State {
    objects: HashMap<Arc<str>, Objects>,
    overlay: HashMap<Key, Option<Arc<Obj>>>,
    overlay_rv: HashMap<Key, u64>,
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    window_limit: usize,
    /// Everything at or below this version may be missing from the window.
    oldest: u64,
    next_rv: u64,
    durable_rv: u64,
    channels: HashMap<Arc<str>, broadcast::Sender<Arc<Change>>>,
    broken: Option<String>,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    writes: mpsc::UnboundedSender<Write>,
    permits: Arc<Semaphore>,
    writer: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

/// A watch: what happened since the asked version, then what happens.
pub struct Subscription {
    pub backlog: Vec<Arc<Change>>,
    pub live: broadcast::Receiver<Arc<Change>>,
    pub rv: u64,
}

impl Store {
    /// Opens or makes the database file.
    pub async fn open(file: &Path, window_limit: usize) -> Result<Self, OpenStoreError> {
        let (db, loaded) = sqlite::Database::open(file, window_limit).await?;
        let mut objects: HashMap<Arc<str>, Objects> = HashMap::new();
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        let mut intern = |s: String| -> Arc<str> {
            names
                .entry(s)
                .or_insert_with_key(|k| Arc::from(k.as_str()))
                .clone()
        };
        for row in loaded.objects {
            let resource = intern(row.resource);
            objects.entry(resource).or_default().insert(
                (row.namespace, row.name),
                Arc::new(Obj::from_bytes(row.rv, row.data.into())),
            );
        }
        let mut window = VecDeque::new();
        for (kind, row) in loaded.changes {
            window.push_back(Arc::new(Change {
                rv: row.rv,
                kind: ChangeKind::from_code(kind),
                key: Key {
                    resource: intern(row.resource),
                    namespace: row.namespace,
                    name: row.name,
                },
                obj: Arc::new(Obj::from_bytes(row.rv, row.data.into())),
                prev: None,
            }));
        }
        let oldest = window.front().map_or(loaded.rv, |c: &Arc<Change>| c.rv - 1);
        let state = Arc::new(Mutex::new(State {
            objects,
            overlay: HashMap::new(),
            overlay_rv: HashMap::new(),
            window_bytes: window.iter().map(|c| c.obj.bytes().len()).sum(),
            window_limit,
            window,
            oldest,
            next_rv: loaded.rv + 1,
            durable_rv: loaded.rv,
            channels: HashMap::new(),
            broken: None,
        }));
        let (writes, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(run_writer(db, queue, state.clone()));
        Ok(Self {
            state,
            writes,
            permits: Arc::new(Semaphore::new(PENDING)),
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// The newest version that readers see.
    pub fn rv(&self) -> u64 {
        self.state.lock().durable_rv
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Obj>> {
        let state = self.state.lock();
        state
            .objects
            .get(resource)?
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Like [`Store::get`], with writes that are still on their way to the disk: the base of a read-modify-write.
    pub fn get_latest(&self, key: &Key) -> Option<Arc<Obj>> {
        let state = self.state.lock();
        if let Some(pending) = state.overlay.get(key) {
            return pending.clone();
        }
        state
            .objects
            .get(&key.resource)?
            .get(&(key.namespace.clone(), key.name.clone()))
            .cloned()
    }

    /// Objects of a resource in key order, after `after` (exclusive), with the version of the snapshot.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(String, String)>,
    ) -> (u64, Vec<Arc<Obj>>) {
        let state = self.state.lock();
        let rv = state.durable_rv;
        let Some(objects) = state.objects.get(resource) else {
            return (rv, Vec::new());
        };
        let start = match (after, namespace) {
            (Some(key), _) => Bound::Excluded(key),
            (None, Some(ns)) => Bound::Included((ns.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let range = objects.range((start, Bound::Unbounded));
        let out = match namespace {
            Some(ns) => range
                .take_while(|(k, _)| k.0 == ns)
                .map(|(_, o)| o.clone())
                .collect(),
            None => range.map(|(_, o)| o.clone()).collect(),
        };
        (rv, out)
    }

    /// How many objects a resource has, in a namespace or in all.
    pub fn count(&self, resource: &str, namespace: Option<&str>) -> usize {
        self.list(resource, namespace, None).1.len()
    }

    /// Creates or replaces an object; `make` gets the version and returns what is stored. Returns when it is durable.
    pub async fn put(&self, key: Key, expect: Expect, value: Value) -> Result<Arc<Obj>, WriteError> {
        self.write(key, expect, value, false).await
    }

    /// Removes an object; `last` is its last state, for watchers.
    pub async fn remove(&self, key: Key, version: u64, last: Value) -> Result<Arc<Obj>, WriteError> {
        self.write(key, Expect::Version(version), last, true).await
    }

    async fn write(
        &self,
        key: Key,
        expect: Expect,
        mut value: Value,
        remove: bool,
    ) -> Result<Arc<Obj>, WriteError> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| WriteError::Broken("it is shut down".into()))?;
        let (done, wait) = oneshot::channel();
        let obj = {
            let mut state = self.state.lock();
            if let Some(why) = &state.broken {
                return Err(WriteError::Broken(why.clone()));
            }
            let current = match state.overlay.get(&key) {
                Some(pending) => pending.clone(),
                None => state
                    .objects
                    .get(&key.resource)
                    .and_then(|o| o.get(&(key.namespace.clone(), key.name.clone())))
                    .cloned(),
            };
            match (expect, &current) {
                (Expect::Absent, Some(_)) => return Err(WriteError::Exists),
                (Expect::Version(_), None) => return Err(WriteError::Missing),
                (Expect::Version(v), Some(c)) if c.rv != v => return Err(WriteError::Conflict),
                _ => {}
            }
            let rv = state.next_rv;
            state.next_rv += 1;
            if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
                meta.insert("resourceVersion".into(), rv.to_string().into());
            }
            let obj = Arc::new(Obj::from_value(rv, value));
            let kind = match (remove, &current) {
                (true, _) => ChangeKind::Deleted,
                (false, None) => ChangeKind::Added,
                (false, Some(_)) => ChangeKind::Modified,
            };
            state.overlay.insert(key.clone(), (!remove).then(|| obj.clone()));
            state.overlay_rv.insert(key.clone(), rv);
            let change = Arc::new(Change {
                rv,
                kind,
                key,
                obj: obj.clone(),
                prev: current,
            });
            if self.writes.send(Write { change, done }).is_err() {
                return Err(WriteError::Broken("it is shut down".into()));
            }
            obj
        };
        match wait.await {
            Ok(Ok(())) => Ok(obj),
            Ok(Err(why)) => Err(WriteError::Broken(why)),
            Err(_) => Err(WriteError::Broken("it is shut down".into())),
        }
    }

    /// Changes of a resource after version `from`, and from then on.
    pub fn watch(&self, resource: &Arc<str>, from: u64) -> Result<Subscription, WatchError> {
        let mut state = self.state.lock();
        if from > state.durable_rv {
            return Err(WatchError::Future {
                asked: from,
                current: state.durable_rv,
            });
        }
        if from < state.oldest {
            return Err(WatchError::Expired {
                asked: from,
                oldest: state.oldest + 1,
            });
        }
        let first = state.window.partition_point(|c| c.rv <= from);
        let backlog = state
            .window
            .range(first..)
            .filter(|c| c.key.resource == *resource)
            .cloned()
            .collect();
        let live = state.channel(resource).subscribe();
        Ok(Subscription {
            backlog,
            live,
            rv: state.durable_rv,
        })
    }

    /// All objects with their version, and the changes from then on, as one snapshot.
    pub fn list_and_watch(
        &self,
        resource: &Arc<str>,
        namespace: Option<&str>,
    ) -> (Vec<Arc<Obj>>, Subscription) {
        let mut state = self.state.lock();
        let objects = match state.objects.get(resource) {
            None => Vec::new(),
            Some(o) => o
                .iter()
                .filter(|((ns, _), _)| namespace.is_none_or(|n| n == ns))
                .map(|(_, o)| o.clone())
                .collect(),
        };
        let live = state.channel(resource).subscribe();
        (
            objects,
            Subscription {
                backlog: Vec::new(),
                live,
                rv: state.durable_rv,
            },
        )
    }

    /// Waits until all writes so far are on disk and closes the file; later writes fail.
    pub async fn close(&self) {
        self.state.lock().broken = Some("it is shut down".into());
        self.permits.close();
        let writer = self.writer.lock().take();
        let (done, wait) = oneshot::channel();
        let stop = Change {
            rv: 0,
            kind: ChangeKind::Deleted,
            key: Key {
                resource: Arc::from(""),
                namespace: String::new(),
                name: String::new(),
            },
            obj: Arc::new(Obj::from_bytes(0, Bytes::new())),
            prev: None,
        };
        if self
            .writes
            .send(Write {
                change: Arc::new(stop),
                done,
            })
            .is_ok()
        {
            let _ = wait.await;
        }
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl State {
    fn channel(&mut self, resource: &Arc<str>) -> &broadcast::Sender<Arc<Change>> {
        self.channels
            .entry(resource.clone())
            .or_insert_with(|| broadcast::channel(CHANNEL).0)
    }

    /// Makes a durable change visible.
    fn publish(&mut self, change: &Arc<Change>) {
        let key = &change.key;
        let objects = self.objects.entry(key.resource.clone()).or_default();
        let place = (key.namespace.clone(), key.name.clone());
        if change.kind == ChangeKind::Deleted {
            objects.remove(&place);
        } else {
            objects.insert(place, change.obj.clone());
        }
        if self.overlay_rv.get(key) == Some(&change.rv) {
            self.overlay_rv.remove(key);
            self.overlay.remove(key);
        }
        self.durable_rv = change.rv;
        // The window keeps JSON only: values of past states would cost several times as much memory.
        self.window.push_back(Arc::new(Change {
            rv: change.rv,
            kind: change.kind,
            key: key.clone(),
            obj: Arc::new(Obj::from_bytes(change.rv, change.obj.bytes().clone())),
            prev: change
                .prev
                .as_ref()
                .map(|p| Arc::new(Obj::from_bytes(p.rv, p.bytes().clone()))),
        }));
        self.window_bytes += change.obj.bytes().len();
        while self.window.len() > self.window_limit || self.window_bytes > WINDOW_BYTES {
            let Some(dropped) = self.window.pop_front() else {
                break;
            };
            self.window_bytes = self.window_bytes.saturating_sub(dropped.obj.bytes().len());
            self.oldest = dropped.rv;
        }
        if let Some(channel) = self.channels.get(&key.resource) {
            let _ = channel.send(change.clone());
        }
    }
}

async fn run_writer(
    mut db: sqlite::Database,
    mut queue: mpsc::UnboundedReceiver<Write>,
    state: Arc<Mutex<State>>,
) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if queue.recv_many(&mut batch, 256).await == 0 {
            break;
        }
        let stop = batch.iter().any(|w| w.change.rv == 0);
        let real: Vec<&Write> = batch.iter().filter(|w| w.change.rv != 0).collect();
        let result = if real.is_empty() {
            Ok(())
        } else {
            db.commit(real.iter().map(|w| w.change.as_ref()))
                .await
                .map_err(|e| e.to_string())
        };
        match &result {
            Ok(()) => {
                let mut state = state.lock();
                for write in &real {
                    state.publish(&write.change);
                }
            }
            Err(why) => {
                tracing::error!(error = %why, "the store cannot write; it refuses writes from now on");
                state.lock().broken = Some(why.clone());
            }
        }
        for write in batch.drain(..) {
            let _ = write.done.send(result.clone());
        }
        if stop {
            break;
        }
    }
    db.close().await;
}
