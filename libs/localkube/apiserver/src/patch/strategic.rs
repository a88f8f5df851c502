//! Strategic merge patches: lists of built-in kinds merge by the keys that their definitions name.

use serde_json::{Map, Value};

use crate::definitions::{Def, Definitions};

const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to `target`, an object of the definition.
pub fn apply(defs: &Definitions, def: &Def, target: &mut Value, patch: &Value) -> Result<(), String> {
    match patch {
        Value::Object(p) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            match target.as_object_mut() {
                Some(t) => object(defs, defs.resolve(def), t, p),
                None => Ok(()),
            }
        }
        other => {
            *target = other.clone();
            Ok(())
        }
    }
}

fn property<'a>(def: &'a Def, key: &str) -> Option<&'a Def> {
    def.properties.get(key).or(def.additional.as_deref())
}

fn object(
    defs: &Definitions,
    def: &Def,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), String> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            target.clear();
            for (k, v) in patch.iter().filter(|(k, _)| *k != "$patch") {
                target.insert(k.clone(), strip(v));
            }
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("Unknown patch type found: {other}")),
    }
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        let keep: Vec<&str> = keep.iter().filter_map(Value::as_str).collect();
        target.retain(|k, _| keep.contains(&k.as_str()));
    }
    let ordered = patch.keys().any(|k| k.starts_with(ORDER));
    let before = if ordered { target.clone() } else { Map::new() };
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE) {
            if let (Some(list), Some(gone)) = (
                target.get_mut(field).and_then(Value::as_array_mut),
                value.as_array(),
            ) {
                list.retain(|x| !gone.contains(x));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let child = property(def, key);
        match (value, child) {
            (Value::Object(p), Some(child)) => {
                let t = target
                    .entry(key.clone())
                    .or_insert_with(|| Value::Object(Map::new()));
                if !t.is_object() {
                    *t = Value::Object(Map::new());
                }
                if let Some(t) = t.as_object_mut() {
                    object(defs, defs.resolve(child), t, p)?;
                }
            }
            (Value::Object(_), None) => {
                let t = target.entry(key.clone()).or_insert(Value::Null);
                super::merge(t, value);
            }
            (Value::Array(p), Some(child)) if child.merges() => {
                let t = target
                    .entry(key.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                if !t.is_array() {
                    *t = Value::Array(Vec::new());
                }
                if let Some(t) = t.as_array_mut() {
                    list(defs, child, t, p)?;
                }
            }
            (other, _) => {
                target.insert(key.clone(), strip(other));
            }
        }
    }
    for (key, order) in patch {
        let (Some(field), Some(order)) = (key.strip_prefix(ORDER), order.as_array()) else {
            continue;
        };
        let merge_key = property(def, field).and_then(|d| d.merge_key.as_deref());
        let server = before
            .get(field)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if let Some(items) = target.get_mut(field).and_then(Value::as_array_mut) {
            enforce(items, order, &server, merge_key);
        }
    }
    Ok(())
}

fn list(defs: &Definitions, def: &Def, target: &mut Vec<Value>, patch: &[Value]) -> Result<(), String> {
    let server = target.clone();
    let Some(merge_key) = def.merge_key.as_deref() else {
        for item in patch {
            if !target.contains(item) {
                target.push(item.clone());
            }
        }
        enforce(target, patch, &server, None);
        return Ok(());
    };
    let is_replace = |v: &Value| v["$patch"] == "replace";
    if patch.iter().any(is_replace) {
        *target = patch.iter().filter(|v| !is_replace(v)).map(strip).collect();
        return Ok(());
    }
    let item_def = def.items.as_deref().map(|d| defs.resolve(d));
    for item in patch {
        let key = &item[merge_key];
        if key.is_null() {
            return Err(format!(
                "map: {item} does not contain declared merge key: {merge_key}"
            ));
        }
        let at = target.iter().position(|t| t[merge_key] == *key);
        if item["$patch"] == "delete" {
            target.retain(|t| t[merge_key] != *key);
            continue;
        }
        let index = match at {
            Some(i) => i,
            None => {
                target.push(Value::Object(Map::new()));
                target.len() - 1
            }
        };
        match item_def {
            Some(d) => apply(defs, d, &mut target[index], item)?,
            None => super::merge(&mut target[index], item),
        }
    }
    let plain: Vec<Value> = patch.iter().filter(|v| v["$patch"].is_null()).cloned().collect();
    enforce(target, &plain, &server, Some(merge_key));
    Ok(())
}

/// Orders a merged list as Kubernetes does: items that the patch names in the patch's order, the others in the server's, and where the
/// server knows the order of one of each, in that; new items come before others.
fn enforce(merged: &mut Vec<Value>, patch_order: &[Value], server_order: &[Value], merge_key: Option<&str>) {
    let id = |v: &Value| -> Value {
        match merge_key {
            Some(k) if v.is_object() => v[k].clone(),
            _ => v.clone(),
        }
    };
    let patch_ids: Vec<Value> = patch_order.iter().map(id).collect();
    let server_ids: Vec<Value> = server_order.iter().map(id).collect();
    let place = |ids: &[Value], v: &Value| ids.iter().position(|x| *x == id(v));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.drain(..).partition(|v| place(&patch_ids, v).is_some());
    named.sort_by_key(|v| place(&patch_ids, v));
    others.sort_by_key(|v| place(&server_ids, v).unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let take_other = match (others.peek(), named.peek()) {
            (None, None) => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(o), Some(n)) => {
                matches!((place(&server_ids, o), place(&server_ids, n)), (Some(a), Some(b)) if a < b)
            }
        };
        merged.extend(if take_other { others.next() } else { named.next() });
    }
}

/// A copy without directives and nulls.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(k, v)| !k.starts_with('$') && !v.is_null())
                .map(|(k, v)| (k.clone(), strip(v)))
                .collect(),
        ),
        Value::Array(list) => {
            Value::Array(list.iter().filter(|v| v["$patch"].is_null()).map(strip).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Value) -> Value {
        let defs = Definitions::load();
        let def = defs.get("io.k8s.api.core.v1.Pod").unwrap();
        apply(&defs, def, &mut target, patch).unwrap();
        target
    }

    #[test]
    fn containers_merge_by_name() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let out = patched(
            pod.clone(),
            &json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}),
        );
        assert_eq!(
            out["spec"]["containers"],
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])
        );
        let out = patched(
            pod.clone(),
            &json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        );
        assert_eq!(out["spec"]["containers"], json!([{"name": "b", "image": "1"}]));
        let order = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}});
        assert_eq!(patched(pod, &order)["spec"]["containers"][0]["name"], "b");
    }

    #[test]
    fn finalizers_are_a_set_and_null_removes() {
        let pod = json!({"metadata": {"finalizers": ["x"], "labels": {"a": "1", "b": "2"}}});
        let out = patched(
            pod,
            &json!({"metadata": {"finalizers": ["y", "x"], "labels": {"a": null}}}),
        );
        assert_eq!(
            out["metadata"],
            json!({"finalizers": ["y", "x"], "labels": {"b": "2"}})
        );
    }
}
