//! `cargo xtask bench`: each figure beside a peer's in the same run.

use anyhow::bail;

use crate::command::{command, has, root, run as execute};
use crate::{build, python, servers};

/// Builds optimised, runs `e2e/bench`, and writes docs/benchmarks.md.
pub fn run() -> anyhow::Result<()> {
    if !has("wrk") && !servers::apt(&["wrk"]) {
        bail!("wrk, which sends the load, is not installed (Debian: apt-get install wrk)");
    }
    let program = build::all(true)?;
    let bench = root().join("e2e/bench");
    let python = python::environment(&bench.join("requirements.txt"))?;
    let peer = python::environment(&bench.join("requirements-mlserver.txt"))?;
    execute(
        command(python)
            .arg(bench.join("run.py"))
            .arg("--ferroflow")
            .arg(program)
            .arg("--mlserver")
            .arg(peer)
            .arg("--write")
            .arg(root().join("docs/benchmarks.md")),
    )
}
