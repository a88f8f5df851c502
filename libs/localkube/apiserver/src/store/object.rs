//! Objects in a version, and their changes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

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
    pub(super) fn from_value(rv: u64, value: Value) -> Self {
        Self {
            rv,
            value: OnceLock::from(value),
            bytes: OnceLock::new(),
        }
    }
    pub(super) fn from_bytes(rv: u64, bytes: Bytes) -> Self {
        Self {
            rv,
            value: OnceLock::new(),
            bytes: OnceLock::from(bytes),
        }
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
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Added => 0,
            Self::Modified => 1,
            Self::Deleted => 2,
        }
    }
    pub(super) fn from_code(code: i64) -> Self {
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
