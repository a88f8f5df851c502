//! The command that `kfp` 2.17 generates for a lightweight Python component, as a shell runs it, in a fresh container each time.
//!
//! Prints the time of the first step (which builds environments), of the next ones, and of their parts; needs a package index.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use localkube_runtimes::{PrepareRequest, Runtimes, RuntimesConfig};

const PREAMBLE: &str = "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip\nfi\n\n";
const INSTALL: &str = "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet --no-warn-script-location 'kfp==2.17.0' '--no-deps' 'typing-extensions>=3.7.4,<5; python_version<\"3.9\"' && \"$0\" \"$@\"\n";
const RUN: &str = "program_path=$(mktemp -d)\n\nprintf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"\n_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path \"$program_path/ephemeral_component.py\" \"$@\"\n";
const SOURCE: &str = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\ndef f(a: int) -> int:\n    return a + 1\n";
const STEPS: u32 = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut config = RuntimesConfig::new(PathBuf::from(env!("CARGO_BIN_EXE_localkube-pip")));
    config.cache_dir = dir.path().join("cache");
    let runtimes = Runtimes::open_detached(config).await?;
    let mut steps = Vec::new();
    let mut prepared = Vec::new();
    for i in 0..=STEPS {
        let start = Instant::now();
        let request = PrepareRequest {
            image: "python:3.11".to_owned(),
            container_dir: dir.path().join(format!("c{i}")),
        };
        let runtime = runtimes.prepare(request).await?;
        prepared.push(start.elapsed());
        let script = format!("{PREAMBLE}{INSTALL}");
        let output = dir.path().join(format!("out{i}"));
        let input = serde_json::json!({"inputs": {"parameterValues": {"a": 1}}, "outputs": {
            "parameters": {"Output": {"outputFile": output}}, "outputFile": dir.path().join(format!("meta{i}.json"))}});
        let step = Command::new("sh")
            .args([
                "-c",
                &script,
                "sh",
                "-ec",
                RUN,
                SOURCE,
                "--executor_input",
                &input.to_string(),
                "--function_to_execute",
                "f",
            ])
            .env_clear()
            .env(
                "PATH",
                std::env::join_paths(
                    runtime
                        .path
                        .iter()
                        .cloned()
                        .chain(["/usr/bin".into(), "/bin".into()]),
                )?,
            )
            .envs(runtime.env.clone())
            .env("TMPDIR", dir.path())
            .output()?;
        anyhow::ensure!(
            step.status.success(),
            "step {i}: {}",
            String::from_utf8_lossy(&step.stderr)
        );
        steps.push(start.elapsed());
        if i == STEPS {
            let time = |program: &str, arguments: &[&str]| -> anyhow::Result<Duration> {
                let mut start = Instant::now();
                // the first one may build an environment
                for i in 0..=STEPS {
                    if i == 1 {
                        start = Instant::now();
                    }
                    let out = Command::new(runtime.path[0].join(program))
                        .args(arguments)
                        .env_clear()
                        .env("PATH", "/usr/bin:/bin")
                        .envs(runtime.env.clone())
                        .output()?;
                    anyhow::ensure!(
                        out.status.success(),
                        "{program} {arguments:?}: {}",
                        String::from_utf8_lossy(&out.stderr)
                    );
                }
                Ok(start.elapsed() / STEPS)
            };
            println!(
                "python3 -c pass                          {:?}",
                time("python3", &["-c", "pass"])?
            );
            println!(
                "python3 -m pip install (satisfied)       {:?}",
                time(
                    "python3",
                    &["-m", "pip", "install", "-q", "kfp==2.17.0", "--no-deps"]
                )?
            );
            println!(
                "pip install (satisfied)                  {:?}",
                time("pip", &["install", "-q", "kfp==2.17.0", "--no-deps"])?
            );
            println!("import kfp.dsl.executor_main             {:?}", {
                let import = "import os; os.environ['_KFP_RUNTIME']='true'; import kfp.dsl.executor_main";
                time("python3", &["-c", import])?
            });
        }
    }
    let mut later: Vec<Duration> = steps[1..].to_vec();
    later.sort();
    prepared.remove(0);
    prepared.sort();
    let total: Duration = later.iter().sum();
    println!("first step, builds its environments      {:?}", steps[0]);
    println!(
        "prepare, median                          {:?}",
        prepared[prepared.len() / 2]
    );
    println!(
        "step, median                             {:?}",
        later[later.len() / 2]
    );
    println!(
        "steps a second, one after another        {:.1}",
        f64::from(STEPS) / total.as_secs_f64()
    );
    Ok(())
}
