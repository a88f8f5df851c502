//! `x-kubernetes-validations`.

use super::schema::Rule;

/// Compiled rules of one schema level.
#[derive(Debug, Default)]
pub struct Programs {}

impl Programs {
    pub fn compile(_rules: &[Rule]) -> Result<Self, String> {
        Ok(Self {})
    }
}

/// Evaluates the rules of an object; `old` is its state before an update.
pub fn validate(
    _schema: &super::schema::Schema,
    _obj: &serde_json::Value,
    _old: Option<&serde_json::Value>,
    _path: &crate::field_error::FieldPath,
    _out: &mut Vec<crate::field_error::FieldError>,
) {
}
