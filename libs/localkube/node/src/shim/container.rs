//! One run of one container: start, streams, end.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, broadcast};

use super::logs::LogFile;
use super::pod::Shim;
use super::{hooks, mapping, probes};
use crate::os::{self, Command, Group, Joined, LaunchError, Launched, Space, Stdio, Terminal, WaitStatus};
use crate::plan::ContainerSpec;
use crate::policy;
use crate::state::{Exit, Status};
use crate::wire::Channel;

/// Bytes of a termination message that Kubernetes keeps.
const MESSAGE_LIMIT: usize = 4096;
/// Lines and bytes taken from the log instead, with FallbackToLogsOnError.
const FALLBACK_LINES: usize = 80;
const FALLBACK_BYTES: usize = 2048;
/// Chunks an attached client may lag behind.
const ATTACH_BACKLOG: usize = 256;

/// A running container, for those who signal, enter or attach to it.
pub(super) struct Live {
    pub joined: Joined,
    pub env: Vec<(String, String)>,
    pub working_dir: PathBuf,
    pub output: broadcast::Sender<(Channel, Bytes)>,
    pub input: RefCell<Option<Input>>,
    pub stdin_once: bool,
    main: Option<OwnedFd>,
    hard_stop: Cell<Option<Timestamp>>,
    changed: Notify,
    ended: Cell<bool>,
}

/// Where an attached client's input goes.
pub(super) enum Input {
    Pipe(pipe::Sender),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

impl Live {
    /// To the command itself; what it started is its own affair, until the hard signal.
    pub fn signal(&self, signal: i32) {
        let process = self.main.as_ref().unwrap_or(&self.joined.init);
        if let Err(error) = os::send_signal(process, signal) {
            eprintln!("shim: cannot send signal {signal}: {error}");
        }
    }

    /// Ends the first process, and by that every process of the container.
    pub fn kill(&self) {
        if !self.joined.isolation.pids {
            // Without a PID namespace the first process must live to end the orphans.
            self.signal(libc::SIGKILL);
            return;
        }
        if let Err(error) = os::send_signal(&self.joined.init, libc::SIGKILL) {
            eprintln!("shim: cannot kill: {error}");
        }
    }

    pub fn stop_by(&self, deadline: Timestamp) {
        if self.hard_stop.get().is_none_or(|old| deadline < old) {
            self.hard_stop.set(Some(deadline));
            self.changed.notify_waiters();
        }
    }

    pub fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Returns when the container has ended, or its deadline has passed and it was killed.
    pub async fn kill_at_deadline(&self) {
        loop {
            let changed = self.changed.notified();
            if self.ended.get() {
                return;
            }
            let Some(deadline) = self.hard_stop.get() else {
                return;
            };
            let left = deadline.duration_since(Timestamp::now());
            if !left.is_positive() {
                self.kill();
                return;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(left.unsigned_abs()) => {}
            }
        }
    }

