//! A strict scanner over JSON bytes (RFC 8259) that reports where it stopped.

use crate::protocol::JsonProblem;
use std::borrow::Cow;

/// Containers inside containers that a request may have.
const MAX_DEPTH: usize = 64;

/// Exactly representable powers of ten.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A number as text gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number {
    /// Nearest double.
    pub value: f64,
    /// The integer, when it is written without fraction or exponent.
    pub integer: Option<i128>,
}

/// Reads JSON from left to right.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, JsonProblem>;

impl<'a> Scanner<'a> {
    /// Starts before the first byte.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Starts at a byte offset of the same text.
    pub fn at(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The whole text.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// An error at the next byte; the end of the text is called that.
    pub fn problem<T>(&self, problem: impl Into<String>) -> Result<T> {
        self.problem_at(self.at, problem)
    }

    /// An error at a given byte.
    pub fn problem_at<T>(&self, byte: usize, problem: impl Into<String>) -> Result<T> {
        Err(self.fault(byte, problem))
    }

    /// The error itself.
    pub fn fault(&self, byte: usize, problem: impl Into<String>) -> JsonProblem {
        let problem = problem.into();
        if byte >= self.text.len() {
            return JsonProblem {
                byte,
                problem: format!("unexpected end of input, {problem}"),
            };
        }
        JsonProblem { byte, problem }
    }

    /// Skips white space and gives the next byte without taking it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes the next byte if it is this one.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        if self.peek() == Some(byte) {
            self.at += 1;
            return true;
        }
        false
    }

    /// Takes this byte or fails.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &str) -> Result<()> {
        if self.take(byte) {
            Ok(())
        } else {
            self.problem(format!("expected {what}"))
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<()> {
        if self.peek().is_none() {
            Ok(())
        } else {
            self.problem("expected the end after the value")
        }
    }

    /// After a member or element: `,` gives true, the closing byte gives false.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => self.problem(format!("expected `,` or `{}`", char::from(close))),
        }
    }

    /// Walks an object, calling `member` with each key, which must take the value.
    pub fn object<E: From<JsonProblem>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.expect(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.fault(self.at, "expected a key in double quotes").into());
            }
            let key = self.string()?;
            self.expect(b':', "`:`")?;
            member(self, &key)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Walks an array, calling `element`, which must take one value.
    pub fn array<E: From<JsonProblem>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.expect(b'[', "an array")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    /// A text. Borrowed when it has no escapes.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect(b'"', "a text in double quotes")?;
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    let Ok(text) = std::str::from_utf8(raw) else {
                        return self.problem_at(start, "a text that is not UTF-8");
                    };
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => return self.escaped_string(start).map(Cow::Owned),
                Some(0..0x20) => return self.problem("a control character inside a text"),
                Some(_) => self.at += 1,
                None => return self.problem("expected `\"`"),
            }
        }
    }

    fn escaped_string(&mut self, start: usize) -> Result<String> {
        let mut bytes = self.text[start..self.at].to_vec();
        loop {
            match self.text.get(self.at).copied() {
                Some(b'"') => {
                    self.at += 1;
                    return String::from_utf8(bytes)
                        .or_else(|_| self.problem_at(start, "a text that is not UTF-8"));
                }
                Some(b'\\') => {
                    let escape = self.text.get(self.at + 1).copied();
                    let plain = match escape {
                        Some(b'n') => b'\n',
                        Some(b't') => b'\t',
                        Some(b'r') => b'\r',
                        Some(b'b') => 8,
                        Some(b'f') => 12,
                        Some(byte @ (b'"' | b'\\' | b'/')) => byte,
                        Some(b'u') => {
                            let letter = self.unicode_escape()?;
                            bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                            continue;
                        }
                        _ => return self.problem("an unknown escape inside a text"),
                    };
                    bytes.push(plain);
                    self.at += 2;
                }
                Some(0..0x20) => return self.problem("a control character inside a text"),
                Some(byte) => {
                    bytes.push(byte);
                    self.at += 1;
                }
                None => return self.problem("expected `\"`"),
            }
        }
    }

    /// `\uXXXX`, or two of them that make a pair.
    fn unicode_escape(&mut self) -> Result<char> {
        let start = self.at;
        let first = self.hex_unit()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if self.text.get(self.at) != Some(&b'\\') || self.text.get(self.at + 1) != Some(&b'u') {
                return self.problem_at(start, "half of a surrogate pair");
            }
            let second = self.hex_unit()?;
            if !(0xdc00..0xe000).contains(&second) {
                return self.problem_at(start, "half of a surrogate pair");
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).map_or_else(|| self.problem_at(start, "half of a surrogate pair"), Ok)
    }

    fn hex_unit(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at + 2..self.at + 6).unwrap_or(&[]);
        let unit = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match unit {
            Some(unit) => {
                self.at += 6;
                Ok(unit)
            }
            None => self.problem("expected four hexadecimal digits after `\\u`"),
        }
    }

    /// A number. Short decimals are exact without the slow path (Clinger's observation: a mantissa below 2^53
    /// times or divided by a power of ten up to 10^22 rounds once).
    #[inline]
    pub fn number(&mut self) -> Result<Number> {
        self.peek();
        let text = self.text;
        let start = self.at;
        let mut at = start;
        let negative = text.get(at) == Some(&b'-');
        at += usize::from(negative);
        let digits_start = at;
        let mut mantissa: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = text.get(at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            at += 1;
        }
        let whole = at - digits_start;
        if whole == 0 {
            return self.problem_at(at, "expected a number");
        }
        if whole > 1 && text[digits_start] == b'0' {
            return self.problem_at(digits_start, "a number with a leading zero");
        }
        let mut fraction = 0usize;
        if text.get(at) == Some(&b'.') {
            at += 1;
            let from = at;
            while let Some(digit @ b'0'..=b'9') = text.get(at) {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                at += 1;
            }
            fraction = at - from;
            if fraction == 0 {
                return self.problem_at(at, "expected a digit after the decimal point");
            }
        }
        let mut exponent = 0i64;
        let has_exponent = matches!(text.get(at), Some(b'e' | b'E'));
        if has_exponent {
            at += 1;
            let minus = text.get(at) == Some(&b'-');
            at += usize::from(minus || text.get(at) == Some(&b'+'));
            let from = at;
            while let Some(digit @ b'0'..=b'9') = text.get(at) {
                exponent = (exponent * 10 + i64::from(digit - b'0')).min(100_000);
                at += 1;
            }
            if at == from {
                return self.problem_at(at, "expected a digit in the exponent");
            }
            if minus {
                exponent = -exponent;
            }
        }
        self.at = at;
        let is_integer = fraction == 0 && !has_exponent;
        let short = whole + fraction <= 19;
        let integer = if !is_integer {
            None
        } else if short {
            Some(if negative {
                -i128::from(mantissa)
            } else {
                i128::from(mantissa)
            })
        } else {
            ascii(&text[start..at]).parse().ok()
        };
        let scale = exponent - i64::try_from(fraction).unwrap_or(i64::MAX / 2);
        if short && mantissa <= 1 << 53 && (-22..=22).contains(&scale) {
            let power = POWERS[usize::try_from(scale.unsigned_abs()).unwrap_or(0)];
            let magnitude = if scale < 0 {
                mantissa as f64 / power
            } else {
                mantissa as f64 * power
            };
            return Ok(Number {
                value: if negative { -magnitude } else { magnitude },
                integer,
            });
        }
        // The text was checked above, so this parses; overflow gives an infinity.
        Ok(Number {
            value: ascii(&text[start..at]).parse().unwrap_or(f64::NAN),
            integer,
        })
    }

    /// `true`, `false` or `null`.
    pub fn literal(&mut self, literal: &str) -> Result<()> {
        self.peek();
        let rest = &self.text[self.at.min(self.text.len())..];
        if rest.starts_with(literal.as_bytes()) {
            self.at += literal.len();
            return Ok(());
        }
        let same = rest
            .iter()
            .zip(literal.bytes())
            .take_while(|(a, b)| **a == *b)
            .count();
        self.problem_at(self.at + same, format!("expected `{literal}`"))
    }

    /// `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.literal("true").map(|()| true),
            Some(b'f') => self.literal("false").map(|()| false),
            _ => self.problem("expected true or false"),
        }
    }

    /// Takes any value, checking its syntax.
    pub fn skip(&mut self) -> Result<()> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return self.problem(format!("more than {MAX_DEPTH} levels of nesting"));
        }
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| scanner.skip_nested(depth + 1)),
            Some(b'[') => self.array(|scanner| scanner.skip_nested(depth + 1)),
            Some(b'"') => self.string().map(|_| ()),
            Some(b't' | b'f') => self.boolean().map(|_| ()),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            _ => self.problem("expected a value"),
        }
    }
}

