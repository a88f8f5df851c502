//! The part of GJSON in which success and failure conditions of trials are written.
//!
//! Supported: `a.b`, `a.0`, escapes `\.`, wildcards `*` and `?` in names, `#` (length), `#.name`, `#(query)` (first) and
//! `#(query)#` (all) with `==  !=  <  <=  >  >=  %  !%` or the name alone, `@this`, multipaths `[a,b]`, and pipes `|`. After
//! `#(...)#` or `#`, a dot goes into each element and a pipe into the array, as in GJSON.

use serde_json::{Number, Value};

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("condition {path:?}: {reason}")]
pub struct PathError {
    path: String,
    reason: &'static str,
}

/// What a path finds; `None` when it finds nothing.
///
/// # Errors
/// If the path is not in the supported part of GJSON.
pub fn get(value: &Value, path: &str) -> Result<Option<Value>, PathError> {
    let steps = parse(path)?;
    Ok(walk(value, &steps))
}

/// Whether a path finds something that is neither `false`, `null` nor an empty array: how a condition is read.
///
/// # Errors
/// See [`get`].
pub fn holds(value: &Value, path: &str) -> Result<Option<Value>, PathError> {
    Ok(get(value, path)?.filter(|found| match found {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }))
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Name(String),
    Count,
    First(Query),
    All(Query),
    This,
    Many(Vec<Vec<Step>>),
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    part: Part,
    /// Written after a pipe: applies to the whole result before it.
    piped: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Query {
    path: Vec<Step>,
    operator: Option<Operator>,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Like,
    NotLike,
}

fn parse(path: &str) -> Result<Vec<Step>, PathError> {
    let fail = |reason| PathError {
        path: path.to_owned(),
        reason,
    };
    let mut steps = Vec::new();
    let mut rest = path.trim();
    let mut piped = false;
    if rest.is_empty() {
        return Err(fail("is empty"));
    }
    loop {
        let (token, separator, tail) =
            token(rest).ok_or_else(|| fail("has an unbalanced bracket or quote"))?;
        steps.push(Step {
            part: part(token).ok_or_else(|| fail("has a part that is not understood"))?,
            piped,
        });
        match separator {
            None => return Ok(steps),
            Some(c) => piped = c == '|',
        }
        rest = tail;
    }
}

/// Splits off the text before the first `.` or `|` outside brackets and quotes.
fn token(text: &str) -> Option<(&str, Option<char>, &str)> {
    let (mut depth, mut quoted, mut escaped) = (0i32, false, false);
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match c {
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '.' | '|' if depth == 0 => return Some((&text[..at], Some(c), &text[at + 1..])),
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    (depth == 0 && !quoted).then_some((text, None, ""))
}

fn part(token: &str) -> Option<Part> {
    if token == "#" {
        return Some(Part::Count);
    }
    if token == "@this" {
        return Some(Part::This);
    }
    if token.starts_with('@') || token.starts_with('!') || token.starts_with('{') {
        return None;
    }
    if let Some(inner) = token.strip_prefix("#(") {
        if let Some(query) = inner.strip_suffix(")#") {
            return Some(Part::All(self::query(query)?));
        }
        return Some(Part::First(self::query(inner.strip_suffix(')')?)?));
    }
    if let Some(inner) = token.strip_prefix('[') {
        let mut paths = Vec::new();
        let mut rest = inner.strip_suffix(']')?;
        while !rest.is_empty() {
            let (path, tail) = split_comma(rest);
            paths.push(parse(path).ok()?);
            rest = tail;
        }
        return Some(Part::Many(paths));
    }
    (!token.is_empty()).then(|| Part::Name(token.to_owned()))
}

fn split_comma(text: &str) -> (&str, &str) {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn query(text: &str) -> Option<Query> {
    let mut quoted = false;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(c) = bytes.get(at) {
        if *c == b'"' {
            quoted = !quoted;
        }
        if !quoted {
            let two = text.get(at..at + 2).unwrap_or_default();
            let one = text.get(at..=at).unwrap_or_default();
            let found = match (two, one) {
                ("==", _) => Some((Operator::Equal, 2)),
                ("!=", _) => Some((Operator::NotEqual, 2)),
                ("<=", _) => Some((Operator::LessEqual, 2)),
                (">=", _) => Some((Operator::GreaterEqual, 2)),
                ("!%", _) => Some((Operator::NotLike, 2)),
                (_, "=") => Some((Operator::Equal, 1)),
                (_, "<") => Some((Operator::Less, 1)),
                (_, ">") => Some((Operator::Greater, 1)),
                (_, "%") => Some((Operator::Like, 1)),
                _ => None,
            };
            if let Some((operator, length)) = found {
                let (path, value) = (text[..at].trim(), text[at + length..].trim());
                let path = if path.is_empty() {
                    Vec::new()
                } else {
                    parse(path).ok()?
                };
                return Some(Query {
                    path,
                    operator: Some(operator),
                    value: literal(value),
                });
            }
        }
        at += 1;
    }
    Some(Query {
        path: parse(text).ok()?,
        operator: None,
        value: Value::Null,
    })
}

fn literal(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.trim_matches('"').to_owned()))
}

fn walk(value: &Value, steps: &[Step]) -> Option<Value> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value.clone());
    };
    match &step.part {
        Part::This => walk(value, rest),
        Part::Name(name) => walk(child(value, name)?, rest),
        Part::First(query) => walk(value.as_array()?.iter().find(|item| matches(item, query))?, rest),
        Part::All(query) => {
            let found: Vec<&Value> = value
                .as_array()?
                .iter()
                .filter(|item| matches(item, query))
                .collect();
            each(&found, rest)
        }
        Part::Count => {
            let items = value.as_array()?;
            if rest.is_empty() || rest.first().is_some_and(|next| next.piped) {
                return walk(&Value::Number(Number::from(items.len())), rest);
            }
            each(&items.iter().collect::<Vec<_>>(), rest)
        }
        Part::Many(paths) => {
            let values = paths.iter().filter_map(|path| walk(value, path)).collect();
            walk(&Value::Array(values), rest)
        }
    }
}

