//! Small checks with Kubernetes' texts, and readers of loosely typed objects.

use serde_json::{Map, Value, json};

use crate::field_error::{FieldError, FieldPath};
use crate::meta;
use crate::quantity::Quantity;
use crate::selectors::LabelSelector;

/// The text of a field; empty when absent.
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The items of a field; none when absent.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The object of a field, made when absent or null.
pub fn object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let map = value.as_object_mut()?;
    let entry = map.entry(name).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// Sets a field that is absent, null, or an empty text.
pub fn default(value: &mut Value, name: &str, to: Value) {
    let absent = match &value[name] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if absent && let Some(map) = value.as_object_mut() {
        map.insert(name.to_owned(), to);
    }
}

/// Sets a number that is absent or zero.
pub fn default_number(value: &mut Value, name: &str, to: i64) {
    if value[name].as_i64().unwrap_or(0) == 0
        && let Some(map) = value.as_object_mut()
    {
        map.insert(name.to_owned(), json!(to));
    }
}

/// Sets a field that is absent; `null` is a value here, as where Go prints an empty time.
pub fn default_absent(value: &mut Value, name: &str, to: Value) {
    if let Some(map) = value.as_object_mut() {
        map.entry(name).or_insert(to);
    }
}

/// Runs `change` on each item of a list.
pub fn each(value: &mut Value, name: &str, mut change: impl FnMut(&mut Value)) {
    if let Some(items) = value.get_mut(name).and_then(Value::as_array_mut) {
        items.iter_mut().for_each(&mut change);
    }
}

/// Whether a field says something.
pub fn present(value: &Value, name: &str) -> bool {
    !value[name].is_null()
}

/// A number that must not be negative, when it is there.
pub fn non_negative(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath, name: &str) {
    if let Some(number) = value[name].as_i64()
        && number < 0
    {
        errors.push(FieldError::invalid(
            path.child(name),
            number,
            "must be greater than or equal to 0",
        ));
    }
}

/// A text out of a set.
pub fn one_of(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath, name: &str, allowed: &[&str]) {
    let found = text(value, name);
    if found.is_empty() {
        errors.push(FieldError::required(path.child(name), ""));
    } else if !allowed.contains(&found) {
        errors.push(FieldError::not_supported(path.child(name), found, allowed));
    }
}

/// A DNS label (RFC 1123).
pub fn label(errors: &mut Vec<FieldError>, found: &str, path: &FieldPath) {
    errors.extend(
        meta::label_problems(found)
            .into_iter()
            .map(|problem| FieldError::invalid(path, found, problem)),
    );
}

/// A DNS subdomain (RFC 1123).
pub fn subdomain(errors: &mut Vec<FieldError>, found: &str, path: &FieldPath) {
    errors.extend(
        meta::subdomain_problems(found)
            .into_iter()
            .map(|problem| FieldError::invalid(path, found, problem)),
    );
}

/// A port number.
pub fn port_number(errors: &mut Vec<FieldError>, number: i64, path: &FieldPath) {
    if !(1..=65_535).contains(&number) {
        errors.push(FieldError::invalid(
            path,
            number,
            "must be between 1 and 65535, inclusive",
        ));
    }
}

/// What is wrong with the name of a port.
pub fn port_name_problems(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters".to_owned());
    }
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// A port as number or name.
pub fn port(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    match value {
        Value::String(name) => {
            errors.extend(
                port_name_problems(name)
                    .into_iter()
                    .map(|problem| FieldError::invalid(path, name.as_str(), problem)),
            );
        }
        other => port_number(errors, other.as_i64().unwrap_or(0), path),
    }
}

/// What is wrong with a key of a ConfigMap or Secret.
pub fn config_key_problems(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push("must be no more than 253 characters".to_owned());
    }
    if key.is_empty()
        || !key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', \
             regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match key {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// An amount that must not be negative.
pub fn amount(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    if value
        .as_str()
        .and_then(Quantity::parse)
        .is_some_and(|found| found.nanos < 0)
    {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            "must be greater than or equal to 0",
        ));
    }
}

/// Labels: keys and values.
pub fn labels(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    for (key, found) in value.as_object().into_iter().flatten() {
        errors.extend(
            meta::qualified_name_problems(key)
                .into_iter()
                .map(|problem| FieldError::invalid(path, key.as_str(), problem)),
        );
        let found = found.as_str().unwrap_or_default();
        errors.extend(
            meta::label_value_problems(found)
                .into_iter()
                .map(|problem| FieldError::invalid(path, found, problem)),
        );
    }
}

