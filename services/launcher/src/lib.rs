//! The launcher: what runs beside the user's command in a Pod.
//!
//! It is the `ferroflow` executable called by the name `launcher`, and it starts for every step, so it is blocking,
//! has no async runtime and does nothing before it is needed.
//!
//! - `launcher run-step --step JSON..`: one attempt of a pipeline task ([`run_step`])
//! - `launcher collect-metrics ..`: a Katib trial under its metrics collector ([`collect`])

pub mod child;
pub mod collect;
pub mod http;
pub mod outputs;
pub mod run_step;
pub mod store;
pub mod trace;

use std::process::ExitCode;

const USAGE: &str =
    "usage: launcher run-step --step JSON [--step JSON-continued]..\n       launcher collect-metrics ..";

/// Runs the launcher with the arguments of this process. The exit code is that of the user's command, or 125 when
/// the launcher itself failed.
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("run-step") => run_step::main(args),
        Some("collect-metrics") => collect::main(args),
        Some(other) => {
            eprintln!("launcher: unknown command {other:?}\n{USAGE}");
            ExitCode::from(2)
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
