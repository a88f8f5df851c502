//! `exec` and `attach`: a client's streams, through the agent, to a container.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::container::{Live, nonblocking, read_terminal, readiness, write_terminal};
use super::pod::Shim;
use crate::os::{self, Command, Space, Stdio, Terminal, WaitStatus};
use crate::wire::{self, Channel, Reply, StreamEnd, TerminalSize};

/// Chunks on their way to a client that reads slowly.
const BACKLOG: usize = 16;

fn live(shim: &Shim, container: &str) -> Option<Rc<Live>> {
    let index = shim
        .plan
        .containers
        .iter()
        .position(|plan| plan.name == container)?;
    shim.live.borrow().get(&index).cloned()
}

async fn refuse(mut stream: UnixStream, message: String) {
    drop(wire::send(&mut stream, &Reply::Refused { message }).await);
}

/// Sends what arrives in the queue, in order, until all its senders are gone.
async fn pump(mut writer: tokio::net::unix::OwnedWriteHalf, mut queue: mpsc::Receiver<(Channel, Vec<u8>)>) {
    while let Some((channel, bytes)) = queue.recv().await {
        if wire::send_chunk(&mut writer, channel, &bytes).await.is_err() {
            return;
        }
    }
    drop(writer.shutdown().await);
}

pub(super) async fn exec(
    shim: &Rc<Shim>,
    mut stream: UnixStream,
    container: &str,
    argv: Vec<String>,
    stdin: bool,
    tty: bool,
) {
    let Some(live) = live(shim, container) else {
        return refuse(stream, format!("container {container} is not running")).await;
    };
    let opened = match Session::open(stdin, tty) {
        Ok(opened) => opened,
        Err(error) => return refuse(stream, format!("cannot open the streams: {error}")).await,
    };
    let (session, stdio) = opened;
    let mut env = live.env.clone();
    if tty && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let command = Command {
        argv,
        env,
        working_dir: live.working_dir.clone(),
        stdio,
        space: Space::Join(live.joined.clone()),
    };
    if wire::send(&mut stream, &Reply::Opened).await.is_err() {
        return;
    }
    let (reader, writer) = stream.into_split();
    let (queue, outbox) = mpsc::channel(BACKLOG);
    let sending = tokio::task::spawn_local(pump(writer, outbox));
    let end = match shim.spawner.launch(command).await {
        Ok(launched) => session.run(launched, reader, &queue).await,
        Err(error) => StreamEnd {
            exit_code: error.exit_code(),
            error: Some(error.to_string()),
        },
    };
    if let Ok(text) = serde_json::to_vec(&end) {
        drop(queue.send((Channel::End, text)).await);
    }
    drop(queue);
    drop(sending.await);
}

enum Session {
    Terminal(Rc<AsyncFd<OwnedFd>>),
    Pipes {
        input: Option<pipe::Sender>,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    },
}

impl Session {
    fn open(stdin: bool, tty: bool) -> io::Result<(Self, Stdio)> {
        if tty {
            let terminal = Terminal::open()?;
            let stdio = Stdio {
                stdin: terminal.user.try_clone()?,
                stdout: terminal.user.try_clone()?,
                stderr: terminal.user,
                terminal: true,
            };
            return Ok((
                Self::Terminal(Rc::new(readiness(nonblocking(terminal.controller)?)?)),
                stdio,
            ));
        }
        let (input, theirs) = if stdin {
            let (sender, receiver) = pipe::pipe()?;
            (Some(sender), receiver.into_blocking_fd()?)
        } else {
            (None, OwnedFd::from(std::fs::File::open("/dev/null")?))
        };
        let (stdout_writer, stdout) = pipe::pipe()?;
        let (stderr_writer, stderr) = pipe::pipe()?;
        let stdio = Stdio {
            stdin: theirs,
            stdout: stdout_writer.into_blocking_fd()?,
            stderr: stderr_writer.into_blocking_fd()?,
            terminal: false,
        };
        Ok((
            Self::Pipes {
                input,
                stdout,
                stderr,
            },
            stdio,
        ))
    }

