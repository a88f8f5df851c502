//! `x-kubernetes-validations`, and other expressions in the Common Expression Language.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value as CelValue};
use serde_json::Value;

use super::schema::{Rule, Schema, SchemaOrBool};
use crate::field_error::{FieldError, FieldErrorKind, FieldPath};

/// A compiled expression with the environment that it runs in.
pub struct Expression {
    env: Arc<Env>,
    program: Program,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.program.fmt(f)
    }
}

/// The standard functions with those for strings, lists and numbers.
pub fn environment() -> Arc<Env> {
    let mut env = Env::stdlib();
    for result in [
        env.add_extension(cel::extensions::strings),
        env.add_extension(cel::extensions::lists),
        env.add_extension(cel::extensions::math),
    ] {
        if let Err(error) = result {
            tracing::warn!(?error, "a set of functions for expressions is missing");
        }
    }
    Arc::new(env)
}

impl Expression {
    pub fn compile(env: &Arc<Env>, source: &str) -> Result<Self, String> {
        let program = env.compile(source).map_err(|e| e.to_string())?;
        Ok(Self {
            env: env.clone(),
            program,
        })
    }

    pub fn evaluate(&self, variables: &[(&str, &CelValue)]) -> Result<CelValue, String> {
        let mut context = Context::with_env(self.env.clone());
        for (name, value) in variables {
            context.add_variable_from_value(*name, (*value).clone());
        }
        self.program.execute(&context).map_err(|e| e.to_string())
    }

    fn uses(&self, variable: &str) -> bool {
        self.program.references().has_variable(variable)
    }
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    expression: Expression,
    message: Option<Expression>,
}

/// Compiled rules of one schema level.
#[derive(Debug, Default)]
pub struct Programs(Vec<Compiled>);

impl Programs {
    pub fn compile(rules: &[Rule]) -> Result<Self, String> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let env = environment();
        rules
            .iter()
            .enumerate()
            .map(|(i, rule)| {
                let failed =
                    |e: String| format!("x-kubernetes-validations[{i}].rule: compilation failed: {e}");
                Ok(Compiled {
                    expression: Expression::compile(&env, &rule.rule).map_err(failed)?,
                    message: rule
                        .message_expression
                        .as_deref()
                        .map(|m| Expression::compile(&env, m))
                        .transpose()
                        .map_err(failed)?,
                    rule: rule.clone(),
                })
            })
            .collect::<Result<Vec<_>, String>>()
            .map(Self)
    }
}

