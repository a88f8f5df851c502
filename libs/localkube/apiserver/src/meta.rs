//! ObjectMeta: names, labels, annotations, finalizers, owner references; what may change on an update.

use serde_json::{Map, Value};

use crate::field_error::{FieldError, FieldPath};

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn edges_and_middle(s: &str, edge: fn(char) -> bool, middle: &str) -> bool {
    let first = s.chars().next();
    let last = s.chars().next_back();
    first.is_some_and(edge) && last.is_some_and(edge) && s.chars().all(|c| edge(c) || middle.contains(c))
}
fn alnum(c: char) -> bool {
    c.is_ascii_alphanumeric()
}
fn lower_alnum(c: char) -> bool {
    c.is_ascii_digit() || c.is_ascii_lowercase()
}

fn longer_than(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// Names are measured in characters, labels in bytes.
fn name_longer_than(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// Problems of a label value, in Kubernetes' words.
pub fn label_value_problems(v: &str) -> Vec<String> {
    let mut out = Vec::new();
    if v.len() > 63 {
        out.push(longer_than(63));
    }
    if !v.is_empty() && !edges_and_middle(v, alnum, "-_.") {
        out.push(LABEL_VALUE.to_owned());
    }
    out
}

/// Problems of a key of labels or annotations.
pub fn qualified_name_problems(k: &str) -> Vec<String> {
    let parts: Vec<&str> = k.split('/').collect();
    let mut out = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(
                    subdomain_problems(prefix)
                        .into_iter()
                        .map(|p| format!("prefix part {p}")),
                );
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                QUALIFIED.strip_prefix("name part ").unwrap_or(QUALIFIED)
            )];
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        out.push(format!("name part {}", longer_than(63)));
    }
    if !edges_and_middle(name, alnum, "-_.") {
        out.push(QUALIFIED.to_owned());
    }
    out
}

/// Problems of a DNS subdomain (most names).
pub fn subdomain_problems(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 253 {
        out.push(name_longer_than(253));
    }
    if !s.split('.').all(|p| edges_and_middle(p, lower_alnum, "-")) {
        out.push(SUBDOMAIN.to_owned());
    }
    out
}

/// Problems of a DNS label (namespaces).
pub fn label_problems(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(name_longer_than(63));
    }
    if !edges_and_middle(s, lower_alnum, "-") {
        let dotted = s.split('.').all(|p| edges_and_middle(p, lower_alnum, "-"));
        out.push(if dotted {
            "must not contain dots".to_owned()
        } else {
            LABEL.to_owned()
        });
    }
    out
}

/// Problems of a DNS-1035 label (Services).
pub fn label_1035_problems(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    if s.len() > 63 {
        out.push(name_longer_than(63));
    }
    if !edges_and_middle(s, lower_alnum, "-") || s.starts_with(|c: char| c.is_ascii_digit()) {
        out.push(LABEL_1035.to_owned());
    }
    out
}

/// Problems of a path segment (roles and their bindings).
pub fn path_segment_problems(s: &str) -> Vec<String> {
    match s {
        "." => return vec!["may not be '.'".into()],
        ".." => return vec!["may not be '..'".into()],
        _ => {}
    }
    ['/', '%']
        .iter()
        .filter(|c| s.contains(**c))
        .map(|c| format!("may not contain '{c}'"))
        .collect()
}

/// The check of a resource's names.
pub fn name_problems(group: &str, plural: &str, name: &str) -> Vec<String> {
    match (group, plural) {
        ("", "namespaces") => label_problems(name),
        ("", "services") => label_1035_problems(name),
        ("rbac.authorization.k8s.io", _) => path_segment_problems(name),
        _ => subdomain_problems(name),
    }
}

fn labels(map: &Map<String, Value>, path: &FieldPath, out: &mut Vec<FieldError>) {
    for (k, v) in map {
        for problem in qualified_name_problems(k) {
            out.push(FieldError::invalid(path, k.as_str(), problem));
        }
        let v = v.as_str().unwrap_or_default();
        for problem in label_value_problems(v) {
            out.push(FieldError::invalid(path, v, problem));
        }
    }
}

/// Groups whose objects Kubernetes holds to its own finalizer names; custom resources may have any.
const CORE_GROUPS: [&str; 4] = ["", "apps", "batch", "autoscaling"];