    pub async fn wait_end(&self) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        while !self.ended.get() {
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    fn end(&self) {
        self.ended.set(true);
        self.changed.notify_waiters();
    }
}

/// The files of one run.
struct Paths {
    scratch: PathBuf,
    log: PathBuf,
    message: PathBuf,
}

/// The log of a container's n-th run, inside its Pod's folder.
pub fn log_path(folder: &Path, container: &str, restart: u32) -> PathBuf {
    folder.join("logs").join(container).join(format!("{restart}.log"))
}

struct Started {
    launched: AsyncFd<OwnedFd>,
    wait: Launched,
    live: Rc<Live>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

pub(super) async fn run(shim: Rc<Shim>, index: usize) {
    let name = shim.plan.containers[index].name.clone();
    let restart = shim.state().containers[index].restarts;
    let id = format!("shim://{}-{name}-{restart}", shim.plan.identity.uid);
    let paths = Paths {
        scratch: shim.folder.join("roots").join(format!("{name}-{restart}")),
        log: log_path(&shim.folder, &name, restart),
        message: shim.folder.join("messages").join(format!("{name}-{restart}")),
    };
    let spec = shim.specs.borrow().get(&name).cloned();
    let Some(mut spec) = spec else { return };
    if !shim.plan.isolation.mounts {
        spec = mapping::without_mounts(spec);
        // The container sees the file under its real name.
        spec.env.push((
            "TERMINATION_MESSAGE_PATH".to_owned(),
            paths.message.display().to_string(),
        ));
    }
    let group = make_group(&shim, index, restart);
    let kills_before = oom_kills(group.as_deref());
    let began = Timestamp::now();
    let exit = match start(&shim, &spec, &paths, group.clone()).await {
        Ok(started) => {
            let at = Timestamp::now();
            let pid = started.wait.init_pid;
            shim.live.borrow_mut().insert(index, started.live.clone());
            let stopping = shim.state().containers[index].stopping;
            shim.update(|state| {
                let container = &mut state.containers[index];
                container.status = Status::Running { at, pid };
                container.id.clone_from(&id);
            });
            shim.occurred(index, false, "Started", format!("Started container {name}"));
            if let Some(deadline) = shim
                .state()
                .terminating
                .as_ref()
                .map(|t| t.deadline)
                .filter(|_| stopping)
            {
                tokio::task::spawn_local(hooks::stop(shim.clone(), index, started.live.clone(), deadline));
            } else {
                tokio::task::spawn_local(probes::watch(shim.clone(), index, started.live.clone()));
            }
            let live = started.live.clone();
            let status = end(started).await;
            live.end();
            let (code, signal) = match status {
                WaitStatus::Exited(code) => (code, None),
                WaitStatus::Signaled(signal) => (128 + signal, Some(signal)),
            };
            // A group tells of its own processes, any of which may be the cause; the machine's count may be of others.
            let suspect = group.is_some()
                || (signal == Some(libc::SIGKILL) && !shim.state().containers[index].stopping);
            let memory = suspect && oom_kills(group.as_deref()) > kills_before;
            let reason = match code {
                0 => "Completed",
                _ if memory => "OOMKilled",
                _ => "Error",
            };
            let from_logs = shim.plan.containers[index].termination_message_from_logs && code != 0;
            Exit {
                container: name.clone(),
                restart,
                code,
                signal,
                reason: reason.to_owned(),
                message: last_words(&paths, from_logs),
                started_at: at,
                finished_at: Timestamp::now(),
                id,
            }
        }
        Err(error) => {
            shim.occurred(index, true, "Failed", format!("Error: {error}"));
            Exit {
                container: name.clone(),
                restart,
                code: error.exit_code(),
                signal: None,
                reason: "StartError".to_owned(),
                message: error.to_string(),
                started_at: began,
                finished_at: Timestamp::now(),
                id,
            }
        }
    };
    if let Err(error) = shim.records.borrow_mut().exit(&exit) {
        eprintln!("shim: cannot store an exit record: {error}");
    }
    if let Some(group) = group {
        // Before the end is told: a shim whose Pod is over may be gone at any time after.
        drop(tokio::task::spawn_blocking(move || group.remove()).await);
    }
    settle(&shim, index, exit);
    remove_leftovers(&shim, &paths, &name, restart).await;
}

/// The group of this run. Where it cannot be made, the container runs all the same, and its Pod's events say so.
fn make_group(shim: &Shim, index: usize, restart: u32) -> Option<Arc<Group>> {
    let plan = &shim.plan.containers[index];
    let name = os::group_name(&shim.plan.identity.uid, &plan.name, Some(restart));
    match Group::create(&shim.plan.cgroups, &name, &plan.resources) {
        Ok(group) => group.map(Arc::new),
        Err(error) => {
            eprintln!("shim: no cgroup for container {}: {error}", plan.name);
            if plan.resources.limits() {
                let message = format!("The limits of container {} are not held: {error}", plan.name);
                shim.occurred(index, true, "LimitsNotHeld", message);
            }
            None
        }
    }
}

/// Processes that were killed for memory: of the group, or of the whole machine where there is none.
fn oom_kills(group: Option<&Group>) -> u64 {
    group.map_or_else(os::oom_kills, Group::oom_kills)
}

/// Tells of an end that is on record.
fn settle(shim: &Rc<Shim>, index: usize, exit: Exit) {
    shim.live.borrow_mut().remove(&index);
    let again = policy::will_restart(
        shim.plan.restart_policy,
        shim.plan.containers[index].role,
        exit.code,
    );
    shim.update(|state| {
        let container = &mut state.containers[index];
        container.crashes = policy::crashes_after(container.crashes, exit.started_at, exit.finished_at);
        container.status = Status::Exited(exit);
        container.ready = false;
        container.started = false;
    });
    let waits =
        policy::delay_after(shim.state().containers[index].crashes) > 0 && shim.state().terminating.is_none();
    if again && waits {
        let identity = &shim.plan.identity;
        let name = &shim.plan.containers[index].name;
        let message = format!(
            "Back-off restarting failed container {name} in pod {}_{}({})",
            identity.name, identity.namespace, identity.uid
        );
        shim.occurred(index, true, "BackOff", message);
    }
}

async fn remove_leftovers(shim: &Shim, paths: &Paths, name: &str, restart: u32) {
    let scratch = paths.scratch.clone();
    // The log before the previous one is not reachable by any request.
    let stale = restart
        .checked_sub(2)
        .map(|old| log_path(&shim.folder, name, old));
    let files = shim.plan.logs.files;
    drop(
        tokio::task::spawn_blocking(move || {
            drop(os::remove_scratch(&scratch));
            if let Some(stale) = stale {
                drop(fs::remove_file(&stale));
                for number in 1..files {
                    drop(fs::remove_file(super::logs::rotated(&stale, number)));
                }
            }
        })
        .await,
    );
}

async fn start(
    shim: &Rc<Shim>,
    spec: &ContainerSpec,
    paths: &Paths,
    group: Option<Arc<Group>>,
) -> Result<Started, LaunchError> {
    let io = |stage: &'static str| move |error: io::Error| LaunchError::stage(stage, error);
    let isolation = shim.plan.isolation.clone();
    fs::create_dir_all(&paths.scratch).map_err(io("container folder"))?;
    if let Some(parent) = paths.message.parent() {
        fs::create_dir_all(parent).map_err(io("termination message"))?;
    }
    fs::write(&paths.message, b"").map_err(io("termination message"))?;
    let log = LogFile::create(paths.log.clone(), shim.plan.logs).map_err(io("log file"))?;
    let log = Rc::new(RefCell::new(log));

    let mut mounts = spec.mounts.clone();
    mounts.push(crate::plan::Mount {
        source: paths.message.clone(),
        target: spec.termination_message_path.clone(),
        read_only: false,
    });
    let root = os::plan_root(
        &isolation,
        &paths.scratch,
        &mounts,
        &spec.working_dir,
        &shim.plan.hostname,
    )?;
    let (output, _) = broadcast::channel(ATTACH_BACKLOG);
    let streams = Streams::open(spec).map_err(io("standard streams"))?;
    let command = Command {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        working_dir: spec.working_dir.clone(),
        stdio: streams.stdio,
        space: Space::New {
            isolation: isolation.clone(),
            root,
            group: group.clone(),
        },
    };
    let mut launched = shim.spawner.launch(command).await?;
    let init = launched.init.try_clone().map_err(io("clone a descriptor"))?;
    let joined = Joined {
        init: Arc::new(init),
        isolation,
        group,
    };
    let live = Rc::new(Live {
        joined,
        env: spec.env.clone(),
        working_dir: spec.working_dir.clone(),
        output: output.clone(),
        input: RefCell::new(streams.input),
        stdin_once: spec.stdin_once,
        main: launched.main.take(),
        hard_stop: Cell::new(None),
        changed: Notify::new(),
        ended: Cell::new(false),
    });
    let mut readers = Vec::new();
    for (channel, source) in streams.outputs {
        readers.push(tokio::task::spawn_local(copy(
            source,
            channel,
            log.clone(),
            output.clone(),
        )));
    }
    let readable = launched
        .init
        .try_clone()
        .and_then(readiness)
        .map_err(io("watch the process"))?;
    Ok(Started {
        launched: readable,
        wait: launched,
        live,
        readers,
    })
}

/// Waits for the last process, then for the last line.
async fn end(started: Started) -> WaitStatus {
    let status = match started.launched.readable().await {
        Ok(_) => started.wait.wait(),
        Err(error) => Err(error),
    };
    for reader in started.readers {
        // Every writer is dead; a descriptor that escaped to another Pod must not hold this one.
        drop(tokio::time::timeout(Duration::from_millis(500), reader).await);
    }
    status.unwrap_or_else(|error| {
        eprintln!("shim: cannot learn how a container ended: {error}");
        WaitStatus::Signaled(libc::SIGKILL)
    })
}

fn last_words(paths: &Paths, from_logs: bool) -> String {
    let mut text = fs::read(&paths.message).unwrap_or_default();
    text.truncate(MESSAGE_LIMIT);
    if text.is_empty() && from_logs {
        let log = fs::read(&paths.log).unwrap_or_default();
        let lines: Vec<&[u8]> = log
            .split(|byte| *byte == b'\n')
            .filter_map(super::parse_entry)
            .map(|entry| entry.text)
            .collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(FALLBACK_LINES));
        for line in tail {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        let extra = text.len().saturating_sub(FALLBACK_BYTES);
        text.drain(..extra);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A source of output.
enum Output {
    Pipe(pipe::Receiver),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

struct Streams {
    stdio: Stdio,
    outputs: Vec<(Channel, Output)>,
    input: Option<Input>,
}

impl Streams {
    fn open(spec: &ContainerSpec) -> io::Result<Self> {
        if spec.tty {
            let terminal = Terminal::open()?;
            let controller = Rc::new(readiness(nonblocking(terminal.controller)?)?);
            let stdio = Stdio {
                stdin: terminal.user.try_clone()?,
                stdout: terminal.user.try_clone()?,
                stderr: terminal.user,
                terminal: true,
            };
            let input = spec.stdin.then(|| Input::Terminal(controller.clone()));
            return Ok(Self {
                stdio,
                outputs: vec![(Channel::Stdout, Output::Terminal(controller))],
                input,
            });
        }
        let (stdin, input) = if spec.stdin {
            let (sender, receiver) = pipe::pipe()?;
            (receiver.into_blocking_fd()?, Some(Input::Pipe(sender)))
        } else {
            (OwnedFd::from(fs::File::open("/dev/null")?), None)
        };
        let (stdout_writer, stdout) = pipe::pipe()?;
        let (stderr_writer, stderr) = pipe::pipe()?;
        let stdio = Stdio {
            stdin,
            stdout: stdout_writer.into_blocking_fd()?,
            stderr: stderr_writer.into_blocking_fd()?,
            terminal: false,
        };
        let outputs = vec![
            (Channel::Stdout, Output::Pipe(stdout)),
            (Channel::Stderr, Output::Pipe(stderr)),
        ];
        Ok(Self {
            stdio,
            outputs,
            input,
        })
    }
}

/// Lets the runtime tell when a descriptor is ready.
pub(super) fn readiness(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the result, so it stays open and itself for as long as it is registered.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

pub(super) fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(io::Error::from)?;
    fcntl(
        &fd,
        FcntlArg::F_SETFL(OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK),
    )
    .map_err(io::Error::from)?;
    Ok(fd)
}

/// Reads a terminal; its end is an error to the kernel, not to us.
pub(super) async fn read_terminal(terminal: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = terminal.readable().await?;
        let outcome =
            ready.try_io(|inner| nix::unistd::read(inner.get_ref(), buffer).map_err(io::Error::from));
        match outcome {
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(0),
            Ok(result) => return result,
            Err(_) => {}
        }
    }
}

pub(super) async fn write_terminal(terminal: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = terminal.writable().await?;
        if let Ok(result) =
            ready.try_io(|inner| nix::unistd::write(inner.get_ref(), bytes).map_err(io::Error::from))
        {
            bytes = &bytes[result?..];
        }
    }
    Ok(())
}

impl Live {
    /// Input from an attached client.
    pub async fn feed(&self, bytes: &[u8]) -> io::Result<()> {
        // Taken out while it is awaited; a second client's bytes meanwhile are dropped.
        let Some(mut input) = self.input.borrow_mut().take() else {
            return Ok(());
        };
        let outcome = match &mut input {
            Input::Pipe(sender) => sender.write_all(bytes).await,
            Input::Terminal(terminal) => write_terminal(terminal, bytes).await,
        };
        *self.input.borrow_mut() = Some(input);
        outcome
    }

    pub fn resize(&self, width: u16, height: u16) {
        if let Some(Input::Terminal(terminal)) = &*self.input.borrow() {
            drop(Terminal::resize(terminal.get_ref(), width, height));
        }
    }

    pub fn close_input(&self) {
        self.input.borrow_mut().take();
    }
}

async fn copy(
    mut source: Output,
    channel: Channel,
    log: Rc<RefCell<LogFile>>,
    attached: broadcast::Sender<(Channel, Bytes)>,
) {
    let stream = if channel == Channel::Stderr {
        "stderr"
    } else {
        "stdout"
    };
    let mut buffer = vec![0; 64 << 10];
    let mut pending = Vec::new();
    loop {
        let count = match &mut source {
            Output::Pipe(pipe) => pipe.read(&mut buffer).await,
            Output::Terminal(terminal) => read_terminal(terminal, &mut buffer).await,
        };
        let Ok(count) = count else { break };
        if count == 0 {
            break;
        }
        log.borrow_mut().append(stream, &mut pending, &buffer[..count]);
        if attached.receiver_count() > 0 {
            drop(attached.send((channel, Bytes::copy_from_slice(&buffer[..count]))));
        }
    }
    log.borrow_mut().finish(stream, &mut pending);
}
