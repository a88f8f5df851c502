//! The published OpenAPI definitions of built-in kinds: which fields there are, their types, how patches merge lists.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::quantity;

const DATA: &[u8] = include_bytes!("../data/openapi.json.gz");

const JSON_TYPES: [&str; 4] = [
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
];

/// One schema; references are by name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Def {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    pub properties: HashMap<String, Def>,
    #[serde(rename = "additionalProperties")]
    pub additional: Option<Box<Def>>,
    pub items: Option<Box<Def>>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    pub merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    gvks: Vec<Gvk>,
}

#[derive(Debug, Default, Deserialize, Clone, PartialEq, Eq, Hash)]
struct Gvk {
    group: String,
    version: String,
    kind: String,
}

impl Def {
    fn has_strategy(&self, name: &str) -> bool {
        self.patch_strategy
            .as_deref()
            .is_some_and(|s| s.split(',').any(|x| x == name))
    }
    /// Lists merge by key, or as sets when there is none.
    pub fn merges(&self) -> bool {
        self.has_strategy("merge")
    }
}

/// All definitions.
pub struct Definitions {
    defs: HashMap<String, Def>,
    by_kind: HashMap<Gvk, String>,
}

/// The uncompressed document, with descriptions.
pub fn document() -> Value {
    serde_json::from_slice(&inflate()).unwrap_or(Value::Null)
}

/// The roles and bindings that every cluster has.
pub fn bootstrap_rbac() -> Vec<Value> {
    let data: &[u8] = include_bytes!("../data/rbac.json.gz");
    let mut text = Vec::new();
    let _ = flate2::read::GzDecoder::new(data).read_to_end(&mut text);
    serde_json::from_slice(&text).unwrap_or_default()
}

fn inflate() -> Vec<u8> {
    let mut text = Vec::new();
    let _ = flate2::read::GzDecoder::new(DATA).read_to_end(&mut text);
    text
}

impl Definitions {
    pub fn load() -> Arc<Self> {
        let defs: HashMap<String, Def> = serde_json::from_slice(&inflate()).unwrap_or_default();
        let mut by_kind = HashMap::new();
        for (name, def) in &defs {
            if let [gvk] = def.gvks.as_slice() {
                by_kind.insert(gvk.clone(), name.clone());
            }
        }
        Arc::new(Self { defs, by_kind })
    }

    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        let gvk = Gvk {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        };
        self.by_kind.get(&gvk).cloned()
    }

    pub fn get(&self, name: &str) -> Option<&Def> {
        self.defs.get(name)
    }

    /// Follows a reference.
    pub fn resolve<'a>(&'a self, def: &'a Def) -> &'a Def {
        match &def.reference {
            Some(r) => r.rsplit('/').next().and_then(|n| self.defs.get(n)).unwrap_or(def),
            None => def,
        }
    }

    /// Whether values of the definition are an opaque string, number or JSON rather than a struct.
    fn short_name<'a>(&self, def: &'a Def) -> &'a str {
        def.reference
            .as_deref()
            .and_then(|r| r.rsplit(['/', '.']).next())
            .unwrap_or_default()
    }

    /// Does to a value what decoding into the Go type does: drops unknown fields and nulls, checks types, writes quantities in
    /// canonical form. Returns the paths of unknown fields.
    pub fn decode(&self, name: &str, value: &mut Value) -> Result<Vec<String>, String> {
        let Some(def) = self.defs.get(name) else {
            return Ok(Vec::new());
        };
        let struct_name = name.rsplit('.').next().unwrap_or_default().to_owned();
        let mut walk = Walk {
            defs: self,
            unknown: VecDeque::new(),
            path: Vec::new(),
            fields: Vec::new(),
        };
        walk.check(def, value, &struct_name)?;
        Ok(walk.unknown.into_iter().collect())
    }

    fn go_type(&self, def: &Def) -> String {
        if let Some(r) = &def.reference {
            let name = r.rsplit('/').next().unwrap_or_default();
            let parts: Vec<&str> = name.rsplit('.').take(2).collect();
            return match parts.as_slice() {
                [kind, package] => format!("{package}.{kind}"),
                _ => name.to_owned(),
            };
        }
        match def.kind.as_deref() {
            Some("array") => {
                format!(
                    "[]{}",
                    def.items
                        .as_ref()
                        .map_or_else(|| "interface {}".into(), |i| self.go_type(i))
                )
            }
            Some("object") => format!(
                "map[string]{}",
                def.additional
                    .as_ref()
                    .map_or_else(|| "interface {}".into(), |i| self.go_type(i))
            ),
            Some("boolean") => "bool".into(),
            Some("integer") => def.format.clone().unwrap_or_else(|| "int64".into()),
            Some("number") => "float64".into(),
            Some("string") if def.format.as_deref() == Some("byte") => "[]uint8".into(),
            Some(other) => other.into(),
            None => "interface {}".into(),
        }
    }
}

struct Walk<'a> {
    defs: &'a Definitions,
    unknown: VecDeque<String>,
    /// With indexes, for unknown fields.
    path: Vec<String>,
    /// Without, for type errors.
    fields: Vec<String>,
}

