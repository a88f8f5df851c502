//! Who owns whom, by uid: pure bookkeeping and decisions.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents lose their reference.
pub const ORPHAN: &str = "orphan";

/// What the graph keeps of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// index of the resource in the collector's table
    pub resource: usize,
    /// empty for a cluster-scoped object
    pub namespace: String,
    /// name
    pub name: String,
    /// uid
    pub uid: String,
    /// references as last seen
    pub owners: Vec<OwnerReference>,
    /// a deletion was asked for
    pub deleting: bool,
    /// holds [`FOREGROUND`]
    pub foreground: bool,
    /// holds [`ORPHAN`]
    pub orphan: bool,
}

impl Node {
    /// The node of an object's metadata.
    #[must_use]
    pub fn new(resource: usize, meta: &ObjectMeta) -> Self {
        let holds = |name: &str| meta.finalizers.iter().flatten().any(|one| one == name);
        Self {
            resource,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: holds(FOREGROUND),
            orphan: holds(ORPHAN),
        }
    }

    /// Deleted in the foreground: waits for its dependents.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// an object that may have no owner left, or whose owner waits for it
    Dependent(String),
    /// an owner that waits for its dependents
    Owner(String),
    /// an owner whose dependents are to be orphaned
    Orphan(String),
}

/// All objects that own or are owned.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// The node of a uid.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Objects that name this uid as an owner.
    #[must_use]
    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|uid| self.nodes.get(uid).cloned())
            .collect()
    }

    /// Objects that hold their owner's deletion back.
    #[must_use]
    pub fn blocking(&self, uid: &str) -> bool {
        self.dependents(uid).iter().any(|node| {
            node.owners
                .iter()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        })
    }

    /// Takes a state in; gives what has to be looked at.
    pub fn observe(&mut self, node: Node) -> Vec<Work> {
        let old = self.nodes.get(&node.uid).cloned();
        if old.as_ref() == Some(&node) {
            return Vec::new();
        }
        for owner in old.iter().flat_map(|old| &old.owners) {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(&node.uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in &node.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(node.uid.clone());
        }
        let mut work = Vec::new();
        if !node.owners.is_empty() {
            let doubtful = |owner: &OwnerReference| self.nodes.get(&owner.uid).is_none_or(Node::waits);
            if !node.deleting && node.owners.iter().any(doubtful) {
                work.push(Work::Dependent(node.uid.clone()));
            }
        }
        // An owner that waited for this object may go on when it lets the owner go.
        for owner in old.iter().flat_map(|old| &old.owners) {
            if self.nodes.get(&owner.uid).is_some_and(Node::waits) {
                work.push(Work::Owner(owner.uid.clone()));
            }
        }
        if node.deleting && node.orphan {
            work.push(Work::Orphan(node.uid.clone()));
        } else if node.waits() {
            work.push(Work::Owner(node.uid.clone()));
        }
        self.nodes.insert(node.uid.clone(), node);
        work
    }

    /// Takes an object out; gives what has to be looked at.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .map(|uid| Work::Dependent(uid.clone()))
            .collect();
        for owner in &node.owners {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(uid);
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            if self.nodes.get(&owner.uid).is_some_and(Node::waits) {
                work.push(Work::Owner(owner.uid.clone()));
            }
        }
        work
    }

    /// The uids known of one resource.
    #[must_use]
    pub fn of_resource(&self, resource: usize) -> Vec<String> {
        self.nodes
            .values()
            .filter(|node| node.resource == resource)
            .map(|node| node.uid.clone())
            .collect()
    }
}

/// What the owners of an object are, once looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// exists and stays
    Solid,
    /// does not exist
    Absent,
    /// is deleted in the foreground and waits for this object
    Waiting,
}

/// What to do with a dependent.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// an owner is left
    Keep,
    /// an owner is left, but these references lead nowhere
    Drop(Vec<OwnerReference>),
    /// no owner is left; `true` in the foreground
    Delete {
        /// the object has dependents of its own that go first
        foreground: bool,
    },
}

/// Decides about an object from the states of its owners.
#[must_use]
pub fn judge(owners: &[(OwnerReference, OwnerState)], has_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let solid = owners.iter().any(|(_, state)| *state == OwnerState::Solid);
    let left: Vec<OwnerReference> = owners
        .iter()
        .filter(|(_, state)| *state == OwnerState::Solid)
        .map(|(owner, _)| owner.clone())
        .collect();
    if solid {
        return if left.len() == owners.len() {
            Verdict::Keep
        } else {
            Verdict::Drop(left)
        };
    }
    let waiting = owners.iter().any(|(_, state)| *state == OwnerState::Waiting);
    Verdict::Delete {
        foreground: waiting && has_dependents,
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(uid: &str, owner: Option<&str>, more: serde_json::Value) -> Node {
        let mut meta = json!({"name": uid, "uid": uid, "ownerReferences": owner.map(|uid| vec![json!({
            "apiVersion": "v1", "kind": "K", "name": uid, "uid": uid, "blockOwnerDeletion": true})])});
        if let (Some(meta), Some(more)) = (meta.as_object_mut(), more.as_object()) {
            meta.extend(more.clone());
        }
        Node::new(0, &serde_json::from_value(meta).unwrap())
    }

    #[test]
    fn dependents_of_a_removed_owner_are_looked_at() {
        let mut graph = Graph::default();
        assert!(graph.observe(node("a", None, json!({}))).is_empty());
        assert!(graph.observe(node("b", Some("a"), json!({}))).is_empty());
        assert_eq!(graph.remove("a"), [Work::Dependent("b".to_owned())]);
    }

    #[test]
    fn an_unknown_owner_is_looked_at() {
        assert_eq!(
            Graph::default().observe(node("b", Some("x"), json!({}))),
            [Work::Dependent("b".to_owned())]
        );
    }

    #[test]
    fn a_waiting_owner_goes_on_when_its_dependent_is_gone() {
        let mut graph = Graph::default();
        graph.observe(node("a", None, json!({})));
        graph.observe(node("b", Some("a"), json!({})));
        let waiting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(
            graph.observe(node("a", None, waiting)),
            [Work::Owner("a".to_owned())]
        );
        assert!(graph.blocking("a"));
        assert_eq!(graph.remove("b"), [Work::Owner("a".to_owned())]);
        assert!(!graph.blocking("a"));
    }

    #[test]
    fn verdicts() {
        let owner = |uid: &str| OwnerReference {
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        assert_eq!(judge(&[], false), Verdict::Keep);
        assert_eq!(
            judge(&[(owner("a"), OwnerState::Absent)], true),
            Verdict::Delete { foreground: false }
        );
        assert_eq!(
            judge(&[(owner("a"), OwnerState::Waiting)], true),
            Verdict::Delete { foreground: true }
        );
        let mixed = [(owner("a"), OwnerState::Solid), (owner("b"), OwnerState::Absent)];
        assert_eq!(judge(&mixed, false), Verdict::Drop(vec![owner("a")]));
    }
}
