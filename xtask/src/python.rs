//! Python environments of the tests and the demo: built once from a requirements file, kept outside the clone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::command::{cache, command, run};

/// The interpreter of an environment with the packages of `requirements` (a file).
pub fn environment(requirements: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let name = hex::encode(&Sha256::digest(&text)[..8]);
    let folder = cache().join("venvs").join(name);
    let python = folder.join("bin/python");
    if folder.join("complete").is_file() {
        return Ok(python);
    }
    let uv = uv()?;
    run(command(&uv).args(["venv", "--quiet", "--clear"]).arg(&folder))?;
    run(command(&uv)
        .args(["pip", "install", "--quiet", "--python"])
        .arg(&python)
        .arg("-r")
        .arg(requirements))?;
    std::fs::write(folder.join("complete"), "")?;
    Ok(python)
}

/// The `uv` program, installed from PyPI where the machine has none.
fn uv() -> anyhow::Result<PathBuf> {
    let folder = cache().join("tools/uv");
    let uv = folder.join("bin/uv");
    if !uv.is_file() {
        let mut install = command("python3");
        install
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--root-user-action=ignore",
                "--target",
            ])
            .arg(&folder)
            .arg("uv");
        run(&mut install)
            .context("installing uv with python3 -m pip; Ferroflow needs Python 3.10 or newer with pip")?;
    }
    Ok(uv)
}
