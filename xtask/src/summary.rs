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
