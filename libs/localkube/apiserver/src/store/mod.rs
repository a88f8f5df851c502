//! Objects, their versions and the window of past changes.
//!
//! Readers see an in-memory index of what is durable. A write becomes pending under the state's lock, which assigns its
//! resourceVersion, and then goes through one writer task that commits groups of writes to SQLite in that same order; only
//! then does it become visible to readers and watchers and is acknowledged. So the order of versions is the order of events, and
//! nothing that anyone saw is lost by `kill -9`.
//!
//! A write may build on a pending one ([`Store::latest`]). Any answer that was found by looking at a pending write waits until
//! that one is durable ([`Store::stands`]), refusals too: whoever hears that an object exists finds it. When a group cannot be
//! written (disk full), it and all that is pending is void, nobody has seen it, and the next write is tried as usual.

mod object;
mod sqlite;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

/// Told whether a write is on disk.
type Durable = oneshot::Receiver<Result<(), String>>;

pub use object::{Change, ChangeKind, Key, Obj};
pub use sqlite::OpenStoreError;

use state::{Objects, Pending, State};
use window::{Limits, Window};
use writer::{Job, Progress, Write, Writer};

/// Changes kept for watches that resume, and the most JSON that they may hold.
pub const WINDOW: usize = 16_384;
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Writes that may wait for the disk.
const PENDING: usize = 1024;

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

