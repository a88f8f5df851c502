//! MLMD's `filter_query`: a boolean expression over a node's attributes, properties and neighbours.
//!
//! ```text
//! expr    := and (OR and)*          and := not (AND not)*          not := NOT not | '(' expr ')' | test
//! test    := operand op operand | operand [NOT] IN '(' literal, ... ')' | operand [NOT] LIKE text | operand IS [NOT] NULL
//! operand := literal | name ('.' name)*          op := = != <> < <= > >=
//! ```
//! Names may be in backquotes, texts in single or double quotes, keywords in any case.

use ferroflow_kernel::Error;

/// Longest query in bytes.
const LONGEST: usize = 16 * 1024;
/// Deepest nesting.
const DEEPEST: usize = 64;

/// A parsed query.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// Not so.
    Not(Box<Expr>),
    /// A comparison.
    Compare(Operand, Op, Operand),
    /// One of some literals, or none of them.
    In(Operand, Vec<Literal>, bool),
    /// A pattern with `%` and `_`, or not so.
    Like(Operand, String, bool),
    /// Nothing there, or not so.
    IsNull(Operand, bool),
}

/// A comparison's operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Op {
    /// In SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
        }
    }
}

/// One side of a test.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A constant.
    Literal(Literal),
    /// A dotted name; the name of a state, too.
    Field(Vec<String>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Int(i64),
    Real(f64),
    Text(String),
    Bool(bool),
    /// A bare word in a list: the name of a state.
    Word(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Text(String),
    Int(i64),
    Real(f64),
    Op(Op),
    Dot,
    Comma,
    Open,
    Close,
}

/// Parses a query.
pub fn parse(query: &str) -> Result<Expr, Error> {
    let failed = |text: String| Error::field("filter_query", format!("{text} in {query:?}"));
    if query.len() > LONGEST {
        return Err(Error::field(
            "filter_query",
            format!("has {} bytes; at most {LONGEST} are read", query.len()),
        ));
    }
    let tokens = lex(query).map_err(failed)?;
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        depth: 0,
    };
    let expr = parser.or().map_err(failed)?;
    if parser.at < tokens.len() {
        return Err(failed(format!("unexpected {}", parser.here())));
    }
    Ok(expr)
}

