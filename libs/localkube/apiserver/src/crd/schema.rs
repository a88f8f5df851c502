//! Structural schemas: pruning, defaulting and validation of custom objects.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::formats;
use crate::field_error::{FieldError, FieldErrorKind, FieldPath};

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum SchemaOrBool {
    Bool(bool),
    Schema(Box<Schema>),
}

/// An OpenAPI v3 schema of a CustomResourceDefinition.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Schema {
    #[serde(rename = "type")]
    pub kind: String,
    pub format: Option<String>,
    pub nullable: bool,
    pub properties: BTreeMap<String, Schema>,
    pub additional_properties: Option<SchemaOrBool>,
    pub items: Option<Box<Schema>>,
    pub required: Vec<String>,
    #[serde(rename = "enum")]
    pub allowed: Option<Vec<Value>>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
    pub pattern: Option<String>,
    pub min_items: Option<usize>,
    pub max_items: Option<usize>,
    pub unique_items: bool,
    pub min_properties: Option<usize>,
    pub max_properties: Option<usize>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    pub default: Option<Value>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub preserve_unknown: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    pub int_or_string: bool,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub embedded_resource: bool,
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    #[serde(rename = "x-kubernetes-validations")]
    pub rules: Vec<Rule>,
    #[serde(skip)]
    pub regex: Option<Regex>,
    #[serde(skip)]
    pub programs: super::cel::Programs,
}

