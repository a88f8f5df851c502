//! cgroup v2: one hierarchy (kernel: admin-guide/cgroup-v2). A group that hands controllers on to groups below it may hold
//! no processes itself, so the agent's own go into a leaf first.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{make, set};
use crate::os::limits::{CPU_PERIOD, Cgroups, Resources, weight};

/// The leaf of the agent, its nursery and its shims.
const AGENT: &str = "ferroflow-agent";
/// Children that are forked while the others are moved are moved in another round.
const ROUNDS: usize = 20;

/// Makes the group `own` that this process is in one that containers can live below. The error says what to do.
pub(super) fn settle(own: &Path) -> Result<Cgroups, String> {
    let parent_is_ours = own.file_name().is_some_and(|name| name == AGENT);
    let base = match own.parent() {
        Some(parent) if parent_is_ours => parent.to_owned(),
        _ => own.to_owned(),
    };
    let controllers = words(&base, "cgroup.controllers").map_err(|error| unreadable(&base, &error))?;
    if !controllers.iter().any(|name| name == "memory") {
        return Err(format!("{} has no memory controller{}", base.display(), remedy()));
    }
    // Only the top of the hierarchy has no type, and may hold processes beside groups.
    let top = !base.join("cgroup.type").exists();
    let writable = |name: &str| fs::OpenOptions::new().write(true).open(base.join(name));
    for name in ["cgroup.procs", "cgroup.subtree_control"] {
        if let Err(error) = writable(name) {
            return Err(format!(
                "{} is not ours to change: {error}{}",
                base.display(),
                remedy()
            ));
        }
    }
    if !top {
        move_to_leaf(&base)?;
    }
    let handed = words(&base, "cgroup.subtree_control").map_err(|error| unreadable(&base, &error))?;
    let hand_on = |name: &str| {
        if handed.iter().any(|known| known == name) {
            return Ok(());
        }
        set(&base, "cgroup.subtree_control", format!("+{name}"))
    };
    hand_on("memory").map_err(|error| error.to_string())?;
    let cpu = controllers.iter().any(|name| name == "cpu") && hand_on("cpu").is_ok();
    Ok(Cgroups::V2 { base, cpu })
}

fn unreadable(folder: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", folder.display())
}

/// How to start Ferroflow in a group of its own.
fn remedy() -> String {
    let user = if nix::unistd::geteuid().is_root() {
        ""
    } else {
        " --user"
    };
    format!("; where systemd runs, start it as `systemd-run{user} --scope -p Delegate=yes ferroflow up`")
}

fn words(folder: &Path, file: &str) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(folder.join(file))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Moves our processes out of `base`, if no others are in it.
fn move_to_leaf(base: &Path) -> Result<(), String> {
    let leaf = base.join(AGENT);
    for _ in 0..ROUNDS {
        let members: Vec<i32> = words(base, "cgroup.procs")
            .map_err(|error| unreadable(base, &error))?
            .iter()
            .filter_map(|word| word.parse().ok())
            .collect();
        if members.is_empty() {
            return Ok(());
        }
        let parents = parents();
        let me = std::process::id().cast_signed();
        if let Some(stranger) = members.iter().find(|pid| !descends(**pid, me, &parents)) {
            let name = fs::read_to_string(format!("/proc/{stranger}/comm")).unwrap_or_default();
            return Err(format!(
                "{} holds processes that are not ours, such as {stranger} ({}){}",
                base.display(),
                name.trim(),
                remedy()
            ));
        }
        make(&leaf).map_err(|error| error.to_string())?;
        for pid in members {
            match set(&leaf, "cgroup.procs", pid) {
                // It ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                outcome => outcome.map_err(|error| error.to_string())?,
            }
        }
    }
    Err(format!("{} does not become empty", base.display()))
}

/// The parent of each process.
fn parents() -> HashMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent_of(&stat)?))
        })
        .collect()
}

/// The fourth field of `/proc/<pid>/stat`; the second may hold blanks and parentheses.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn descends(pid: i32, from: i32, parents: &HashMap<i32, i32>) -> bool {
    let mut pid = pid;
    // More generations than that are a loop of recycled ids.
    for _ in 0..1000 {
        if pid == from {
            return true;
        }
        match parents.get(&pid) {
            Some(parent) if *parent != pid => pid = *parent,
            _ => return false,
        }
    }
    false
}

/// The folder that holds all containers; its weight is that of all cores.
pub(super) fn parent(base: &Path, cpu: bool, shares: u64) -> io::Result<PathBuf> {
    let parent = base.join(super::PODS);
    make(&parent)?;
    set(&parent, "cgroup.subtree_control", "+memory")?;
    if cpu {
        set(&parent, "cgroup.subtree_control", "+cpu")?;
        set(&parent, "cpu.weight", weight(shares))?;
    }
    Ok(parent)
}

/// Sets the limits of a new group.
pub(super) fn limit(group: &Path, cpu: bool, resources: &Resources) -> io::Result<()> {
    // Half a container is of no use to anyone, and its exit code would be misleading. Since Linux 4.19.
    drop(set(group, "memory.oom.group", 1));
    if let Some(bytes) = resources.memory_limit {
        set(group, "memory.max", bytes)?;
        // Not there without swap accounting.
        drop(set(group, "memory.swap.max", 0));
    }
    if cpu {
        set(group, "cpu.weight", weight(resources.cpu_shares()))?;
        if let Some(quota) = resources.cpu_quota() {
            set(group, "cpu.max", format!("{quota} {CPU_PERIOD}"))?;
        }
    }
    Ok(())
}

/// Processes of the group that the kernel has killed for memory, from the text of `memory.events`.
pub(super) fn oom_kills(events: &str) -> u64 {
    super::field(events, "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_past_any_name() {
        assert_eq!(parent_of("41 (a ) 7 (x) S 12 41 41 0 -1"), Some(12));
        assert_eq!(parent_of(""), None);
    }

    #[test]
    fn only_descendants_are_ours() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (30, 31), (31, 30)]);
        let ours: Vec<i32> = [10, 11, 12, 20, 30, 99]
            .into_iter()
            .filter(|pid| descends(*pid, 10, &parents))
            .collect();
        assert_eq!(ours, [10, 11, 12]);
    }

    /// A folder with the files of a group.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_group_without_the_memory_controller_says_how_to_get_one() {
        let own = group(&[("cgroup.controllers", "pids\n")]);
        let why = settle(own.path()).unwrap_err();
        assert!(
            why.contains("has no memory controller; where systemd runs"),
            "{why}"
        );
    }

    #[test]
    fn a_group_that_is_shared_is_left_alone() {
        let own = group(&[
            ("cgroup.controllers", "cpu memory\n"),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", "1\n"),
            ("cgroup.subtree_control", ""),
        ]);
        let why = settle(own.path()).unwrap_err();
        assert!(
            why.contains("holds processes that are not ours, such as 1 ("),
            "{why}"
        );
        assert!(!own.path().join(AGENT).exists());
    }

    #[test]
    fn an_agent_that_is_started_by_another_uses_the_group_above() {
        let own = group(&[
            ("cgroup.controllers", "memory\n"),
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", "memory\n"),
        ]);
        let base = own.path().to_owned();
        assert_eq!(
            settle(&base.join(AGENT)).unwrap(),
            Cgroups::V2 { base, cpu: false }
        );
    }

    #[test]
    fn kills_are_counted_from_the_events() {
        let events = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(oom_kills(events), 3);
        assert_eq!(oom_kills(""), 0);
    }
}
