//! `pip` inside a container: understands pip's command line and gives the container an environment with what was asked for.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::builtin::PIP_VERSION;
use crate::cache::Cache;
use crate::command_line::{Failure, IGNORED, Parsed, failure, parse};
use crate::container::ContainerPython;
use crate::entry;
use crate::environments::{Environment, Environments};
use crate::packages::Indexes;

/// Runs `pip` or `uv` for the container whose virtual environment is named by `--ferroflow-venv DIR` or `VIRTUAL_ENV`.
///
/// The executable's name (`argv[0]`) says which of the two is meant; by the name of [`entry`] it is the container's `python3`. Exit codes are pip's: 0, 1 for a failure, 2 for wrong usage.
pub fn pip_main() -> ! {
    let mut arguments = entry::arguments();
    let name = arguments.next().unwrap_or_default();
    let is_uv = Path::new(&name).file_name().is_some_and(|n| n == "uv");
    let mut arguments: Vec<String> = arguments.collect();
    let mut root = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    if arguments.first().is_some_and(|a| a == "--ferroflow-venv") && arguments.len() > 1 {
        root = Some(PathBuf::from(arguments.remove(1)));
        arguments.remove(0);
    }
    let code = match root.as_deref().map(ContainerPython::load) {
        Some(Ok(Some(container))) => {
            let outcome = if is_uv {
                run_uv(container, &arguments)
            } else {
                run(container, &arguments)
            };
            outcome.unwrap_or_else(|failure| {
                eprintln!("{}", failure.text);
                failure.code
            })
        }
        Some(Err(e)) => {
            eprintln!("ERROR: this container's Python environment cannot be read: {e}");
            1
        }
        _ => {
            eprintln!(
                "ERROR: {name} is for containers that Ferroflow runs; set VIRTUAL_ENV to a container's environment"
            );
            2
        }
    };
    std::process::exit(code)
}

fn run(mut container: ContainerPython, arguments: &[String]) -> Result<i32, Failure> {
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut parsed = parse(arguments, &directory)?;
    match parsed.verb.as_str() {
        "install" | "uninstall" => {}
        "version" => {
            let python = &container.state.python;
            println!(
                "pip {PIP_VERSION} from {} (python {}.{})",
                container.state.stubs.join("pip").display(),
                python.major,
                python.minor
            );
            return Ok(0);
        }
        "" | "help" => {
            println!(
                "Usage:\n  pip <command> [options]\n\nCommands:\n  install, uninstall, list, freeze, show, check\n  download, wheel, cache, config, hash, index, inspect (by the interpreter's own pip)"
            );
            return Ok(0);
        }
        "list" | "freeze" | "show" | "check" => return show(&container, &parsed),
        _ => return original_pip(&container, arguments),
    }
    parsed.change.indexes = std::mem::take(&mut parsed.change.indexes)
        .or(&Indexes::from_environment())
        .or(&container.state.indexes);
    if parsed.change.is_empty() {
        if parsed.positional.is_empty() {
            let verb = &parsed.verb;
            return Err(failure(
                1,
                format!("ERROR: You must give at least one requirement to {verb} (see \"pip help {verb}\")"),
            ));
        }
        say(&parsed, "Requirement already satisfied: pip");
        return Ok(0);
    }
    if !parsed.elsewhere.is_empty() || parsed.dry_run {
        return outside(&container, &parsed);
    }
    let _lock = container.lock()?;
    // another pip of this container may have finished while this one waited
    if let Some(current) = ContainerPython::load(container.root())? {
        container = current;
    }
    change(&mut container, &parsed)?;
    Ok(0)
}

fn change(container: &mut ContainerPython, parsed: &Parsed) -> Result<(), Failure> {
    let state = container.state.clone();
    let cache = Cache::open(&state.cache_dir)?;
    let environments = Environments {
        cache: &cache,
        python: &state.python,
        uv: state.uv.as_ref().map_err(String::as_str),
    };
    let quiet = parsed.quiet;
    let mut said = |line: &str| {
        if !quiet && !line.trim().is_empty() {
            eprintln!("{line}");
        }
    };
    let next = environments
        .apply(
            &state.environment,
            &parsed.change,
            &container.private_environments(),
            &mut said,
        )
        .map_err(|e| {
            failure(
                1,
                if quiet {
                    e.0
                } else {
                    e.0.lines()
                        .rev()
                        .take(2)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .collect::<Vec<_>>()
                        .join("\n")
                },
            )
        })?;
    container.switch(next.clone())?;
    if !quiet {
        report(&state.environment, &next, container, parsed);
    }
    Ok(())
}

