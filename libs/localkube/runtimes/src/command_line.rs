//! pip's command line.

use std::path::Path;

use crate::change::Change;
use crate::packages::{Indexes, Requirement};

/// What to print at the end, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

/// A failure with pip's exit code for it.
pub fn failure(code: i32, text: impl Into<String>) -> Failure {
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
pub struct Parsed {
    pub verb: String,
    /// Requirements in order, as given.
    pub positional: Vec<String>,
    pub change: Change,
    pub quiet: bool,
    /// `--target`, `--prefix`, `--root`: somewhere else than the container's environment.
    pub elsewhere: Vec<String>,
    pub dry_run: bool,
    pub yes: bool,
    /// Arguments after the verb, untouched.
    pub rest: Vec<String>,
}

/// Options without a value that change nothing here.
pub const IGNORED: &[&str] = &[
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

/// Understands a command line in `directory`.
pub fn parse(arguments: &[String], directory: &Path) -> Result<Parsed, Failure> {
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
                change.options.push("--reinstall".to_owned());
            }
            "--no-build-isolation" | "--require-hashes" => change.options.push(name.to_owned()),
            "--no-index" => change.indexes.no_index = true,
            "--dry-run" => parsed.dry_run = true,
            "-i" | "--index-url" | "--pypi-url" | "--default-index" => {
                change.indexes.index_url = Some(value()?);
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
pub fn change_of(arguments: &[String], defaults: &Indexes) -> Result<Change, String> {
    let mut all = vec!["install".to_owned()];
    all.extend_from_slice(arguments);
    let mut parsed = parse(&all, Path::new("/")).map_err(|f| f.text)?;
    parsed.change.indexes = parsed.change.indexes.or(defaults);
    Ok(parsed.change)
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
