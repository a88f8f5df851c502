//! The Pods that the agent knows, for their actors and for the kubelet API.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::state::PodState;

/// What the API server last said of a Pod.
#[derive(Debug, Clone)]
pub enum Seen {
    Present(Arc<Pod>),
    /// deleted there
    Gone,
    /// the agent stops; the Pod goes on
    Stopped,
}

/// One Pod's two sides: what the API says, and what its shim says.
#[derive(Debug)]
pub struct Entry {
    pub uid: String,
    seen: watch::Sender<Seen>,
    pub state: watch::Sender<Option<PodState>>,
}

impl Entry {
    pub fn subscribe(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub fn pod(&self) -> Option<Arc<Pod>> {
        match &*self.seen.borrow() {
            Seen::Present(pod) => Some(pod.clone()),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

impl Registry {
    /// Returns the entry when the Pod is new and needs an actor.
    pub fn present(&self, pod: &Arc<Pod>) -> Option<Arc<Entry>> {
        let uid = pod.metadata.uid.clone()?;
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&uid) {
            entry.seen.send_replace(Seen::Present(pod.clone()));
            return None;
        }
        let entry = Arc::new(Entry {
            uid: uid.clone(),
            seen: watch::Sender::new(Seen::Present(pod.clone())),
            state: watch::Sender::new(None),
        });
        entries.insert(uid, entry.clone());
        Some(entry)
    }

    pub fn gone(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.seen.send_replace(Seen::Gone);
        }
    }

    /// After a new list: what is not on it is gone.
    pub fn retain(&self, listed: &HashSet<String>) {
        for (uid, entry) in self.entries.lock().iter() {
            if !listed.contains(uid) {
                entry.seen.send_replace(Seen::Gone);
            }
        }
    }

    pub fn stop(&self) {
        for entry in self.entries.lock().values() {
            entry.seen.send_replace(Seen::Stopped);
        }
    }

    pub fn remove(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.lock().values().cloned().collect()
    }

    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.lock();
        let found = entries.values().find(|entry| {
            entry.pod().is_some_and(|pod| {
                pod.metadata.name.as_deref() == Some(name)
                    && pod.metadata.namespace.as_deref() == Some(namespace)
            })
        });
        found.cloned()
    }
}