/// A label selector.
pub fn selector(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    labels(errors, &value["matchLabels"], &path.child("matchLabels"));
    for (at, term) in list(value, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(at);
        let values = list(term, "values");
        match text(term, "operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(FieldError::required(
                        path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(FieldError::forbidden(
                        path.child("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            other => errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(term, "key");
        let key_path = path.child("key");
        errors.extend(
            meta::qualified_name_problems(key)
                .into_iter()
                .map(|problem| FieldError::invalid(&key_path, key, problem)),
        );
    }
}

/// Whether a selector says nothing.
pub fn empty_selector(value: &Value) -> bool {
    value["matchLabels"].as_object().is_none_or(Map::is_empty) && list(value, "matchExpressions").is_empty()
}

/// Whether a `LabelSelector` accepts labels; `None` when the selector cannot be read.
pub fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    if selector.is_null() {
        // No selector selects nothing.
        return Some(false);
    }
    LabelSelector::from_object(selector)
        .ok()
        .map(|selector| selector.matches(labels.as_object()))
}

/// A field that must stay as it was.
pub fn immutable(errors: &mut Vec<FieldError>, new: &Value, old: &Value, path: FieldPath) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.clone(), "field is immutable"));
    }
}

/// Equality in which an absent, null or empty part is the same.
pub fn same(a: &Value, b: &Value) -> bool {
    fn empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.values().all(empty),
            _ => false,
        }
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter()
                .all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || (empty(a) && empty(b)),
    }
}

/// An integer or a percentage that is not negative.
pub fn int_or_percent(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    match value {
        Value::String(found)
            if !found.strip_suffix('%').is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            }) =>
        {
            errors.push(FieldError::invalid(
                path,
                found.as_str(),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ));
        }
        Value::Number(found) if found.as_i64().is_some_and(|number| number < 0) => {
            errors.push(FieldError::invalid(
                path,
                value.clone(),
                "must be greater than or equal to 0",
            ));
        }
        _ => {}
    }
}

/// The path of `spec`.
pub fn spec_path() -> FieldPath {
    FieldPath::new("spec")
}

/// The name of an object.
pub fn name(value: &Value) -> Value {
    value["metadata"]["name"].clone()
}

/// The age of an object as `kubectl get` prints it.
pub fn age(value: &Value, now: i64) -> Value {
    Value::String(crate::times::age(
        value["metadata"]["creationTimestamp"].as_str(),
        now,
    ))
}

/// `a=b,c=d`, or `<none>`.
pub fn pairs(value: &Value) -> Value {
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    Value::String(if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    })
}

/// A selector as `kubectl get -o wide` prints it.
pub fn selector_text(value: &Value) -> Value {
    let mut parts: Vec<String> = value["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for term in list(value, "matchExpressions") {
        let values: Vec<&str> = list(term, "values").iter().filter_map(Value::as_str).collect();
        let key = text(term, "key");
        parts.push(match text(term, "operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    Value::String(if parts.is_empty() {
        "<none>".to_owned()
    } else {
        parts.join(",")
    })
}

/// Names and images of containers, for wide columns.
pub fn containers(spec: &Value) -> (Value, Value) {
    let joined = |field: &str| {
        Value::String(
            list(spec, "containers")
                .iter()
                .map(|one| text(one, field))
                .collect::<Vec<_>>()
                .join(","),
        )
    };
    (joined("name"), joined("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(&json!({"a": 1, "b": {}}), &json!({"a": 1, "c": null})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(same(&Value::Null, &json!({"x": {}})));
    }

    #[test]
    fn port_names() {
        assert!(port_name_problems("http-1").is_empty());
        assert_eq!(
            port_name_problems("123"),
            ["must contain at least one letter (a-z)"]
        );
        assert_eq!(port_name_problems("a--b-").len(), 2);
    }

    #[test]
    fn percentages() {
        let mut errors = Vec::new();
        for value in [json!("25%"), json!(3), json!("x"), json!(-1)] {
            int_or_percent(&mut errors, &value, &FieldPath::new("f"));
        }
        assert_eq!(errors.len(), 2);
    }
}
