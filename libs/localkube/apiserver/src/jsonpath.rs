//! The part of kubectl's JSONPath that printer columns, scale and selectable fields use: names, indexes, `[*]`, quoted names
//! and filters of one comparison.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Name(String),
    Index(i64),
    /// `[a:b]`; either end may be left out or count from the end.
    Slice(Option<i64>, Option<i64>),
    All,
    /// `[?(@.a.b=="x")]`
    Filter(Vec<String>, String, Value),
    /// `[?(@.a)]`
    Has(Vec<String>),
}

/// A parsed path; a path that cannot be parsed finds nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    pub fn parse(text: &str) -> Self {
        let text = text
            .trim()
            .trim_start_matches('{')
            .trim_end_matches('}')
            .trim_start_matches('$');
        Self(steps(text).unwrap_or_else(|| vec![Step::Index(i64::MAX)]))
    }

    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for v in found {
                match step {
                    Step::Name(n) => next.extend(v.get(n)),
                    Step::Index(i) => {
                        if let Some(list) = v.as_array() {
                            let len = i64::try_from(list.len()).unwrap_or(0);
                            let at = if *i < 0 { len + i } else { *i };
                            next.extend(usize::try_from(at).ok().and_then(|at| list.get(at)));
                        }
                    }
                    Step::Slice(from, to) => {
                        if let Some(list) = v.as_array() {
                            let len = i64::try_from(list.len()).unwrap_or(0);
                            let place =
                                |i: i64| usize::try_from(if i < 0 { (len + i).max(0) } else { i.min(len) });
                            let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(len)));
                            if let (Ok(from), Ok(to)) = (from, to) {
                                next.extend(list.get(from..to).into_iter().flatten());
                            }
                        }
                    }
                    Step::All => match v {
                        Value::Array(list) => next.extend(list),
                        Value::Object(map) => next.extend(map.values()),
                        _ => {}
                    },
                    Step::Filter(path, op, wanted) => {
                        next.extend(v.as_array().into_iter().flatten().filter(|item| {
                            let got = at(item, path);
                            match op.as_str() {
                                "!=" => got != Some(wanted),
                                _ => got == Some(wanted),
                            }
                        }));
                    }
                    Step::Has(path) => {
                        next.extend(
                            v.as_array()
                                .into_iter()
                                .flatten()
                                .filter(|item| at(item, path).is_some()),
                        );
                    }
                }
            }
            found = next;
        }
        found
    }

    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }

    /// Sets the value at a path of plain names, making objects on the way.
    pub fn set(&self, target: &mut Value, value: Value) {
        let mut at = target;
        for step in &self.0 {
            let Step::Name(name) = step else { return };
            if !at.is_object() {
                *at = Value::Object(serde_json::Map::new());
            }
            at = &mut at[name.as_str()];
        }
        *at = value;
    }
}

fn at<'a>(v: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(v, |v, name| v.get(name))
}

fn names(path: &str) -> Vec<String> {
    path.split('.')
        .filter(|p| !p.is_empty())
        .map(str::to_owned)
        .collect()
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(r) = rest.strip_prefix('.') {
            rest = r;
            if rest.starts_with('[') || rest.is_empty() {
                continue;
            }
            if let Some(r) = rest.strip_prefix('*') {
                out.push(Step::All);
                rest = r;
                continue;
            }
            let mut name = String::new();
            let mut chars = rest.char_indices();
            let mut end = rest.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '\\' => {
                        if let Some((_, c)) = chars.next() {
                            name.push(c);
                        }
                    }
                    '.' | '[' => {
                        end = i;
                        break;
                    }
                    c => name.push(c),
                }
            }
            out.push(Step::Name(name));
            rest = &rest[end..];
        } else if let Some(r) = rest.strip_prefix('[') {
            let end = if r.starts_with("?(") {
                r.find(")]")? + 1
            } else {
                r.find(']')?
            };
            let inner = &r[..end];
            rest = &r[end + 1..];
            if inner == "*" {
                out.push(Step::All);
            } else if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
                out.push(filter_step(filter)?);
            } else if inner.starts_with(['\'', '"']) {
                out.push(Step::Name(inner.trim_matches(['\'', '"']).to_owned()));
            } else {
                out.push(match inner.split_once(':') {
                    None => Step::Index(inner.parse().ok()?),
                    Some((from, to)) => {
                        let end = |text: &str| match text {
                            "" => Some(None),
                            text => text.parse().ok().map(Some),
                        };
                        Step::Slice(end(from)?, end(to)?)
                    }
                });
            }
        } else {
            rest = text_without_dot(rest, &mut out);
        }
    }
    Some(out)
}

/// `spec.replicas` without the leading dot.
fn text_without_dot<'a>(rest: &'a str, out: &mut Vec<Step>) -> &'a str {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    out.push(Step::Name(rest[..end].to_owned()));
    &rest[end..]
}

fn filter_step(filter: &str) -> Option<Step> {
    for op in ["==", "!="] {
        if let Some((left, right)) = filter.split_once(op) {
            let path = names(left.trim().strip_prefix('@')?);
            let right = right.trim();
            let wanted = match right.strip_prefix(['\'', '"']) {
                Some(text) => Value::String(text.trim_end_matches(['\'', '"']).to_owned()),
                None => serde_json::from_str(right).ok()?,
            };
            return Some(Step::Filter(path, op.to_owned(), wanted));
        }
    }
    Some(Step::Has(names(filter.trim().strip_prefix('@')?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds() {
        let v = json!({"spec": {"a.b": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}});
        let get = |p: &str| {
            JsonPath::parse(p)
                .find(&v)
                .into_iter()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(get(".spec.list[1].v"), [json!(2)]);
        assert_eq!(get("{.spec.list[*].n}"), [json!("x"), json!("y")]);
        assert_eq!(get(r#".spec.list[?(@.n=="y")].v"#), [json!(2)]);
        assert_eq!(get(r".spec.a\.b"), [json!(1)]);
        assert_eq!(get(".spec['a.b']"), [json!(1)]);
        assert_eq!(get(".spec.list[-1:].n"), [json!("y")]);
        assert_eq!(get(".spec.list[-1].n"), [json!("y")]);
        assert_eq!(get(".spec.list[0:1].n"), [json!("x")]);
        assert_eq!(get(".spec.list[5:].n"), [] as [Value; 0]);
        assert_eq!(get(".spec.none.x"), [] as [Value; 0]);
    }
}
