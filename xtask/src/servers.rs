//! Servers that suites run against: PostgreSQL from Debian's packages, NATS from its Go module, Azure's emulator from npm, each on a free port with its own
//! temporary folder. Where one cannot be had, the suites that need it say so.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::command::{cache, command, has, run};

const AZURITE: &str = "azurite@3.35.0";
const NATS: &str = "github.com/nats-io/nats-server/v2@v2.12.1";

/// A server that ends with this value.
pub struct Server {
    child: Child,
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(port: u16) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nothing listens on port {port} after 20 s")
}

/// Installs Debian packages where this user may.
pub fn apt(packages: &[&str]) -> bool {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if !root || !has("apt-get") {
        return false;
    }
    let mut update = command("apt-get");
    update.args(["update", "-qq"]).stdout(Stdio::null());
    let mut install = command("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .stdout(Stdio::null())
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut update).and_then(|()| run(&mut install)).is_ok()
}

fn postgres_bin() -> Option<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|e| e.path().join("bin"))
        .collect();
    versions.sort();
    versions
        .into_iter()
        .rev()
        .find(|bin| bin.join("initdb").is_file())
}

/// A fresh PostgreSQL.
pub fn postgres() -> anyhow::Result<Server> {
    if postgres_bin().is_none() {
        apt(&["postgresql"]);
    }
    let bin = postgres_bin().context("PostgreSQL is not installed (Debian: apt-get install postgresql)")?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let port = free_port()?;
    let as_user = |program: &str| -> Command {
        // initdb refuses to run as root
        let path = bin.join(program);
        if has("runuser") && std::env::var("USER").map_or(true, |user| user == "root") {
            let mut wrapped = command("runuser");
            wrapped.args(["-u", "postgres", "--"]).arg(path);
            wrapped
        } else {
            command(path)
        }
    };
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
    run(as_user("initdb")
        .args(["-A", "trust", "-U", "ferroflow", "-N", "-D"])
        .arg(&data)
        .current_dir("/")
        .stdout(Stdio::null()))?;
    let child = as_user("postgres")
        .arg("-D")
        .arg(&data)
        .args([
            "-p",
            &port.to_string(),
            "-h",
            "127.0.0.1",
            "-c",
            "fsync=off",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=400",
        ])
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server {
        child,
        url: format!("postgres://ferroflow@127.0.0.1:{port}/postgres"),
        _folder: folder,
    };
    wait_for(port)?;
    Ok(server)
}

/// A fresh NATS with JetStream.
pub fn nats() -> anyhow::Result<Server> {
    let program = cache().join("tools/go/bin/nats-server");
    if !program.is_file() {
        if !has("go") {
            bail!("NATS is not installed and there is no Go to build it with");
        }
        run(command("go")
            .args(["install", NATS])
            .env("GOBIN", program.parent().context("no folder")?)
            .env("CGO_ENABLED", "0"))?;
    }
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let child = command(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server {
        child,
        url: format!("nats://127.0.0.1:{port}"),
        _folder: folder,
    };
    wait_for(port)?;
    Ok(server)
}

/// The program of Azure's blob emulator.
pub fn azurite() -> anyhow::Result<PathBuf> {
    let folder = cache().join("tools").join(AZURITE);
    let program = folder.join("node_modules/.bin/azurite-blob");
    if !program.is_file() {
        if !has("npm") {
            bail!("azurite is not installed and there is no npm to install it with");
        }
        std::fs::create_dir_all(&folder)?;
        run(command("npm")
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
                "--prefix",
            ])
            .arg(&folder)
            .arg(AZURITE)
            .stdout(Stdio::null()))?;
    }
    Ok(program)
}
