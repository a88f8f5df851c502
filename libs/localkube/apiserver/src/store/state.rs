//! What the store knows: what is durable, what is on its way to the disk, and who watches.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::broadcast;

use super::object::{Change, ChangeKind, Key, Obj};
use super::window::Window;
use super::{Latest, Mark, WriteError};

/// Changes that one watcher may be behind before it reads them from the window.
const CHANNEL: usize = 256;

/// Changes whose objects keep their parsed values, since what has just changed is often read and written next.
const WARM: usize = 128;

pub(super) type Objects = BTreeMap<(String, String), Arc<Obj>>;

/// A write that is not durable yet; `obj` is `None` for a removal.
pub(super) struct Pending {
    pub rv: u64,
    pub obj: Option<Arc<Obj>>,
}

pub(super) struct State {
    pub objects: HashMap<Arc<str>, Objects>,
    /// The newest write of each key that is on its way to the disk.
    pub pending: HashMap<Key, Pending>,
    pub window: Window,
    /// The latest changes, the oldest first.
    pub warm: VecDeque<(Key, u64)>,
    pub next_rv: u64,
    pub durable_rv: u64,
    /// How often writes failed. What was pending then is void, and so is what builds on it.
    pub failures: u64,
    pub channels: HashMap<Arc<str>, broadcast::Sender<Arc<Change>>>,
    /// Why nothing can be written now.
    pub refused: Option<String>,
    pub closed: bool,
}

impl State {
    /// The durable state of an object.
    pub fn durable(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Obj>> {
        self.objects
            .get(resource)?
            .get(&(namespace.to_owned(), name.to_owned()))
    }

    /// An object with the writes that are on their way to the disk.
    pub fn latest(&self, key: &Key) -> Latest {
        match self.pending.get(key) {
            Some(pending) => Latest {
                obj: pending.obj.clone(),
                pending: Some(Mark {
                    rv: pending.rv,
                    failures: self.failures,
                }),
            },
            None => Latest {
                obj: self.durable(&key.resource, &key.namespace, &key.name).cloned(),
                pending: None,
            },
        }
    }

    /// Fails when nothing can be written now.
    pub fn check_writable(&self) -> Result<(), WriteError> {
        match &self.refused {
            _ if self.closed => Err(WriteError::closed()),
            Some(why) => Err(WriteError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    pub fn channel(&mut self, resource: &Arc<str>) -> &broadcast::Sender<Arc<Change>> {
        self.channels
            .entry(resource.clone())
            .or_insert_with(|| broadcast::channel(CHANNEL).0)
    }

    /// Makes a durable change visible.
    pub fn publish(&mut self, change: &Arc<Change>) {
        let key = &change.key;
        let objects = self.objects.entry(key.resource.clone()).or_default();
        let place = (key.namespace.clone(), key.name.clone());
        if change.kind == ChangeKind::Deleted {
            objects.remove(&place);
        } else {
            objects.insert(place, change.obj.clone());
        }
        if self.pending.get(key).is_some_and(|p| p.rv == change.rv) {
            self.pending.remove(key);
        }
        self.durable_rv = change.rv;
        self.window.push(change);
        self.warm.push_back((key.clone(), change.rv));
        if self.warm.len() > WARM {
            self.cool();
        }
        if let Some(channel) = self.channels.get(&key.resource) {
            // nobody watches just now
            let _none = channel.send(change.clone());
        }
    }

    /// Lets go of the parsed value of the object that changed the longest ago, unless it changed again.
    fn cool(&mut self) {
        let Some((key, rv)) = self.warm.pop_front() else {
            return;
        };
        let place = (key.namespace, key.name);
        if let Some(obj) = self
            .objects
            .get_mut(&key.resource)
            .and_then(|all| all.get_mut(&place))
            && obj.rv == rv
            && let Some(cold) = obj.cold()
        {
            *obj = Arc::new(cold);
        }
    }

    /// Forgets all writes that are not durable.
    pub fn fail(&mut self) {
        self.failures += 1;
        self.pending.clear();
    }
}
