//! What must hold of the sources as a whole: formatting, lints, the architecture's rules, licences.

use std::path::{Path, PathBuf};

use anyhow::bail;
use toml::Table;

use crate::command::{cache, cargo, command, has, root, run as execute};

/// A crate that may be named only in certain places: name, folders.
const CONFINED: &[(&str, &[&str])] = &[
    ("sqlx", &["libs/db", "libs/localkube/apiserver"]),
    ("async-nats", &["libs/bus"]),
    ("object_store", &["libs/blob"]),
];

/// The version of cargo-deny whose configuration deny.toml is written for.
const DENY: &str = "0.20.2";

/// `cargo xtask check`.
pub fn run() -> anyhow::Result<()> {
    rules()?;
    formatting()?;
    lints()?;
    licences()
}

/// `cargo fmt` would change nothing.
pub fn formatting() -> anyhow::Result<()> {
    execute(cargo().args(["fmt", "--all", "--check"]))
}

/// Clippy says nothing; tests may end in a panic.
pub fn lints() -> anyhow::Result<()> {
    let clippy = ["clippy", "--workspace", "--quiet"];
    execute(cargo().args(clippy).args(["--", "-D", "warnings"]))?;
    execute(
        cargo()
            .args(clippy)
            .args(["--all-targets", "--", "-D", "warnings"])
            .args(["-A", "clippy::unwrap_used", "-A", "clippy::expect_used"])
            .args(["-A", "clippy::panic", "-A", "clippy::needless_pass_by_value"]),
    )
}

/// Licences and sources of all dependencies are ones that deny.toml allows.
pub fn licences() -> anyhow::Result<()> {
    execute(command(deny()?).args(["--log-level", "error", "check", "licenses", "bans", "sources"]))
}

/// `cargo-deny`, built once where the machine has none.
fn deny() -> anyhow::Result<PathBuf> {
    let folder = cache().join("tools").join(format!("cargo-deny-{DENY}"));
    let program = folder.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    if has("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    eprintln!("building cargo-deny {DENY}, once");
    let mut install = cargo();
    install.args([
        "install",
        "cargo-deny",
        "--locked",
        "--debug",
        "--quiet",
        "--version",
        DENY,
        "--root",
    ]);
    execute(install.arg(&folder).env_remove("CARGO_TARGET_DIR"))?;
    Ok(program)
}

/// The rules of docs/architecture.md that manifests and file names can show.
pub fn rules() -> anyhow::Result<()> {
    let mut broken = Vec::new();
    let manifests = manifests()?;
    let services: Vec<String> = manifests
        .iter()
        .filter_map(|m| m.starts_with("services").then(|| package(m)).flatten())
        .collect();
    for manifest in &manifests {
        let text = std::fs::read_to_string(root().join(manifest))?;
        let table: Table = text.parse()?;
        let folder = manifest
            .parent()
            .unwrap_or(Path::new(""))
            .to_string_lossy()
            .into_owned();
        let dependencies = keys(&table, "dependencies");
        let all = [
            dependencies.clone(),
            keys(&table, "dev-dependencies"),
            keys(&table, "build-dependencies"),
        ]
        .concat();
        if folder == "libs/features" {
            continue;
        }
        if folder != "services/ferroflow" {
            for dependency in &all {
                if services.contains(dependency) {
                    broken.push(format!("{folder} depends on the service crate {dependency}; services call each other through libs/api"));
                }
            }
        }
        if dependencies.iter().any(|d| d == "ferroflow-testkit") {
            broken.push(format!(
                "{folder} has ferroflow-testkit as a normal dependency; make it a dev-dependency"
            ));
        }
        for (name, allowed) in CONFINED {
            if dependencies.iter().any(|d| d == name) && !allowed.contains(&folder.as_str()) {
                broken.push(format!(
                    "{folder} depends on {name}, which belongs in {}",
                    allowed.join(" and ")
                ));
            }
        }
        if folder.starts_with("services/") {
            domain_is_pure(&root().join(&folder).join("src/domain"), &mut broken)?;
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("the architecture's rules are broken:\n  {}", broken.join("\n  "))
}

fn domain_is_pure(folder: &Path, broken: &mut Vec<String>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            domain_is_pure(&path, broken)?;
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        for word in ["async fn", ".await", "std::fs", "std::net", "tonic::", "tokio::"] {
            if text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word))
            {
                broken.push(format!(
                    "{} uses {word}; domain/ is synchronous and does no I/O",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

fn manifests() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["libs", "libs/localkube", "services"] {
        for entry in root().join(folder).read_dir()? {
            let manifest = Path::new(folder).join(entry?.file_name()).join("Cargo.toml");
            if root().join(&manifest).is_file() {
                found.push(manifest);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn package(manifest: &Path) -> Option<String> {
    let table: Table = std::fs::read_to_string(root().join(manifest))
        .ok()?
        .parse()
        .ok()?;
    Some(table.get("package")?.get("name")?.as_str()?.to_owned())
}

fn keys(table: &Table, section: &str) -> Vec<String> {
    table
        .get(section)
        .and_then(|s| s.as_table())
        .map(|t| t.keys().cloned().collect())
        .unwrap_or_default()
}
