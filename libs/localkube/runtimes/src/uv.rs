//! Finding and running `uv`, which resolves and installs packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::interpreters::Interpreter;

/// `uv` and the user's own settings for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uv {
    pub exe: PathBuf,
    /// Environment for every run: the user's certificates, proxies and credentials, which containers do not inherit.
    pub env: BTreeMap<String, String>,
    /// The user's `uv.toml`, if there is one.
    pub config_file: Option<PathBuf>,
}

/// What package tools need from the user's environment to reach an index; everything else stays outside containers.
const KEPT: &[&str] = &[
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "NETRC",
    "GIT_SSH_COMMAND",
    "SSH_AUTH_SOCK",
    "HOME",
    "PATH",
];

impl Uv {
    /// Finds `uv`: the configured one, the one on `PATH`, the one of `python3 -m uv`, one in the cache; else fetches it by pip.
    pub fn find(configured: Option<&Path>, cache: &Cache, python: &Interpreter) -> Result<Self, String> {
        let exe = match configured {
            Some(exe) if exe.is_file() => exe.to_owned(),
            Some(exe) => {
                return Err(format!(
                    "uv: {} is not a file; correct the setting or leave it out",
                    exe.display()
                ));
            }
            None => match on_path().or_else(|| as_module(python)) {
                Some(exe) => exe,
                None => fetched(cache, python)?,
            },
        };
        let mut env: BTreeMap<String, String> = KEPT
            .iter()
            .filter_map(|k| Some(((*k).to_owned(), std::env::var(k).ok()?)))
            .collect();
        env.extend(std::env::vars().filter(|(k, _)| {
            k.starts_with("UV_INDEX_")
                || matches!(
                    k.as_str(),
                    "UV_NATIVE_TLS"
                        | "UV_SYSTEM_CERTS"
                        | "UV_KEYRING_PROVIDER"
                        | "UV_OFFLINE"
                        | "UV_HTTP_TIMEOUT"
                )
        }));
        if let (None, Some(cert)) = (
            env.get("SSL_CERT_FILE"),
            std::env::var("PIP_CERT").ok().filter(|c| !c.is_empty()),
        ) {
            env.insert("SSL_CERT_FILE".to_owned(), cert);
        }
        // hard links need the same file system as the environments, so the user's own cache is used only where it is named
        let own = cache.root().join("uv-cache").to_string_lossy().into_owned();
        env.insert(
            "UV_CACHE_DIR".to_owned(),
            std::env::var("UV_CACHE_DIR").unwrap_or(own),
        );
        let config_home = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
        let config_file = config_home.map(|c| c.join("uv/uv.toml")).filter(|f| f.is_file());
        Ok(Self {
            exe,
            env,
            config_file,
        })
    }

    /// `uv pip <verb>` for the environment whose interpreter is `python`, in the working directory of this process.
    pub fn pip(&self, verb: &str, python: &Path) -> Command {
        let mut command = Command::new(&self.exe);
        command.arg("pip").arg(verb).arg("--python").arg(python);
        command
            .env_clear()
            .envs(&self.env)
            .env("UV_NO_PROGRESS", "1")
            .env("UV_PYTHON_DOWNLOADS", "never");
        match &self.config_file {
            Some(file) => command.arg("--config-file").arg(file),
            None => command.arg("--no-config"),
        };
        command.args(["--color", "never"]).stdin(Stdio::null());
        command
    }
}

fn on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|f| f.join("uv"))
        .find(|f| f.is_file() && answers(f))
}

// a version manager's shim or one of our own links may be called uv without being one
fn answers(uv: &Path) -> bool {
    run(Command::new(uv).arg("--version")).is_some_and(|o| o.stdout.starts_with(b"uv "))
}

fn as_module(python: &Interpreter) -> Option<PathBuf> {
    let output = run(Command::new(&python.exe).args(["-c", "import uv; print(uv.find_uv_bin())"]))?;
    let exe = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    exe.is_file().then_some(exe)
}

fn fetched(cache: &Cache, python: &Interpreter) -> Result<PathBuf, String> {
    let home = cache.root().join("uv");
    let exe = home.join("bin/uv");
    let fail = |what: String| {
        format!("uv builds Python environments and was not found; install it (`pip install uv`): {what}")
    };
    if exe.is_file() {
        return Ok(exe);
    }
    let _lock = cache.lock("uv").map_err(|e| fail(e.to_string()))?;
    if exe.is_file() {
        return Ok(exe);
    }
    let unfinished = cache.unfinished("uv");
    let output = Command::new(&python.exe)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--target",
        ])
        .arg(&unfinished)
        .arg("uv")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| fail(e.to_string()))?;
    if !output.status.success() || !unfinished.join("bin/uv").is_file() {
        return Err(fail(last_line(&output)));
    }
    std::fs::rename(&unfinished, &home).map_err(|e| fail(e.to_string()))?;
    Ok(exe)
}

fn run(command: &mut Command) -> Option<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .rfind(|l| !l.trim().is_empty())
        .unwrap_or("pip gave no reason")
        .to_owned()
}
