//! The `ferroflow` program: the command line and the only place that names concrete adapters.
//!
//! The same executable is every image of `ghcr.io/ferroflow/*`: called by the name `shim`, `launcher`, `modelserver`, `pip` or
//! `uv` it is that program, so that a step starts with one `exec` of a file that is in memory already.

mod cli;
mod data_dir;
mod failure;
mod memory;
mod platform;
mod settings;
mod status;
mod up;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    match program.as_str() {
        "shim" => localkube_node::shim_main(),
        "pip" | "uv" | "python-entry" => localkube_runtimes::pip_main(),
        "launcher" => ferroflow_launcher::main(),
        "modelserver" => ferroflow_modelserver::main(std::env::args_os()),
        _ => cli::main(),
    }
}
