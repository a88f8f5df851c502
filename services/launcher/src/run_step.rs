//! `launcher run-step`: one attempt of a pipeline task.
//!
//! 1. fetches the input artifacts to where the SDK expects them
//! 2. runs the command
//! 3. stores the output artifacts
//! 4. creates `outcome.json`, once: that object is the result of the attempt
//! 5. tells the scheduler that it is there; should that message be lost, the scheduler sees the Pod end

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferroflow_api::step::{
    ENV_ARTIFACTS_URL, ENV_HINT_URL, ENV_TOKEN, Outcome, OutcomeArtifact, OutcomeState, Step,
};
use ferroflow_telemetry::LiveSpan;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::child::{self, Ended};
use crate::http::{Body, Client, Url};
use crate::outputs::{self, Produced};
use crate::store::{self, Store, StoreError, Stored};
use crate::trace::Trace;

/// Exit code when the launcher itself failed.
const LAUNCHER_FAILED: u8 = 125;
/// The kernel takes no longer argument.
const LONGEST_ARGUMENT: usize = 128 * 1024;
/// Files of a folder are stored so many at a time.
const SIDE_BY_SIDE: usize = 8;

/// Runs the subcommand.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let attempted = read_step(args).and_then(|step| {
        let trace = Trace::new(step.trace.as_ref());
        let attempted = attempt(&step, &trace);
        // the outcome is known to all by now
        trace.send();
        attempted
    });
    match attempted {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("launcher: {error}");
            ExitCode::from(LAUNCHER_FAILED)
        }
    }
}

/// The step comes in pieces, since the kernel limits the length of one argument.
fn read_step(mut args: impl Iterator<Item = String>) -> Result<Step, String> {
    let mut text = String::new();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--step", Some(piece)) => text.push_str(&piece),
            (other, _) => return Err(format!("unknown argument {other:?}; run-step takes --step JSON")),
        }
    }
    serde_json::from_str(&text).map_err(|error| format!("--step: {error}"))
}

fn attempt(step: &Step, trace: &Trace) -> Result<u8, String> {
    let mut span = trace.root("launcher run-step");
    span.set("ferroflow.run.id", step.run_id.clone());
    span.set("ferroflow.task", step.task.clone());
    span.set("ferroflow.attempt", i64::from(step.attempt));
    let attempted = traced_attempt(step, trace, &mut span);
    if let Err(error) = &attempted {
        span.fail(error);
    }
    attempted
}

fn traced_attempt(step: &Step, trace: &Trace, span: &mut LiveSpan) -> Result<u8, String> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("environment variable {name} is not set"));
    child::hand_signals_on().map_err(|error| format!("handling signals: {error}"))?;
    let mut store =
        Store::new(&variable(ENV_ARTIFACTS_URL)?, &variable(ENV_TOKEN)?).map_err(|e| e.to_string())?;
    let started = Timestamp::now();
    let (code, result) = work(step, &mut store, trace, span);
    let outcome = outcome(step, started, code, result);
    if let Some(message) = &outcome.message {
        eprintln!("launcher: {message}");
        span.fail(message);
    }
    store.trace(span.place());
    let text = serde_json::to_vec(&outcome).map_err(|error| error.to_string())?;
    let created = store
        .create(&step.outcome_uri, &text)
        .map_err(|error| error.to_string())?;
    if !created {
        eprintln!(
            "launcher: {} exists already; it stays the result",
            step.outcome_uri
        );
    }
    hint(span);
    Ok(match (outcome.state, code) {
        (OutcomeState::Succeeded, _) => 0,
        (OutcomeState::Failed, Some(code)) if code != 0 => u8::try_from(code).unwrap_or(1),
        (OutcomeState::Failed, _) => LAUNCHER_FAILED,
    })
}

type Outputs = (BTreeMap<String, Value>, BTreeMap<String, Vec<OutcomeArtifact>>);

/// Exit code of the command, if it ran, and the outputs or why there are none.
fn work(
    step: &Step,
    store: &mut Store,
    trace: &Trace,
    span: &LiveSpan,
) -> (Option<i32>, Result<Outputs, String>) {
    let fetched = {
        let fetching = span.place().child("fetch inputs");
        store.trace(fetching.place());
        fetch_inputs(step, store).and_then(|()| prepare(step))
    };
    if let Err(error) = fetched {
        return (None, Err(error));
    }
    if child::was_asked_to_end() {
        return (None, Err("ended before the command was started".to_owned()));
    }
    let mut running = span.place().child("command");
    let ended = match command(step).and_then(|(mut command, program)| {
        trace.hand_on(&running, &mut command);
        running.set("process.executable.name", program.clone());
        child::run(command).map_err(|error| format!("{program:?} cannot be started: {error}"))
    }) {
        Ok(ended) => ended,
        Err(error) => {
            running.fail(&error);
            return (None, Err(error));
        }
    };
    running.set("process.exit.code", i64::from(ended.code));
    if ended.code != 0 {
        running.fail(ended.message.as_deref().unwrap_or_default());
    }
    drop(running);
    match ended {
        Ended { code: 0, .. } => {
            let storing = span.place().child("store outputs");
            store.trace(storing.place());
            (Some(0), collect(step, store))
        }
        Ended { code, message } => (Some(code), Err(message.unwrap_or_default())),
    }
}