/// Bytes that the scanner has seen to be digits and signs.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> std::result::Result<Number, String> {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner
            .number()
            .and_then(|number| scanner.end().map(|()| number))
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn numbers_follow_the_grammar() {
        assert_eq!(
            number("-12"),
            Ok(Number {
                value: -12.0,
                integer: Some(-12)
            })
        );
        assert_eq!(
            number("18446744073709551615").unwrap().integer,
            Some(u64::MAX.into())
        );
        assert_eq!(number("1e400").unwrap().value, f64::INFINITY);
        assert_eq!(
            number("01").unwrap_err(),
            "a number with a leading zero at byte 0"
        );
        assert_eq!(
            number("1.").unwrap_err(),
            "unexpected end of input, expected a digit after the decimal point at byte 2"
        );
        assert_eq!(
            number("1e+").unwrap_err(),
            "unexpected end of input, expected a digit in the exponent at byte 3"
        );
        assert_eq!(number("+1").unwrap_err(), "expected a number at byte 0");
        assert_eq!(number("NaN").unwrap_err(), "expected a number at byte 0");
    }

    #[test]
    fn skip_refuses_what_is_not_json() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "nul",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "[1 2]",
            "\"\u{1}\"",
        ] {
            let mut scanner = Scanner::new(bad.as_bytes());
            assert!(
                scanner.skip().and_then(|()| scanner.end()).is_err(),
                "{bad:?} was taken"
            );
        }
        let deep = "[".repeat(1_000_000);
        assert!(
            Scanner::new(deep.as_bytes())
                .skip()
                .unwrap_err()
                .problem
                .contains("levels of nesting")
        );
    }

    #[test]
    fn strings_unescape() {
        let text = r#""a\n\"\u00e9\ud83d\ude00""#;
        assert_eq!(Scanner::new(text.as_bytes()).string().unwrap(), "a\n\"é😀");
    }

    proptest! {
        #[test]
        fn numbers_equal_the_standard_parser(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            for text in [format!("{value}"), format!("{value:e}"), serde_json::to_string(&value).unwrap()] {
                prop_assert_eq!(number(&text).unwrap().value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{}", text);
            }
        }

        #[test]
        fn decimals_equal_the_standard_parser(mantissa in any::<u64>(), point in 0usize..20, exponent in -330i32..330) {
            let mut digits = format!("{mantissa:020}");
            digits.insert(point, '.');
            let text = format!("{}e{exponent}", digits.trim_start_matches('0'));
            let text = if text.starts_with('.') { format!("0{text}") } else { text };
            let text = text.replace(".e", ".0e");
            prop_assert_eq!(number(&text).unwrap().value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{}", text);
        }

        #[test]
        fn skip_agrees_with_serde_json(text in "[\\[\\]{}\",:0-9a-z .eE+-]{0,24}") {
            let mut scanner = Scanner::new(text.as_bytes());
            let ours = scanner.skip().and_then(|()| scanner.end()).is_ok();
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // serde_json refuses numbers beyond a double's range, which JSON's grammar does not.
            if theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range")) {
                return Ok(());
            }
            prop_assert_eq!(ours, theirs.is_ok(), "{}", text);
        }
    }
}
