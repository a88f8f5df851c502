//! What a schema says about how the parts of an object are owned and merged.

use serde_json::{Map, Value};

use crate::crd::schema::{Schema, SchemaOrBool};
use crate::definitions::{Def, Definitions};
use crate::registry::{Behaviour, Resource};

/// A place in an object's schema.
#[derive(Clone, Copy)]
pub enum Node<'a> {
    Builtin(&'a Definitions, &'a Def),
    Custom(&'a Schema),
    /// No schema: maps are merged, lists are one value.
    Free,
}

/// How a list is merged.
#[derive(Debug, PartialEq, Eq)]
pub enum ListKind<'a> {
    Atomic,
    Set,
    Map(&'a [String]),
}

impl<'a> Node<'a> {
    /// The root of a resource's objects.
    pub fn root(defs: &'a Definitions, res: &'a Resource) -> Self {
        match &res.behaviour {
            Behaviour::Builtin {
                definition: Some(name),
                ..
            } => defs.get(name).map_or(Self::Free, |def| Self::Builtin(defs, def)),
            Behaviour::Builtin { definition: None, .. } => Self::Free,
            Behaviour::Custom(custom) => custom.schema.as_ref().map_or(Self::Free, Self::Custom),
        }
    }

    pub fn child(self, root: bool, defs: &'a Definitions, name: &str) -> Self {
        if root && name == "metadata" {
            let meta = defs.get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
            return meta.map_or(Self::Free, |d| Self::Builtin(defs, d));
        }
        match self {
            Self::Builtin(defs, def) => {
                let def = defs.resolve(def);
                match def.properties.get(name).or(def.additional.as_deref()) {
                    Some(d) => Self::Builtin(defs, d),
                    None => Self::Free,
                }
            }
            Self::Custom(schema) => match (schema.properties.get(name), &schema.additional_properties) {
                (Some(s), _) => Self::Custom(s),
                (None, Some(SchemaOrBool::Schema(s))) => Self::Custom(s),
                _ => Self::Free,
            },
            Self::Free => Self::Free,
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::Builtin(defs, def) => defs
                .resolve(def)
                .items
                .as_deref()
                .map_or(Self::Free, |d| Self::Builtin(defs, d)),
            Self::Custom(schema) => schema.items.as_deref().map_or(Self::Free, Self::Custom),
            Self::Free => Self::Free,
        }
    }

    pub fn list(self) -> ListKind<'a> {
        let (kind, keys) = match self {
            Self::Builtin(defs, def) => {
                let own = def.list_type.as_deref().map(|t| (t, &def.list_map_keys));
                let def = defs.resolve(def);
                own.unwrap_or((def.list_type.as_deref().unwrap_or("atomic"), &def.list_map_keys))
            }
            Self::Custom(s) => (s.list_type.as_deref().unwrap_or("atomic"), &s.list_map_keys),
            Self::Free => return ListKind::Atomic,
        };
        match kind {
            "map" if !keys.is_empty() => ListKind::Map(keys),
            "set" => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }

    /// A map of names that are not fixed.
    pub fn is_map(self) -> bool {
        match self {
            Self::Builtin(defs, def) => {
                let def = defs.resolve(def);
                def.properties.is_empty() && def.additional.is_some()
            }
            Self::Custom(s) => s.properties.is_empty() && s.additional_properties.is_some(),
            Self::Free => false,
        }
    }

    pub fn atomic_map(self) -> bool {
        match self {
            Self::Builtin(defs, def) => [def, defs.resolve(def)]
                .iter()
                .any(|d| d.map_type.as_deref() == Some("atomic")),
            Self::Custom(s) => s.map_type.as_deref() == Some("atomic"),
            Self::Free => false,
        }
    }
}

/// The path element of an item of a keyed list: `k:{"name":"a"}`.
pub fn item_key(keys: &[String], item: &Value) -> String {
    let mut map = Map::new();
    for key in keys {
        let value = match item.get(key) {
            Some(v) => v.clone(),
            // The one key with a default among built-in kinds.
            None if key == "protocol" => "TCP".into(),
            None => continue,
        };
        map.insert(key.clone(), value);
    }
    // Keys are written in order of their names.
    let mut sorted: Vec<(String, Value)> = map.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let text: Vec<String> = sorted
        .iter()
        .map(|(k, v)| format!("{}:{v}", Value::String(k.clone())))
        .collect();
    format!("k:{{{}}}", text.join(","))
}

/// The path element of an item of a set: `v:"a"`.
pub fn item_value(item: &Value) -> String {
    format!("v:{item}")
}

/// The item that a path element of a keyed list or a set names.
pub fn find_item(kind: &ListKind<'_>, list: &[Value], element: &str) -> Option<usize> {
    match kind {
        ListKind::Map(keys) => list.iter().position(|i| item_key(keys, i) == element),
        ListKind::Set => list.iter().position(|i| item_value(i) == element),
        ListKind::Atomic => None,
    }
}
