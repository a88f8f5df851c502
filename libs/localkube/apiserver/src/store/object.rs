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
///
/// A parsed value takes ten times as much memory as its JSON, so the store soon lets go of it again ([`Obj::cold`]).
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
        self.value.get_or_init(|| self.parse())
    }
    /// A copy of the value, which is not kept here.
    pub fn to_value(&self) -> Value {
        self.value.get().cloned().unwrap_or_else(|| self.parse())
    }
    fn parse(&self) -> Value {
        self.bytes
            .get()
            .and_then(|b| serde_json::from_slice(b).ok())
            .unwrap_or(Value::Null)
    }
    /// Shows the value to `look` without keeping it: for whoever goes through many objects.
    pub fn look<T>(&self, look: impl FnOnce(&Value) -> T) -> T {
        match self.value.get() {
            Some(value) => look(value),
            None => look(&self.parse()),
        }
    }
    /// The same object without a parsed value; `None` when it has none.
    pub(super) fn cold(&self) -> Option<Self> {
        self.value
            .get()
            .map(|_| Self::from_bytes(self.rv, self.bytes().clone()))
    }
    /// JSON of the object as stored.
    pub fn bytes(&self) -> &Bytes {
        self.bytes.get_or_init(|| {
            let value = self.value.get().unwrap_or(&Value::Null);
            let text = serde_json::to_vec(value).unwrap_or_default();
            // kept for long: without the room that it grew by
            Bytes::from(text.into_boxed_slice())
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
