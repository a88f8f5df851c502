//! Counts of all suites, and the one line at the end.

use regex::Regex;

/// How many tests of a suite passed, failed and were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Adds up the result lines of cargo's test runner, or takes the last line of another that tells counts. A skip that a Rust test can only
/// print (`SKIPPED name: reason`) is counted too.
pub fn counts(output: &str) -> Counts {
    let mut total = Counts::default();
    for line in output.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("test result: ") {
            total += Counts {
                passed: number(rest, "passed"),
                failed: number(rest, "failed"),
                skipped: number(rest, "ignored"),
            };
        }
    }
    if total == Counts::default()
        && let Some(line) = output
            .lines()
            .rev()
            .find(|line| number(line, "passed") + number(line, "failed") + number(line, "skipped") > 0)
    {
        total = Counts {
            passed: number(line, "passed"),
            failed: number(line, "failed") + number(line, "error") + number(line, "errors"),
            skipped: number(line, "skipped"),
        };
    }
    total
}

/// The reasons of skipped tests, each once.
pub fn skip_reasons(output: &str) -> Vec<String> {
    let lines = output
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("SKIPPED"));
    let mut reasons: Vec<String> = lines.map(str::to_owned).collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

/// The tests that failed, with what their panics said where the runner is Rust's.
pub fn failures(output: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mut names = false;
    for line in output.lines() {
        let name = line.strip_prefix("    ").map(str::trim);
        names = line == "failures:" || (names && name.is_some());
        match name {
            Some(name) if names && !name.is_empty() => failures.push(match panic_of(name, output) {
                Some(panic) => format!("FAILED {name}: {panic}"),
                None => format!("FAILED {name}"),
            }),
            _ if line.starts_with("FAILED ") || line.starts_with("ERROR ") => failures.push(line.to_owned()),
            _ => {}
        }
    }
    failures
}

/// The place and the first lines of a test's panic.
fn panic_of(test: &str, output: &str) -> Option<String> {
    let start = output.find(&format!("thread '{test}' "))?;
    let lines = output.get(start..)?.lines();
    let lines = lines.take_while(|line| !line.trim().is_empty() && !line.starts_with("note:"));
    Some(lines.take(8).collect::<Vec<_>>().join("\n    "))
}

fn number(line: &str, word: &str) -> usize {
    let pattern = Regex::new(&format!(r"(\d+) {word}\b"));
    let found = pattern
        .ok()
        .and_then(|pattern| pattern.captures(line)?.get(1)?.as_str().parse().ok());
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_lines_add_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\ntest result: FAILED. 1 passed; 2 failed; 0 ignored";
        assert_eq!(
            counts(text),
            Counts {
                passed: 4,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn failures_are_told_again() {
        let text = "thread 'a::b' (7) panicked at a.rs:1:2:\nno x\n\ntest result: x\n\nfailures:\n    a::b\n    c\n\ntest result: FAILED.";
        assert_eq!(
            failures(text),
            [
                "FAILED a::b: thread 'a::b' (7) panicked at a.rs:1:2:\n    no x",
                "FAILED c"
            ]
        );
        let pytest = "x\nFAILED test_a.py::test_b - assert 1\n1 failed in 2s";
        assert_eq!(failures(pytest), ["FAILED test_a.py::test_b - assert 1"]);
    }

    #[test]
    fn other_runners_end_with_one_line() {
        assert_eq!(
            counts("x\n=== 5 passed, 1 skipped in 3.2s ==="),
            Counts {
                passed: 5,
                failed: 0,
                skipped: 1
            }
        );
        assert_eq!(
            counts("2 failed, 200 passed, 1 error in 1s"),
            Counts {
                passed: 200,
                failed: 3,
                skipped: 0
            }
        );
        assert_eq!(counts("nothing"), Counts::default());
    }
}
