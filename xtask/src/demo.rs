//! `cargo xtask demo`: the story from data to predictions, on a fresh data folder.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::command::{command, root, run as execute};
use crate::{build, python};

/// Ends Ferroflow with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _asked = Command::new("kill").arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(12);
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _killed = self.0.kill();
    }
}

/// Builds, starts, runs the story, prints how to reach what it made.
pub fn run(stop: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    step("building Ferroflow");
    let program = build::all(false)?;
    step("preparing Python");
    let story = root().join("e2e/stories/digits");
    let python = python::environment(&story.join("requirements.txt"))?;
    let data = tempfile::Builder::new()
        .prefix("ferroflow-demo-")
        .tempdir()?
        .keep();
    step(&format!(
        "starting ferroflow up with its state in {}",
        data.display()
    ));
    let (server, endpoint) = start(&program, &data)?;
    let url = endpoint["url"].as_str().unwrap_or_default().to_owned();
    println!("    ready at {url}");
    execute(
        command(&python)
            .arg(story.join("digits.py"))
            .arg("--endpoint")
            .arg(data.join("run/endpoint.json"))
            .arg("--kubeconfig")
            .arg(data.join("kubeconfig")),
    )?;
    println!("\ndemo took {:.0} s", started.elapsed().as_secs_f64());
    println!("dashboard  {url}");
    println!(
        "kubectl    kubectl --kubeconfig {}/kubeconfig get pods,experiments,trials,xgboostjobs,inferenceservices -A",
        data.display()
    );
    if stop {
        drop(server);
        println!(
            "stopped    go on with: {} up --data-dir {}",
            program.display(),
            data.display()
        );
    } else {
        println!("stop       kill {}", server.0.id());
        // it goes on without this process; dropping the value would end it
        std::mem::forget(server);
    }
    Ok(())
}

fn step(text: &str) {
    println!("==> {text}");
}

fn start(program: &Path, data: &Path) -> anyhow::Result<(Running, Value)> {
    let log = std::fs::File::create(data.join("ferroflow.log"))?;
    let child = command(program)
        .args(["up", "--port", "0", "--data-dir"])
        .arg(data)
        .process_group(0)
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    let file = data.join("run/endpoint.json");
    loop {
        if let Ok(text) = std::fs::read_to_string(&file)
            && let Ok(endpoint) = serde_json::from_str(&text)
            && ready(&endpoint)
        {
            return Ok((running, endpoint));
        }
        if let Some(status) = running.0.try_wait()? {
            bail!(
                "ferroflow ended ({status}); see {}",
                data.join("ferroflow.log").display()
            );
        }
        if Instant::now() > deadline {
            bail!(
                "ferroflow is not ready after 60 s; see {}",
                data.join("ferroflow.log").display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether `GET /readyz` answers 200.
fn ready(endpoint: &Value) -> bool {
    use std::io::{Read as _, Write as _};
    let Some(port) = endpoint["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
    else {
        return false;
    };
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
