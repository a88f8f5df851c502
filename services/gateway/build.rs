//! Makes sure that the folder of the built dashboard exists, so that it can be embedded; `cargo xtask build` fills it.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    let dist = Path::new("../dashboard/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    fs::create_dir_all(dist)
}