/// One `x-kubernetes-validations` rule.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub rule: String,
    pub message: Option<String>,
    pub message_expression: Option<String>,
    pub reason: Option<String>,
    pub field_path: Option<String>,
    pub optional_old_self: Option<bool>,
}

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Parses a schema and compiles its patterns and rules; errors name the place.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut schema: Self = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
        schema.compile("")?;
        Ok(schema)
    }

    fn compile(&mut self, at: &str) -> Result<(), String> {
        if let Some(pattern) = &self.pattern {
            self.regex = Some(
                Regex::new(pattern)
                    .map_err(|e| format!("{at}.pattern: {pattern:?} is no regular expression: {e}"))?,
            );
        }
        self.programs = super::cel::Programs::compile(&self.rules).map_err(|e| format!("{at}: {e}"))?;
        for (name, child) in &mut self.properties {
            child.compile(&format!("{at}.properties[{name}]"))?;
        }
        if let Some(items) = &mut self.items {
            items.compile(&format!("{at}.items"))?;
        }
        if let Some(SchemaOrBool::Schema(s)) = &mut self.additional_properties {
            s.compile(&format!("{at}.additionalProperties"))?;
        }
        for list in [&mut self.all_of, &mut self.any_of, &mut self.one_of] {
            for s in list {
                s.compile(at)?;
            }
        }
        match &mut self.not {
            Some(s) => s.compile(at),
            None => Ok(()),
        }
    }

    /// Removes what the schema does not name; the paths removed are appended to `unknown`.
    pub fn prune(&self, value: &mut Value, root: bool, path: &str, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let keeps_meta = root || self.embedded_resource;
                let additional = match &self.additional_properties {
                    Some(SchemaOrBool::Schema(s)) => Some(Some(s.as_ref())),
                    Some(SchemaOrBool::Bool(true)) => Some(None),
                    _ => None,
                };
                let mut gone = Vec::new();
                for (key, child) in map.iter_mut() {
                    let at = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    if keeps_meta && META_FIELDS.contains(&key.as_str()) {
                        continue;
                    }
                    if let Some(schema) = self.properties.get(key) {
                        schema.prune(child, false, &at, unknown);
                    } else if let Some(schema) = additional {
                        if let Some(schema) = schema {
                            schema.prune(child, false, &at, unknown);
                        }
                    } else if !self.preserve_unknown {
                        gone.push(key.clone());
                        unknown.push(at);
                    }
                }
                for key in gone {
                    map.remove(&key);
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (i, item) in list.iter_mut().enumerate() {
                        items.prune(item, false, &format!("{path}[{i}]"), unknown);
                    }
                }
            }
            _ => {}
        }
    }

    /// Fills in defaults. A null where null is not allowed and there is a default counts as absent.
    pub fn apply_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    let replace = match map.get(name) {
                        None => true,
                        Some(v) => v.is_null() && !schema.nullable,
                    };
                    if replace {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (key, child) in map.iter_mut() {
                    if let Some(schema) = self.properties.get(key) {
                        schema.apply_defaults(child);
                    } else if let Some(SchemaOrBool::Schema(schema)) = &self.additional_properties {
                        if child.is_null() && !schema.nullable && schema.default.is_some() {
                            *child = schema.default.clone().unwrap_or(Value::Null);
                        }
                        schema.apply_defaults(child);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for item in list {
                        if item.is_null()
                            && !items.nullable
                            && let Some(default) = &items.default
                        {
                            *item = default.clone();
                        }
                        items.apply_defaults(item);
                    }
                }
            }
            _ => {}
        }
    }

    /// Drops nulls of properties that may not be null; a default then fills in, or the field is missing.
    pub fn drop_invalid_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|k, v| {
                    !(v.is_null()
                        && self
                            .properties
                            .get(k)
                            .is_some_and(|s| !s.nullable && !s.preserve_unknown))
                });
                for (k, v) in map.iter_mut() {
                    if let Some(s) = self.properties.get(k) {
                        s.drop_invalid_nulls(v);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|v| items.drop_invalid_nulls(v));
                }
            }
            _ => {}
        }
    }

    /// All violations of a whole object.
    pub fn validate(&self, value: &Value, path: &FieldPath, out: &mut Vec<FieldError>) {
        let at = path.as_str();
        if value.is_null() && self.nullable {
            return;
        }
        if !self.type_matches(value) {
            let got = type_name(value);
            let wanted = if self.int_or_string {
                "integer,string"
            } else {
                &self.kind
            };
            out.push(FieldError::new(
                FieldErrorKind::TypeInvalid,
                path,
                Some(got.into()),
                format!("{} in body must be of type {wanted}: \"{got}\"", shown(at)),
            ));
            return;
        }
        if let Some(allowed) = &self.allowed
            && !allowed.contains(value)
        {
            // In the order of the schema.
            let names: Vec<String> = allowed
                .iter()
                .map(|v| format!("{:?}", v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
                .collect();
            let detail = format!("supported values: {}", names.join(", "));
            out.push(FieldError::new(
                FieldErrorKind::NotSupported,
                path,
                Some(value.clone()),
                detail,
            ));
        }
        match value {
            Value::String(s) => self.validate_string(s, path, out),
            Value::Number(n) => self.validate_number(n, path, out),
            Value::Array(list) => self.validate_array(list, path, out),
            Value::Object(map) => self.validate_object(map, path, out),
            _ => {}
        }
        self.validate_combinations(value, path, out);
    }

    fn type_matches(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || value.as_i64().is_some();
        }
        match self.kind.as_str() {
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
            "number" => value.is_number(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => true,
        }
    }

    fn validate_string(&self, s: &str, path: &FieldPath, out: &mut Vec<FieldError>) {
        let at = shown(path.as_str());
        let length = s.chars().count();
        if let Some(max) = self.max_length
            && length > max
        {
            out.push(FieldError::too_long(path, max));
        }
        if let Some(min) = self.min_length
            && length < min
        {
            out.push(FieldError::invalid(
                path,
                s,
                format!("{at} in body should be at least {min} chars long"),
            ));
        }
        if let Some(regex) = &self.regex
            && !regex.is_match(s)
        {
            let pattern = self.pattern.as_deref().unwrap_or_default();
            out.push(FieldError::invalid(
                path,
                s,
                format!("{at} in body should match '{pattern}'"),
            ));
        }
        if let Some(format) = &self.format
            && !formats::matches(format, s)
        {
            let detail = format!("{at} in body must be of type {format}: {s:?}");
            out.push(FieldError::new(
                FieldErrorKind::TypeInvalid,
                path,
                Some(s.into()),
                detail,
            ));
        }
    }

    fn validate_number(&self, n: &serde_json::Number, path: &FieldPath, out: &mut Vec<FieldError>) {
        let at = shown(path.as_str());
        let value = n.as_f64().unwrap_or(0.0);
        let mut fail = |text: String| {
            out.push(FieldError::invalid(
                path,
                Value::Number(n.clone()),
                format!("{at} in body {text}"),
            ));
        };
        if let Some(max) = self.maximum
            && (value > max || (self.exclusive_maximum && value >= max))
        {
            fail(format!(
                "should be less than {}{max}",
                if self.exclusive_maximum {
                    ""
                } else {
                    "or equal to "
                }
            ));
        }
        if let Some(min) = self.minimum
            && (value < min || (self.exclusive_minimum && value <= min))
        {
            fail(format!(
                "should be greater than {}{min}",
                if self.exclusive_minimum {
                    ""
                } else {
                    "or equal to "
                }
            ));
        }
        if let Some(of) = self.multiple_of
            && of != 0.0
            && (value / of).fract() != 0.0
        {
            fail(format!("should be a multiple of {of}"));
        }
        if self.format.as_deref() == Some("int32") && n.as_i64().is_some_and(|i| i32::try_from(i).is_err()) {
            fail(format!("must be of type int32: \"{n}\""));
        }
    }

    fn validate_array(&self, list: &[Value], path: &FieldPath, out: &mut Vec<FieldError>) {
        let at = shown(path.as_str());
        if let Some(max) = self.max_items
            && list.len() > max
        {
            out.push(FieldError::too_many(path, list.len(), max));
        }
        if let Some(min) = self.min_items
            && list.len() < min
        {
            out.push(FieldError::invalid(
                path,
                list.len(),
                format!("{at} in body should have at least {min} items"),
            ));
        }
        if let Some(items) = &self.items {
            for (i, item) in list.iter().enumerate() {
                items.validate(item, &path.index(i), out);
            }
        }
        match self.list_type.as_deref() {
            Some("set") => {
                for (i, item) in list.iter().enumerate() {
                    if list[..i].contains(item) {
                        out.push(FieldError::duplicate(path.index(i), item.clone()));
                    }
                }
            }
            Some("map") => {
                let id = |item: &Value| -> Map<String, Value> {
                    self.list_map_keys
                        .iter()
                        .filter_map(|k| item.get(k).map(|v| (k.clone(), v.clone())))
                        .collect()
                };
                for (i, item) in list.iter().enumerate() {
                    if list[..i].iter().any(|other| id(other) == id(item)) {
                        out.push(FieldError::duplicate(path.index(i), Value::Object(id(item))));
                    }
                }
            }
            _ => {}
        }
    }

    fn validate_object(&self, map: &Map<String, Value>, path: &FieldPath, out: &mut Vec<FieldError>) {
        let at = shown(path.as_str());
        if let Some(max) = self.max_properties
            && map.len() > max
        {
            out.push(FieldError::too_many(path, map.len(), max));
        }
        if let Some(min) = self.min_properties
            && map.len() < min
        {
            out.push(FieldError::invalid(
                path,
                map.len(),
                format!("{at} in body should have at least {min} properties"),
            ));
        }
        for name in &self.required {
            if !map.contains_key(name) {
                out.push(FieldError::required(path.child(name), ""));
            }
        }
        for (key, value) in map {
            if let Some(schema) = self.properties.get(key) {
                schema.validate(value, &path.child(key), out);
            } else if let Some(SchemaOrBool::Schema(schema)) = &self.additional_properties {
                schema.validate(value, &path.child(key), out);
            }
        }
        if self.embedded_resource {
            for field in ["apiVersion", "kind"] {
                if map
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .is_empty()
                {
                    out.push(FieldError::required(path.child(field), ""));
                }
            }
        }
    }

    fn validate_combinations(&self, value: &Value, path: &FieldPath, out: &mut Vec<FieldError>) {
        let errors_of = |s: &Schema| {
            let mut errors = Vec::new();
            s.validate(value, path, &mut errors);
            errors
        };
        let named = |text: &str| FieldError::invalid("<nil>", "", format!("\"{}\" {text}", path.as_str()));
        if !self.any_of.is_empty() {
            let all: Vec<Vec<FieldError>> = self.any_of.iter().map(errors_of).collect();
            if all.iter().all(|e| !e.is_empty()) {
                out.extend(all.into_iter().min_by_key(Vec::len).unwrap_or_default());
                out.push(named("must validate at least one schema (anyOf)"));
            }
        }
        if !self.one_of.is_empty() {
            let all: Vec<Vec<FieldError>> = self.one_of.iter().map(errors_of).collect();
            let valid = all.iter().filter(|e| e.is_empty()).count();
            if valid == 0 {
                out.extend(all.into_iter().min_by_key(Vec::len).unwrap_or_default());
                out.push(named(
                    "must validate one and only one schema (oneOf). Found none valid",
                ));
            } else if valid > 1 {
                out.push(named(&format!(
                    "must validate one and only one schema (oneOf). Found {valid} valid alternatives"
                )));
            }
        }
        if !self.all_of.is_empty() {
            let errors: Vec<FieldError> = self.all_of.iter().flat_map(errors_of).collect();
            if !errors.is_empty() {
                out.extend(errors);
                out.push(named("must validate all the schemas (allOf)"));
            }
        }
        if let Some(not) = &self.not
            && errors_of(not).is_empty()
        {
            out.push(named("must not validate the schema (not)"));
        }
    }
}

fn shown(path: &str) -> &str {
    path
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "mode": {"type": "string", "enum": ["b", "a"], "default": "a"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}}}}}))
        .unwrap()
    }

    #[test]
    fn prunes_and_defaults() {
        let mut value = json!({"apiVersion": "x/v1", "metadata": {"name": "n"}, "spec": {"size": 1, "junk": 1, "free": {"x": 1}}});
        let mut unknown = Vec::new();
        schema().prune(&mut value, true, "", &mut unknown);
        schema().apply_defaults(&mut value);
        assert_eq!(unknown, ["spec.junk"]);
        assert_eq!(value["spec"], json!({"size": 1, "free": {"x": 1}, "mode": "a"}));
    }

    #[test]
    fn violations_read_like_kubernetes() {
        let mut errors = Vec::new();
        let value = json!({"spec": {"mode": "c", "name": "ABCD", "port": true}});
        schema().validate(&value, &FieldPath::default(), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.size: Required value",
                "spec.mode: Unsupported value: \"c\": supported values: \"b\", \"a\"",
                "spec.name: Too long: may not be more than 3 bytes",
                "spec.name: Invalid value: \"ABCD\": spec.name in body should match '^[a-z]+$'",
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ]
        );
        let mut errors = Vec::new();
        schema().validate(&json!({"spec": {"size": 0}}), &FieldPath::default(), &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
        );
    }
}
