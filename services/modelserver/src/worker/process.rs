//! One Python process and its socket.

use super::WorkerOptions;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

const SCRIPT: &str = include_str!("worker.py");

/// Variables that a worker may see; none of them is a secret.
const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "JOBLIB_TEMP_FOLDER",
];

/// No answer is larger.
const MAX_PAYLOAD: u64 = 2 << 30;

/// What the worker says about its model.
#[derive(Debug, Default, Deserialize)]
pub struct Hello {
    #[serde(default)]
    pub features: Option<usize>,
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub classes: Option<usize>,
    #[serde(default)]
    pub proba: bool,
    #[serde(default)]
    error: Option<String>,
}

/// A started worker.
pub struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    /// Starts a process and waits for its first message.
    pub async fn start(options: &WorkerOptions) -> anyhow::Result<(Self, Hello)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().context("cannot make a socket pair")?;
        ours.set_nonblocking(true)
            .context("cannot make the socket non-blocking")?;
        let mut command = Command::new(&options.python);
        command.args(["-u", "-c", SCRIPT]).arg(&options.path);
        command
            .arg(options.memory.to_string())
            .arg(options.proba.to_string());
        command.env_clear();
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The socket is the worker's standard input; it ends when this process does.
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        command.kill_on_drop(true);
        let python = &options.python;
        let child = command.spawn().with_context(|| {
            format!("cannot start {python:?} for a scikit-learn model; it must be on the PATH of the container's image, with scikit-learn installed")
        })?;
        // Our copy of the other end went with the command.
        drop(command);
        let socket = BufReader::with_capacity(
            64 << 10,
            UnixStream::from_std(ours).context("cannot use the socket")?,
        );
        let mut process = Self { child, socket };
        let first = tokio::time::timeout(options.load, process.receive::<Hello>()).await;
        match first {
            Ok(Ok((
                Hello {
                    error: Some(error), ..
                },
                _,
            ))) => {
                let _reaped = process.end().await;
                bail!("{}: {error}{}", options.path.display(), remedy(&error))
            }
            Ok(Ok((hello, _))) => Ok((process, hello)),
            Ok(Err(error)) => {
                let status = process.end().await;
                bail!(
                    "the python worker ended while it loaded {} ({status}): {error}",
                    options.path.display()
                )
            }
            Err(_) => {
                let _killed = process.end().await;
                bail!(
                    "{} was not loaded within {} s",
                    options.path.display(),
                    options.load.as_secs()
                )
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn call<A: for<'de> Deserialize<'de>>(
        &mut self,
        header: &impl Serialize,
        payload: &[&[u8]],
    ) -> std::io::Result<(A, Vec<u8>)> {
        let text = serde_json::to_vec(header)?;
        let length: usize = payload.iter().map(|part| part.len()).sum();
        let mut head = Vec::with_capacity(12 + text.len());
        head.extend_from_slice(
            &u32::try_from(text.len())
                .map_err(std::io::Error::other)?
                .to_le_bytes(),
        );
        head.extend_from_slice(&(length as u64).to_le_bytes());
        head.extend_from_slice(&text);
        // Small requests go in one write.
        if length <= 16 << 10 {
            for part in payload {
                head.extend_from_slice(part);
            }
            self.socket.write_all(&head).await?;
        } else {
            self.socket.write_all(&head).await?;
            for part in payload {
                self.socket.write_all(part).await?;
            }
        }
        self.receive().await
    }

    async fn receive<A: for<'de> Deserialize<'de>>(&mut self) -> std::io::Result<(A, Vec<u8>)> {
        let head = self.socket.read_u32_le().await?;
        let length = self.socket.read_u64_le().await?;
        if head > 64 << 20 || length > MAX_PAYLOAD {
            return Err(std::io::Error::other(
                "the worker's answer is not in the expected form",
            ));
        }
        let mut header = vec![0; head as usize];
        self.socket.read_exact(&mut header).await?;
        let mut payload = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        self.socket.read_exact(&mut payload).await?;
        Ok((serde_json::from_slice(&header)?, payload))
    }

    /// Kills the process if it is still there, and says how it ended.
    pub async fn end(mut self) -> String {
        let ended = match self.child.try_wait() {
            Ok(Some(status)) => Some(status),
            _ => {
                // It may be about to end by itself, which tells more than our signal.
                let patience = std::time::Duration::from_millis(200);
                match tokio::time::timeout(patience, self.child.wait()).await {
                    Ok(Ok(status)) => Some(status),
                    _ => {
                        let _already = self.child.kill().await;
                        None
                    }
                }
            }
        };
        match ended {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "unknown end".to_owned(),
            },
            None => "killed".to_owned(),
        }
    }
}

/// What helps against a usual failure.
fn remedy(error: &str) -> String {
    let module = error
        .split("No module named '")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    module.map_or_else(String::new, |module| {
        format!("; install it in the image of the runtime, or use a runtime whose image has it (missing: {module})")
    })
}