impl Walk<'_> {
    fn mismatch(&self, def: &Def, value: &Value, owner: &str) -> String {
        let got = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if def.kind.as_deref() == Some("integer") => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let ty = self.defs.go_type(def);
        if self.fields.is_empty() {
            format!("json: cannot unmarshal {got} into Go value of type {ty}")
        } else {
            format!(
                "json: cannot unmarshal {got} into Go struct field {owner}.{} of type {ty}",
                self.fields.join(".")
            )
        }
    }

    fn check(&mut self, def: &Def, value: &mut Value, owner: &str) -> Result<(), String> {
        let name = self.defs.short_name(def).to_owned();
        match name.as_str() {
            "IntOrString" => {
                return if value.is_string() || value.is_number() {
                    Ok(())
                } else {
                    Err(self.mismatch(def, value, owner))
                };
            }
            "Quantity" => {
                let text = match &*value {
                    Value::String(s) => s.clone(),
                    Value::Number(n) => n.to_string(),
                    _ => return Err(quantity::SYNTAX.to_owned()),
                };
                *value = quantity::canonical(&text)
                    .ok_or_else(|| quantity::SYNTAX.to_owned())?
                    .into();
                return Ok(());
            }
            "Time" | "MicroTime" => {
                let Some(text) = value.as_str() else {
                    return Err(self.mismatch(def, value, owner));
                };
                return crate::times::normalise(text, name == "MicroTime").map(|t| *value = t.into());
            }
            "FieldsV1" | "RawExtension" => return Ok(()),
            n if JSON_TYPES.contains(&n) => return Ok(()),
            _ => {}
        }
        let resolved = self.defs.resolve(def);
        let owner = if def.reference.is_some() {
            name.as_str()
        } else {
            owner
        };
        match resolved.kind.as_deref() {
            Some("object") => self.object(def, resolved, value, owner),
            Some("array") => {
                if !value.is_array() {
                    return Err(self.mismatch(def, value, owner));
                }
                let (Some(items), Value::Array(list)) = (&resolved.items, value) else {
                    return Ok(());
                };
                let last = self.path.pop().unwrap_or_default();
                for (i, item) in list.iter_mut().enumerate() {
                    self.path.push(format!("{last}[{i}]"));
                    let result = if item.is_null() {
                        Ok(())
                    } else {
                        self.check(items, item, owner)
                    };
                    self.path.pop();
                    result?;
                }
                self.path.push(last);
                Ok(())
            }
            Some("string") => match &*value {
                Value::String(s) if resolved.format.as_deref() == Some("byte") => {
                    use base64::Engine as _;
                    let plain: String = s.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
                    base64::engine::general_purpose::STANDARD
                        .decode(&plain)
                        .map(|_| ())
                        .map_err(|e| {
                            let at = match e {
                                base64::DecodeError::InvalidByte(at, _)
                                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                                _ => plain.len(),
                            };
                            format!("illegal base64 data at input byte {at}")
                        })
                }
                Value::String(_) => Ok(()),
                _ => Err(self.mismatch(def, value, owner)),
            },
            Some("boolean") if !value.is_boolean() => Err(self.mismatch(def, value, owner)),
            Some("integer") => {
                let whole = value.as_i64().or_else(|| {
                    value
                        .as_f64()
                        .filter(|f| f.fract() == 0.0 && f.abs() < 9e15)
                        .map(|f| f as i64)
                });
                let fits = whole
                    .is_some_and(|n| resolved.format.as_deref() != Some("int32") || i32::try_from(n).is_ok());
                match whole {
                    Some(n) if fits => {
                        *value = n.into();
                        Ok(())
                    }
                    _ => Err(self.mismatch(def, value, owner)),
                }
            }
            Some("number") if !value.is_number() => Err(self.mismatch(def, value, owner)),
            _ => Ok(()),
        }
    }

    fn object(&mut self, def: &Def, resolved: &Def, value: &mut Value, owner: &str) -> Result<(), String> {
        let Some(map) = value.as_object_mut() else {
            return Err(self.mismatch(def, value, owner));
        };
        if resolved.properties.is_empty() {
            let Some(additional) = &resolved.additional else {
                return Ok(());
            };
            let string_map = additional.kind.as_deref() == Some("string");
            for (key, item) in map.iter_mut() {
                if item.is_null() {
                    if string_map {
                        *item = Value::String(String::new());
                    }
                    continue;
                }
                self.path.push(key.clone());
                let result = self.check(additional, item, owner);
                self.path.pop();
                result?;
            }
            return Ok(());
        }
        let keys: Vec<String> = map.keys().cloned().collect();
        for key in keys {
            let Some(property) = resolved.properties.get(&key) else {
                map.remove(&key);
                let mut path = self.path.clone();
                path.push(key);
                self.unknown.push_back(path.join("."));
                continue;
            };
            let Some(item) = map.get_mut(&key) else { continue };
            if item.is_null() {
                map.remove(&key);
                continue;
            }
            self.path.push(key.clone());
            self.fields.push(key);
            let result = self.check(property, item, owner);
            self.path.pop();
            self.fields.pop();
            result?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn unknown_fields_are_dropped_and_named() {
        let defs = Definitions::load();
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "bogus": 1,
            "spec": {"containers": [{"name": "c", "image": null, "foo": true, "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}]}});
        let unknown = defs.decode(POD, &mut pod).unwrap();
        assert_eq!(unknown, ["bogus", "spec.containers[0].foo"]);
        assert_eq!(
            pod["spec"]["containers"][0],
            json!({"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})
        );
    }

    #[test]
    fn type_errors_read_like_go() {
        let defs = Definitions::load();
        let mut pod = json!({"spec": {"containers": [{"name": 5}]}});
        assert_eq!(
            defs.decode(POD, &mut pod).unwrap_err(),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string"
        );
        let mut deployment = json!({"spec": {"replicas": "3"}});
        assert_eq!(
            defs.decode("io.k8s.api.apps.v1.Deployment", &mut deployment)
                .unwrap_err(),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }
}
