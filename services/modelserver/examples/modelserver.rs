//! The model server on its own, for checks and measurements; in Ferroflow it is the `ferroflow` executable under the name
//! `modelserver`.

fn main() -> std::process::ExitCode {
    ferroflow_modelserver::main(std::env::args_os())
}
