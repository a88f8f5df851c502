//! The dashboard and the program.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;

use crate::command::{cargo, command, has, output, root, run};

/// Builds both; answers the program's path.
pub fn all(release: bool) -> anyhow::Result<PathBuf> {
    dashboard()?;
    ferroflow(release)
}

/// Builds the program; answers its path.
pub fn ferroflow(release: bool) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "ferroflow", "--package", "features"]);
    if release {
        build.arg("--release");
    }
    run(&mut build)?;
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata tells no target folder")?;
    Ok(Path::new(target)
        .join(if release { "release" } else { "debug" })
        .join("ferroflow"))
}

/// Builds the dashboard if its sources are newer than what was built.
pub fn dashboard() -> anyhow::Result<()> {
    let folder = root().join("services/dashboard");
    if !folder.join("package.json").is_file() {
        return Ok(());
    }
    if !has("npm") {
        eprintln!("no npm on this machine: the dashboard is left out of the program");
        return Ok(());
    }
    let built = modified(&folder.join("dist/index.html"));
    if built.is_some() && newest(&folder)? <= built {
        return Ok(());
    }
    if !folder.join("node_modules/.package-lock.json").is_file()
        || modified(&folder.join("package-lock.json"))
            > modified(&folder.join("node_modules/.package-lock.json"))
    {
        run(command("npm")
            .current_dir(&folder)
            .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    }
    run(command("npm")
        .current_dir(&folder)
        .args(["run", "build", "--silent"]))
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}

/// The newest change among the dashboard's sources.
fn newest(folder: &Path) -> anyhow::Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if matches!(name.as_str(), "node_modules" | "dist") {
            continue;
        }
        newest = newest.max(if path.is_dir() {
            self::newest(&path)?
        } else {
            modified(&path)
        });
    }
    Ok(newest)
}
