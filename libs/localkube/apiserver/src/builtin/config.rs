//! ConfigMaps, Secrets, ServiceAccounts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::checks::{age, config_key_problems, default, immutable, list, name, object, same, text};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};

/// Rules of ConfigMaps.
pub struct ConfigMap;
/// Rules of Secrets.
pub struct Secret;
/// Rules of ServiceAccounts.
pub struct ServiceAccount;

/// Bytes that a ConfigMap or Secret may hold.
const MOST_BYTES: usize = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

fn keys(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    for key in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let at = path.key(key);
        errors.extend(
            config_key_problems(key)
                .into_iter()
                .map(|problem| FieldError::invalid(&at, key.as_str(), problem)),
        );
    }
}

fn bytes(value: &Value, encoded: bool) -> usize {
    let length = |text: &str| {
        if encoded {
            STANDARD.decode(text).map_or(text.len(), |bytes| bytes.len())
        } else {
            text.len()
        }
    };
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, value)| value.as_str().map_or(0, length))
        .sum()
}

fn kept(errors: &mut Vec<FieldError>, obj: &Value, old: &Value, fields: &[&str]) {
    if old["immutable"] != true {
        return;
    }
    if obj["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE));
    }
    for field in fields {
        if !same(&obj[*field], &old[*field]) {
            errors.push(FieldError::forbidden(*field, IMMUTABLE));
        }
    }
}

impl KindRules for ConfigMap {
    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        keys(&mut errors, &obj["data"], &FieldPath::new("data"));
        keys(&mut errors, &obj["binaryData"], &FieldPath::new("binaryData"));
        for key in obj["data"]
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::keys)
        {
            if obj["binaryData"].get(key).is_some() {
                errors.push(FieldError::invalid(
                    FieldPath::new("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                ));
            }
        }
        if bytes(&obj["data"], false) + bytes(&obj["binaryData"], true) > MOST_BYTES {
            errors.push(FieldError::too_long("", MOST_BYTES));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        kept(&mut errors, obj, old, &["data", "binaryData"]);
        errors.extend(self.validate_create(obj));
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Data", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let count = |field: &str| obj[field].as_object().map_or(0, serde_json::Map::len);
        vec![
            name(obj),
            json!(count("data") + count("binaryData")),
            age(obj, now),
        ]
    }
}

impl KindRules for Secret {
    fn default(&self, obj: &mut Value) {
        default(obj, "type", json!("Opaque"));
        let written = obj.as_object_mut().and_then(|map| map.remove("stringData"));
        if let Some(written) =
            written.filter(|written| written.as_object().is_some_and(|map| !map.is_empty()))
            && let Some(data) = object(obj, "data")
        {
            for (key, value) in written.as_object().into_iter().flatten() {
                data.insert(
                    key.clone(),
                    json!(STANDARD.encode(value.as_str().unwrap_or_default())),
                );
            }
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (data, path) = (&obj["data"], FieldPath::new("data"));
        keys(&mut errors, data, &path);
        if bytes(data, true) > MOST_BYTES {
            errors.push(FieldError::too_long(&path, MOST_BYTES));
        }
        let missing = |key: &str| data.get(key).is_none();
        let required = |key: &str| FieldError::required(path.key(key), "");
        match text(obj, "type") {
            "kubernetes.io/service-account-token" => {
                let key = "kubernetes.io/service-account.name";
                if text(&obj["metadata"]["annotations"], key).is_empty() {
                    errors.push(FieldError::required(
                        FieldPath::new("metadata").child("annotations").key(key),
                        "",
                    ));
                }
            }
            "kubernetes.io/dockerconfigjson" if missing(".dockerconfigjson") => {
                errors.push(required(".dockerconfigjson"));
            }
            "kubernetes.io/dockercfg" if missing(".dockercfg") => errors.push(required(".dockercfg")),
            "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
                errors.push(required("username"));
                errors.push(required("password"));
            }
            "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
                errors.push(required("ssh-privatekey"));
            }
            "kubernetes.io/tls" => errors.extend(
                ["tls.crt", "tls.key"]
                    .into_iter()
                    .filter(|key| missing(key))
                    .map(required),
            ),
            _ => {}
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(&mut errors, &obj["type"], &old["type"], FieldPath::new("type"));
        kept(&mut errors, obj, old, &["data"]);
        errors.extend(self.validate_create(obj));
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        (label == "type").then(|| text(obj, "type").to_owned())
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Type", "string", 0),
            Column::new("Data", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![
            name(obj),
            obj["type"].clone(),
            json!(obj["data"].as_object().map_or(0, serde_json::Map::len)),
            age(obj, now),
        ]
    }
}

impl KindRules for ServiceAccount {
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Secrets", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![name(obj), json!(list(obj, "secrets").len()), age(obj, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_is_encoded() {
        let mut obj = json!({"data": {"a": "eA=="}, "stringData": {"b": "y"}});
        Secret.default(&mut obj);
        assert_eq!(obj, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
    }

    #[test]
    fn immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"immutable": true, "data": {"a": "2"}});
        let errors = ConfigMap.validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
        assert!(ConfigMap.validate_update(&old, &old).is_empty());
    }
}