/// A dot goes into each element up to the next pipe; a pipe takes the array that results.
fn each(items: &[&Value], rest: &[Step]) -> Option<Value> {
    let pipe = rest.iter().position(|step| step.piped).unwrap_or(rest.len());
    let (inner, outer) = rest.split_at(pipe);
    let values = items.iter().filter_map(|item| walk(item, inner)).collect();
    walk(&Value::Array(values), outer)
}

fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        Value::Object(fields) => {
            if name.contains(['*', '?']) {
                return fields
                    .iter()
                    .find(|(key, _)| like(key, name))
                    .map(|(_, value)| value);
            }
            fields.get(&unescape(name))
        }
        _ => None,
    }
}

fn unescape(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            c
        });
    }
    plain
}

fn matches(item: &Value, query: &Query) -> bool {
    let found = if query.path.is_empty() {
        Some(item.clone())
    } else {
        walk(item, &query.path)
    };
    let Some(found) = found else { return false };
    let Some(operator) = query.operator else {
        return true;
    };
    let ordering = match (&found, &query.value) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
        }
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match operator {
        Operator::Equal => ordering.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => !ordering.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => ordering.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessEqual => ordering.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => ordering.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterEqual => ordering.is_some_and(std::cmp::Ordering::is_ge),
        Operator::Like | Operator::NotLike => {
            let (Some(text), Some(pattern)) = (found.as_str(), query.value.as_str()) else {
                return false;
            };
            like(text, pattern) == (operator == Operator::Like)
        }
    }
}

/// `*` stands for any text, `?` for one character.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                t += 1;
                p += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                t = from + 1;
                p = at + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job() -> Value {
        json!({"status": {"phase": "Succeeded", "conditions": [
            {"type": "Suspended", "status": "False"},
            {"type": "Complete", "status": "True", "reason": "Done", "n": 3},
            {"type": "Complete", "status": "False"},
        ]}})
    }

    #[test]
    fn katibs_conditions() {
        let job = job();
        let done = holds(
            &job,
            "status.conditions.#(type==\"Complete\")#|#(status==\"True\")#",
        )
        .unwrap();
        assert_eq!(
            done,
            Some(json!([{"type": "Complete", "status": "True", "reason": "Done", "n": 3}]))
        );
        let failed = holds(
            &job,
            "status.conditions.#(type==\"Failed\")#|#(status==\"True\")#",
        )
        .unwrap();
        assert_eq!(failed, None);
        assert_eq!(
            holds(&json!({}), "status.conditions.#(type==\"Failed\")#").unwrap(),
            None
        );
        let argo = holds(&job, "status.[@this].#(phase==\"Succeeded\")#").unwrap();
        assert_eq!(argo.unwrap()[0]["phase"], "Succeeded");
        assert_eq!(holds(&job, "status.[@this].#(phase==\"Failed\")#").unwrap(), None);
    }

    #[test]
    fn paths() {
        let job = job();
        let cases = [
            ("status.conditions.#", json!(3)),
            (
                "status.conditions.#.type",
                json!(["Suspended", "Complete", "Complete"]),
            ),
            ("status.conditions.1.reason", json!("Done")),
            ("status.conditions.#(n>2).reason", json!("Done")),
            (
                "status.conditions.#(type%\"Comp*\")#.status",
                json!(["True", "False"]),
            ),
            ("status.conditions.#(type!%\"Comp*\")#|0.type", json!("Suspended")),
            ("status.conditions.#(n)#|#", json!(1)),
            ("stat*.phase", json!("Succeeded")),
        ];
        for (path, expected) in cases {
            assert_eq!(get(&job, path).unwrap(), Some(expected), "{path}");
        }
        assert_eq!(get(&json!({"a.b": 1}), "a\\.b").unwrap(), Some(json!(1)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for path in ["", "a.#(b", "a.@reverse", "a..b"] {
            assert!(get(&json!({}), path).is_err(), "{path}");
        }
    }
}
