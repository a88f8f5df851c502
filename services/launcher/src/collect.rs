//! `launcher collect-metrics`: a Katib trial's command under its metrics collector.
//!
//! What the command prints passes through unchanged and is read on the way; metrics are reported while it runs, and the
//! launcher ends, with the command's exit code, when the last of them has arrived. A server that is away for a while (it is
//! restarted, say) is waited for, so a trial that ends meanwhile loses nothing.

mod parse;
mod report;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ferroflow_api::step::StepTrace;
use ferroflow_telemetry::LiveSpan;

use crate::child;
use crate::trace::Trace;
use parse::Lines;
pub use parse::{Format, Metric, Parser};
use report::Reporter;

const USAGE: &str = "usage: launcher collect-metrics --trial NAME --metrics OBJECTIVE[;OTHER..] --db-manager HOST:PORT \
[--type StdOut|File] [--path FILE] [--format TEXT|JSON] [--filter REGEX].. [--objective-type minimize|maximize] \
[--traceparent ID --otlp-endpoint URL] -- COMMAND ..";
/// How often a file of metrics is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long output is waited for that a process outside the command's group still holds.
const DRAIN: Duration = Duration::from_secs(2);

/// What the command line says.
#[derive(Debug, Default, PartialEq)]
struct Options {
    trial: String,
    metrics: Vec<String>,
    db_manager: String,
    file: Option<PathBuf>,
    format: Format,
    filters: Vec<String>,
    trace: Option<StepTrace>,
    command: Vec<String>,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut kind = "StdOut".to_owned();
    let (mut traceparent, mut endpoint) = (None, None);
    while let Some(flag) = args.next() {
        if flag == "--" {
            options.command = args.collect();
            break;
        }
        let value = args.next().ok_or_else(|| format!("{flag} has no value"))?;
        match flag.as_str() {
            "--trial" => options.trial = value,
            "--metrics" => {
                options.metrics = value
                    .split(';')
                    .filter(|m| !m.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            "--db-manager" => options.db_manager = value,
            "--type" => kind = value,
            "--path" => options.file = Some(PathBuf::from(value)),
            "--format" => {
                options.format = match value.as_str() {
                    "TEXT" => Format::Text,
                    "JSON" => Format::Json,
                    other => return Err(format!("--format {other:?} is neither TEXT nor JSON")),
                }
            }
            "--filter" => options.filters.push(value),
            "--traceparent" => traceparent = Some(value),
            "--otlp-endpoint" => endpoint = Some(value),
            // early stopping will want to know it
            "--objective-type" => {}
            other => return Err(format!("unknown flag {other:?}")),
        }
    }
    if let (Some(traceparent), Some(endpoint)) = (traceparent, endpoint) {
        options.trace = Some(StepTrace {
            traceparent,
            tracestate: String::new(),
            endpoint,
        });
    }
    match kind.as_str() {
        "StdOut" => options.file = None,
        "File" if options.file.is_some() => {}
        "File" => return Err("--type File needs --path".to_owned()),
        other => return Err(format!("--type {other:?} is neither StdOut nor File")),
    }
    for (flag, missing) in [
        ("--trial", options.trial.is_empty()),
        ("--metrics", options.metrics.is_empty()),
        ("--db-manager", options.db_manager.is_empty()),
        ("-- COMMAND", options.command.is_empty()),
    ] {
        if missing {
            return Err(format!("{flag} is missing"));
        }
    }
    Ok(options)
}

/// Runs the command. The exit code is the command's, 127 when it cannot be started, 125 when its metrics cannot be reported.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let options = match options(args) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("launcher: {error}\n{USAGE}");
            return ExitCode::from(125);
        }
    };
    let trace = Trace::new(options.trace.as_ref());
    let ran = {
        let mut span = trace.root("launcher collect-metrics");
        span.set("ferroflow.trial", options.trial.clone());
        let ran = run(options, &trace, &span);
        match &ran {
            Ok(0) => {}
            Ok(code) => span.fail(&format!("exit code {code}")),
            Err(error) => span.fail(&error.text),
        }
        ran
    };
    trace.send();
    match ran {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)),
        Err(error) => {
            eprintln!("launcher: {error}");
            ExitCode::from(error.code)
        }
    }
}

#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn failure(code: u8) -> impl Fn(String) -> Failure {
    move |text| Failure { code, text }
}

