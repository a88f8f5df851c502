//! Pods without an API server.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use localkube_node::os;
use localkube_node::plan::{
    ContainerPlan, ContainerSpec, Identity, LogLimits, Mount, PodPlan, RestartPolicy, Role,
};

pub fn executable() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_localkube-node-test"))
}

/// A Pod's folder with a plan of one container, and a folder `/shared` that the container sees.
pub struct PodFolder {
    folder: tempfile::TempDir,
    uid: String,
}

impl PodFolder {
    pub fn new(policy: &str) -> Self {
        // Not below /tmp, which containers have of their own.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let isolation = os::probe(folder.path());
        Self::isolated(folder, policy, isolation)
    }

    /// One container that is held to `resources`.
    pub fn limited(policy: &str, cgroups: os::Cgroups, resources: os::Resources) -> Self {
        let folder = Self::new(policy);
        let path = folder.path().join("plan.json");
        let mut plan: PodPlan = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        plan.cgroups = cgroups;
        plan.containers[0].resources = resources;
        fs::write(path, serde_json::to_vec(&plan).unwrap()).unwrap();
        folder
    }

    /// With the isolation of a machine that allows less than this one.
    pub fn with_isolation(isolation: os::Isolation) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::isolated(folder, "Never", isolation)
    }

    fn isolated(folder: tempfile::TempDir, policy: &str, isolation: os::Isolation) -> Self {
        let uid = uuid();
        assert!(
            isolation.mounts,
            "this machine allows no mount namespaces: {:?}",
            isolation.notes
        );
        fs::create_dir(folder.path().join("shared")).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let plan = PodPlan {
            identity: Identity {
                namespace: "default".into(),
                name: "test-pod".into(),
                uid: uid.clone(),
                boot_id: os::boot_id().unwrap(),
            },
            hostname: "test-pod".into(),
            network: None,
            restart_policy: RestartPolicy::parse(Some(policy)),
            containers: vec![ContainerPlan {
                name: "main".into(),
                role: Role::Main,
                startup: None,
                liveness: None,
                readiness: None,
                lifecycle: None,
                ports: Vec::new(),
                termination_message_from_logs: false,
                resources: os::Resources::default(),
            }],
            active_deadline_seconds: None,
            grace_seconds: 30,
            started_at: jiff::Timestamp::now(),
            isolation,
            cgroups: os::Cgroups::default(),
            logs: LogLimits::default(),
        };
        fs::write(
            folder.path().join("plan.json"),
            serde_json::to_vec(&plan).unwrap(),
        )
        .unwrap();
        let fifo = folder.path().join("shared/go");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Self { folder, uid }
    }

    pub fn isolation(&self) -> os::Isolation {
        let plan: PodPlan =
            serde_json::from_slice(&fs::read(self.path().join("plan.json")).unwrap()).unwrap();
        plan.isolation
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    pub fn spec(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            name: "main".into(),
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("POD_UID".into(), self.uid.clone()),
            ],
            working_dir: "/".into(),
            mounts: vec![
                Mount {
                    source: self.shared(),
                    target: "/shared".into(),
                    read_only: false,
                },
                Mount {
                    source: self.folder.path().join("tmp"),
                    target: "/tmp".into(),
                    read_only: false,
                },
            ],
            termination_message_path: "/dev/termination-log".into(),
            stdin: false,
            stdin_once: false,
            tty: false,
            image: "busybox".into(),
            image_id: String::new(),
        }
    }

    pub fn log(&self, container: &str, restart: u32) -> String {
        fs::read_to_string(self.folder.path().join(format!("logs/{container}/{restart}.log")))
            .unwrap_or_default()
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .unwrap()
        .trim()
        .to_owned()
}

pub fn fifo_write(path: &Path, text: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all(text)
        .unwrap();
}

/// Processes whose command line holds `text` and whose environment names the Pod.
pub fn processes_with(text: &str, uid: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let env = fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text) && String::from_utf8_lossy(&env).contains(uid)
        })
        .count()
}

pub fn wait_for(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::yield_now();
    }
}
