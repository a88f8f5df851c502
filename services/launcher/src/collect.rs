//! `launcher collect-metrics`: owned by the tuning service's team; not there yet.

use std::process::ExitCode;

/// Answers that it is not implemented yet.
pub fn main(_: impl Iterator<Item = String>) -> ExitCode {
    eprintln!("launcher: collect-metrics is not implemented yet; see docs/status.md");
    ExitCode::from(125)
}
