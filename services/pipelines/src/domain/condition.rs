//! The conditions of `triggerPolicy`: the part of CEL that the KFP SDK writes, which is comparison of
//! `inputs.parameter_values['x']` and literals, `int()`, `double()`, `string()`, `bool()`, `!`, `&&`, `||`
//! and parentheses.

use std::collections::BTreeMap;

use serde_json::Value;

/// A parsed condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expr);

#[derive(Debug, Clone, PartialEq)]
enum Expr {
    Literal(Value),
    Input(String),
    Call(Function, Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Op, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Int,
    Double,
    Text,
    Bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What was expected at which character.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let expr = parser.or()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.expected("the end or an operator"));
        }
        Ok(Self(expr))
    }

    /// Evaluates it over the inputs of its task.
    ///
    /// # Errors
    /// An input that has no value, or an operator that does not apply to its operands.
    pub fn eval(&self, inputs: &BTreeMap<String, Value>) -> Result<bool, String> {
        match eval(&self.0, inputs)? {
            Value::Bool(result) => Ok(result),
            other => Err(format!("the condition gives {other}, not true or false")),
        }
    }

    /// Names of the inputs it reads.
    pub fn inputs(&self) -> Vec<&str> {
        let mut names = Vec::new();
        collect(&self.0, &mut names);
        names
    }
}

fn collect<'a>(expr: &'a Expr, names: &mut Vec<&'a str>) {
    match expr {
        Expr::Literal(_) => {}
        Expr::Input(name) => names.push(name),
        Expr::Call(_, inner) | Expr::Not(inner) => collect(inner, names),
        Expr::And(a, b) | Expr::Or(a, b) | Expr::Compare(_, a, b) => {
            collect(a, names);
            collect(b, names);
        }
    }
}

fn eval(expr: &Expr, inputs: &BTreeMap<String, Value>) -> Result<Value, String> {
    let truth = |expr: &Expr| match eval(expr, inputs)? {
        Value::Bool(value) => Ok(value),
        other => Err(format!("{other} is not true or false")),
    };
    Ok(match expr {
        Expr::Literal(value) => value.clone(),
        Expr::Input(name) => inputs
            .get(name)
            .cloned()
            .ok_or_else(|| format!("input {name:?} has no value"))?,
        Expr::Not(inner) => Value::Bool(!truth(inner)?),
        Expr::And(a, b) => Value::Bool(truth(a)? && truth(b)?),
        Expr::Or(a, b) => Value::Bool(truth(a)? || truth(b)?),
        Expr::Call(function, inner) => call(*function, &eval(inner, inputs)?)?,
        Expr::Compare(op, a, b) => Value::Bool(compare(*op, &eval(a, inputs)?, &eval(b, inputs)?)?),
    })
}

fn call(function: Function, value: &Value) -> Result<Value, String> {
    let wrong = |kind: &str| format!("{value} cannot be read as {kind}");
    let number = || match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match function {
        Function::Int => {
            if let Some(exact) = value.as_i64() {
                return Ok(Value::from(exact));
            }
            #[expect(clippy::cast_possible_truncation, reason = "CEL's int() truncates")]
            let truncated = number().filter(|n| n.abs() < 9.2e18).map(|n| n as i64);
            truncated.map(Value::from).ok_or_else(|| wrong("an integer"))
        }
        Function::Double => number().map(Value::from).ok_or_else(|| wrong("a number")),
        Function::Text => Ok(match value {
            Value::String(_) => value.clone(),
            other => Value::String(other.to_string()),
        }),
        Function::Bool => match value {
            Value::Bool(_) => Ok(value.clone()),
            Value::String(text) => text
                .to_ascii_lowercase()
                .parse::<bool>()
                .map(Value::Bool)
                .map_err(|_| wrong("true or false")),
            _ => Err(wrong("true or false")),
        },
    }
}

