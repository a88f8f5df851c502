//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::failure::Usage;
use crate::platform::manifests::ManifestFlags;
use crate::settings::{NodeFlags, ServeFlags, UpFlags};
use crate::{status, up};

const EXAMPLES: &str = "Examples:
  ferroflow up                          start everything on this machine, at http://localhost:8080
  ferroflow up --port 0 --data-dir /tmp/ff   on a free port, with its state in /tmp/ff
  ferroflow status                      what runs, and how to reach it
  kubectl --kubeconfig ~/.ferroflow/kubeconfig get pods -A";

/// Machine learning pipelines, tuning, training, serving and notebooks: Kubeflow's platform in one program.
#[derive(Debug, Parser)]
#[command(name = "ferroflow", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every service on this machine.
    ///
    /// Keeps all state in one folder and goes on where it was when it is started again. Stop it with Ctrl-C.
    #[command(
        after_help = "Examples:\n  ferroflow up\n  ferroflow up --port 9000\n  FERROFLOW_PORT=0 ferroflow up --data-dir ./state"
    )]
    Up(UpFlags),
    /// Start one service against a cluster; this is what each Deployment of the chart runs.
    ///
    /// It acts as the account of KUBECONFIG, or of the Pod that it runs in. docs/cluster.md has commands that work by hand.
    #[command(
        after_help = "Examples:\n  ferroflow serve metadata --caller-key key --database postgres://ferroflow@db/ferroflow\n  ferroflow serve gateway --caller-key key --service metadata=http://127.0.0.1:9001"
    )]
    Serve {
        /// Which service.
        #[arg(id = "which", value_name = "SERVICE")]
        service: Service,
        #[command(flatten)]
        flags: ServeFlags,
    },
    /// Join a cluster as a Node that runs Pods as processes of this machine.
    ///
    /// It acts as the account of KUBECONFIG. Pods go on when it stops.
    #[command(after_help = "Example:\n  KUBECONFIG=admin.conf ferroflow node --pod-cidr 10.244.240.0/24")]
    Node(NodeFlags),
    /// Print what must exist in a cluster's API: namespace, definitions, accounts, roles, Services and webhooks.
    #[command(
        after_help = "Example:\n  ferroflow manifests --ca-bundle ca.pem | kubectl apply --server-side -f -"
    )]
    Manifests(ManifestFlags),
    /// Tell what runs in a data folder and how to reach it.
    #[command(after_help = "Examples:\n  ferroflow status\n  ferroflow status --data-dir /tmp/ff")]
    Status {
        /// Folder that holds all state [default: ~/.ferroflow].
        #[arg(long, env = "FERROFLOW_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  ferroflow completions bash > /etc/bash_completion.d/ferroflow")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The services that run apart from each other on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Gateway,
    Pipelines,
    Metadata,
    Artifacts,
    Tuning,
    Training,
    Serving,
    Notebooks,
    Profiles,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Pipelines => "pipelines",
            Self::Metadata => "metadata",
            Self::Artifacts => "artifacts",
            Self::Tuning => "tuning",
            Self::Training => "training",
            Self::Serving => "serving",
            Self::Notebooks => "notebooks",
            Self::Profiles => "profiles",
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 => {
            let _closed = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "ferroflow: {}", one_line(&error));
            return ExitCode::from(2);
        }
    };
    let result = match cli.command {
        Command::Up(flags) => up::run(&flags),
        Command::Serve { service, flags } => crate::platform::serve::run(service, &flags),
        Command::Node(flags) => crate::platform::node::run(&flags),
        Command::Manifests(flags) => crate::platform::manifests::run(&flags),
        Command::Status { data_dir } => status::run(data_dir),
        Command::Version => print(&format!("ferroflow {}\n", ferroflow_kernel::VERSION)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ferroflow", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.downcast_ref::<Usage>().is_some();
            let _closed = writeln!(std::io::stderr(), "ferroflow: {error:#}");
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// What is wrong with the command line and where help is, on one line; help itself stays as clap prints it.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return error.to_string();
    }
    let text = error.to_string();
    let said = |line: &&str| {
        !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more information")
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(said).collect();
    let what = lines.join("; ").replacen("error: ", "", 1);
    format!("{what}; see ferroflow --help")
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_one_line_with_the_way_to_help() {
        for (args, part) in [
            (&["ferroflow", "up", "--bogus"][..], "--bogus"),
            (&["ferroflow", "up", "--port", "abc"], "abc"),
        ] {
            let line = one_line(&Cli::try_parse_from(args).unwrap_err());
            assert!(
                !line.contains('\n') && line.contains(part) && line.ends_with("see ferroflow --help"),
                "{line}"
            );
        }
    }

    #[test]
    fn every_service_can_be_served() {
        let names: Vec<&str> = Service::value_variants().iter().map(|s| s.name()).collect();
        assert_eq!(names, crate::platform::SERVICES);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
