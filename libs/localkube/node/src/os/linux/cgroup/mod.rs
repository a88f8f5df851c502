//! A cgroup for each container: its limits, its share of the cores, and whether it was killed for memory.
//!
//! Groups are `<where we may>/ferroflow-pods/<pod uid>-<container>-<attempt>`, as siblings, so that containers share cores by
//! what each asked for. The agent finds out where; the shim makes them and removes them; the agent removes what a killed
//! shim left.

mod find;
mod v1;
mod v2;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::os::limits::{Cgroups, Resources, shares};

/// The group of all containers.
const PODS: &str = "ferroflow-pods";
/// Between two tries to remove a group whose processes were killed just now, and how many.
const PATIENCE: (Duration, usize) = (Duration::from_millis(10), 100);

/// A container's group, with the descriptors by which a process enters it.
#[derive(Debug)]
pub struct Group {
    folders: Vec<PathBuf>,
    entries: Vec<File>,
    memory: PathBuf,
    v2: bool,
}

impl Group {
    /// Makes a group and sets its limits; None where the machine has no cgroups for us.
    pub fn create(cgroups: &Cgroups, name: &str, resources: &Resources) -> io::Result<Option<Self>> {
        let mut group = Self {
            folders: Vec::new(),
            entries: Vec::new(),
            memory: PathBuf::new(),
            v2: matches!(cgroups, Cgroups::V2 { .. }),
        };
        let outcome = group.fill(cgroups, name, resources);
        match outcome {
            Ok(true) => Ok(Some(group)),
            Ok(false) => Ok(None),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }

    fn fill(&mut self, cgroups: &Cgroups, name: &str, resources: &Resources) -> io::Result<bool> {
        let all = std::thread::available_parallelism().map_or(1, usize::from) as u64 * 1000;
        match cgroups {
            Cgroups::None { .. } => return Ok(false),
            Cgroups::V2 { base, cpu } => {
                self.memory = self.add(name, || v2::parent(base, *cpu, shares(all)))?;
                v2::limit(&self.memory, *cpu, resources)?;
            }
            Cgroups::V1 { memory, cpu } => {
                self.memory = self.add(name, || v1::parent(memory, None))?;
                let cpu = match cpu {
                    Some(cpu) => Some(self.add(name, || v1::parent(cpu, Some(shares(all))))?),
                    None => None,
                };
                v1::limit(&self.memory, cpu.as_deref(), resources)?;
            }
        }
        for folder in &self.folders {
            let entry = OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
            self.entries
                .push(entry.map_err(|error| at(&folder.join("cgroup.procs"), &error))?);
        }
        Ok(true)
    }

    /// Makes the group's folder in a parent that another shim may be removing.
    fn add(&mut self, name: &str, parent: impl Fn() -> io::Result<PathBuf>) -> io::Result<PathBuf> {
        let mut tries = 0;
        loop {
            tries += 1;
            let made = parent().and_then(|parent| {
                let folder = parent.join(name);
                make(&folder).map(|()| folder)
            });
            match made {
                Ok(folder) => {
                    self.folders.push(folder.clone());
                    return Ok(folder);
                }
                Err(error) if tries < 5 && gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A process that writes `0` to each of these is in the group from then on.
    pub(super) fn entries(&self) -> Vec<RawFd> {
        self.entries.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// How many of its processes the kernel has killed for memory.
    pub fn oom_kills(&self) -> u64 {
        if self.v2 {
            v2::oom_kills(&read(&self.memory, "memory.events"))
        } else {
            v1::oom_kills(&read(&self.memory, "memory.oom_control"))
        }
    }

    /// Ends what is left in the group and removes it. Takes time only if something is left.
    pub fn remove(&self) {
        for folder in &self.folders {
            if let Err(error) = remove(folder) {
                eprintln!("shim: cannot remove the cgroup {}: {error}", folder.display());
            }
        }
    }
}

/// Puts the calling process into a group; where that fails, errno tells why. For a child between fork and exec: only write(2).
pub(super) fn enter(entries: &[RawFd]) -> bool {
    entries.iter().all(|entry| {
        // SAFETY: writes one byte that is there to a descriptor.
        unsafe { libc::write(*entry, c"0".as_ptr().cast(), 1) == 1 }
    })
}

/// Finds out where groups may be made, by making one and running something in it. On v2 this may move this process and its
/// children into a group of their own.
pub fn probe_cgroups() -> Cgroups {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let places = find::places(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo"));
    let mut reasons = Vec::new();
    let mut found = None;
    match &places.v2 {
        Some(own) => match v2::settle(own) {
            Ok(cgroups) => found = Some(cgroups),
            Err(why) => reasons.push(why),
        },
        None if places.v1.is_empty() => reasons.push("no cgroups are mounted".to_owned()),
        None => {}
    }
    if found.is_none()
        && let Some(memory) = places.v1.get("memory")
    {
        // On a machine of both, memory is in one of the two only: what v2 lacks is of no interest.
        reasons.clear();
        found = Some(Cgroups::V1 {
            memory: memory.clone(),
            cpu: places.v1.get("cpu").cloned(),
        });
    }
    let Some(cgroups) = found else {
        return Cgroups::None {
            why: reasons.join("; "),
        };
    };
    match try_out(&cgroups) {
        Ok(()) => cgroups,
        Err(error) => Cgroups::None {
            why: error.to_string(),
        },
    }
}

fn try_out(cgroups: &Cgroups) -> io::Result<()> {
    let name = format!(
        "probe-{}-{}",
        std::process::id(),
        jiff::Timestamp::now().as_nanosecond()
    );
    let resources = Resources {
        memory_limit: Some(256 << 20),
        cpu_limit: Some(1000),
        cpu_request: None,
    };
    let Some(group) = Group::create(cgroups, &name, &resources)? else {
        return Ok(());
    };
    let entries = group.entries();
    let mut command = Command::new("true");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: only write(2) on descriptors that are open in the child as well.
    unsafe {
        command.pre_exec(move || match enter(&entries) {
            true => Ok(()),
            false => Err(io::Error::last_os_error()),
        });
    }
    let outcome = command.status();
    group.remove();
    outcome.map(drop).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("no process can be moved into {name}: {error}"),
        )
    })
}

/// Removes the groups that a Pod's shim left when it was killed, and ends what runs in them.
pub fn remove_groups(cgroups: &Cgroups, uid: &str) {
    let bases: Vec<&PathBuf> = match cgroups {
        Cgroups::V2 { base, .. } => vec![base],
        Cgroups::V1 { memory, cpu } => [memory].into_iter().chain(cpu).collect(),
        Cgroups::None { .. } => Vec::new(),
    };
    let prefix = group_name(uid, "", None);
    for base in bases {
        for entry in fs::read_dir(base.join(PODS)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix)
                && let Err(error) = remove(&entry.path())
            {
                tracing::warn!(%error, group = %entry.path().display(), "a cgroup is left");
            }
        }
    }
}

/// The name of the group of a container's n-th run; without a number, what all of the Pod's begin with.
pub fn group_name(uid: &str, container: &str, attempt: Option<u32>) -> String {
    let attempt = attempt.map(|number| format!("-{number}")).unwrap_or_default();
    format!("{uid}-{container}{attempt}")
}

fn remove(folder: &Path) -> io::Result<()> {
    let (pause, times) = PATIENCE;
    let mut tries = 0;
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => break,
            Err(error) if gone(&error) => break,
            Err(error) if tries >= times => return Err(error),
            Err(_) => {}
        }
        tries += 1;
        for pid in read(folder, "cgroup.procs").lines() {
            if let Ok(pid) = pid.parse::<i32>()
                && pid > 1
            {
                // SAFETY: a signal to a process of a group that is ours alone.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        std::thread::sleep(pause);
    }
    // The last one removes the parent too; while others are in it this fails.
    if let Some(parent) = folder.parent() {
        drop(fs::remove_dir(parent));
    }
    Ok(())
}

/// A folder that is there already is fine.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(folder, &error)),
        _ => Ok(()),
    }
}

/// Writes a setting. The file is there or it is not: nothing is created.
fn set(folder: &Path, file: &str, value: impl fmt::Display) -> io::Result<()> {
    let path = folder.join(file);
    let written = OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{value}").as_bytes()));
    written.map_err(|error| at(&path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    let kind = match error.raw_os_error() {
        Some(libc::ESRCH) => return io::Error::from_raw_os_error(libc::ESRCH),
        // A setting of a group that was removed meanwhile.
        Some(libc::ENODEV) => io::ErrorKind::NotFound,
        _ => error.kind(),
    };
    io::Error::new(kind, format!("{}: {error}", path.display()))
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// The number after a name in a file of lines `name number`.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(known, _)| *known == name)
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}