    async fn run(
        self,
        launched: os::Launched,
        reader: OwnedReadHalf,
        queue: &mpsc::Sender<(Channel, Vec<u8>)>,
    ) -> StreamEnd {
        let failed = |error: io::Error| StreamEnd {
            exit_code: 128,
            error: Some(error.to_string()),
        };
        let ended = match launched.init.try_clone().and_then(readiness) {
            Ok(ended) => ended,
            Err(error) => return failed(error),
        };
        let (terminal, outputs, input) = match self {
            Self::Terminal(terminal) => {
                let output = tokio::task::spawn_local(forward_terminal(terminal.clone(), queue.clone()));
                (Some(terminal), vec![output], None)
            }
            Self::Pipes {
                input,
                stdout,
                stderr,
            } => {
                let outputs = vec![
                    tokio::task::spawn_local(forward_pipe(stdout, Channel::Stdout, queue.clone())),
                    tokio::task::spawn_local(forward_pipe(stderr, Channel::Stderr, queue.clone())),
                ];
                (None, outputs, input)
            }
        };
        let mut feeding = tokio::task::spawn_local(feed(reader, input, terminal));
        let gone = queue.clone();
        let left = async {
            tokio::select! {
                () = gone.closed() => {}
                // It reads to the end of the connection, also where the command reads nothing.
                _ = &mut feeding => {}
            }
        };
        tokio::select! {
            _ = ended.readable() => {}
            () = left => {
                // The client went away: so does its command.
                drop(os::send_signal(&launched.init, libc::SIGHUP));
                if let Some(main) = &launched.main {
                    drop(os::send_signal(main, libc::SIGKILL));
                }
                drop(ended.readable().await);
            }
        }
        feeding.abort();
        for output in outputs {
            // A background process that keeps the pipe does not keep the session.
            drop(tokio::time::timeout(std::time::Duration::from_millis(500), output).await);
        }
        match launched.wait() {
            Ok(WaitStatus::Exited(exit_code)) => StreamEnd {
                exit_code,
                error: None,
            },
            Ok(WaitStatus::Signaled(signal)) => StreamEnd {
                exit_code: 128 + signal,
                error: None,
            },
            Err(error) => failed(error),
        }
    }
}

async fn forward_pipe(mut source: pipe::Receiver, channel: Channel, queue: mpsc::Sender<(Channel, Vec<u8>)>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count) = source.read(&mut buffer).await {
        if count == 0 || queue.send((channel, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn forward_terminal(terminal: Rc<AsyncFd<OwnedFd>>, queue: mpsc::Sender<(Channel, Vec<u8>)>) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count) = read_terminal(&terminal, &mut buffer).await {
        if count == 0
            || queue
                .send((Channel::Stdout, buffer[..count].to_vec()))
                .await
                .is_err()
        {
            return;
        }
    }
}

/// Passes the client's input on until it ends.
async fn feed(
    mut reader: OwnedReadHalf,
    mut input: Option<pipe::Sender>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
) {
    while let Ok(Some((channel, bytes))) = wire::receive_chunk(&mut reader).await {
        match channel {
            Channel::Stdin => {
                let outcome = match (&mut input, &terminal) {
                    (Some(pipe), _) => pipe.write_all(&bytes).await,
                    (None, Some(terminal)) => write_terminal(terminal, &bytes).await,
                    (None, None) => Ok(()),
                };
                if outcome.is_err() {
                    input = None;
                }
            }
            Channel::CloseStdin => {
                input = None;
                if let Some(terminal) = &terminal {
                    drop(write_terminal(terminal, &[4]).await);
                }
            }
            Channel::Resize => {
                if let (Some(terminal), Ok(size)) =
                    (&terminal, serde_json::from_slice::<TerminalSize>(&bytes))
                {
                    drop(Terminal::resize(terminal.get_ref(), size.width, size.height));
                }
            }
            _ => {}
        }
    }
}

pub(super) async fn attach(shim: &Rc<Shim>, mut stream: UnixStream, container: &str, stdin: bool) {
    let Some(live) = live(shim, container) else {
        return refuse(stream, format!("container {container} is not running")).await;
    };
    let mut output = live.output.subscribe();
    if wire::send(&mut stream, &Reply::Opened).await.is_err() {
        return;
    }
    let (mut reader, writer) = stream.into_split();
    let (queue, outbox) = mpsc::channel(BACKLOG);
    let sending = tokio::task::spawn_local(pump(writer, outbox));
    let feeder = live.clone();
    let feeding = tokio::task::spawn_local(async move {
        while let Ok(Some((channel, bytes))) = wire::receive_chunk(&mut reader).await {
            match channel {
                Channel::Stdin if stdin => drop(feeder.feed(&bytes).await),
                Channel::CloseStdin if stdin && feeder.stdin_once => feeder.close_input(),
                Channel::Resize => {
                    if let Ok(size) = serde_json::from_slice::<TerminalSize>(&bytes) {
                        feeder.resize(size.width, size.height);
                    }
                }
                _ => {}
            }
        }
        if stdin && feeder.stdin_once {
            feeder.close_input();
        }
    });
    let ended = live.clone();
    loop {
        tokio::select! {
            chunk = output.recv() => match chunk {
                Ok((channel, bytes)) => {
                    if queue.send((channel, bytes.to_vec())).await.is_err() {
                        break;
                    }
                }
                // A client that reads too slowly misses some; the log has it all.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
            },
            () = ended.wait_end() => break,
            () = queue.closed() => break,
        }
    }
    while let Ok((channel, bytes)) = output.try_recv() {
        drop(queue.send((channel, bytes.to_vec())).await);
    }
    let end = StreamEnd {
        exit_code: 0,
        error: None,
    };
    if let Ok(text) = serde_json::to_vec(&end) {
        drop(queue.send((Channel::End, text)).await);
    }
    feeding.abort();
    drop(queue);
    drop(sending.await);
}
