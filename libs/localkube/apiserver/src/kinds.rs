//! What a kind of the API is to the server: names, verbs, and the rules that make it more than a bag of fields.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::field_error::FieldError;

/// Kubernetes' strategy of a kind. The order on a write is: defaulting (`default`), `prepare_*`, mutating admission,
/// `default` again, `validate_*`, validating admission.
///
/// What the generic code does already, and rules need not: metadata (name, namespace, labels, annotations,
/// finalizers, ownerReferences are validated; uid, creationTimestamp, generation, resourceVersion are kept), dropping of
/// unknown fields and type errors by the published OpenAPI schema, reset of `status` on create and on update of the main
/// resource, reset of everything but `status` on an update of the status subresource (kinds with `status: true`), and the
/// bump of `metadata.generation` when anything outside `metadata` and `status` changes (kinds with `generation: true`).
pub trait KindRules: Send + Sync + 'static {
    /// Fills absent fields with Kubernetes' defaults. Idempotent. Also runs on updates and patches.
    fn default(&self, _obj: &mut Value) {}
    /// Changes before a create is stored (`status` has been removed already where the kind has the subresource;
    /// put an initial one here, such as `{"phase": "Pending"}` of a Pod).
    fn prepare_create(&self, _obj: &mut Value) {}
    /// Changes before an update of the main resource is stored.
    fn prepare_update(&self, _obj: &mut Value, _old: &Value) {}
    /// All errors of a new object, in Kubernetes' order.
    fn validate_create(&self, _obj: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// All errors of an update of the main resource; `obj` has been defaulted and prepared.
    fn validate_update(&self, _obj: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// All errors of an update of the status subresource.
    fn validate_status_update(&self, _obj: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// Texts for the `Warning` header.
    fn warnings(&self, _obj: &Value) -> Vec<String> {
        Vec::new()
    }
    /// The value of a field label for field selectors, besides `metadata.name` and `metadata.namespace`; `None` when the
    /// kind does not support the label (the request is then refused as Kubernetes does). Absent fields are `Some("")`.
    fn field(&self, _obj: &Value, _label: &str) -> Option<String> {
        None
    }
    /// Columns of `kubectl get`. The first is the name.
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Created At", "date", 0)]
    }
    /// The cells of one object, as many as `columns`. `now` is in seconds since the epoch, for ages.
    fn cells(&self, obj: &Value, _now: i64) -> Vec<Value> {
        vec![
            obj["metadata"]["name"].clone(),
            obj["metadata"]
                .get("creationTimestamp")
                .cloned()
                .unwrap_or(Value::Null),
        ]
    }
}

/// Rules of a kind that has none.
pub struct NoRules;
impl KindRules for NoRules {}

/// A column of a `meta.k8s.io/v1` Table.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `name` for the first column, else empty.
    pub format: String,
    pub description: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub fn new(name: &str, kind: &str, priority: i32) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: String::new(),
            description: String::new(),
            priority,
        }
    }
    pub fn name() -> Self {
        Self {
            format: "name".into(),
            ..Self::new("Name", "string", 0)
        }
    }
    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description, "priority": self.priority})
    }
}

/// JSON paths (`.spec.replicas`) of the scale subresource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A serialized selector (CRDs) or a `LabelSelector` (built-in kinds).
    pub selector: Option<String>,
}

/// A built-in kind in its one served version.
#[derive(Clone)]
pub struct BuiltinKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    /// Whether `metadata.generation` is kept.
    pub generation: bool,
    pub rules: Arc<dyn KindRules>,
}
