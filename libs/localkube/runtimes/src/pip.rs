//! `pip` inside a container: understands pip's command line and gives the container an environment with what was asked for.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::builtin::PIP_VERSION;
use crate::cache::Cache;
use crate::container::ContainerPython;
use crate::environments::{Change, Environment, Environments};
use crate::packages::{Indexes, Requirement};

/// Runs `pip` or `uv` for the container whose virtual environment is named by `--ferroflow-venv DIR` or `VIRTUAL_ENV`.
///
/// The executable's name (`argv[0]`) says which of the two is meant. Exit codes are pip's: 0, 1 for a failure, 2 for wrong usage.
pub fn pip_main() -> ! {
    let mut arguments = std::env::args();
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

/// What to print at the end, and the exit code.
#[derive(Debug)]
struct Failure {
    code: i32,
    text: String,
}

fn failure(code: i32, text: impl Into<String>) -> Failure {
    Failure {
        code,
        text: text.into(),
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        failure(1, format!("ERROR: this container's Python environment: {e}"))
    }
}

/// A pip command line, understood.
#[derive(Debug, Default)]
struct Parsed {
    verb: String,
    /// Requirements in order, as given.
    positional: Vec<String>,
    change: Change,
    quiet: bool,
    /// `--target`, `--prefix`, `--root`: somewhere else than the container's environment.
    elsewhere: Vec<String>,
    dry_run: bool,
    yes: bool,
    /// Arguments after the verb, untouched.
    rest: Vec<String>,
}

/// Options without a value that change nothing here.
const IGNORED: &[&str] = &[
    "--user",
    "--no-user",
    "--disable-pip-version-check",
    "--no-warn-script-location",
    "--no-warn-conflicts",
    "--no-input",
    "--no-color",
    "--isolated",
    "--require-virtualenv",
    "--no-cache-dir",
    "--no-clean",
    "--compile",
    "--no-compile",
    "--break-system-packages",
    "--use-pep517",
    "--no-use-pep517",
    "--debug",
    "--prefer-binary",
    "--no-python-version-warning",
    "--ignore-requires-python",
    "--verbose",
    "-v",
    "-vv",
    "-vvv",
    "--check-build-dependencies",
    "--system",
    "--no-progress",
    "--native-tls",
];
/// Options with a value that change nothing here.
const IGNORED_WITH_VALUE: &[&str] = &[
    "--root-user-action",
    "--progress-bar",
    "--exists-action",
    "--cache-dir",
    "--log",
    "--log-file",
    "--retries",
    "--src",
    "-b",
    "--build",
    "--use-feature",
    "--use-deprecated",
    "--upgrade-strategy",
    "--proxy",
    "--client-cert",
    "--keyring-provider",
    "--python",
    "-p",
    "--resume-retries",
    "--cert",
    "--timeout",
    "--color",
    "--link-mode",
];

fn parse(arguments: &[String], directory: &Path) -> Result<Parsed, Failure> {
    let mut parsed = Parsed::default();
    let mut queue = arguments.iter();
    let mut options_over = false;
    while let Some(argument) = queue.next() {
        if options_over || !argument.starts_with('-') || argument == "-" {
            if parsed.verb.is_empty() {
                parsed.verb.clone_from(argument);
                parsed.rest = queue.as_slice().to_vec();
                if !matches!(parsed.verb.as_str(), "install" | "uninstall") {
                    return Ok(parsed);
                }
            } else {
                parsed.positional.push(argument.clone());
            }
            continue;
        }
        if argument == "--" {
            options_over = true;
            continue;
        }
        let (name, attached) = split_option(argument);
        let mut value = || {
            let missing = || {
                failure(
                    2,
                    format!(
                        "Usage:\n  pip <command> [options]\n\npip: error: {name} option requires 1 argument"
                    ),
                )
            };
            attached
                .map(str::to_owned)
                .or_else(|| queue.next().cloned())
                .ok_or_else(missing)
        };
        let change = &mut parsed.change;
        match name {
            "-q" | "-qq" | "-qqq" | "--quiet" => parsed.quiet = true,
            "-y" | "--yes" => parsed.yes = true,
            "-V" | "--version" if parsed.verb.is_empty() => "version".clone_into(&mut parsed.verb),
            "-h" | "--help" => "help".clone_into(&mut parsed.verb),
            "--no-deps" | "--no-dependencies" => change.no_deps = true,
            "-U" | "--upgrade" => change.upgrade = true,
            "--pre" => change
                .options
                .extend(["--prerelease".to_owned(), "allow".to_owned()]),
            "--force-reinstall" | "--reinstall" | "-I" | "--ignore-installed" => {
                change.options.push("--reinstall".to_owned())
            }
            "--no-build-isolation" | "--require-hashes" => change.options.push(name.to_owned()),
            "--no-index" => change.indexes.no_index = true,
            "--dry-run" => parsed.dry_run = true,
            "-i" | "--index-url" | "--pypi-url" | "--default-index" => {
                change.indexes.index_url = Some(value()?)
            }
            "--extra-index-url" | "--index" => change.indexes.extra_index_urls.push(value()?),
            "-f" | "--find-links" => change.indexes.find_links.push(value()?),
            "--trusted-host" | "--allow-insecure-host" => change.indexes.trusted_hosts.push(value()?),
            "-r" | "--requirement" | "--requirements" => {
                let file = directory.join(value()?);
                if !file.is_file() {
                    return Err(failure(
                        1,
                        format!(
                            "ERROR: Could not open requirements file: No such file or directory: '{}'",
                            file.display()
                        ),
                    ));
                }
                change.requirement_files.push(file);
            }
            "-c" | "--constraint" | "--constraints" => change.constraint_files.push(directory.join(value()?)),
            "-e" | "--editable" => {
                let text = value()?;
                let text = if text.contains("://") {
                    text
                } else {
                    directory.join(text).display().to_string()
                };
                change.editables.push(text);
            }
            "-t" | "--target" | "--prefix" | "--root" => {
                let long = if name == "-t" { "--target" } else { name };
                let folder = directory.join(value()?);
                parsed
                    .elsewhere
                    .extend([long.to_owned(), folder.display().to_string()]);
            }
            "--only-binary" | "--no-binary" | "--config-settings" | "-C" | "--config-setting" => {
                let long = if name == "-C" { "--config-settings" } else { name };
                let value = value()?;
                change.options.extend([long.to_owned(), value]);
            }
            "--python-version" | "--platform" => {
                let long = if name == "--platform" {
                    "--python-platform"
                } else {
                    name
                };
                let value = value()?;
                parsed.elsewhere.extend([long.to_owned(), value]);
            }
            "--implementation" | "--abi" | "--report" | "--global-option" | "--install-option" => {
                return Err(failure(
                    2,
                    format!(
                        "ERROR: pip option {name} is not supported in a container that Ferroflow runs; leave it out"
                    ),
                ));
            }
            _ if IGNORED.contains(&name) => {}
            _ if IGNORED_WITH_VALUE.contains(&name) => drop(value()?),
            _ => {
                return Err(failure(
                    2,
                    format!(
                        "Usage:\n  pip {} [options]\n\nno such option: {name}",
                        parsed.verb
                    ),
                ));
            }
        }
    }
    for text in &parsed.positional {
        parsed
            .change
            .requirements
            .push(Requirement::parse(text, directory));
    }
    // it is ours, and always there
    parsed
        .change
        .requirements
        .retain(|r| !r.name().is_some_and(|n| n.eq_ignore_ascii_case("pip")));
    if let (Some(file), "install") = (
        std::env::var_os("PIP_CONSTRAINT").filter(|f| !f.is_empty()),
        parsed.verb.as_str(),
    ) {
        parsed.change.constraint_files.push(directory.join(file));
    }
    parsed.change.uninstall = parsed.verb == "uninstall";
    Ok(parsed)
}

/// `--name=value`, `-ivalue` or just the name.
fn split_option(argument: &str) -> (&str, Option<&str>) {
    if argument.starts_with("--") {
        return argument
            .split_once('=')
            .map_or((argument, None), |(name, value)| (name, Some(value)));
    }
    let takes_value = ["-i", "-f", "-r", "-c", "-e", "-t", "-C"]
        .iter()
        .any(|o| argument.starts_with(o));
    if takes_value && argument.len() > 2 && argument.is_char_boundary(2) {
        let (name, value) = argument.split_at(2);
        return (name, Some(value));
    }
    (argument, None)
}

/// The changes that `pip install <arguments>` asks for, for building environments ahead of time.
pub(crate) fn change_of(arguments: &[String], defaults: &Indexes) -> Result<Change, String> {
    let mut all = vec!["install".to_owned()];
    all.extend_from_slice(arguments);
    let mut parsed = parse(&all, Path::new("/")).map_err(|f| f.text)?;
    parsed.change.indexes = parsed.change.indexes.or(defaults);
    Ok(parsed.change)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Parsed, Failure> {
        parse(
            &line.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            Path::new("/w"),
        )
    }

    #[test]
    fn the_wrappers_of_the_sdks_are_understood() {
        let p = parsed(&[
            "install",
            "--quiet",
            "--no-warn-script-location",
            "kfp==2.17.0",
            "--no-deps",
            "typing-extensions>=3.7.4,<5; python_version<\"3.9\"",
        ])
        .unwrap();
        assert!(p.quiet && p.change.no_deps && !p.change.upgrade);
        assert_eq!(p.change.requirements.len(), 2);
        let p = parsed(&[
            "--disable-pip-version-check",
            "install",
            "--user",
            "-U",
            "--index-url=https://x/simple",
            "--extra-index-url",
            "https://y",
            "-fz",
            "a",
            "--root-user-action=ignore",
            "pip",
        ])
        .unwrap();
        assert_eq!(p.change.indexes.index_url.as_deref(), Some("https://x/simple"));
        assert_eq!(p.change.indexes.extra_index_urls, ["https://y"]);
        assert_eq!(p.change.indexes.find_links, ["z"]);
        assert_eq!(p.change.requirements, [Requirement::Named("a".to_owned())]);
        assert!(p.change.upgrade);
    }

    #[test]
    fn wrong_usage_is_refused_like_pip() {
        let no = parsed(&["install", "--nonsense", "a"]).unwrap_err();
        assert_eq!(
            (no.code, no.text.lines().last().unwrap()),
            (2, "no such option: --nonsense")
        );
        assert_eq!(parsed(&["install", "--index-url"]).unwrap_err().code, 2);
        assert_eq!(parsed(&["install", "-r", "missing.txt"]).unwrap_err().code, 1);
    }

    #[test]
    fn other_verbs_keep_their_arguments() {
        let p = parsed(&["list", "--format=json", "-q"]).unwrap();
        assert_eq!(
            (p.verb.as_str(), p.rest),
            ("list", vec!["--format=json".to_owned(), "-q".to_owned()])
        );
        assert_eq!(parsed(&["--version"]).unwrap().verb, "version");
        let p = parsed(&["install", "-t", "lib", "a", "-e", "./pkg"]).unwrap();
        assert_eq!(p.elsewhere, ["--target", "/w/lib"]);
        assert_eq!(p.change.editables, ["/w/./pkg"]);
    }
}
