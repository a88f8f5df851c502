//! Runs a command in what stands for an image: `cargo run --example run_image -- python:3.11 sh -c 'pip install x && ...'`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use localkube_runtimes::{PrepareRequest, Runtimes, RuntimesConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().context("usage: run_image IMAGE [COMMAND ...]")?;
    let pip = std::env::current_exe()?
        .parent()
        .and_then(|p| p.parent())
        .map(|p| p.join("localkube-pip"));
    let mut config = RuntimesConfig::new(pip.filter(|p| p.is_file()).context("build localkube-pip first")?);
    if let Some(dir) = std::env::var_os("CACHE_DIR") {
        config.cache_dir = PathBuf::from(dir);
    }
    let container_dir = std::env::temp_dir().join(format!("run-image-{}", std::process::id()));
    let runtime = Runtimes::open_detached(config)
        .await?
        .prepare(PrepareRequest { image, container_dir })
        .await?;
    runtime.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    let mut command: Vec<String> = arguments.collect();
    if command.is_empty() {
        command = runtime.entrypoint.into_iter().chain(runtime.cmd).collect();
    }
    let (program, rest) = command.split_first().context("the image has no command")?;
    let path =
        runtime
            .path
            .iter()
            .cloned()
            .chain(["/usr/local/bin".into(), "/usr/bin".into(), "/bin".into()]);
    let path = std::env::join_paths(path)?;
    let found = std::env::split_paths(&path)
        .map(|p| p.join(program))
        .find(|p| p.is_file())
        .unwrap_or_else(|| program.into());
    let home = std::env::var_os("HOME").unwrap_or_default();
    Err(Command::new(found)
        .args(rest)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .envs(runtime.env)
        .exec()
        .into())
}