/// Tells what changed, as pip does.
fn report(before: &Environment, after: &Environment, container: &ContainerPython, parsed: &Parsed) {
    let python = &container.state.python;
    let (old, new) = (before.distributions(python), after.distributions(python));
    let list = |from: &[(String, String)], without: &[(String, String)]| {
        let changed = from.iter().filter(|d| !without.contains(d));
        changed
            .map(|(n, v)| format!("{}-{v}", n.replace('_', "-")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (added, removed) = (list(&new, &old), list(&old, &new));
    if parsed.change.uninstall {
        println!(
            "{}",
            if removed.is_empty() {
                "Nothing to uninstall".to_owned()
            } else {
                format!("Successfully uninstalled {removed}")
            }
        );
    } else if added.is_empty() {
        for requirement in &parsed.change.requirements {
            println!("Requirement already satisfied: {}", requirement.argument());
        }
    } else {
        println!("Successfully installed {added}");
    }
}

fn say(parsed: &Parsed, text: &str) {
    if !parsed.quiet {
        println!("{text}");
    }
}

/// `--target` and the like: a folder of the user's own, so `uv` works on it directly.
fn outside(container: &ContainerPython, parsed: &Parsed) -> Result<i32, Failure> {
    let uv = container
        .state
        .uv
        .as_ref()
        .map_err(|e| failure(1, format!("ERROR: {e}")))?;
    let mut command = uv.pip(&parsed.verb, &container.environment_python());
    command.args(parsed.change.arguments()).args(&parsed.elsewhere);
    if parsed.dry_run {
        command.arg("--dry-run");
    }
    if parsed.quiet {
        command.arg("--quiet");
    }
    let status = command.status()?;
    if status.success() {
        return Ok(0);
    }
    Err(failure(
        1,
        "ERROR: Could not install the packages; the reason is above",
    ))
}

fn show(container: &ContainerPython, parsed: &Parsed) -> Result<i32, Failure> {
    let uv = container
        .state
        .uv
        .as_ref()
        .map_err(|e| failure(1, format!("ERROR: {e}")))?;
    let kept = parsed.rest.iter().filter(|a| {
        !IGNORED.contains(&a.as_str()) && !matches!(a.as_str(), "-l" | "--local" | "--all" | "-a")
    });
    let mut command = uv.pip(&parsed.verb, &container.environment_python());
    Err(command.args(kept).exec().into())
}

/// What we do not do ourselves, the interpreter's own pip does (it sees neither our modules nor the environment).
fn original_pip(container: &ContainerPython, arguments: &[String]) -> Result<i32, Failure> {
    let mut command = Command::new(&container.state.python.exe);
    command
        .args(["-m", "pip"])
        .args(arguments)
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .env_remove("VIRTUAL_ENV");
    Err(command.exec().into())
}

fn run_uv(container: ContainerPython, arguments: &[String]) -> Result<i32, Failure> {
    let own_venv = std::env::var_os("VIRTUAL_ENV").is_none_or(|v| Path::new(&v) == container.root());
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if own_venv
        && let [
            "pip",
            "install" | "uninstall" | "list" | "freeze" | "show" | "check",
            ..,
        ] = words.as_slice()
        && !words
            .iter()
            .any(|w| matches!(*w, "-p" | "--python") || w.starts_with("--python="))
    {
        return run(container, &arguments[1..]);
    }
    let uv = container
        .state
        .uv
        .as_ref()
        .map_err(|e| failure(1, format!("ERROR: {e}")))?;
    let mut command = Command::new(&uv.exe);
    command.args(arguments);
    for (name, value) in uv
        .env
        .iter()
        .filter(|(n, _)| !matches!(n.as_str(), "PATH" | "HOME"))
    {
        command.env(name, value);
    }
    Err(command.exec().into())
}
