//! Sets of fields in the form of `fieldsV1`: a tree whose leaves (and nodes with `.`) are members.

use serde_json::{Map, Value, json};

use super::typed::{ListKind, Node, item_key, item_value};
use crate::definitions::Definitions;

pub type Set = Map<String, Value>;

fn is_leaf(v: &Value) -> bool {
    v.as_object().is_none_or(Map::is_empty)
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

/// All fields of a value, as an applied configuration owns them. `None` when the value itself is the member.
pub fn of_value(defs: &Definitions, node: Node<'_>, value: &Value, root: bool) -> Option<Set> {
    let mut out = Set::new();
    match value {
        Value::Object(map) if !map.is_empty() && !node.atomic_map() => {
            for (k, v) in map {
                let child = of_value(defs, node.child(root, defs, k), v, false).unwrap_or_default();
                out.insert(field(k), Value::Object(child));
            }
        }
        Value::Array(list) if !list.is_empty() => match node.list() {
            ListKind::Atomic => return None,
            ListKind::Set => {
                for item in list {
                    out.insert(item_value(item), json!({}));
                }
            }
            ListKind::Map(keys) => {
                for item in list {
                    let mut child = of_value(defs, node.item(), item, false).unwrap_or_default();
                    child.insert(".".into(), json!({}));
                    out.insert(item_key(keys, item), Value::Object(child));
                }
            }
        },
        _ => return None,
    }
    Some(out)
}

/// All fields of a value as an update owns them: maps that were not there before are members themselves.
pub fn of_update(defs: &Definitions, node: Node<'_>, value: &Value, root: bool) -> Option<Set> {
    let mut out = of_value(defs, node, value, root)?;
    match value {
        Value::Object(map) if !out.is_empty() => {
            for (k, v) in map {
                if let Some(inner) = of_update(defs, node.child(root, defs, k), v, false) {
                    out.insert(field(k), Value::Object(inner));
                }
            }
            if !root && node.is_map() {
                out.insert(".".into(), json!({}));
            }
        }
        Value::Array(list) => {
            if let ListKind::Map(keys) = node.list() {
                for item in list {
                    if let Some(mut inner) = of_update(defs, node.item(), item, false) {
                        inner.insert(".".into(), json!({}));
                        out.insert(item_key(keys, item), Value::Object(inner));
                    }
                }
            }
        }
        _ => {}
    }
    Some(out)
}

fn put(out: &mut Set, element: String, child: Option<Set>) {
    match child {
        Some(c) => {
            out.insert(element, Value::Object(c));
        }
        None => {
            out.insert(element, json!({}));
        }
    }
}

/// Fields that a change sets and fields that it removes.
#[derive(Debug, Default)]
pub struct Difference {
    pub set: Set,
    pub removed: Set,
}

/// Compares two states.
pub fn difference(defs: &Definitions, node: Node<'_>, old: &Value, new: &Value, root: bool) -> Difference {
    let mut out = Difference::default();
    let one = |out: &mut Difference,
               element: String,
               node: Node<'_>,
               a: Option<&Value>,
               b: Option<&Value>,
               item: bool| {
        let whole = |v: &Value| {
            let own = of_update(defs, node, v, false);
            if item {
                let mut own = own.unwrap_or_default();
                own.insert(".".into(), json!({}));
                Some(own)
            } else {
                own
            }
        };
        match (a, b) {
            (None, Some(b)) => put(&mut out.set, element, whole(b)),
            (Some(a), None) => put(&mut out.removed, element, whole(a)),
            (Some(a), Some(b)) if a != b => {
                let granular = match (a, b) {
                    (Value::Object(x), Value::Object(y)) => {
                        !node.atomic_map() && !x.is_empty() && !y.is_empty()
                    }
                    (Value::Array(_), Value::Array(_)) => node.list() != ListKind::Atomic,
                    _ => false,
                };
                if !granular {
                    put(&mut out.set, element, whole(b));
                    return;
                }
                let inner = difference(defs, node, a, b, false);
                if !inner.set.is_empty() {
                    out.set.insert(element.clone(), Value::Object(inner.set));
                }
                if !inner.removed.is_empty() {
                    out.removed.insert(element, Value::Object(inner.removed));
                }
            }
            _ => {}
        }
    };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for k in keys {
                one(
                    &mut out,
                    field(k),
                    node.child(root, defs, k),
                    a.get(k),
                    b.get(k),
                    false,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            let kind = node.list();
            let element = |v: &Value| match &kind {
                ListKind::Map(keys) => item_key(keys, v),
                _ => item_value(v),
            };
            let mut names: Vec<String> = a.iter().chain(b).map(element).collect();
            names.sort();
            names.dedup();
            for name in names {
                let find = |list: &[Value]| list.iter().position(|v| element(v) == name);
                let (x, y) = (find(a).map(|i| &a[i]), find(b).map(|i| &b[i]));
                one(
                    &mut out,
                    name,
                    node.item(),
                    x,
                    y,
                    matches!(kind, ListKind::Map(_)),
                );
            }
        }
        _ => {}
    }
    out
}

/// Adds the members of `b` to `a`.
pub fn union(a: &mut Set, b: &Set) {
    for (k, v) in b {
        match a.get_mut(k) {
            None => {
                a.insert(k.clone(), v.clone());
            }
            Some(Value::Object(x)) => {
                if is_leaf(v) {
                    if !x.is_empty() {
                        x.insert(".".into(), json!({}));
                    }
                } else if let Some(y) = v.as_object() {
                    if x.is_empty() && k != "." {
                        x.insert(".".into(), json!({}));
                    }
                    union(x, y);
                }
            }
            Some(_) => {}
        }
    }
}

/// Removes the members of `b` from `a`; a leaf of `b` takes everything under it along.
pub fn subtract(a: &mut Set, b: &Set) {
    for (k, v) in b {
        let Some(Value::Object(x)) = a.get_mut(k) else {
            continue;
        };
        if is_leaf(v) || x.is_empty() {
            a.remove(k);
            continue;
        }
        if let Some(y) = v.as_object() {
            subtract(x, y);
            if x.is_empty() {
                a.remove(k);
            } else if x.len() == 1 && x.contains_key(".") {
                // A member without parts is written as a leaf.
                x.clear();
            }
        }
    }
}

/// Members of both.
pub fn intersection(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (k, v) in a {
        let (Some(w), Some(x)) = (b.get(k), v.as_object()) else {
            continue;
        };
        let Some(y) = w.as_object() else { continue };
        if x.is_empty() {
            out.insert(k.clone(), json!({}));
            continue;
        }
        if y.is_empty() {
            // The other has the whole as one member, not its parts.
            if x.contains_key(".") {
                out.insert(k.clone(), json!({".": {}}));
            }
            continue;
        }
        let inner = intersection(x, y);
        if !inner.is_empty() {
            out.insert(k.clone(), Value::Object(inner));
        }
    }
    out
}

/// Paths of the members, as Kubernetes prints them: `.spec.containers[name="a"].image`.
pub fn paths(set: &Set, prefix: &str, out: &mut Vec<String>) {
    for (k, v) in set {
        if k == "." {
            out.push(prefix.to_owned());
            continue;
        }
        let path = if let Some(name) = k.strip_prefix("f:") {
            format!("{prefix}.{name}")
        } else if let Some(keys) = k.strip_prefix("k:") {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{prefix}[{}]", parts.join(","))
        } else if let Some(value) = k.strip_prefix("v:") {
            format!("{prefix}[={value}]")
        } else {
            format!("{prefix}[{k}]")
        };
        match v.as_object() {
            Some(inner) if !inner.is_empty() => paths(inner, &path, out),
            _ => out.push(path),
        }
    }
}
