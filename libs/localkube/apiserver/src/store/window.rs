//! The latest changes, from which watches resume.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::object::{Change, ChangeKind, Key, Obj};

/// A past change as JSON only: parsed values would cost several times as much memory, so whoever reads them parses copies of its own.
struct Past {
    rv: u64,
    kind: ChangeKind,
    key: Key,
    bytes: Bytes,
    prev: Option<(u64, Bytes)>,
}

impl Past {
    fn change(&self) -> Arc<Change> {
        let state = |rv: u64, bytes: &Bytes| Arc::new(Obj::from_bytes(rv, bytes.clone()));
        Arc::new(Change {
            rv: self.rv,
            kind: self.kind,
            key: self.key.clone(),
            obj: state(self.rv, &self.bytes),
            prev: self.prev.as_ref().map(|(rv, bytes)| state(*rv, bytes)),
        })
    }
}

/// How much a window may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub changes: usize,
    /// Bytes of JSON.
    pub bytes: usize,
}

pub(super) struct Window {
    changes: VecDeque<Past>,
    bytes: usize,
    limits: Limits,
    /// Everything at or below this version may be missing.
    oldest: u64,
}

impl Window {
    /// An empty window that begins after version `oldest`.
    pub fn new(limits: Limits, oldest: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            limits,
            oldest,
        }
    }

    /// Everything at or below this version may be missing.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Adds the newest change and drops the oldest ones above the limits.
    pub fn push(&mut self, change: &Change) {
        let bytes = change.obj.bytes().clone();
        self.bytes += bytes.len();
        self.changes.push_back(Past {
            rv: change.rv,
            kind: change.kind,
            key: change.key.clone(),
            bytes,
            prev: change.prev.as_ref().map(|p| (p.rv, p.bytes().clone())),
        });
        while self.changes.len() > self.limits.changes || self.bytes > self.limits.bytes {
            let Some(dropped) = self.changes.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(dropped.bytes.len());
            self.oldest = dropped.rv;
        }
    }

    /// Changes of a resource after a version.
    pub fn after(&self, version: u64, resource: &str) -> Vec<Arc<Change>> {
        let first = self.changes.partition_point(|c| c.rv <= version);
        self.changes
            .range(first..)
            .filter(|c| *c.key.resource == *resource)
            .map(Past::change)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(rv: u64, resource: &str, text: &str) -> Change {
        Change {
            rv,
            kind: ChangeKind::Added,
            key: Key {
                resource: resource.into(),
                namespace: String::new(),
                name: rv.to_string(),
            },
            obj: Arc::new(Obj::from_value(rv, json!(text))),
            prev: None,
        }
    }

    #[test]
    fn old_changes_go_when_there_are_too_many_or_they_are_too_large() {
        let mut window = Window::new(
            Limits {
                changes: 3,
                bytes: 100,
            },
            0,
        );
        for rv in [1, 2, 4, 5] {
            window.push(&change(rv, "/pods", "x"));
        }
        assert_eq!(window.oldest(), 1);
        window.push(&change(6, "/pods", &"x".repeat(96)));
        assert_eq!(window.oldest(), 5, "98 bytes leave room for no other of 3");
        let left: Vec<u64> = window.after(0, "/pods").iter().map(|c| c.rv).collect();
        assert_eq!(left, [6]);
    }

    #[test]
    fn changes_after_a_version_are_of_one_resource() {
        let mut window = Window::new(
            Limits {
                changes: 9,
                bytes: 100,
            },
            0,
        );
        for (rv, resource) in [(1, "/pods"), (3, "/events"), (5, "/pods"), (7, "/pods")] {
            window.push(&change(rv, resource, "x"));
        }
        let found = |version| {
            window
                .after(version, "/pods")
                .iter()
                .map(|c| c.rv)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(1), [5, 7]);
        assert_eq!(found(4), [5, 7]);
        assert_eq!(found(7), [0; 0]);
    }
}
