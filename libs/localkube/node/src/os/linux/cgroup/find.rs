//! Where the cgroups of this process are, from `/proc/self/cgroup` and `/proc/self/mountinfo` (cgroups(7), proc(5)). Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Folders of the groups that this process is in; none of them need be writable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub v2: Option<PathBuf>,
    /// by controller
    pub v1: BTreeMap<String, PathBuf>,
}

/// A line of mountinfo that mounts cgroups.
struct Mount {
    /// the group that is mounted, as the hierarchy names it
    root: PathBuf,
    point: PathBuf,
    v2: bool,
    /// `rw`, and the controllers of a v1 hierarchy
    options: Vec<String>,
}

pub(super) fn places(cgroup: &str, mountinfo: &str) -> Places {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    let mut places = Places::default();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        // Of a group that was removed meanwhile.
        let path = Path::new(path.trim_end_matches(" (deleted)"));
        if controllers.is_empty() {
            places.v2 = mounts
                .iter()
                .filter(|mount| mount.v2)
                .find_map(|mount| folder(mount, path));
            continue;
        }
        for controller in controllers.split(',') {
            let found = mounts
                .iter()
                .filter(|mount| !mount.v2 && mount.options.iter().any(|option| option == controller))
                .find_map(|mount| folder(mount, path));
            if let Some(found) = found {
                places.v1.insert(controller.to_owned(), found);
            }
        }
    }
    places
}

/// `id parent major:minor root point options [tags...] - type source options`.
fn mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(3);
    let (root, point) = (head.next()?, head.next()?);
    let mut tail = tail.split(' ');
    let v2 = match tail.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        v2,
        options: tail.nth(1)?.split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                result.push(char::from(code));
                result.push_str(rest);
            }
            _ => {
                result.push('\\');
                result.push_str(part);
            }
        }
    }
    PathBuf::from(result)
}

/// Where the group `path` is seen through a mount; None when the mount shows another part of the hierarchy.
fn folder(mount: &Mount, path: &Path) -> Option<PathBuf> {
    let inside = path.strip_prefix(&mount.root).ok()?;
    // Out of this process's cgroup namespace.
    if inside.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    Some(mount.point.join(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v1(pairs: &[(&str, &str)]) -> BTreeMap<String, PathBuf> {
        let pair = |(name, path): &(&str, &str)| ((*name).to_owned(), PathBuf::from(path));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_systemd_user_scope_on_v2() {
        let found = places(
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r6a0e.scope\n",
            "24 31 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw\n\
             35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
        );
        let own = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/run-r6a0e.scope";
        assert_eq!((found.v2, found.v1), (Some(own.into()), BTreeMap::new()));
    }

    #[test]
    fn root_in_docker_on_v2_is_at_the_top_of_its_namespace() {
        let found = places(
            "0::/\n",
            "1052 1046 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n",
        );
        assert_eq!(found.v2, Some("/sys/fs/cgroup/".into()));
    }

    #[test]
    fn root_in_docker_on_v1_sees_its_own_group_as_the_mount() {
        let id = "b9bfcb2b5c1d4d2f";
        let found = places(
            &format!(
                "11:memory:/docker/{id}\n3:cpu,cpuacct:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"
            ),
            &format!(
                "822 821 0:27 /docker/{id} /sys/fs/cgroup/systemd ro,nosuid,nodev,noexec,relatime master:9 - cgroup cgroup rw,xattr,name=systemd\n\
                 828 821 0:33 /docker/{id} /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory\n\
                 829 821 0:34 /docker/{id} /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:18 - cgroup cgroup rw,cpu,cpuacct\n"
            ),
        );
        let wanted = v1(&[
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct/"),
            ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
            ("memory", "/sys/fs/cgroup/memory/"),
            ("name=systemd", "/sys/fs/cgroup/systemd/"),
        ]);
        assert_eq!((found.v2, found.v1), (None, wanted));
    }

    #[test]
    fn a_hybrid_machine_has_both() {
        let found = places(
            "4:memory:/user.slice/user-1000.slice/session-2.scope\n2:cpu,cpuacct:/user.slice\n0::/user.slice/user-1000.slice/session-2.scope\n",
            "34 25 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
             36 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:12 - cgroup cgroup rw,cpu,cpuacct\n\
             38 25 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory\n",
        );
        let scope = "user.slice/user-1000.slice/session-2.scope";
        assert_eq!(found.v2, Some(format!("/sys/fs/cgroup/unified/{scope}").into()));
        assert_eq!(
            found.v1["memory"],
            PathBuf::from(format!("/sys/fs/cgroup/memory/{scope}"))
        );
        assert_eq!(
            found.v1["cpu"],
            PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/user.slice")
        );
    }

    #[test]
    fn a_group_that_no_mount_shows_is_nowhere() {
        // Entered from outside with the mounts of the container: its group is above the namespace's top.
        let mounts = "40 25 0:30 / /a\\040b rw - cgroup2 cgroup2 rw\n41 25 0:31 /one /m rw - cgroup cgroup rw,memory\n";
        assert_eq!(places("0::/../other\n5:memory:/two\n", mounts), Places::default());
        assert_eq!(places("0::/x (deleted)\n", mounts).v2, Some("/a b/x".into()));
        assert_eq!(places("", ""), Places::default());
    }
}
