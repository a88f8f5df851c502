//! Developer commands: `cargo xtask demo | test | check | build | bench`.

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod python;
mod servers;
mod suites;
mod summary;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Ferroflow's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build Ferroflow and run the story: load, tune, train, serve, predict.
    Demo {
        /// Stop the server at the end instead of leaving it to look around in.
        #[arg(long)]
        stop: bool,
    },
    /// Run every suite and end with one line, `N passed, N failed, N skipped`.
    Test {
        /// Only what needs no server and no Python: the inner loop.
        #[arg(long)]
        quick: bool,
        /// Only suites whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Formatting, lints, architecture rules and licences.
    Check,
    /// Build the dashboard and the program.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Measure against peers and write docs/benchmarks.md.
    Bench,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo { stop } => demo::run(stop),
        Command::Test { quick, only } => suites::run(quick, only.as_deref()),
        Command::Check => check::run(),
        Command::Build { release } => build::all(release).map(|_| ()),
        Command::Bench => bench::run(),
    }
}
