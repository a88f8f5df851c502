//! Systems without namespaces: every call says so. Pods stay Pending with this text.

use std::io;
use std::path::Path;

use super::{Cgroups, Isolation};

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the node agent runs Pods on Linux only",
    ))
}

pub fn probe(_scratch: &Path) -> Isolation {
    Isolation::none("the node agent runs Pods on Linux only".to_owned())
}

pub fn probe_cgroups() -> Cgroups {
    Cgroups::None {
        why: "cgroups exist on Linux only".to_owned(),
    }
}

pub fn boot_id() -> io::Result<String> {
    unsupported()
}
