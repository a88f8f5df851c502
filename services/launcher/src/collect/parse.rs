//! From lines to metrics, by Katib's rules.

use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;

/// Katib's default: `name = number`.
pub const DEFAULT_FILTER: &str = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)";
/// What stands for an objective that was never reported.
const UNAVAILABLE: &str = "unavailable";
/// Longer lines are no metrics; they are not kept in memory.
const LONGEST_LINE: usize = 64 * 1024;

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Read by filters.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// A value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// When, as RFC 3339.
    pub time: String,
    /// Name.
    pub name: String,
    /// Value, as text.
    pub value: String,
}

impl Metric {
    /// Says that there is none.
    pub fn unavailable(name: &str) -> Self {
        Self {
            time: "0001-01-01T00:00:00Z".to_owned(),
            name: name.to_owned(),
            value: UNAVAILABLE.to_owned(),
        }
    }
}

/// Reads lines.
#[derive(Debug)]
pub struct Parser {
    metrics: Vec<String>,
    filters: Vec<Regex>,
    format: Format,
}

impl Parser {
    /// A parser of these metrics; without filters, of [`DEFAULT_FILTER`].
    ///
    /// # Errors
    /// If a filter is no regular expression with two groups.
    pub fn new(metrics: &[String], filters: &[String], format: Format) -> Result<Self, String> {
        let default = [DEFAULT_FILTER.to_owned()];
        let filters = if filters.is_empty() { &default } else { filters };
        let filters = filters.iter().map(|filter| match Regex::new(filter) {
            Ok(regex) if regex.captures_len() > 2 => Ok(regex),
            Ok(_) => Err(format!(
                "--filter {filter:?} needs two groups, of the name and of the value"
            )),
            Err(error) => Err(format!("--filter {filter:?}: {error}")),
        });
        Ok(Self {
            metrics: metrics.to_vec(),
            filters: filters.collect::<Result<_, _>>()?,
            format,
        })
    }

    /// The metrics in a line. A line without a time of its own has the present one.
    pub fn line(&self, line: &str) -> Vec<Metric> {
        if !self.metrics.iter().any(|name| line.contains(name.as_str())) {
            return Vec::new();
        }
        match self.format {
            Format::Text => self.text(line),
            Format::Json => self.json(line),
        }
    }

    fn text(&self, line: &str) -> Vec<Metric> {
        let first = line.split(' ').next().unwrap_or_default();
        let time = first
            .parse::<Timestamp>()
            .unwrap_or_else(|_| Timestamp::now())
            .to_string();
        let mut found = Vec::new();
        for filter in &self.filters {
            for groups in filter.captures_iter(line) {
                let text = |n| groups.get(n).map_or("", |m: regex::Match<'_>| m.as_str()).trim();
                let (name, value) = (text(1), text(2));
                if !value.is_empty() && self.metrics.iter().any(|m| m == name) {
                    found.push(Metric {
                        time: time.clone(),
                        name: name.to_owned(),
                        value: value.to_owned(),
                    });
                }
            }
        }
        found
    }

    fn json(&self, line: &str) -> Vec<Metric> {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            return Vec::new();
        };
        let time = match fields.get("timestamp") {
            Some(Value::String(text)) => text.parse::<Timestamp>().ok(),
            Some(Value::Number(number)) => number.as_f64().and_then(epoch),
            _ => None,
        };
        let time = time.unwrap_or_else(Timestamp::now).to_string();
        let metric = |name: &String| {
            let value = match fields.get(name)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            Some(Metric {
                time: time.clone(),
                name: name.clone(),
                value,
            })
        };
        self.metrics.iter().filter_map(metric).collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "nanoseconds are finer than the number"
)]
fn epoch(seconds: f64) -> Option<Timestamp> {
    Timestamp::from_nanosecond((seconds * 1e9) as i128).ok()
}

/// Puts lines together from pieces.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Takes a piece; `each` gets every line that is complete.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&str)) {
        let mut rest = piece;
        // progress bars end their lines with a carriage return
        while let Some(end) = rest.iter().position(|b| *b == b'\n' || *b == b'\r') {
            let (line, tail) = rest.split_at(end);
            self.keep(line);
            self.end(&mut each);
            rest = &tail[1..];
        }
        self.keep(rest);
    }

    /// The last line may have no end.
    pub fn end(&mut self, mut each: impl FnMut(&str)) {
        if !self.skipping && !self.partial.is_empty() {
            each(&String::from_utf8_lossy(&self.partial));
        }
        self.partial.clear();
        self.skipping = false;
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.partial.len() + piece.len() > LONGEST_LINE {
            self.skipping = true;
            self.partial.clear();
        }
        if !self.skipping {
            self.partial.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(parser: &Parser, line: &str) -> Vec<(String, String)> {
        parser.line(line).into_iter().map(|m| (m.name, m.value)).collect()
    }

    #[test]
    fn katibs_lines() {
        let names = ["loss", "Train-accuracy"].map(str::to_owned);
        let parser = Parser::new(&names, &[], Format::Text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            values(&parser, "epoch 1: loss=0.25, Train-accuracy = 9.1E-1 other=3"),
            [pair("loss", "0.25"), pair("Train-accuracy", "9.1E-1")]
        );
        assert_eq!(values(&parser, "loss=nan"), []);
        assert_eq!(values(&parser, "loss = -.5"), [pair("loss", "-.5")]);
        let timed = parser.line("2024-12-02T05:27:27.5Z loss=1");
        assert_eq!(timed[0].time, "2024-12-02T05:27:27.5Z");
    }

    #[test]
    fn filters_of_ones_own() {
        let parser = Parser::new(
            &["f1".to_owned()],
            &[r"\{metricName: ([\w|-]+), metricValue: (\S+)\}".to_owned()],
            Format::Text,
        );
        assert_eq!(
            values(&parser.unwrap(), "{metricName: f1, metricValue: 0.5}"),
            [("f1".into(), "0.5".into())]
        );
        let error = Parser::new(&[], &["(x)".to_owned()], Format::Text).unwrap_err();
        assert_eq!(
            error,
            "--filter \"(x)\" needs two groups, of the name and of the value"
        );
    }

    #[test]
    fn json_lines() {
        let parser = Parser::new(&["acc".to_owned()], &[], Format::Json).unwrap();
        let found = parser.line(r#"{"acc": "0.9", "timestamp": 1638422847.28721}"#);
        assert_eq!(
            (found[0].value.as_str(), &found[0].time[..20]),
            ("0.9", "2021-12-02T05:27:27.")
        );
        assert_eq!(parser.line(r#"{"acc": 0.5}"#)[0].value, "0.5");
        assert!(parser.line("acc: no json").is_empty());
    }

    #[test]
    fn pieces_become_lines_and_endless_ones_are_dropped() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in ["a", "b\nc", "\r\nd"] {
            lines.push(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.push(&vec![b'x'; 3 * LONGEST_LINE], |line| seen.push(line.to_owned()));
        lines.push(b"tail\nnext\n", |line| seen.push(line.to_owned()));
        lines.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["ab", "c", "next"]);
    }
}