fn lex(query: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = query.char_indices().peekable();
    while let Some(&(at, c)) = chars.peek() {
        match c {
            c if c.is_whitespace() => {
                chars.next();
            }
            '\'' | '"' | '`' => {
                chars.next();
                let mut text = String::new();
                loop {
                    match chars.next() {
                        None => return Err(format!("the {c} at {at} is never closed")),
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => match chars.next() {
                            // a pattern's own escapes stay
                            Some((_, e @ ('%' | '_'))) => text.extend(['\\', e]),
                            Some((_, 'n')) => text.push('\n'),
                            Some((_, 't')) => text.push('\t'),
                            Some((_, e)) => text.push(e),
                            None => return Err(format!("the {c} at {at} is never closed")),
                        },
                        Some((_, other)) => text.push(other),
                    }
                }
                tokens.push(if c == '`' {
                    Token::Quoted(text)
                } else {
                    Token::Text(text)
                });
            }
            c if c.is_ascii_digit() || c == '-' || c == '+' => {
                let mut text = String::new();
                text.push(c);
                chars.next();
                while let Some(&(_, c)) = chars.peek() {
                    let exponent = matches!(text.chars().last(), Some('e' | 'E')) && matches!(c, '+' | '-');
                    if !(c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E') || exponent) {
                        break;
                    }
                    text.push(c);
                    chars.next();
                }
                let whole = text.trim_start_matches('+').parse().map(Token::Int).ok();
                let number = whole.or_else(|| text.parse().map(Token::Real).ok());
                tokens.push(number.ok_or_else(|| format!("{text:?} is not a number"))?);
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut text = String::new();
                while let Some(&(_, c)) = chars.peek() {
                    if !(c.is_alphanumeric() || c == '_') {
                        break;
                    }
                    text.push(c);
                    chars.next();
                }
                tokens.push(Token::Word(text));
            }
            c => {
                chars.next();
                let next = chars.peek().map(|(_, c)| *c);
                let (token, two) = match (c, next) {
                    ('=', Some('=')) => (Token::Op(Op::Equal), true),
                    ('=', _) => (Token::Op(Op::Equal), false),
                    ('!', Some('=')) | ('<', Some('>')) => (Token::Op(Op::NotEqual), true),
                    ('<', Some('=')) => (Token::Op(Op::LessEqual), true),
                    ('>', Some('=')) => (Token::Op(Op::GreaterEqual), true),
                    ('<', _) => (Token::Op(Op::Less), false),
                    ('>', _) => (Token::Op(Op::Greater), false),
                    ('.', _) => (Token::Dot, false),
                    (',', _) => (Token::Comma, false),
                    ('(', _) => (Token::Open, false),
                    (')', _) => (Token::Close, false),
                    _ => return Err(format!("unexpected {c:?} at {at}")),
                };
                if two {
                    chars.next();
                }
                tokens.push(token);
            }
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn here(&self) -> String {
        match self.tokens.get(self.at) {
            None => "end".to_owned(),
            Some(Token::Word(text) | Token::Quoted(text) | Token::Text(text)) => format!("{text:?}"),
            Some(Token::Int(number)) => number.to_string(),
            Some(Token::Real(number)) => number.to_string(),
            Some(Token::Op(op)) => format!("{:?}", op.sql()),
            Some(Token::Dot) => "\".\"".to_owned(),
            Some(Token::Comma) => "\",\"".to_owned(),
            Some(Token::Open) => "\"(\"".to_owned(),
            Some(Token::Close) => "\")\"".to_owned(),
        }
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(found);
        found
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.tokens.get(self.at), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, token: &Token, name: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            Err(format!("expected {name}, found {}", self.here()))
        }
    }

    fn or(&mut self) -> Result<Expr, String> {
        let mut all = vec![self.and()?];
        while self.keyword("OR") {
            all.push(self.and()?);
        }
        Ok(if all.len() == 1 {
            all.remove(0)
        } else {
            Expr::Or(all)
        })
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut all = vec![self.not()?];
        while self.keyword("AND") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 {
            all.remove(0)
        } else {
            Expr::And(all)
        })
    }

    fn not(&mut self) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels of nesting"));
        }
        let expr = if self.keyword("NOT") {
            Expr::Not(Box::new(self.not()?))
        } else if self.take(&Token::Open) {
            let expr = self.or()?;
            self.need(&Token::Close, "\")\"")?;
            expr
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Expr, String> {
        let left = self.operand()?;
        if let Some(Token::Op(op)) = self.tokens.get(self.at) {
            self.at += 1;
            return Ok(Expr::Compare(left, *op, self.operand()?));
        }
        if self.keyword("IS") {
            let negated = self.keyword("NOT");
            return if self.keyword("NULL") {
                Ok(Expr::IsNull(left, negated))
            } else {
                Err(format!("expected NULL, found {}", self.here()))
            };
        }
        let negated = self.keyword("NOT");
        if self.keyword("LIKE") {
            let Some(Token::Text(pattern)) = self.tokens.get(self.at) else {
                return Err(format!("expected a quoted pattern, found {}", self.here()));
            };
            self.at += 1;
            return Ok(Expr::Like(left, pattern.clone(), negated));
        }
        if self.keyword("IN") {
            self.need(&Token::Open, "\"(\"")?;
            let mut all = vec![self.literal()?];
            while self.take(&Token::Comma) {
                all.push(self.literal()?);
            }
            self.need(&Token::Close, "\")\"")?;
            return Ok(Expr::In(left, all, negated));
        }
        Err(format!("expected an operator, found {}", self.here()))
    }

    fn literal(&mut self) -> Result<Literal, String> {
        match self.operand()? {
            Operand::Literal(literal) => Ok(literal),
            Operand::Field(mut path) if path.len() == 1 => Ok(Literal::Word(path.remove(0))),
            Operand::Field(path) => Err(format!("{:?} is not a constant", path.join("."))),
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let literal = match self.tokens.get(self.at) {
            Some(Token::Int(number)) => Some(Literal::Int(*number)),
            Some(Token::Real(number)) => Some(Literal::Real(*number)),
            Some(Token::Text(text)) => Some(Literal::Text(text.clone())),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => Some(Literal::Bool(true)),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => Some(Literal::Bool(false)),
            _ => None,
        };
        if let Some(literal) = literal {
            self.at += 1;
            return Ok(Operand::Literal(literal));
        }
        let mut path = Vec::new();
        loop {
            match self.tokens.get(self.at) {
                Some(Token::Word(name) | Token::Quoted(name)) => path.push(name.clone()),
                _ => return Err(format!("expected a name or a constant, found {}", self.here())),
            }
            self.at += 1;
            if !self.take(&Token::Dot) {
                return Ok(Operand::Field(path));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(path: &str) -> Operand {
        Operand::Field(path.split('.').map(str::to_owned).collect())
    }

    #[test]
    fn precedence_and_forms() {
        let expr = parse(
            "type = 'a' OR NOT (id >= 3 AND `custom_properties`.`a b`.int_value IN (1, -2)) and uri is not null",
        );
        let id = Expr::Compare(field("id"), Op::GreaterEqual, Operand::Literal(Literal::Int(3)));
        let custom = Operand::Field(
            ["custom_properties", "a b", "int_value"]
                .map(str::to_owned)
                .to_vec(),
        );
        let listed = Expr::In(custom, vec![Literal::Int(1), Literal::Int(-2)], false);
        let expected = Expr::Or(vec![
            Expr::Compare(
                field("type"),
                Op::Equal,
                Operand::Literal(Literal::Text("a".to_owned())),
            ),
            Expr::And(vec![
                Expr::Not(Box::new(Expr::And(vec![id, listed]))),
                Expr::IsNull(field("uri"), true),
            ]),
        ]);
        assert_eq!(expr.unwrap(), expected);
        assert_eq!(
            parse("name NOT LIKE 'a%\\'b'").unwrap(),
            Expr::Like(field("name"), "a%'b".to_owned(), true)
        );
        assert_eq!(
            parse("properties.x.double_value<=1.5e-3").unwrap(),
            Expr::Compare(
                field("properties.x.double_value"),
                Op::LessEqual,
                Operand::Literal(Literal::Real(1.5e-3))
            )
        );
    }

    #[test]
    fn errors_say_what_was_expected() {
        for (query, text) in [
            ("", "expected a name or a constant, found end"),
            ("a =", "expected a name or a constant, found end"),
            ("a", "expected an operator, found end"),
            ("a = 'x", "never closed"),
            ("(a = 1", "expected \")\", found end"),
            ("a = 1 b", "unexpected \"b\""),
            ("a ; b", "unexpected ';'"),
            ("a IS 1", "expected NULL, found 1"),
        ] {
            let error = parse(query).unwrap_err();
            assert!(error.message().contains(text), "{query:?}: {error}");
        }
        let deep = format!("{}a = 1{}", "(".repeat(1000), ")".repeat(1000));
        assert!(parse(&deep).unwrap_err().message().contains("levels of nesting"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail_badly(text in ".{0,200}") {
            drop(parse(&text));
        }

        #[test]
        fn any_text_survives_quoting(text in "[^\\\\']{0,40}") {
            let parsed = parse(&format!("name = '{text}'")).unwrap();
            prop_assert_eq!(parsed, Expr::Compare(field("name"), Op::Equal, Operand::Literal(Literal::Text(text))));
        }
    }
}
