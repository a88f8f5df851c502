//! Label and field selectors.

use serde_json::{Map, Value};

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Greater(String, i64),
    Less(String, i64),
}

/// All requirements must hold; none selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

impl LabelSelector {
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let get = |k: &str| labels.and_then(|l| l.get(k)).and_then(Value::as_str);
        self.0.iter().all(|r| match r {
            Requirement::In(k, vs) => get(k).is_some_and(|v| vs.iter().any(|x| x == v)),
            Requirement::NotIn(k, vs) => get(k).is_none_or(|v| !vs.iter().any(|x| x == v)),
            Requirement::Exists(k) => get(k).is_some(),
            Requirement::Absent(k) => get(k).is_none(),
            Requirement::Greater(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::Less(k, n) => get(k).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }

    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = lex(text)?;
        let mut parser = Parser { tokens, at: 0 };
        let mut out = Vec::new();
        if parser.peek().is_none() {
            return Ok(Self(out));
        }
        loop {
            out.push(parser.requirement()?);
            match parser.next() {
                None => return Ok(Self(out)),
                Some(Token::Comma) => {
                    if !matches!(parser.peek(), Some(Token::Word(_) | Token::Not)) {
                        return Err(format!(
                            "found '{}', expected: identifier after ','",
                            parser.text()
                        ));
                    }
                }
                Some(other) => {
                    return Err(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        other.text()
                    ));
                }
            }
        }
    }

    /// A `metav1.LabelSelector` (`matchLabels`, `matchExpressions`).
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        let mut out = Vec::new();
        if let Some(labels) = selector["matchLabels"].as_object() {
            for (k, v) in labels {
                out.push(Requirement::In(
                    k.clone(),
                    vec![v.as_str().unwrap_or_default().to_owned()],
                ));
            }
        }
        for e in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = e["key"].as_str().unwrap_or_default().to_owned();
            let values = || -> Vec<String> {
                e["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect()
            };
            out.push(match e["operator"].as_str().unwrap_or_default() {
                "In" => Requirement::In(key, values()),
                "NotIn" => Requirement::NotIn(key, values()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            });
        }
        Ok(Self(out))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Equals,
    NotEquals,
    Not,
    Greater,
    Less,
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Word(w) => w.clone(),
            Self::Comma => ",".into(),
            Self::Open => "(".into(),
            Self::Close => ")".into(),
            Self::Equals => "=".into(),
            Self::NotEquals => "!=".into(),
            Self::Not => "!".into(),
            Self::Greater => ">".into(),
            Self::Less => "<".into(),
        }
    }
}

