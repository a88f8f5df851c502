//! Ferroflow's own executable under its other names, and the Python modules that lead to it.

use std::io;
use std::path::{Path, PathBuf};

use crate::BUILTIN_NAMES;
use crate::cache::{self, Cache};
use crate::entry;

/// The version our `pip` answers with.
pub const PIP_VERSION: &str = "99.0";

/// A folder that holds a link for each name. What it links to never changes under a running Pod: another executable
/// gives another folder.
pub fn links(cache: &Cache, executable: &Path) -> io::Result<PathBuf> {
    let dir = cache.root().join("builtin").join(key(executable));
    std::fs::create_dir_all(&dir)?;
    for name in BUILTIN_NAMES {
        cache::replace_symlink(executable, &dir.join(name))?;
    }
    Ok(dir)
}

/// A folder with `pip` and `ensurepip` as Python modules and as executables.
pub fn stubs(cache: &Cache, executable: &Path) -> io::Result<PathBuf> {
    let dir = cache.root().join("stubs").join(key(executable));
    if dir.join("bin").join(entry::NAME).is_symlink() {
        return Ok(dir);
    }
    std::fs::create_dir_all(dir.join("bin"))?;
    let pip = dir.join("bin/pip");
    let exe = serde_json::Value::from(pip.to_string_lossy()).to_string();
    let files = [
        (
            "pip/__init__.py",
            include_str!("../python/pip_init.py").replace("@VERSION@", PIP_VERSION),
        ),
        (
            "pip/__main__.py",
            include_str!("../python/pip_main.py").replace("@EXECUTABLE@", &exe),
        ),
        ("pip/_internal/__init__.py", "from pip import main\n".to_owned()),
        ("pip/_internal/cli/__init__.py", String::new()),
        ("pip/_internal/cli/main.py", "from pip import main\n".to_owned()),
        (
            "ensurepip/__init__.py",
            include_str!("../python/ensurepip_init.py").replace("@VERSION@", PIP_VERSION),
        ),
        (
            "ensurepip/__main__.py",
            "import sys, ensurepip\nsys.exit(ensurepip._main())\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
        cache::write_atomically(&path, text.as_bytes())?;
    }
    cache::replace_symlink(executable, &pip)?;
    cache::replace_symlink(executable, &dir.join("bin/uv"))?;
    cache::replace_symlink(executable, &dir.join("bin").join(entry::NAME))?;
    Ok(dir)
}

fn key(executable: &Path) -> String {
    // the texts belong to the version that wrote them
    let texts = concat!(
        include_str!("../python/pip_init.py"),
        include_str!("../python/pip_main.py"),
        include_str!("../python/ensurepip_init.py")
    );
    blake3::hash(format!("{}\n{texts}", executable.display()).as_bytes()).to_hex()[..16].to_owned()
}
