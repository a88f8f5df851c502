//! Parameter values and their declared types.

use ferroflow_kernel::{Error, Result};
use jiff::SignedDuration;
use serde_json::{Number, Value};

use super::ir::InputParameter;

/// Writes every number that is a whole one without a fraction (`3.0` becomes `3`), at any depth: protobuf's
/// `Value` knows only doubles, and Python tells `3` from `3.0`.
pub fn normalise(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(&number).unwrap_or(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(normalise).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, normalise(v))).collect()),
        other => other,
    }
}

fn whole(number: &Number) -> Option<Number> {
    if number.is_i64() || number.is_u64() {
        return None;
    }
    let float = number.as_f64()?;
    // 2^53: beyond it not every integer is a double.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked on the line above"
    )]
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then(|| Number::from(float as i64))
}

/// Name of the type of a value, as declarations spell it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "BOOLEAN",
        Value::Number(number) if number.is_f64() && whole(number).is_none() => "NUMBER_DOUBLE",
        Value::Number(_) => "NUMBER_INTEGER",
        Value::String(_) => "STRING",
        Value::Array(_) => "LIST",
        Value::Object(_) => "STRUCT",
    }
}

/// Whether `value` is of the declared type as it stands. An unknown declaration accepts everything.
pub fn conforms(value: &Value, declared: &str) -> bool {
    match declared {
        "NUMBER_INTEGER" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        "NUMBER_DOUBLE" => value.is_number(),
        "STRING" => value.is_string(),
        "BOOLEAN" => value.is_boolean(),
        "LIST" => value.is_array(),
        "STRUCT" | "TASK_FINAL_STATUS" | "TASK_CONFIG" => value.is_object(),
        _ => true,
    }
}

/// What an input of type `declared` receives when `value` is handed to it: a value that is no text becomes
/// JSON text for a `STRING`; every other mismatch is an error.
///
/// # Errors
/// A text that names both types.
pub fn coerce(value: Value, declared: &str) -> Result<Value, String> {
    let value = normalise(value);
    if conforms(&value, declared) {
        return Ok(value);
    }
    match (declared, &value) {
        ("STRING", _) => Ok(Value::String(value.to_string())),
        _ => Err(format!(
            "expected {declared}, got {} {}",
            type_name(&value),
            shorten(&value.to_string())
        )),
    }
}

/// Checks one parameter of a run against its declaration. `field` names it in the error.
///
/// # Errors
/// `InvalidArgument` with the declared type, the value and what to pass instead.
pub fn check_argument(field: &str, value: &Value, declared: &InputParameter) -> Result<Value> {
    if value.is_null() && declared.is_optional {
        return Ok(Value::Null);
    }
    if !conforms(value, &declared.parameter_type) {
        let hint = match declared.parameter_type.as_str() {
            "NUMBER_INTEGER" => "pass an integer such as 3",
            "NUMBER_DOUBLE" => "pass a number such as 0.5",
            "STRING" => "pass a text in quotes",
            "BOOLEAN" => "pass true or false",
            "LIST" => "pass a list such as [1, 2]",
            _ => "pass an object such as {\"key\": 1}",
        };
        return Err(Error::field(
            field,
            format!(
                "expected {}, got {} {}; {hint}",
                declared.parameter_type,
                type_name(value),
                shorten(&value.to_string())
            ),
        ));
    }
    let value = normalise(value.clone());
    if !declared.literals.is_empty() && !declared.literals.iter().any(|l| normalise(l.clone()) == value) {
        let allowed: Vec<String> = declared
            .literals
            .iter()
            .map(|l| normalise(l.clone()).to_string())
            .collect();
        return Err(Error::field(
            field,
            format!(
                "{} is not allowed; pass one of {}",
                shorten(&value.to_string()),
                allowed.join(", ")
            ),
        ));
    }
    Ok(value)
}

/// Reads a protobuf duration in its JSON form, such as `1.5s`.
///
/// # Errors
/// A text that shows what a duration looks like.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    text.strip_suffix('s')
        .and_then(|seconds| seconds.parse::<f64>().ok())
        .filter(|seconds| *seconds >= 0.0 && seconds.is_finite())
        .and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a duration; write seconds such as \"1.5s\""))
}

/// At most about 80 characters of a text, for errors.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 {
        return text.to_owned();
    }
    let head: String = text.chars().take(77).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_lose_their_fraction_at_any_depth() {
        let value = normalise(json!({"a": [1.0, 1.5, {"b": -3.0}], "c": 1e300}));
        assert_eq!(value.to_string(), r#"{"a":[1,1.5,{"b":-3}],"c":1e+300}"#);
    }

    #[test]
    fn only_text_accepts_another_type() {
        assert_eq!(coerce(json!([1.0, "x"]), "STRING").unwrap(), json!("[1,\"x\"]"));
        assert_eq!(coerce(json!(2.0), "NUMBER_INTEGER").unwrap(), json!(2));
        assert_eq!(
            coerce(json!("2"), "NUMBER_INTEGER").unwrap_err(),
            "expected NUMBER_INTEGER, got STRING \"2\""
        );
    }

    #[test]
    fn an_argument_of_the_wrong_type_is_named_with_the_remedy() {
        let declared = InputParameter {
            parameter_type: "NUMBER_INTEGER".into(),
            ..Default::default()
        };
        let error = check_argument("runtime_config.parameters.rows", &json!("many"), &declared).unwrap_err();
        assert_eq!(
            error.to_string(),
            "runtime_config.parameters.rows: expected NUMBER_INTEGER, got STRING \"many\"; pass an integer such as 3"
        );
        assert!(check_argument("x", &json!(1.5), &declared).is_err());
        assert_eq!(check_argument("x", &json!(2.0), &declared).unwrap(), json!(2));
    }

    #[test]
    fn literals_limit_an_argument() {
        let declared = InputParameter {
            parameter_type: "STRING".into(),
            literals: vec![json!("a"), json!("b")],
            ..Default::default()
        };
        assert!(check_argument("x", &json!("a"), &declared).is_ok());
        assert_eq!(
            check_argument("x", &json!("c"), &declared)
                .unwrap_err()
                .to_string(),
            "x: \"c\" is not allowed; pass one of \"a\", \"b\""
        );
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(parse_duration("1.5s").unwrap(), SignedDuration::from_millis(1500));
        assert!(parse_duration("1m").is_err() && parse_duration("-1s").is_err());
    }
}