/// Names of properties that are no identifiers are written in another way in expressions.
fn escaped(name: &str) -> String {
    const RESERVED: [&str; 20] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// JSON as expressions see it; with a schema, numbers and names of properties follow it.
pub fn to_cel(value: &Value, schema: Option<&Schema>) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(b) => CelValue::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(i) if schema.is_none_or(|s| s.kind != "number") => CelValue::Int(i),
            _ => CelValue::Float(n.as_f64().unwrap_or(0.0)),
        },
        Value::String(s) => CelValue::String(Arc::new(s.clone())),
        Value::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            CelValue::List(Arc::new(list.iter().map(|v| to_cel(v, items)).collect()))
        }
        Value::Object(map) => {
            let map: HashMap<Key, CelValue> = map
                .iter()
                .map(|(k, v)| {
                    let property = schema.and_then(|s| s.properties.get(k));
                    let child =
                        property.or_else(|| match schema.and_then(|s| s.additional_properties.as_ref()) {
                            Some(SchemaOrBool::Schema(s)) => Some(s.as_ref()),
                            _ => None,
                        });
                    let name = if property.is_some() { escaped(k) } else { k.clone() };
                    (Key::String(Arc::new(name)), to_cel(v, child))
                })
                .collect();
            CelValue::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Evaluates the rules of an object and of its parts; `old` is the state before an update.
pub fn validate(
    schema: &Schema,
    obj: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    out: &mut Vec<FieldError>,
) {
    if !has_rules(schema) {
        return;
    }
    for compiled in &schema.programs.0 {
        check(compiled, schema, obj, old, path, out);
    }
    match obj {
        Value::Object(map) => {
            for (key, value) in map {
                let before = old.and_then(|o| o.get(key));
                if let Some(child) = schema.properties.get(key) {
                    validate(child, value, before, &path.child(key), out);
                } else if let Some(SchemaOrBool::Schema(child)) = &schema.additional_properties {
                    validate(child, value, before, &path.key(key), out);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (i, value) in list.iter().enumerate() {
                validate(items, value, counterpart(schema, value, old), &path.index(i), out);
            }
        }
        _ => {}
    }
}

/// The item of the old list that is this one, in lists that are maps.
fn counterpart<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if schema.list_type.as_deref() != Some("map") {
        return None;
    }
    old?.as_array()?
        .iter()
        .find(|o| schema.list_map_keys.iter().all(|k| o.get(k) == item.get(k)))
}

fn has_rules(schema: &Schema) -> bool {
    !schema.programs.0.is_empty()
        || schema.properties.values().any(has_rules)
        || schema.items.as_deref().is_some_and(has_rules)
        || matches!(&schema.additional_properties, Some(SchemaOrBool::Schema(s)) if has_rules(s))
}

fn check(
    compiled: &Compiled,
    schema: &Schema,
    obj: &Value,
    old: Option<&Value>,
    path: &FieldPath,
    out: &mut Vec<FieldError>,
) {
    let transition = compiled.expression.uses("oldSelf");
    if transition && old.is_none() && compiled.rule.optional_old_self != Some(true) {
        return;
    }
    let this = to_cel(obj, Some(schema));
    let before = old.map_or(CelValue::Null, |o| to_cel(o, Some(schema)));
    let variables = [("self", &this), ("oldSelf", &before)];
    let rule = &compiled.rule;
    let text = match compiled.expression.evaluate(&variables) {
        Ok(CelValue::Bool(true)) => return,
        Ok(CelValue::Bool(false)) => compiled
            .message
            .as_ref()
            .and_then(|m| match m.evaluate(&variables) {
                Ok(CelValue::String(s)) if !s.trim().is_empty() => Some(s.to_string()),
                _ => None,
            })
            .or_else(|| rule.message.clone().filter(|m| !m.is_empty()))
            .unwrap_or_else(|| format!("failed rule: {}", rule.rule.trim())),
        Ok(_) => format!("invalid rule result: {}: not a boolean", rule.rule),
        Err(e) => format!("rule evaluation error: {e} evaluating rule: {}", rule.rule),
    };
    let at = match &rule.field_path {
        Some(field) => FieldPath::new(&format!("{path_text}{field}", path_text = path.as_str())).to_string(),
        None => path.to_string(),
    };
    let at = at.trim_start_matches('.').to_owned();
    out.push(match rule.reason.as_deref() {
        Some("FieldValueRequired") => FieldError::required(at, text),
        Some("FieldValueForbidden") => FieldError::forbidden(at, text),
        Some("FieldValueDuplicate") => FieldError::new(FieldErrorKind::Duplicate, at, None, text),
        _ => FieldError::new(FieldErrorKind::Invalid, at, None, text),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: Value, obj: &Value, old: Option<&Value>) -> Vec<String> {
        let schema = Schema::parse(&schema).unwrap();
        let mut out = Vec::new();
        validate(&schema, obj, old, &FieldPath::default(), &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_and_transitions() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not exceed max"},
                {"rule": "self.kind == oldSelf.kind", "messageExpression": "'kind is fixed: ' + oldSelf.kind"},
                {"rule": "!has(self.names) || self.names.all(n, n.startsWith('a'))"}],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "kind": {"type": "string"},
                "names": {"type": "array", "items": {"type": "string"}}}}}});
        let good = json!({"spec": {"min": 1, "max": 2, "kind": "x", "names": ["ab"]}});
        assert!(errors(schema.clone(), &good, None).is_empty());
        let bad = json!({"spec": {"min": 3, "max": 2, "kind": "y", "names": ["b"]}});
        assert_eq!(
            errors(schema, &bad, Some(&good)),
            [
                "spec: Invalid value: min must not exceed max",
                "spec: Invalid value: kind is fixed: x",
                "spec: Invalid value: failed rule: !has(self.names) || self.names.all(n, n.startsWith('a'))",
            ]
        );
    }

    #[test]
    fn a_rule_that_does_not_parse_is_refused() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.+"}]});
        assert!(Schema::parse(&schema).unwrap_err().contains("compilation failed"));
    }
}