fn outcome(step: &Step, started: Timestamp, code: Option<i32>, result: Result<Outputs, String>) -> Outcome {
    let (state, message, (parameters, artifacts)) = match result {
        Ok(outputs) => (OutcomeState::Succeeded, None, outputs),
        Err(message) => (OutcomeState::Failed, Some(message), Outputs::default()),
    };
    Outcome {
        run_id: step.run_id.clone(),
        task: step.task.clone(),
        attempt: step.attempt,
        state,
        exit_code: code,
        message,
        started_at: started.to_string(),
        finished_at: Timestamp::now().to_string(),
        parameters,
        artifacts,
    }
}

fn fetch_inputs(step: &Step, store: &mut Store) -> Result<(), String> {
    let inputs = step.executor_input["inputs"]["artifacts"].as_object();
    let uris = inputs
        .into_iter()
        .flat_map(Map::values)
        .filter_map(|list| list["artifacts"].as_array())
        .flatten()
        .filter_map(|artifact| artifact["uri"].as_str())
        .filter(|uri| store::split(uri).is_some());
    let unique: std::collections::BTreeSet<&str> = uris.collect();
    for uri in unique {
        let path = store::local_path(uri);
        // Volumes that are mounted in place need no copy.
        if !path.exists() {
            store.fetch(uri, &path).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Makes the folders that the command writes to.
fn prepare(step: &Step) -> Result<(), String> {
    let outputs = &step.executor_input["outputs"];
    let parameters = outputs["parameters"]
        .as_object()
        .into_iter()
        .flat_map(Map::values);
    let files = parameters
        .filter_map(|p| p["outputFile"].as_str())
        .chain(outputs["outputFile"].as_str());
    let artifacts = outputs["artifacts"].as_object().into_iter().flat_map(Map::values);
    let artifacts = artifacts
        .filter_map(|list| list["artifacts"][0]["uri"].as_str())
        .map(store::local_path);
    for path in files.map(PathBuf::from).chain(artifacts) {
        if let Some(parent) = path.parent().filter(|p| p.is_absolute()) {
            fs::create_dir_all(parent).map_err(|error| format!("making {}: {error}", parent.display()))?;
        }
    }
    Ok(())
}

fn command(step: &Step) -> Result<(Command, String), String> {
    let executor_input = step.executor_input.to_string();
    let mut words = step
        .command
        .iter()
        .chain(&step.args)
        .map(|word| word.replace("{{$}}", &executor_input));
    let Some(program) = words.next() else {
        return Err("the component has no command; give its container one, the image's own entry point is not known here".to_owned());
    };
    let args: Vec<String> = words.collect();
    if let Some(long) = args.iter().find(|arg| arg.len() >= LONGEST_ARGUMENT) {
        return Err(format!(
            "an argument of the command is {} bytes long and the system takes at most {LONGEST_ARGUMENT}; hand large values over as artifacts",
            long.len()
        ));
    }
    let mut command = Command::new(&program);
    command.args(args).env_remove(ENV_TOKEN).env_remove(ENV_HINT_URL);
    Ok((command, program))
}

fn collect(step: &Step, store: &mut Store) -> Result<Outputs, String> {
    let input = &step.executor_input;
    let file = input["outputs"]["outputFile"].as_str().unwrap_or_default();
    let said = outputs::executor_output(Path::new(file))?;
    let parameters = outputs::parameters(input, &said, &step.output_types)?;
    let mut artifacts: BTreeMap<String, Vec<OutcomeArtifact>> = BTreeMap::new();
    for Produced {
        output,
        mut artifact,
        path,
    } in outputs::artifacts(input, &said)
    {
        if let Some((digest, size)) =
            upload(store, &artifact.uri, &path).map_err(|error| error.to_string())?
        {
            artifact.digest = Some(digest);
            artifact.size = Some(size);
        }
        artifacts.entry(output).or_default().push(artifact);
    }
    Ok((parameters, artifacts))
}

/// Digest and size of what was stored; none when the command wrote nothing there.
fn upload(store: &mut Store, uri: &str, path: &Path) -> Result<Option<(String, u64)>, StoreError> {
    let failed = |source| StoreError::Io {
        action: "storing",
        uri: uri.to_owned(),
        source,
    };
    if store::split(uri).is_none() {
        return Ok(None);
    }
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if kind.is_file() {
        let stored = store.put_file(uri, path)?;
        return Ok(Some((format!("sha256:{}", stored.sha256), stored.size)));
    }
    let mut files = Vec::new();
    walk(path, "", &mut files).map_err(failed)?;
    files.sort();
    let uri = uri.trim_end_matches('/');
    let stored = upload_all(store, uri, path, &files)?;
    let mut size = 0;
    let mut list = String::new();
    for (name, Stored { size: bytes, sha256 }) in files.iter().zip(stored) {
        size += bytes;
        list.push_str(&format!("{sha256}  {name}\n"));
    }
    Ok(Some((format!("sha256:{}", sha256_hex(list.as_bytes())), size)))
}

fn upload_all(
    store: &mut Store,
    uri: &str,
    folder: &Path,
    files: &[String],
) -> Result<Vec<Stored>, StoreError> {
    let next = AtomicUsize::new(0);
    let worker = |mut store: Store| {
        let mut done = Vec::new();
        while let Some((index, name)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, files.get(i)?)))
        {
            done.push((
                index,
                store.put_file(&format!("{uri}/{name}"), &folder.join(name))?,
            ));
        }
        Ok(done)
    };
    let mut all: Vec<(usize, Stored)> = Vec::with_capacity(files.len());
    let results: Vec<Result<Vec<(usize, Stored)>, StoreError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIDE_BY_SIDE.min(files.len()))
            .map(|_| {
                let store = store.another();
                scope.spawn(move || worker(store))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| {
                    let source = io::Error::other("a thread failed");
                    Err(StoreError::Io {
                        action: "storing",
                        uri: uri.to_owned(),
                        source,
                    })
                })
            })
            .collect()
    });
    for result in results {
        all.extend(result?);
    }
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, stored)| stored).collect())
}