/// Validates metadata of a new object or of the new state of one.
pub fn validate(group: &str, plural: &str, namespaced: bool, meta: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let path = FieldPath::new("metadata");
    if let Some(prefix) = meta["generateName"].as_str().filter(|p| !p.is_empty()) {
        // A prefix may end where a name may not.
        let padded = if prefix.ends_with(['-', '.']) {
            format!("{prefix}a")
        } else {
            prefix.to_owned()
        };
        for problem in name_problems(group, plural, &padded) {
            out.push(FieldError::invalid(path.child("generateName"), prefix, problem));
        }
    }
    match meta["name"].as_str().filter(|n| !n.is_empty()) {
        None => {
            out.push(FieldError::required(
                path.child("name"),
                "name or generateName is required",
            ));
        }
        Some(name) => {
            for problem in name_problems(group, plural, name) {
                out.push(FieldError::invalid(path.child("name"), name, problem));
            }
        }
    }
    match (namespaced, meta["namespace"].as_str().filter(|n| !n.is_empty())) {
        (true, None) => out.push(FieldError::required(path.child("namespace"), "")),
        (true, Some(ns)) => {
            for problem in label_problems(ns) {
                out.push(FieldError::invalid(path.child("namespace"), ns, problem));
            }
        }
        (false, Some(_)) => {
            out.push(FieldError::forbidden(
                path.child("namespace"),
                "not allowed on this type",
            ));
        }
        (false, None) => {}
    }
    if let Some(map) = meta["labels"].as_object() {
        labels(map, &path.child("labels"), &mut out);
    }
    if let Some(map) = meta["annotations"].as_object() {
        let at = path.child("annotations");
        let mut size = 0;
        for (k, v) in map {
            size += k.len() + v.as_str().map_or(0, str::len);
            for problem in qualified_name_problems(&k.to_lowercase()) {
                out.push(FieldError::invalid(&at, k.as_str(), problem));
            }
        }
        if size > 256 * 1024 {
            out.push(FieldError::too_long(&at, 256 * 1024));
        }
    }
    let at = path.child("ownerReferences");
    let mut controllers: Vec<String> = Vec::new();
    for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
        for (field, text) in [
            ("apiVersion", "version must not be empty"),
            ("kind", ""),
            ("name", ""),
            ("uid", ""),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let detail = if text.is_empty() {
                    "must not be empty"
                } else {
                    text
                };
                out.push(FieldError::invalid(
                    at.child(field),
                    owner[field].as_str().unwrap_or_default(),
                    detail,
                ));
            }
        }
        if owner["controller"] == Value::Bool(true) {
            controllers.push(format!(
                "{}/{}",
                owner["kind"].as_str().unwrap_or_default(),
                owner["name"].as_str().unwrap_or_default()
            ));
        }
    }
    if controllers.len() > 1 {
        out.push(FieldError::invalid(
            &at,
            meta["ownerReferences"].clone(),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                controllers[0], controllers[1]
            ),
        ));
    }
    let at = path.child("finalizers");
    for (i, finalizer) in meta["finalizers"].as_array().into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        let standard = matches!(text, "kubernetes" | "orphan" | "foregroundDeletion");
        if !text.contains('/') && !standard && !text.is_empty() && CORE_GROUPS.contains(&group) {
            out.push(FieldError::invalid(
                at.index(i),
                text,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
            continue;
        }
        for problem in qualified_name_problems(text) {
            out.push(FieldError::invalid(&at, text, problem));
        }
    }
    out
}

/// Validates that an update leaves immutable metadata alone, and adds no finalizers to an object under deletion.
pub fn validate_update(meta: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    if !old["deletionTimestamp"].is_null() {
        let had: Vec<&Value> = old["finalizers"].as_array().into_iter().flatten().collect();
        let added: Vec<&Value> = meta["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|f| !had.contains(f) && f.as_str() != Some("foregroundDeletion"))
            .collect();
        if !added.is_empty() {
            let list: Vec<String> = added
                .iter()
                .map(|f| format!("{:?}", f.as_str().unwrap_or_default()))
                .collect();
            out.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
            // Kubernetes checks this twice, and says so twice.
            out.extend(out.last().cloned());
        }
    }
    out
}

/// A random suffix of five characters without vowels, as Kubernetes makes names.
pub fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}

/// A name of a prefix, cut so that it fits.
pub fn generate_name(prefix: &str) -> String {
    let cut = prefix
        .char_indices()
        .take_while(|(i, c)| i + c.len_utf8() <= 58)
        .count();
    let base: String = prefix.chars().take(cut).collect();
    format!("{base}{}", random_suffix())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_labels() {
        let errors = validate(
            "",
            "pods",
            true,
            &json!({"name": "Bad_Name", "namespace": "x", "labels": {"a": "b c"}}),
        );
        assert_eq!(errors.len(), 2);
        assert!(errors[0].to_string().starts_with(
            "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of"
        ));
        assert!(
            errors[1]
                .to_string()
                .starts_with("metadata.labels: Invalid value: \"b c\": a valid label")
        );
        assert!(validate("", "pods", true, &json!({"name": "a.b-c", "namespace": "x"})).is_empty());
        assert!(
            validate(
                "rbac.authorization.k8s.io",
                "roles",
                true,
                &json!({"name": "a:b", "namespace": "x"})
            )
            .is_empty()
        );
    }
}
