//! Containers with Python: real interpreters, real `uv`, a package index that is a folder.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use localkube_runtimes::{
    ContainerRuntime, ImageError, PrepareRequest, RuntimeKind, Runtimes, RuntimesConfig,
};

/// A cache, an index and containers in a folder of their own.
struct Machine {
    dir: tempfile::TempDir,
    runtimes: Runtimes,
}

struct Container {
    runtime: ContainerRuntime,
    work: PathBuf,
    index: PathBuf,
}

/// A configuration with a cache of its own and a `uv` that the first test finds or fetches for all.
async fn config(cache_dir: &Path) -> RuntimesConfig {
    static UV: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uv-for-tests");
    let mut config = RuntimesConfig::new(PathBuf::from(env!("CARGO_BIN_EXE_localkube-pip")));
    config.cache_dir = shared.clone();
    let finding = config.clone();
    let find = || async {
        let runtimes = Runtimes::open_detached(finding).await.unwrap();
        let container_dir = shared.join("container");
        runtimes
            .prepare(PrepareRequest {
                image: "python".to_owned(),
                container_dir,
            })
            .await
            .unwrap();
    };
    UV.get_or_init(find).await;
    let fetched = shared.join("uv/bin/uv");
    config.uv = fetched.is_file().then_some(fetched);
    config.cache_dir = cache_dir.to_owned();
    config
}

impl Machine {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir.path().join("cache")).await;
        let runtimes = Runtimes::open_detached(config).await.unwrap();
        let index = dir.path().join("index");
        std::fs::create_dir_all(&index).unwrap();
        for (name, version, requires) in [
            ("tiny", "1.0", ""),
            ("tiny", "2.0", ""),
            ("needy", "1.0", "tiny"),
            ("lonely", "1.0", "absent-thing"),
        ] {
            wheel(&index, name, version, requires);
        }
        Self { dir, runtimes }
    }

    async fn container(&self, name: &str, image: &str) -> Container {
        let container_dir = self.dir.path().join(name);
        let request = PrepareRequest {
            image: image.to_owned(),
            container_dir: container_dir.clone(),
        };
        let runtime = self.runtimes.prepare(request).await.unwrap();
        let work = container_dir.join("work");
        std::fs::create_dir_all(&work).unwrap();
        Container {
            runtime,
            work,
            index: self.dir.path().join("index"),
        }
    }
}