/// Names of the files below a folder, with slashes. Links are followed only to files.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = std::str::from_utf8(OsStr::as_bytes(&name))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no UTF-8 name")))?;
        let key = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &key, files)?;
        } else if fs::metadata(entry.path()).is_ok_and(|m| m.is_file()) {
            files.push(key);
        }
    }
    Ok(())
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// Best effort: the scheduler also sees the Pod end.
fn hint(span: &LiveSpan) {
    let Ok(url) = std::env::var(ENV_HINT_URL) else {
        return;
    };
    let sent = Url::parse(&url).and_then(|url| {
        let mut client = Client::new(&url.authority);
        client.trace(span.place());
        client
            .send("POST", &url.path, &[], Body::Empty)
            .map(|answer| answer.status)
    });
    if let Err(error) = sent {
        eprintln!("launcher: telling the scheduler: {error}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_comes_in_pieces() {
        let step =
            json!({"runId": "r", "task": "root/a", "attempt": 0, "command": ["c"], "executorInput": {},
            "outcomeUri": "s3://b/o"})
            .to_string();
        let (head, tail) = step.split_at(10);
        let args = ["--step", head, "--step", tail].map(str::to_owned);
        assert_eq!(read_step(args.into_iter()).unwrap().task, "root/a");
        assert!(
            read_step(["--nope".to_owned()].into_iter())
                .unwrap_err()
                .contains("unknown argument")
        );
    }

    #[test]
    fn the_executor_input_replaces_its_placeholder_once_it_fits() {
        let mut step = Step {
            run_id: "r".into(),
            task: "root/a".into(),
            attempt: 0,
            command: vec!["echo".into()],
            args: vec!["{{$}}".into()],
            executor_input: json!({"inputs": {}}),
            output_types: BTreeMap::new(),
            outcome_uri: "s3://b/o".into(),
            placeholders: BTreeMap::new(),
            trace: None,
        };
        let (command_line, _) = command(&step).unwrap();
        assert_eq!(command_line.get_args().collect::<Vec<_>>(), ["{\"inputs\":{}}"]);
        step.executor_input = json!({"big": "x".repeat(LONGEST_ARGUMENT)});
        assert!(
            command(&step)
                .unwrap_err()
                .contains("hand large values over as artifacts")
        );
        step.command.clear();
        step.args.clear();
        assert!(
            command(&step)
                .unwrap_err()
                .starts_with("the component has no command")
        );
    }

    #[test]
    fn folders_are_walked_in_full() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), "1").unwrap();
        fs::write(folder.path().join("d"), "2").unwrap();
        let mut files = Vec::new();
        walk(folder.path(), "", &mut files).unwrap();
        files.sort();
        assert_eq!(files, ["a/b/c", "d"]);
    }
}