fn compare(op: Op, a: &Value, b: &Value) -> Result<bool, String> {
    use std::cmp::Ordering;
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    let equal = order.map_or_else(|| a == b, |order| order == Ordering::Equal);
    match (op, order) {
        (Op::Eq, _) => Ok(equal),
        (Op::Ne, _) => Ok(!equal),
        (Op::Lt, Some(order)) => Ok(order == Ordering::Less),
        (Op::Le, Some(order)) => Ok(order != Ordering::Greater),
        (Op::Gt, Some(order)) => Ok(order == Ordering::Greater),
        (Op::Ge, Some(order)) => Ok(order != Ordering::Less),
        (_, None) => Err(format!("{a} and {b} cannot be ordered")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expected(&self, what: &str) -> String {
        format!(
            "condition {:?}: expected {what} at character {}",
            self.text,
            self.at + 1
        )
    }

    fn or(&mut self) -> Result<Expr, String> {
        let mut left = self.and()?;
        while self.eat("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut left = self.comparison()?;
        while self.eat("&&") {
            left = Expr::And(Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expr, String> {
        let left = self.unary()?;
        const OPS: [(&str, Op); 6] = [
            ("==", Op::Eq),
            ("!=", Op::Ne),
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("<", Op::Lt),
            (">", Op::Gt),
        ];
        for (token, op) in OPS {
            if self.eat(token) {
                return Ok(Expr::Compare(op, Box::new(left), Box::new(self.unary()?)));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        // Bounded, so that a hostile condition cannot overflow the stack.
        self.depth += 1;
        if self.depth > 200 {
            return Err(self.expected("less nesting"));
        }
        let result = self.primary();
        self.depth -= 1;
        result
    }

    fn primary(&mut self) -> Result<Expr, String> {
        if self.eat("!") {
            return Ok(Expr::Not(Box::new(self.unary()?)));
        }
        if self.eat("(") {
            let inner = self.or()?;
            return if self.eat(")") {
                Ok(inner)
            } else {
                Err(self.expected("\")\""))
            };
        }
        if self.eat("inputs.parameter_values[") {
            let name = self.quoted()?;
            return if self.eat("]") {
                Ok(Expr::Input(name))
            } else {
                Err(self.expected("\"]\""))
            };
        }
        const FUNCTIONS: [(&str, Function); 4] = [
            ("int(", Function::Int),
            ("double(", Function::Double),
            ("string(", Function::Text),
            ("bool(", Function::Bool),
        ];
        for (token, function) in FUNCTIONS {
            if self.eat(token) {
                let inner = self.or()?;
                return if self.eat(")") {
                    Ok(Expr::Call(function, Box::new(inner)))
                } else {
                    Err(self.expected("\")\""))
                };
            }
        }
        self.space();
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Expr::Literal(Value::String(self.quoted()?)));
        }
        let length = self
            .rest()
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_')))
            .unwrap_or(self.rest().len());
        let word = &self.rest()[..length];
        let literal = match word {
            "true" | "True" => Some(Value::Bool(true)),
            "false" | "False" => Some(Value::Bool(false)),
            "null" | "None" => Some(Value::Null),
            number => number.parse::<i64>().map(Value::from).ok().or_else(|| {
                number
                    .parse::<f64>()
                    .ok()
                    .filter(|f| f.is_finite())
                    .map(Value::from)
            }),
        };
        match literal {
            Some(value) => {
                self.at += length;
                Ok(Expr::Literal(value))
            }
            None => {
                Err(self.expected("an input, a literal, int(), double(), string(), bool(), \"!\" or \"(\""))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        self.space();
        let Some(quote @ ('\'' | '"')) = self.rest().chars().next() else {
            return Err(self.expected("a quoted text"));
        };
        let mut text = String::new();
        let mut escaped = false;
        for (offset, character) in self.rest().char_indices().skip(1) {
            match character {
                'n' if escaped => text.push('\n'),
                't' if escaped => text.push('\t'),
                other if escaped => text.push(other),
                '\\' => {
                    escaped = true;
                    continue;
                }
                other if other == quote => {
                    self.at += offset + quote.len_utf8();
                    return Ok(text);
                }
                other => text.push(other),
            }
            escaped = false;
        }
        Err(self.expected("the closing quote of the text"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(text: &str, inputs: &Value) -> Result<bool, String> {
        let inputs = inputs.as_object().unwrap().clone().into_iter().collect();
        Condition::parse(text)?.eval(&inputs)
    }

    #[test]
    fn conditions_that_the_sdk_writes() {
        for (text, inputs, want) in [
            (
                "inputs.parameter_values['f'] == 'heads'",
                json!({"f": "heads"}),
                true,
            ),
            (
                "!(inputs.parameter_values['f'] == 'heads') && inputs.parameter_values['f'] == 'tails'",
                json!({"f": "tails"}),
                true,
            ),
            ("int(inputs.parameter_values['n']) > 2", json!({"n": 3}), true),
            ("int(inputs.parameter_values['n']) > 2", json!({"n": "2"}), false),
            (
                "double(inputs.parameter_values['a']) <= 0.5",
                json!({"a": 0.5}),
                true,
            ),
            ("inputs.parameter_values['b'] == true", json!({"b": true}), true),
            (
                "inputs.parameter_values['b'] != false",
                json!({"b": false}),
                false,
            ),
            (
                "inputs.parameter_values['s'] == 'it\\'s'",
                json!({"s": "it's"}),
                true,
            ),
            (
                "int(inputs.parameter_values['n']) == 1 || true",
                json!({"n": 1}),
                true,
            ),
            ("inputs.parameter_values['x'] == ''", json!({"x": 1}), false),
        ] {
            assert_eq!(check(text, &inputs), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_compared_says_so() {
        assert_eq!(
            check("inputs.parameter_values['a'] ==", &json!({})).unwrap_err(),
            "condition \"inputs.parameter_values['a'] ==\": expected an input, a literal, int(), double(), \
             string(), bool(), \"!\" or \"(\" at character 32"
        );
        assert_eq!(
            check("inputs.parameter_values['a'] == 1", &json!({})).unwrap_err(),
            "input \"a\" has no value"
        );
        assert!(
            check("'a' < 1", &json!({}))
                .unwrap_err()
                .contains("cannot be ordered")
        );
        assert!(Condition::parse(&"(".repeat(5000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            drop(Condition::parse(&text));
        }

        #[test]
        fn integers_compare_as_integers(a in any::<i64>(), b in any::<i64>()) {
            let inputs = BTreeMap::from([("a".to_owned(), json!(a)), ("b".to_owned(), json!(b))]);
            let condition = Condition::parse("int(inputs.parameter_values['a']) < int(inputs.parameter_values['b'])");
            prop_assert_eq!(condition.unwrap().eval(&inputs).unwrap(), a < b);
        }
    }
}