impl WriteError {
    fn closed() -> Self {
        Self::Broken("it is shut down".to_owned())
    }
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

/// An object with the writes that are still on their way to the disk: the base of a read-modify-write.
#[derive(Debug, Clone)]
pub struct Latest {
    pub obj: Option<Arc<Obj>>,
    /// The pending write that this shows; `None` when it is durable.
    pending: Option<Mark>,
}

/// A pending write, by its version and the failures before it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    rv: u64,
    failures: u64,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    jobs: mpsc::UnboundedSender<Job>,
    /// One for each write that waits for the disk.
    permits: Arc<Semaphore>,
    progress: watch::Receiver<Progress>,
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
        let limits = Limits {
            changes: window_limit,
            bytes: WINDOW_BYTES,
        };
        let (db, loaded) = sqlite::Database::open(file, limits).await?;
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
        let oldest = loaded.changes.first().map_or(loaded.rv, |(_, c)| c.rv - 1);
        let mut window = Window::new(limits, oldest);
        for (kind, row) in loaded.changes {
            window.push(&Change {
                rv: row.rv,
                kind: ChangeKind::from_code(kind),
                key: Key {
                    resource: intern(row.resource),
                    namespace: row.namespace,
                    name: row.name,
                },
                obj: Arc::new(Obj::from_bytes(row.rv, row.data.into())),
                prev: None,
            });
        }
        let state = Arc::new(Mutex::new(State {
            objects,
            pending: HashMap::new(),
            window,
            warm: VecDeque::new(),
            next_rv: loaded.rv + 1,
            durable_rv: loaded.rv,
            failures: 0,
            channels: HashMap::new(),
            refused: None,
            closed: false,
        }));
        let (jobs, queue) = mpsc::unbounded_channel();
        let (tell, progress) = watch::channel(Progress {
            durable_rv: loaded.rv,
            failures: 0,
        });
        let writer = Writer {
            db,
            queue,
            state: state.clone(),
            progress: tell,
            why: String::new(),
        };
        Ok(Self {
            state,
            jobs,
            permits: Arc::new(Semaphore::new(PENDING)),
            progress,
            writer: Arc::new(Mutex::new(Some(tokio::spawn(writer.run())))),
        })
    }

    /// The newest version that readers see.
    pub fn rv(&self) -> u64 {
        self.state.lock().durable_rv
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Obj>> {
        self.state.lock().durable(resource, namespace, name).cloned()
    }

    /// Like [`Store::get`], with writes that are still on their way to the disk. An answer that is made of this alone must
    /// wait for [`Store::stands`].
    pub fn latest(&self, key: &Key) -> Latest {
        self.state.lock().latest(key)
    }

    /// Waits until what was seen is durable. False when it could not be written: look again.
    pub async fn stands(&self, seen: &Latest) -> bool {
        match seen.pending {
            None => true,
            Some(mark) => self.settled(mark).await,
        }
    }

    /// The durable state once what is pending now is settled.
    pub async fn get_settled(&self, key: &Key) -> Option<Arc<Obj>> {
        let seen = self.latest(key);
        // written or not: what is durable then is the answer
        let _either = self.stands(&seen).await;
        self.get(&key.resource, &key.namespace, &key.name)
    }

    async fn settled(&self, mark: Mark) -> bool {
        let mut progress = self.progress.clone();
        let reached = progress
            .wait_for(|p| p.failures != mark.failures || p.durable_rv >= mark.rv)
            .await;
        reached.is_ok_and(|p| p.failures == mark.failures)
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

    /// Creates or replaces an object; `value` gets the version. Returns when it is durable.
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
        value: Value,
        remove: bool,
    ) -> Result<Arc<Obj>, WriteError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| WriteError::closed())?;
        let (obj, wait) = loop {
            let (refusal, seen) = {
                let mut state = self.state.lock();
                state.check_writable()?;
                let seen = state.latest(&key);
                match refusal(expect, seen.obj.as_deref()) {
                    Some(refusal) => (refusal, seen),
                    None => break self.enqueue(&mut state, key, seen.obj, value, remove, permit)?,
                }
            };
            // what stands in the way may fail to become durable, and then it never was there
            if self.stands(&seen).await {
                return Err(refusal);
            }
        };
        let written = wait.await.map_err(|_| WriteError::closed())?;
        written.map(|()| obj).map_err(WriteError::Broken)
    }

    fn enqueue(
        &self,
        state: &mut State,
        key: Key,
        prev: Option<Arc<Obj>>,
        mut value: Value,
        remove: bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<(Arc<Obj>, Durable), WriteError> {
        let rv = state.next_rv;
        state.next_rv += 1;
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("resourceVersion".into(), rv.to_string().into());
        }
        let obj = Arc::new(Obj::from_value(rv, value));
        let kind = match (remove, &prev) {
            (true, _) => ChangeKind::Deleted,
            (false, None) => ChangeKind::Added,
            (false, Some(_)) => ChangeKind::Modified,
        };
        let after = Pending {
            rv,
            obj: (!remove).then(|| obj.clone()),
        };
        state.pending.insert(key.clone(), after);
        let change = Arc::new(Change {
            rv,
            kind,
            key,
            obj: obj.clone(),
            prev,
        });
        let (done, wait) = oneshot::channel();
        let write = Write {
            change,
            failures: state.failures,
            done,
            _permit: permit,
        };
        // under the lock, so that the queue is in the order of versions
        self.jobs
            .send(Job::Write(write))
            .map_err(|_| WriteError::closed())?;
        Ok((obj, wait))
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
        let oldest = state.window.oldest();
        if from < oldest {
            return Err(WatchError::Expired {
                asked: from,
                oldest: oldest + 1,
            });
        }
        Ok(Subscription {
            backlog: state.window.after(from, resource),
            live: state.channel(resource).subscribe(),
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
        self.state.lock().closed = true;
        self.permits.close();
        let writer = self.writer.lock().take();
        // a writer that has ended needs no word
        let _ended = self.jobs.send(Job::Stop);
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the store's writer ended badly");
        }
    }
}

/// Why an object that is there, or is not, stands in the way of a write.
fn refusal(expect: Expect, current: Option<&Obj>) -> Option<WriteError> {
    match (expect, current) {
        (Expect::Absent, Some(_)) => Some(WriteError::Exists),
        (Expect::Version(_), None) => Some(WriteError::Missing),
        (Expect::Version(v), Some(c)) if c.rv != v => Some(WriteError::Conflict),
        _ => None,
    }
}
