//! Stands in for the `ferroflow` executable in this crate's tests: called as `shim` it is one.

use std::ffi::OsStr;
use std::path::Path;

fn main() {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("shim") => localkube_node::shim_main(),
        Some("pip" | "uv" | "python-entry") => localkube_runtimes::pip_main(),
        _ => {
            eprintln!("localkube-node-test: call it as shim, pip or uv");
            std::process::exit(2)
        }
    }
}