impl Container {
    fn command(&self, script: &str) -> Command {
        let path = self.runtime.path.iter().cloned().chain([
            "/usr/local/bin".into(),
            "/usr/bin".into(),
            "/bin".into(),
        ]);
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&self.work).env_clear();
        command
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HOME", &self.work);
        command
            .envs(self.runtime.env.iter().cloned())
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", &self.index);
        command
    }

    fn run(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    fn ok(&self, script: &str) -> String {
        let out = self.run(script);
        assert!(
            out.status.success(),
            "{script}\n{}\n{}",
            text(&out.stdout),
            text(&out.stderr)
        );
        text(&out.stdout)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Writes a wheel with one module and one script.
fn wheel(index: &Path, name: &str, version: &str, requires: &str) {
    let script = r#"
import sys, zipfile
index, name, version, requires = sys.argv[1:]
info = f"{name}-{version}.dist-info"
files = {
    f"{name}.py": f"version = '{version}'\ndef main():\n    import sys\n    print(sys.prefix)\n",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {requires}\n" if requires else ""),
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": f"[console_scripts]\n{name}-script = {name}:main\n",
    f"{name}-{version}.data/data/share/{name}/hello.txt": "hello",
}
record = "".join(f"{f},,\n" for f in files) + f"{info}/RECORD,,\n"
with zipfile.ZipFile(f"{index}/{name}-{version}-py3-none-any.whl", "w") as z:
    for f, t in files.items():
        z.writestr(f, t)
    z.writestr(f"{info}/RECORD", record)
"#;
    let status = Command::new("python3")
        .args(["-c", script])
        .arg(index)
        .args([name, version, requires])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_installs_is_its_own() {
    let machine = Machine::new().await;
    let a = machine.container("a", "python:3.11").await;
    let b = machine.container("b", "python:3.11").await;
    assert_eq!(a.runtime.kind, RuntimeKind::Python);

    a.ok("python3 -m pip install --quiet --no-warn-script-location 'tiny<2'");
    assert_eq!(a.ok("python3 -c 'import tiny; print(tiny.version)'"), "1.0");
    assert!(!b.run("python3 -c 'import tiny'").status.success());

    // the script runs on the container's interpreter, and data files are under its prefix
    let prefix = a.ok("python3 -c 'import sys; print(sys.prefix)'");
    assert_eq!(a.ok("tiny-script"), prefix);
    assert_eq!(a.ok(&format!("cat {prefix}/share/tiny/hello.txt")), "hello");

    // another version in the other container: neither sees the other's
    b.ok("pip install --user tiny");
    assert_eq!(b.ok("python -c 'import tiny; print(tiny.version)'"), "2.0");
    assert_eq!(a.ok("python -c 'import tiny; print(tiny.version)'"), "1.0");

    // upgrade, then remove
    assert!(
        a.ok("pip install -U tiny")
            .contains("Successfully installed tiny-2.0")
    );
    assert!(
        a.ok("uv pip install tiny==1.0")
            .contains("Successfully installed tiny-1.0")
    );
    assert!(
        a.ok("pip install tiny")
            .contains("Requirement already satisfied: tiny")
    );
    assert!(a.ok("pip list").contains("tiny"));
    assert!(
        a.ok("pip uninstall -y tiny")
            .contains("Successfully uninstalled tiny-1.0")
    );
    assert!(!a.run("python3 -c 'import tiny'").status.success());

    // a container that starts again starts from its image
    let b = machine.container("b", "python:3.11").await;
    assert!(!b.run("python3 -c 'import tiny'").status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_packages_are_built_once_and_then_take_no_time() {
    let machine = Machine::new().await;
    let mut containers = Vec::new();
    for i in 0..4 {
        containers.push(machine.container(&format!("c{i}"), "python:3.11").await);
    }
    let children: Vec<_> = containers
        .iter()
        .map(|c| c.command("python3 -m pip install needy").spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let places: Vec<String> = containers
        .iter()
        .map(|c| c.ok("realpath $VIRTUAL_ENV/env; python3 -c 'import tiny, needy'"))
        .collect();
    assert!(places.iter().all(|p| *p == places[0]), "{places:?}");

    let again = machine.container("again", "python:3.11").await;
    let start = Instant::now();
    again.ok("python3 -m pip install needy");
    let took = start.elapsed();
    assert_eq!(again.ok("realpath $VIRTUAL_ENV/env"), places[0]);
    println!("pip install from the cache: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_does_not_exist_says_so() {
    let machine = Machine::new().await;
    let c = machine.container("c", "python:3.11").await;
    let last = |script: &str| {
        let out = c.run(script);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
        text(&out.stderr).lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(
        last("python3 -m pip install -q no-such-thing"),
        "ERROR: No matching distribution found for no-such-thing"
    );
    assert_eq!(
        last("pip install tiny==9"),
        "ERROR: No matching distribution found for tiny==9"
    );
    assert_eq!(
        last("pip install -q lonely"),
        "ERROR: No matching distribution found for absent-thing"
    );
    assert_eq!(c.run("pip install --what tiny").status.code(), Some(2));
    // nothing was half done
    c.ok("pip install lonely --no-deps && python3 -c 'import lonely'");
    assert!(
        std::fs::read_dir(machine.dir.path().join("cache/tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}

/// The smallest build backend: an editable wheel with a .pth file.
const BACKEND: &str = r#"
import os, zipfile
def get_requires_for_build_editable(config_settings=None): return []
def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as z:
        z.writestr("mine.pth", os.getcwd() + "\n")
        z.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        z.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("mine-1.dist-info/RECORD", "mine.pth,,\nmine-1.dist-info/METADATA,,\nmine-1.dist-info/WHEEL,,\nmine-1.dist-info/RECORD,,\n")
    return name
build_wheel = build_editable
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_people_install_work() {
    let machine = Machine::new().await;
    let c = machine.container("c", "python:3.11-slim").await;
    c.ok("python3 -m ensurepip && python3 -m pip --version && command -v pip");
    c.ok("echo 'tiny  # one' > r.txt && echo 'tiny<2' > c.txt && pip install -q -r r.txt -c c.txt");
    assert_eq!(c.ok("python3 -c 'import tiny; print(tiny.version)'"), "1.0");
    c.ok("pip install -q --target=here needy --no-deps && test -f here/needy.py");
    assert!(!c.run("python3 -c 'import needy'").status.success());
    c.ok("pip install -q $PIP_FIND_LINKS/needy-1.0-py3-none-any.whl && python3 -c 'import needy'");
    c.ok("pip install -q --upgrade pip && pip --version");
    // an editable install is this container's own
    c.ok("mkdir -p pkg && printf 'x = 1\\n' > pkg/mine.py && printf '[project]\\nname=\"mine\"\\nversion=\"1\"\\n[build-system]\\nrequires=[]\\nbuild-backend=\"back\"\\nbackend-path=[\".\"]\\n' > pkg/pyproject.toml");
    std::fs::write(c.work.join("pkg/back.py"), BACKEND).unwrap();
    c.ok("pip install -q -e ./pkg && cd / && python3 -c 'import mine, needy; assert mine.x == 1'");
    c.ok("printf 'x = 22\\n' > pkg/mine.py && cd / && python3 -c 'import mine; assert mine.x == 22'");
    c.ok("pip install -q lonely --no-deps && cd / && python3 -c 'import mine, lonely' && pip uninstall -q -y lonely");
    assert!(c.ok("realpath $VIRTUAL_ENV/env").contains("/private/"));
    // a notebook's running kernel sees what it installs
    let script = "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', '-q', 'lonely', '--no-deps'])\nimport lonely\nprint(lonely.version)";
    std::fs::write(c.work.join("kernel.py"), script).unwrap();
    assert_eq!(c.ok("python3 kernel.py"), "1.0");
    c.ok("python3 -m venv --without-pip v && v/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix'");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_host_tools_builtin_or_refused() {
    let machine = Machine::new().await;
    let host = machine.container("h", "busybox").await;
    assert_eq!(
        (host.runtime.kind, host.runtime.cmd.clone()),
        (RuntimeKind::Host, vec!["sh".to_owned()])
    );
    let builtin = machine.container("l", "ghcr.io/ferroflow/launcher:v0.1.0").await;
    assert!(builtin.runtime.entrypoint[0].ends_with("/launcher"));
    let volume = machine
        .runtimes
        .image_volume("ghcr.io/ferroflow/launcher:v0.1.0")
        .await
        .unwrap();
    assert!(
        std::fs::canonicalize(volume.join("modelserver"))
            .unwrap()
            .ends_with("localkube-pip")
    );

    let refused = |image: &str| {
        machine.runtimes.prepare(PrepareRequest {
            image: image.to_owned(),
            container_dir: machine.dir.path().join("x"),
        })
    };
    let Err(ImageError::NotMapped(text)) = refused("example.com/a:1").await else {
        panic!("was mapped")
    };
    assert!(
        text.contains("kind: RuntimeImage") && text.contains("kubectl apply"),
        "{text}"
    );
    let Err(ImageError::Failed(text)) = refused("ghcr.io/ferroflow/nothing:1").await else {
        panic!("was mapped")
    };
    assert!(text.contains("no part named nothing"), "{text}");

    // an old version is no failure
    let old = machine.container("o", "python:3.7").await;
    assert!(
        old.runtime.warnings[0].contains("python 3.7 is not installed"),
        "{:?}",
        old.runtime.warnings
    );
    assert_eq!(old.ok("python3 -c 'print(1)'"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_can_be_built_ahead() {
    let machine = Machine::new().await;
    let index = machine.dir.path().join("index").display().to_string();
    let install = vec![
        "--no-index".to_owned(),
        "--find-links".to_owned(),
        index.clone(),
        "tiny==2.0".to_owned(),
    ];
    machine
        .runtimes
        .prebuild("python:3.11", &[install])
        .await
        .unwrap();
    let c = machine.container("c", "python:3.11").await;
    c.ok("pip install -q --no-index --find-links $PIP_FIND_LINKS tiny==2.0 && python3 -c 'import tiny'");
    let layers = std::fs::read_dir(machine.dir.path().join("cache/layers"))
        .unwrap()
        .count();
    assert_eq!(layers, 1);
    let wrong = vec!["--no-index".to_owned(), "absent".to_owned()];
    let text = machine
        .runtimes
        .prebuild("python:3.11", &[wrong])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("ERROR: No matching distribution found for absent"),
        "{text}"
    );
}

/// An API server that knows one kind.
fn client_with(images: serde_json::Value) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let images = images.clone();
        async move {
            assert_eq!(request.uri().path(), "/apis/ferroflow.dev/v1/runtimeimages");
            let (code, body) = match images {
                serde_json::Value::Null => (
                    404,
                    serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
                ),
                items => (
                    200,
                    serde_json::json!({"apiVersion": "ferroflow.dev/v1", "kind": "RuntimeImageList", "metadata": {}, "items": items}),
                ),
            };
            let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_runtime_image_wins_and_its_faults_are_told() {
    let machine = Machine::new().await;
    let index = machine.dir.path().join("index");
    let image = |name: &str, spec: serde_json::Value| serde_json::json!({"apiVersion": "ferroflow.dev/v1", "kind": "RuntimeImage", "metadata": {"name": name}, "spec": spec});
    let packages =
        |list: &[&str]| serde_json::json!({"version": "3.11", "packages": list, "findLinks": [index]});
    let images = serde_json::json!([
        image(
            "mine",
            serde_json::json!({"match": ["example.com/team/*"], "python": packages(&["needy"]), "env": {"A": "b"}, "cmd": ["needy-script"], "workingDir": "/srv"})
        ),
        image("no-python", serde_json::json!({"match": ["python"], "host": {}})),
        image(
            "broken",
            serde_json::json!({"match": ["broken"], "python": packages(&["no-such-thing"])})
        ),
        image("engine", serde_json::json!({"match": ["nginx"], "engine": {}})),
    ]);
    let config = config(&machine.dir.path().join("cache")).await;
    let open = |images| Runtimes::open(config.clone(), client_with(images));
    // the index is the folder, as on a machine whose user configured it so
    let runtimes = open(images).await.unwrap();
    let prepare = |image: &str| {
        let container_dir = machine.dir.path().join(image.replace(['/', ':'], "_"));
        runtimes.prepare(PrepareRequest {
            image: image.to_owned(),
            container_dir,
        })
    };
    let mine = prepare("example.com/team/model:7").await.unwrap();
    assert!(mine.env.contains(&("A".to_owned(), "b".to_owned())));
    assert_eq!(
        (mine.cmd.clone(), mine.working_dir.clone()),
        (vec!["needy-script".to_owned()], Some("/srv".into()))
    );
    let work = machine.dir.path().to_owned();
    let c = Container {
        runtime: mine,
        work,
        index: index.clone(),
    };
    assert!(
        c.ok("needy-script && python3 -c 'import tiny'")
            .contains("example.com_team_model_7")
    );
    assert_eq!(prepare("python:3.11").await.unwrap().kind, RuntimeKind::Host);
    let text = prepare("broken").await.unwrap_err().to_string();
    assert!(
        text.starts_with("runtime image broken: ")
            && text.ends_with("ERROR: No matching distribution found for no-such-thing"),
        "{text}"
    );
    let text = prepare("nginx").await.unwrap_err().to_string();
    assert!(text.contains("asks for a container engine"), "{text}");

    let without = open(serde_json::Value::Null).await.unwrap();
    let request = PrepareRequest {
        image: "python:3.11".to_owned(),
        container_dir: machine.dir.path().join("d"),
    };
    assert_eq!(without.prepare(request).await.unwrap().kind, RuntimeKind::Python);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_killed_harms_nobody() {
    let machine = Machine::new().await;
    let mut config = config(&machine.dir.path().join("cache")).await;
    // a uv that says that it started and then waits to be let go
    let (started, go) = (machine.dir.path().join("started"), machine.dir.path().join("go"));
    let real = config
        .uv
        .clone()
        .map_or_else(|| "uv".to_owned(), |p| p.display().to_string());
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) ;; *) : > {}; while ! [ -e {} ]; do sleep 0.02; done;; esac\nexec {real} \"$@\"\n",
        started.display(),
        go.display()
    );
    let slow = machine.dir.path().join("slow-uv");
    std::fs::write(&slow, script).unwrap();
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    config.uv = Some(slow);
    let slow = Machine {
        runtimes: Runtimes::open_detached(config).await.unwrap(),
        ..machine
    };

    let a = slow.container("a", "python:3.11").await;
    let mut child = a.command("exec python3 -m pip install -q tiny").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !started.exists() {
        assert!(Instant::now() < deadline, "pip did not start uv");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(&go, "").unwrap();
    assert!(!a.run("python3 -c 'import tiny'").status.success());
    a.ok("python3 -m pip install -q tiny && python3 -c 'import tiny'");
    let b = slow.container("b", "python:3.11").await;
    b.ok("python3 -m pip install -q tiny && python3 -c 'import tiny'");
}
