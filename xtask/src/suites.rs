//! `cargo xtask test`: every suite, then one line of counts.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::command::{cargo, command, has, root, run as execute};
use crate::summary::{Counts, counts, failures, skip_reasons};
use crate::{build, check, python, servers};

/// The tests of the workspace.
const RUST: [&str; 6] = [
    "test",
    "--workspace",
    "--quiet",
    "--no-fail-fast",
    "--",
    "--nocapture",
];

/// What became of the suites so far.
#[derive(Default)]
struct Report {
    total: Counts,
    lines: Vec<String>,
    skips: Vec<String>,
    failures: Vec<String>,
    only: Option<String>,
}

impl Report {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Runs a suite whose output ends with counts.
    fn suite(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        println!("\n=== {name}");
        let started = Instant::now();
        let (ok, output) = tee(command)?;
        let mut found = counts(&output);
        if !ok && found.failed == 0 {
            found.failed = 1;
        }
        self.skips.extend(
            skip_reasons(&output)
                .into_iter()
                .map(|reason| format!("{name}: {reason}")),
        );
        self.failures.extend(
            failures(&output)
                .into_iter()
                .map(|failure| format!("{name}: {failure}")),
        );
        self.lines.push(format!(
            "{name:<28} {found} in {:.0} s",
            started.elapsed().as_secs_f64()
        ));
        self.total += found;
        Ok(())
    }

    /// Records a check that passes or fails as a whole.
    fn check(&mut self, name: &str, check: impl FnOnce() -> anyhow::Result<()>) {
        if !self.wants(name) {
            return;
        }
        println!("\n=== {name}");
        match check() {
            Ok(()) => self.total.passed += 1,
            Err(error) => {
                println!("{name}: {error:#}");
                self.lines.push(format!("{name:<28} failed"));
                self.total.failed += 1;
            }
        }
    }

    fn skip(&mut self, name: &str, reason: &str) {
        if self.wants(name) {
            self.skips.push(format!("{name}: SKIPPED {reason}"));
            self.total.skipped += 1;
        }
    }
}

/// Runs the suites; fails if any test failed.
pub fn run(quick: bool, only: Option<&str>) -> anyhow::Result<()> {
    let mut report = Report {
        only: only.map(str::to_owned),
        ..Default::default()
    };
    report.check("architecture rules", check::rules);
    report.check("formatting", check::formatting);
    rust(&mut report, quick)?;
    if !quick {
        report.check("licences", check::licences);
        report.check("lints", check::lints);
        dashboard(&mut report)?;
        conformance(&mut report)?;
        stories(&mut report)?;
    }
    println!("\n=== summary");
    for line in report.lines.iter().chain(&report.skips).chain(&report.failures) {
        println!("{line}");
    }
    println!("{}", report.total);
    if report.total.failed > 0 {
        bail!("{} failed", report.total.failed);
    }
    Ok(())
}

fn rust(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    if !report.wants("rust") {
        return Ok(());
    }
    if quick {
        let mut test = cargo();
        return report.suite("rust", test.args(RUST));
    }
    // the emulators of object storage start first and run the tests with their addresses
    let emulators = root().join("e2e/emulators");
    let python = python::environment(&emulators.join("requirements.txt"))?;
    let mut test = command(python);
    test.arg(emulators.join("run.py"))
        .arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(RUST);
    match servers::azurite() {
        Ok(program) => {
            test.env("AZURITE", program);
        }
        Err(error) => report.skip("rust", &format!("tests with Azure's emulator: {error:#}")),
    }
    let _running = with_servers(report, "rust", &mut test);
    // those of panics that tests make on purpose would hide what matters
    test.env("RUST_BACKTRACE", "0");
    for (variable, requirements) in [
        (
            "FERROFLOW_TEST_KFP_PYTHON",
            "services/pipelines/tests/requirements.txt",
        ),
        ("FERROFLOW_TEST_PYTHON", "e2e/stories/artifacts/requirements.txt"),
    ] {
        match python::environment(&root().join(requirements)) {
            Ok(python) => {
                test.env(variable, python);
            }
            Err(error) => report.skip("rust", &format!("tests of {variable}: {error:#}")),
        }
    }
    report.suite("rust", &mut test)
}

/// Starts PostgreSQL and NATS for a suite; they end with what is answered.
fn with_servers(report: &mut Report, suite: &str, test: &mut Command) -> Vec<servers::Server> {
    let mut running = Vec::new();
    for (variable, started) in [
        ("FERROFLOW_TEST_POSTGRES", servers::postgres()),
        ("FERROFLOW_TEST_NATS", servers::nats()),
    ] {
        match started {
            Ok(server) => {
                test.env(variable, &server.url);
                running.push(server);
            }
            Err(error) => report.skip(suite, &format!("tests of {variable}: {error:#}")),
        }
    }
    running
}

fn dashboard(report: &mut Report) -> anyhow::Result<()> {
    let folder = root().join("services/dashboard");
    if !folder.join("package.json").is_file() || !report.wants("dashboard") {
        return Ok(());
    }
    if !has("npm") {
        report.skip("dashboard", "no npm on this machine");
        return Ok(());
    }
    build::dashboard()?;
    report.suite(
        "dashboard",
        command("npm").current_dir(&folder).args(["test", "--silent"]),
    )
}

fn conformance(report: &mut Report) -> anyhow::Result<()> {
    let folder = root().join("e2e/conformance");
    if !folder.join("run.py").is_file() || !report.wants("conformance") {
        return Ok(());
    }
    if !has("go") {
        report.skip(
            "conformance",
            "NOT RUN AT ALL: there is no Go to build a real Kubernetes control plane with",
        );
        return Ok(());
    }
    if !has("etcd") && !servers::apt(&["etcd-server"]) {
        report.skip(
            "conformance",
            "NOT RUN AT ALL: etcd is not installed (Debian: apt-get install etcd-server)",
        );
        return Ok(());
    }
    execute(cargo().args([
        "build",
        "--quiet",
        "-p",
        "localkube-controllers",
        "-p",
        "features",
        "--example",
        "localkube",
    ]))?;
    report.suite("conformance", command("python3").arg(folder.join("run.py")))
}

fn stories(report: &mut Report) -> anyhow::Result<()> {
    let folder = root().join("e2e/stories");
    if !folder.is_dir() {
        return Ok(());
    }
    let program = build::all(false)?;
    for suite in suites_of(&folder)? {
        let name = format!(
            "stories/{}",
            suite.file_name().unwrap_or_default().to_string_lossy()
        );
        if !report.wants(&name) {
            continue;
        }
        let python = python::environment(&suite.join("requirements.txt"))?;
        let mut test = command(python);
        test.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"])
            .arg(&suite);
        test.env("FERROFLOW", &*program);
        let _running = if suite.ends_with("cluster") {
            with_servers(report, &name, &mut test)
        } else {
            Vec::new()
        };
        report.suite(&name, &mut test)?;
    }
    Ok(())
}

/// Folders of stories, each with packages of its own, since peers' SDKs do not all fit into one environment.
fn suites_of(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found: Vec<_> = folder.read_dir()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.join("requirements.txt").is_file());
    found.sort();
    Ok(found)
}

/// Runs a command, shows its output as it comes, and answers whether it succeeded and what it printed.
fn tee(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let shown = format!("{command:?}");
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    // the command keeps its ends of the pipe open, and with them this loop, unless they are dropped here
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    Ok((child.wait()?.success(), output))
}
