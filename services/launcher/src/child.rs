//! The user's command: in a process group of its own, with signals handed on and the end of its error output kept.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// How much of the error output is kept for the outcome.
const TAIL: usize = 4096;

/// Process group of the command; 0 while there is none. Signal handlers can read nothing but atomics.
static GROUP: AtomicI32 = AtomicI32::new(0);
/// The last signal that came before the command ran; 0 for none.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// Why it failed, for people; none when the code is 0.
    pub message: Option<String>,
}

extern "C" fn hand_on(signal: i32) {
    let group = GROUP.load(Ordering::Relaxed);
    if group > 0 {
        // SAFETY: kill is async-signal-safe and takes no pointers.
        unsafe { libc::kill(-group, signal) };
    } else {
        EARLY.store(signal, Ordering::Relaxed);
    }
}

/// From now on, signals that ask this process to end go to the command's process group instead.
///
/// # Errors
/// What the system says.
pub fn hand_signals_on() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(hand_on), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        // SAFETY: the handler only touches atomics and calls kill.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether a signal to end came before there was a command.
pub fn was_asked_to_end() -> bool {
    EARLY.load(Ordering::Relaxed) != 0
}

/// Runs the command to its end. What it leaves behind in its process group is killed.
///
/// # Errors
/// If it cannot be started.
pub fn run(mut command: Command) -> io::Result<Ended> {
    command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    let group = i32::try_from(child.id()).unwrap_or(0);
    GROUP.store(group, Ordering::Relaxed);
    let tail = watch_errors(&mut child);
    let status = child.wait()?;
    GROUP.store(0, Ordering::Relaxed);
    if group > 0 {
        // SAFETY: kill takes no pointers; the group is the child's own, made above.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    // A process that left the group may keep the pipe open for ever: what was read so far is enough then.
    let tail = tail.recv_timeout(Duration::from_millis(500)).unwrap_or_default();
    Ok(ended(status, &tail))
}

/// Runs the command to its end; what it prints is the caller's to read, through the pipes that `watch` takes. Answers its exit
/// code (128 + n when signal n ended it) and what `watch` answered. What it leaves behind in its process group is killed.
///
/// # Errors
/// If it cannot be started.
pub fn run_with<T>(mut command: Command, watch: impl FnOnce(&mut Child) -> T) -> io::Result<(i32, T)> {
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let group = i32::try_from(child.id()).unwrap_or(0);
    GROUP.store(group, Ordering::Relaxed);
    let watched = watch(&mut child);
    let status = child.wait()?;
    GROUP.store(0, Ordering::Relaxed);
    if group > 0 {
        // SAFETY: kill takes no pointers; the group is the child's own, made above.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
    Ok((ended(status, "").code, watched))
}

/// Copies the command's error output to ours, and gives its end once it is over.
fn watch_errors(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = child.stderr.take() {
        std::thread::spawn(move || {
            let mut tail: VecDeque<u8> = VecDeque::with_capacity(TAIL * 2);
            let mut buffer = vec![0_u8; 64 * 1024];
            let mut ours = io::stderr();
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => {
                        // Nobody may be reading our output any more; the command goes on all the same.
                        let _gone = ours.write_all(&buffer[..read]);
                        let fresh = &buffer[read.saturating_sub(TAIL)..read];
                        tail.extend(fresh);
                        let excess = tail.len().saturating_sub(TAIL);
                        tail.drain(..excess);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            let bytes: Vec<u8> = tail.into();
            let _gone = sender.send(String::from_utf8_lossy(&bytes).into_owned());
        });
    }
    receiver
}

fn ended(status: ExitStatus, errors: &str) -> Ended {
    let (code, what) = match (status.code(), status.signal()) {
        (Some(0), _) => {
            return Ended {
                code: 0,
                message: None,
            };
        }
        (Some(code), _) => (code, format!("exit code {code}")),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            (128 + number, format!("ended by signal {number} ({name})"))
        }
        (None, None) => (1, "ended in an unknown way".to_owned()),
    };
    // The last line of a Python traceback is the error itself.
    let last = errors.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let message = match last {
        Some(line) => format!("{what}: {}", line.chars().take(500).collect::<String>()),
        None => what,
    };
    Ended {
        code,
        message: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command).unwrap()
    }

    #[test]
    fn exit_codes_signals_and_the_last_error_line_are_told() {
        assert_eq!(
            sh("true"),
            Ended {
                code: 0,
                message: None
            }
        );
        assert_eq!(
            sh("echo first >&2; echo 'ValueError: no' >&2; exit 3"),
            Ended {
                code: 3,
                message: Some("exit code 3: ValueError: no".into())
            }
        );
        assert_eq!(
            sh("kill -SEGV $$"),
            Ended {
                code: 139,
                message: Some("ended by signal 11 (SIGSEGV)".into())
            }
        );
    }

    #[test]
    fn a_child_that_outlives_the_command_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let before = std::time::Instant::now();
        assert_eq!(
            sh(&format!("sleep 300 & echo $! > {}; exit 0", file.display())).code,
            0
        );
        assert!(before.elapsed() < Duration::from_secs(30));
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            // An orphan that was killed may wait as a zombie for whoever adopts it.
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| ") Z".into());
            if state.rsplit(')').next().unwrap().trim().starts_with('Z') {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "the child still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_the_end_of_much_output_is_kept() {
        let ended = sh("head -c 50000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo last >&2; exit 1");
        assert_eq!(ended.message.unwrap(), "exit code 1: last");
    }
}