fn lex(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        let token = match c {
            ' ' | '\t' | '\r' | '\n' => {
                chars.next();
                continue;
            }
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '>' => Token::Greater,
            '<' => Token::Less,
            '=' => {
                chars.next();
                if chars.peek() == Some(&'=') {
                    chars.next();
                }
                out.push(Token::Equals);
                continue;
            }
            '!' => {
                chars.next();
                if chars.peek() == Some(&'=') {
                    chars.next();
                    out.push(Token::NotEquals);
                } else {
                    out.push(Token::Not);
                }
                continue;
            }
            _ => {
                let mut word = String::new();
                while let Some(&c) = chars.peek() {
                    if " \t\r\n,()=!<>".contains(c) {
                        break;
                    }
                    word.push(c);
                    chars.next();
                }
                out.push(Token::Word(word));
                continue;
            }
        };
        chars.next();
        out.push(token);
    }
    Ok(out)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }
    fn next(&mut self) -> Option<Token> {
        let t = self.tokens.get(self.at).cloned();
        self.at += 1;
        t
    }
    fn text(&self) -> String {
        self.peek().map_or_else(String::new, Token::text)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.peek() == Some(&Token::Not) {
            self.next();
            return match self.next() {
                Some(Token::Word(k)) => Ok(Requirement::Absent(key(k)?)),
                other => Err(format!(
                    "found '{}', expected: identifier",
                    other.map_or_else(String::new, |t| t.text())
                )),
            };
        }
        let k = match self.next() {
            Some(Token::Word(k)) => key(k)?,
            other => {
                return Err(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.map_or_else(String::new, |t| t.text())
                ));
            }
        };
        match self.peek().cloned() {
            None | Some(Token::Comma) => Ok(Requirement::Exists(k)),
            Some(Token::Equals) => {
                self.next();
                Ok(Requirement::In(k, vec![self.exact()?]))
            }
            Some(Token::NotEquals) => {
                self.next();
                Ok(Requirement::NotIn(k, vec![self.exact()?]))
            }
            Some(op @ (Token::Greater | Token::Less)) => {
                self.next();
                let v = self.exact()?;
                let n: i64 =
                    v.parse().map_err(|_| format!("values[0][{k}]: Invalid value: {v:?}: for 'Gt', 'Lt' operators, the value must be an integer"))?;
                Ok(if op == Token::Greater {
                    Requirement::Greater(k, n)
                } else {
                    Requirement::Less(k, n)
                })
            }
            Some(Token::Word(op)) if op == "in" || op == "notin" => {
                self.next();
                let values = self.values()?;
                Ok(if op == "in" {
                    Requirement::In(k, values)
                } else {
                    Requirement::NotIn(k, values)
                })
            }
            Some(other) => Err(format!(
                "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                other.text()
            )),
        }
    }

    fn exact(&mut self) -> Result<String, String> {
        match self.peek().cloned() {
            None | Some(Token::Comma) => Ok(String::new()),
            Some(Token::Word(w)) => {
                self.next();
                if let Some(problem) = label_value_problem(&w) {
                    return Err(format!("values[0]: Invalid value: {w:?}: {problem}"));
                }
                Ok(w)
            }
            Some(other) => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if self.next() != Some(Token::Open) {
            self.at -= 1;
            return Err(format!("found '{}' expected: '('", self.text()));
        }
        let mut out = Vec::new();
        let mut expect_value = true;
        loop {
            match self.next() {
                Some(Token::Word(w)) => {
                    out.push(w);
                    expect_value = false;
                }
                Some(Token::Comma) => {
                    if expect_value {
                        out.push(String::new());
                    }
                    expect_value = true;
                }
                Some(Token::Close) => {
                    if expect_value {
                        out.push(String::new());
                    }
                    return Ok(out);
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: {}",
                        other.map_or_else(String::new, |t| t.text()),
                        if expect_value {
                            "',', ')' or identifier"
                        } else {
                            "',' or ')'"
                        }
                    ));
                }
            }
        }
    }
}

fn key(k: String) -> Result<String, String> {
    match crate::meta::qualified_name_problems(&k).first() {
        Some(problem) => Err(format!("key: Invalid value: {k:?}: {problem}")),
        None => Ok(k),
    }
}

fn label_value_problem(v: &str) -> Option<String> {
    crate::meta::label_value_problems(v).into_iter().next()
}

/// One `field=value` or `field!=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

/// All terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut out = Vec::new();
        for term in split_escaped(text) {
            if term.is_empty() {
                continue;
            }
            let (field, equal, value) = if let Some((f, v)) = term.split_once("!=") {
                (f, false, v)
            } else if let Some((f, v)) = term.split_once("==") {
                (f, true, v)
            } else if let Some((f, v)) = term.split_once('=') {
                (f, true, v)
            } else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let value = value
                .replace("\\,", ",")
                .replace("\\=", "=")
                .replace("\\\\", "\\");
            out.push(FieldTerm {
                field: field.to_owned(),
                equal,
                value,
            });
        }
        Ok(Self(out))
    }

    /// The name, when the selector fixes it.
    pub fn name(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|t| t.equal && t.field == "metadata.name")
            .map(|t| t.value.as_str())
    }
}

fn split_escaped(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let Some(last) = out.last_mut() else { break };
        match c {
            '\\' => {
                last.push(c);
                if let Some(next) = chars.next() {
                    last.push(next);
                }
            }
            ',' => out.push(String::new()),
            c => last.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: &Value) -> bool {
        LabelSelector::parse(selector)
            .unwrap()
            .matches(labels.as_object())
    }

    #[test]
    fn label_selectors() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for (selector, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web)", true),
            ("app notin (api)", true),
            ("missing notin (api)", true),
            ("missing", false),
            ("!missing", true),
            ("n>4", true),
            ("n<4", false),
            ("app in (api),tier", false),
            ("app=", false),
        ] {
            assert_eq!(matches(selector, &labels), wanted, "{selector}");
        }
        assert!(LabelSelector::parse("a b").is_err());
        assert!(LabelSelector::parse("a in b").is_err());
        assert!(LabelSelector::parse("-a=b").is_err());
    }

    #[test]
    fn field_selectors() {
        let s = FieldSelector::parse("metadata.name=a,status.phase!=Running").unwrap();
        assert_eq!(s.name(), Some("a"));
        assert!(!s.0[1].equal);
        assert!(FieldSelector::parse("x").is_err());
    }
}