fn run(options: Options, trace: &Trace, span: &LiveSpan) -> Result<i32, Failure> {
    let internal = failure(125);
    let parser = Parser::new(&options.metrics, &options.filters, options.format).map_err(&internal)?;
    let parser = Arc::new(parser);
    let reporter = Reporter::start(&options.db_manager, &options.trial, span.place());
    child::hand_signals_on().map_err(|e| internal(format!("signals: {e}")))?;
    let Some((program, arguments)) = options.command.split_first() else {
        return Err(internal("there is no command".to_owned()));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        // Python keeps what it prints to a pipe for long
        command.env("PYTHONUNBUFFERED", "1");
    }
    let mut running = span.place().child("command");
    trace.hand_on(&running, &mut command);
    let sink = Arc::new(Sink {
        reporter,
        seen: Mutex::default(),
        objective: options.metrics[0].clone(),
    });
    let started = |error: io::Error| Failure {
        code: 127,
        text: format!("{program}: {error}"),
    };
    let ended = match options.file {
        None => {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let (ended, pipes) = child::run_with(command, |child| {
                let stdout = child
                    .stdout
                    .take()
                    .map(|pipe| copy(pipe, io::stdout(), parser.clone(), sink.clone()));
                let stderr = child
                    .stderr
                    .take()
                    .map(|pipe| copy(pipe, io::stderr(), parser.clone(), sink.clone()));
                [stdout, stderr]
            })
            .map_err(started)?;
            for pipe in pipes.into_iter().flatten() {
                let _held = pipe.recv_timeout(DRAIN);
            }
            ended
        }
        Some(path) => {
            let over = Arc::new(AtomicBool::new(false));
            let follower = follow(path, parser, sink.clone(), over.clone());
            let result = child::run_with(command, |_| ());
            over.store(true, Ordering::Release);
            let _panicked = follower.join();
            result.map_err(started)?.0
        }
    };
    running.set("process.exit.code", i64::from(ended));
    drop(running);
    if ended == 0 && !sink.has_objective() {
        eprintln!(
            "launcher: the command has not reported the objective metric {:?}",
            sink.objective
        );
        sink.reporter.add(Metric::unavailable(&sink.objective));
    }
    sink.reporter.finish().map_err(|error| {
        internal(format!(
            "metrics of trial {} could not be reported to {}: {error}",
            options.trial, options.db_manager
        ))
    })?;
    Ok(ended)
}

/// Where metrics go.
struct Sink {
    reporter: Reporter,
    seen: Mutex<bool>,
    objective: String,
}

impl Sink {
    fn take(&self, metrics: Vec<Metric>) {
        for metric in metrics {
            if metric.name == self.objective {
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = true;
            }
            self.reporter.add(metric);
        }
    }

    fn has_objective(&self) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a pipe to an output of ours and reads metrics on the way. The receiver hears when the pipe has ended.
fn copy(
    mut pipe: impl io::Read + Send + 'static,
    mut output: impl io::Write + Send + 'static,
    parser: Arc<Parser>,
    sink: Arc<Sink>,
) -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut lines = Lines::default();
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    // nobody may be reading our output any more; the command goes on all the same
                    let _gone = output.write_all(&buffer[..read]);
                    let _gone = output.flush();
                    lines.push(&buffer[..read], |line| sink.take(parser.line(line)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines.end(|line| sink.take(parser.line(line)));
        let _gone = sender.send(());
    });
    receiver
}

/// Reads metrics from a file as it grows, until the command is over and the file read to its end. A file that becomes
/// shorter is read from its start.
fn follow(path: PathBuf, parser: Arc<Parser>, sink: Arc<Sink>, over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = Lines::default();
        let mut at = 0;
        loop {
            let last = over.load(Ordering::Acquire);
            if let Ok(mut file) = File::open(&path) {
                let length = file.metadata().map_or(0, |m| m.len());
                if length < at {
                    at = 0;
                    lines = Lines::default();
                }
                if length > at && file.seek(SeekFrom::Start(at)).is_ok() {
                    let mut buffer = vec![0_u8; 64 * 1024];
                    while let Ok(read @ 1..) = file.read(&mut buffer) {
                        at += read as u64;
                        lines.push(&buffer[..read], |line| sink.take(parser.line(line)));
                    }
                }
            }
            if last {
                lines.end(|line| sink.take(parser.line(line)));
                return;
            }
            std::thread::sleep(LOOK);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        options(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn the_command_line_is_read_and_checked() {
        let good = parse("--trial t --metrics loss;acc --db-manager db:1 --type File --path /m --format JSON -- python -u x").unwrap();
        assert_eq!(good.metrics, ["loss", "acc"]);
        assert_eq!(
            (good.format, good.file),
            (Format::Json, Some(PathBuf::from("/m")))
        );
        assert_eq!(good.command, ["python", "-u", "x"]);
        assert_eq!(good.trace, None);
        let traced =
            parse("--trial t --metrics m --db-manager d --traceparent p --otlp-endpoint http://c -- x");
        assert_eq!(traced.unwrap().trace.unwrap().endpoint, "http://c");
        for (line, text) in [
            ("--trial t --metrics m --db-manager d", "-- COMMAND is missing"),
            ("--metrics m --db-manager d -- x", "--trial is missing"),
            ("--speed", "--speed has no value"),
            ("--type Tape -- x", "--type \"Tape\" is neither StdOut nor File"),
            ("--type File -- x", "--type File needs --path"),
            ("--speed 1 -- x", "unknown flag \"--speed\""),
        ] {
            assert_eq!(parse(line).unwrap_err(), text);
        }
    }
}
