//! Merging an applied configuration into the live object, and taking away what it no longer has.

use serde_json::{Map, Value};

use super::sets::Set;
use super::typed::{ListKind, Node, find_item, item_key, item_value};
use crate::definitions::Definitions;

/// `live` with everything that `applied` has.
pub fn merge(defs: &Definitions, node: Node<'_>, live: &mut Value, applied: &Value, root: bool) {
    match applied {
        Value::Object(map) if live.is_object() && !node.atomic_map() => {
            if let Some(target) = live.as_object_mut() {
                for (k, v) in map {
                    let child = node.child(root, defs, k);
                    merge(
                        defs,
                        child,
                        target.entry(k.clone()).or_insert(Value::Null),
                        v,
                        false,
                    );
                }
            }
        }
        Value::Array(items) if live.is_array() => {
            let kind = node.list();
            let Some(list) = live.as_array_mut() else { return };
            if kind == ListKind::Atomic {
                *list = items.clone();
                return;
            }
            let name = |v: &Value| match &kind {
                ListKind::Map(keys) => item_key(keys, v),
                _ => item_value(v),
            };
            for item in items {
                match find_item(&kind, list, &name(item)) {
                    Some(i) => merge(defs, node.item(), &mut list[i], item, false),
                    None => list.push(item.clone()),
                }
            }
            // The applied items keep their order among themselves, in the places that they have.
            let order: Vec<String> = items.iter().map(&name).collect();
            let places: Vec<usize> = (0..list.len())
                .filter(|i| order.contains(&name(&list[*i])))
                .collect();
            let mut chosen: Vec<Value> = places.iter().map(|i| list[*i].clone()).collect();
            chosen.sort_by_key(|v| order.iter().position(|o| *o == name(v)));
            for (place, value) in places.into_iter().zip(chosen) {
                list[place] = value;
            }
        }
        other => *live = other.clone(),
    }
}

/// Removes the members of `gone` from the object.
pub fn remove(defs: &Definitions, node: Node<'_>, live: &mut Value, gone: &Set, root: bool) {
    for (element, inner) in gone {
        if element == "." {
            continue;
        }
        let inner: Map<String, Value> = inner.as_object().cloned().unwrap_or_default();
        let whole = inner.is_empty() || inner.contains_key(".");
        if let Some(name) = element.strip_prefix("f:") {
            let Some(map) = live.as_object_mut() else { continue };
            if inner.is_empty() {
                map.remove(name);
            } else if let Some(child) = map.get_mut(name) {
                remove(defs, node.child(root, defs, name), child, &inner, false);
                let empty = child.as_object().is_some_and(Map::is_empty)
                    || child.as_array().is_some_and(Vec::is_empty);
                if empty {
                    map.remove(name);
                }
            }
            continue;
        }
        let kind = node.list();
        let Some(list) = live.as_array_mut() else { continue };
        let Some(at) = find_item(&kind, list, element) else {
            continue;
        };
        if whole {
            list.remove(at);
        } else {
            remove(defs, node.item(), &mut list[at], &inner, false);
        }
    }
}
