//! A container's files: the machine's own root below a private copy-on-write layer, with volumes at their paths.
//!
//! An overlay is laid over `/`, so that a mount point such as `/mnt/models` can be made, and anything written, without
//! touching the machine. Other file systems below `/` are bound where they are, or get a layer of their own when a
//! mount point must be made in them (`/run`, say).
//!
//! An unprivileged user may not lay an overlay over `/` (its mounts are locked to it). Then the root is a small tmpfs
//! with the machine's folders bound into it; a folder that lacks a mount point is made anew in the same way, entry by entry.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use super::child::{Call, Step};
use crate::os::{Isolation, LaunchError};
use crate::plan::Mount;

/// File systems that hold people's files: a container's writes to them stay its own.
const LAYERED: [&str; 4] = ["/home", "/var", "/opt", "/srv"];

/// Devices that containers get, beside those of accelerators: a container's `/dev` is its own.
const DEVICES: [&str; 10] = [
    "null", "zero", "full", "random", "urandom", "tty", "fuse", "kvm", "kfd", "dri",
];
const ACCELERATORS: [&str; 4] = ["nvidia", "accel", "infiniband", "neuron"];

/// The prepared steps that make a container's root.
#[derive(Debug, Default)]
pub struct Root {
    pub(super) steps: Vec<Step>,
}

struct Layer {
    at: PathBuf,
    upper: PathBuf,
    work: PathBuf,
}

struct Builder<'a> {
    scratch: &'a Path,
    privileged: bool,
    layers: Vec<Layer>,
    submounts: Vec<PathBuf>,
    placed: Vec<Mount>,
    layered: bool,
    /// mount points below `/dev`, and whether they are folders
    device_points: Vec<(PathBuf, bool)>,
    /// mount points that the machine lacks, where there are no layers to make them in
    missing: Vec<(PathBuf, bool)>,
    steps: Vec<Step>,
}

/// Plans a root in `scratch`, a fresh folder on a file system that can carry overlays.
pub fn plan_root(
    isolation: &Isolation,
    scratch: &Path,
    mounts: &[Mount],
    working_dir: &Path,
    hostname: &str,
) -> Result<Root, LaunchError> {
    let mut steps = Vec::new();
    if isolation.user_namespace {
        user_namespace_steps(&mut steps)?;
    }
    if isolation.hostname {
        steps.push(Step {
            name: "host name".to_owned(),
            call: Call::Hostname(text(hostname.as_bytes())?),
            optional: true,
        });
    }
    if !isolation.mounts {
        return Ok(Root { steps });
    }
    let mut builder = Builder {
        scratch,
        privileged: !isolation.user_namespace,
        layers: Vec::new(),
        submounts: submounts().map_err(|error| LaunchError::stage("read mounts", error))?,
        placed: Vec::new(),
        layered: isolation.layers,
        device_points: Vec::new(),
        missing: Vec::new(),
        steps,
    };
    builder.plan(isolation, mounts, working_dir)?;
    Ok(Root { steps: builder.steps })
}

fn user_namespace_steps(steps: &mut Vec<Step>) -> Result<(), LaunchError> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    for (path, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ] {
        let call = Call::Write {
            path: text(path.as_bytes())?,
            text: text(content.as_bytes())?,
        };
        steps.push(Step {
            name: format!("write {path}"),
            call,
            optional: false,
        });
    }
    Ok(())
}

impl Builder<'_> {
    fn plan(
        &mut self,
        isolation: &Isolation,
        mounts: &[Mount],
        working_dir: &Path,
    ) -> Result<(), LaunchError> {
        let at = |target: &Path| {
            let target = target.to_owned();
            move |source| LaunchError::MountPoint { target, source }
        };
        let merged = self.scratch.join("root");
        fs::create_dir_all(&merged).map_err(at(&merged))?;
        if self.layered {
            self.add_layer(Path::new("/")).map_err(at(Path::new("/")))?;
        }
        for path in self.submounts.clone() {
            if self.layered && LAYERED.iter().any(|layered| path == Path::new(layered)) {
                self.add_layer(&path).map_err(at(&path))?;
            }
        }
        let mut sorted: Vec<Mount> = mounts.to_vec();
        sorted.sort_by_key(|mount| mount.target.components().count());
        for mount in &mut sorted {
            mount.target = self
                .place(&mount.target, Some(&mount.source))
                .map_err(at(&mount.target))?;
            self.placed.push(mount.clone());
        }
        self.place(working_dir, None).map_err(at(working_dir))?;

        self.mount(
            "make mounts private",
            "none",
            Path::new("/"),
            None,
            libc::MS_REC | libc::MS_PRIVATE,
            None,
            false,
        )?;
        if self.layered {
            let submounts = self.submounts.clone();
            self.mount_layer(Path::new("/"), &merged)?;
            self.mount_below(Path::new("/"), &merged, &submounts)?;
        } else {
            self.assemble(&merged)?;
        }
        let proc = merged.join("proc");
        if isolation.pids {
            self.mount(
                "proc",
                "proc",
                &proc,
                Some("proc"),
                libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                None,
                false,
            )?;
        } else {
            self.mount(
                "proc",
                "/proc",
                &proc,
                None,
                libc::MS_BIND | libc::MS_REC,
                None,
                false,
            )?;
        }
        self.devices(&merged.join("dev"))?;
        for mount in &sorted {
            self.bind(mount, &merged)?;
        }
        let call = Call::Pivot(text(merged.as_os_str().as_bytes())?);
        self.steps.push(Step {
            name: "change the root".to_owned(),
            call,
            optional: false,
        });
        Ok(())
    }

    /// A `/dev` of the container's own: the usual devices, terminals, shared memory and mount points.
    fn devices(&mut self, dev: &Path) -> Result<(), LaunchError> {
        self.mount(
            "devices",
            "dev",
            dev,
            Some("tmpfs"),
            libc::MS_NOSUID,
            Some("mode=755,size=64k".to_owned()),
            false,
        )?;
        let entries = fs::read_dir("/dev").map_err(|error| LaunchError::stage("list /dev", error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let plain = name.to_string_lossy();
            if !DEVICES.contains(&plain.as_ref())
                && !ACCELERATORS.iter().any(|prefix| plain.starts_with(prefix))
            {
                continue;
            }
            let place = dev.join(&name);
            let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            self.point(&place, folder)?;
            self.mount(
                "device",
                entry.path(),
                &place,
                None,
                libc::MS_BIND | libc::MS_REC,
                None,
                true,
            )?;
        }
        self.point(&dev.join("pts"), true)?;
        self.mount(
            "terminals",
            "/dev/pts",
            &dev.join("pts"),
            None,
            libc::MS_BIND | libc::MS_REC,
            None,
            true,
        )?;
        self.point(&dev.join("shm"), true)?;
        if !self
            .placed
            .iter()
            .any(|mount| mount.target == Path::new("/dev/shm"))
        {
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            self.mount(
                "shared memory",
                "shm",
                &dev.join("shm"),
                Some("tmpfs"),
                flags,
                Some("mode=1777".to_owned()),
                true,
            )?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, to) in links {
            let call = Call::Link {
                path: text(dev.join(name).as_os_str().as_bytes())?,
                to: text(to.as_bytes())?,
            };
            self.steps.push(Step {
                name: format!("link /dev/{name}"),
                call,
                optional: true,
            });
        }
        for (path, folder) in std::mem::take(&mut self.device_points) {
            let rest = path.strip_prefix("/dev").unwrap_or(&path).to_owned();
            let parts: Vec<_> = rest.components().collect();
            let mut place = dev.to_owned();
            for (index, part) in parts.iter().enumerate() {
                place.push(part);
                self.point(&place, folder || index + 1 < parts.len())?;
            }
        }
        Ok(())
    }

    fn point(&mut self, place: &Path, folder: bool) -> Result<(), LaunchError> {
        let path = text(place.as_os_str().as_bytes())?;
        let call = if folder {
            Call::Folder(path)
        } else {
            Call::File(path)
        };
        self.steps.push(Step {
            name: format!("make {}", place.display()),
            call,
            optional: true,
        });
        Ok(())
    }

    fn mount(
        &mut self,
        name: &str,
        source: impl AsRef<Path>,
        target: &Path,
        kind: Option<&str>,
        flags: libc::c_ulong,
        data: Option<String>,
        optional: bool,
    ) -> Result<(), LaunchError> {
        let call = Call::Mount {
            source: text(source.as_ref().as_os_str().as_bytes())?,
            target: text(target.as_os_str().as_bytes())?,
            kind: kind.map(|kind| text(kind.as_bytes())).transpose()?,
            flags,
            data: data.map(|data| text(data.as_bytes())).transpose()?,
        };
        self.steps.push(Step {
            name: name.to_owned(),
            call,
            optional,
        });
        Ok(())
    }

    fn bind(&mut self, mount: &Mount, merged: &Path) -> Result<(), LaunchError> {
        let target = below(merged, &mount.target);
        let name = format!("mount {} on {}", mount.source.display(), mount.target.display());
        self.mount(
            &name,
            &mount.source,
            &target,
            None,
            libc::MS_BIND | libc::MS_REC,
            None,
            false,
        )?;
        if mount.read_only {
            // A user namespace may not drop the flags that the source's file system came with.
            let kept = nix::sys::statvfs::statvfs(&mount.source)
                .map_err(|error| LaunchError::stage(name.clone(), error.into()))?
                .flags()
                .bits();
            let mut flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            for (held, flag) in [
                (libc::ST_NOSUID, libc::MS_NOSUID),
                (libc::ST_NODEV, libc::MS_NODEV),
                (libc::ST_NOEXEC, libc::MS_NOEXEC),
                (libc::ST_NOATIME, libc::MS_NOATIME),
                (libc::ST_RELATIME, libc::MS_RELATIME),
            ] {
                if kept & held != 0 {
                    flags |= flag;
                }
            }
            self.mount(&name, "none", &target, None, flags, None, false)?;
        }
        Ok(())
    }

    /// A root of bound folders.
    fn assemble(&mut self, merged: &Path) -> Result<(), LaunchError> {
        self.mount(
            "root",
            "root",
            merged,
            Some("tmpfs"),
            libc::MS_NOSUID | libc::MS_NODEV,
            Some("mode=755".to_owned()),
            false,
        )?;
        let missing = std::mem::take(&mut self.missing);
        let mut anew = BTreeSet::from([PathBuf::from("/")]);
        for (target, _) in &missing {
            let existing = target
                .ancestors()
                .skip(1)
                .find(|path| path.is_dir())
                .unwrap_or(Path::new("/"));
            anew.extend(existing.ancestors().map(Path::to_owned));
        }
        self.fill(Path::new("/"), merged, &anew)?;
        for (target, folder) in missing {
            let mut place = merged.to_owned();
            let parts: Vec<_> = target.strip_prefix("/").unwrap_or(&target).components().collect();
            for (index, part) in parts.iter().enumerate() {
                place.push(part);
                self.point(&place, folder || index + 1 < parts.len())?;
            }
        }
        Ok(())
    }

    fn fill(&mut self, path: &Path, place: &Path, anew: &BTreeSet<PathBuf>) -> Result<(), LaunchError> {
        // What we may not list, the container may not use either.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let (source, target) = (entry.path(), place.join(entry.file_name()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                let Ok(to) = fs::read_link(&source) else { continue };
                let call = Call::Link {
                    path: text(target.as_os_str().as_bytes())?,
                    to: text(to.as_os_str().as_bytes())?,
                };
                self.steps.push(Step {
                    name: format!("link {}", source.display()),
                    call,
                    optional: true,
                });
                continue;
            }
            self.point(&target, kind.is_dir())?;
            if kind.is_dir() && anew.contains(&source) {
                self.fill(&source, &target, anew)?;
            } else if source != Path::new("/proc") && source != Path::new("/dev") {
                let name = format!("bind {}", source.display());
                self.mount(
                    &name,
                    &source,
                    &target,
                    None,
                    libc::MS_BIND | libc::MS_REC,
                    None,
                    true,
                )?;
            }
        }
        Ok(())
    }

    fn add_layer(&mut self, at: &Path) -> io::Result<()> {
        let number = self.layers.len();
        let upper = self.scratch.join(format!("upper{number}"));
        let work = self.scratch.join(format!("work{number}"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        like(at, &upper, self.privileged)?;
        self.layers.push(Layer {
            at: at.to_owned(),
            upper,
            work,
        });
        Ok(())
    }

    fn mount_layer(&mut self, at: &Path, target: &Path) -> Result<(), LaunchError> {
        let Some(layer) = self.layers.iter().find(|layer| layer.at == at) else {
            return Ok(());
        };
        let escape = |path: &Path| {
            path.display()
                .to_string()
                .replace('\\', "\\\\")
                .replace(':', "\\:")
                .replace(',', "\\,")
        };
        // Nothing in a container's root needs to survive a power failure.
        let data = format!(
            "lowerdir={},upperdir={},workdir={},volatile",
            escape(at),
            escape(&layer.upper),
            escape(&layer.work)
        );
        let name = format!("lay a private layer over {}", at.display());
        self.mount(&name, "overlay", target, Some("overlay"), 0, Some(data), false)
    }

    /// Puts the file systems that are mounted directly below `at` into place.
    fn mount_below(&mut self, at: &Path, target: &Path, submounts: &[PathBuf]) -> Result<(), LaunchError> {
        let inside: Vec<&PathBuf> = submounts
            .iter()
            .filter(|path| path.as_path() != at && path.starts_with(at))
            .collect();
        for path in &inside {
            let nested = inside
                .iter()
                .any(|other| other != path && path.starts_with(other));
            if nested || path.as_path() == Path::new("/proc") || path.starts_with("/dev") {
                continue;
            }
            let place = target.join(path.strip_prefix(at).unwrap_or(path));
            if self.layers.iter().any(|layer| layer.at == **path) {
                self.mount_layer(path, &place)?;
                self.mount_below(path, &place, submounts)?;
            } else {
                // What we cannot reach, the container cannot either.
                let name = format!("bind {}", path.display());
                self.mount(
                    &name,
                    path,
                    &place,
                    None,
                    libc::MS_BIND | libc::MS_REC,
                    None,
                    true,
                )?;
            }
        }
        Ok(())
    }

    /// Makes sure that `target` will exist, and returns where it really is (links resolved).
    /// With a source the kind of the mount point follows it; without, it is a folder.
    fn place(&mut self, target: &Path, source: Option<&Path>) -> io::Result<PathBuf> {
        let real = self.resolve(target)?;
        let folder = match source {
            Some(source) => fs::metadata(source)?.is_dir(),
            None => true,
        };
        let inside = self
            .placed
            .iter()
            .filter(|mount| real.starts_with(&mount.target))
            .max_by_key(|mount| mount.target.components().count());
        if let Some(mount) = inside {
            let rest = real.strip_prefix(&mount.target).unwrap_or(Path::new(""));
            if !rest.as_os_str().is_empty() {
                make(&mount.source.join(rest), folder)?;
            }
            return Ok(real);
        }
        if real.starts_with("/dev") {
            self.device_points.push((real.clone(), folder));
            return Ok(real);
        }
        if fs::metadata(&real).is_ok_and(|found| found.is_dir() == folder) {
            return Ok(real);
        }
        if !self.layered {
            self.missing.push((real.clone(), folder));
            return Ok(real);
        }
        let base = self
            .submounts
            .iter()
            .filter(|path| real.starts_with(path))
            .max_by_key(|path| path.components().count())
            .cloned()
            .unwrap_or_else(|| PathBuf::from("/"));
        if !self.layers.iter().any(|layer| layer.at == base) {
            self.add_layer(&base)?;
        }
        let Some(layer) = self.layers.iter().find(|layer| layer.at == base) else {
            return Ok(real);
        };
        // The upper folders take the looks of those they cover.
        let rest = real.strip_prefix(&base).unwrap_or(&real);
        let (mut lower, mut upper) = (base.clone(), layer.upper.clone());
        let parts: Vec<_> = rest.components().collect();
        for (index, part) in parts.iter().enumerate() {
            lower.push(part);
            upper.push(part);
            let last = index + 1 == parts.len();
            if last && !folder {
                fs::OpenOptions::new().create(true).append(true).open(&upper)?;
            } else if !upper.is_dir() {
                fs::create_dir(&upper)?;
                if lower.is_dir() {
                    like(&lower, &upper, self.privileged)?;
                }
            }
        }
        Ok(real)
    }

    /// Follows links as the container will: on the machine's files until a volume begins.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut pending: Vec<std::ffi::OsString> = Vec::new();
        let push = |pending: &mut Vec<std::ffi::OsString>, path: &Path| {
            for part in path.components().rev() {
                match part {
                    Component::Normal(name) => pending.push(name.to_owned()),
                    Component::ParentDir => pending.push("..".into()),
                    _ => {}
                }
            }
        };
        push(&mut pending, path);
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(&name);
            if self.placed.iter().any(|mount| real.starts_with(&mount.target)) {
                continue;
            }
            if let Ok(link) = fs::read_link(&real) {
                links += 1;
                if links > 40 {
                    return Err(io::Error::other(format!("{} has too many links", path.display())));
                }
                real.pop();
                if link.is_absolute() {
                    real = PathBuf::from("/");
                }
                push(&mut pending, &link);
            }
        }
        Ok(real)
    }
}

fn make(path: &Path, folder: bool) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if folder {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
}

fn like(model: &Path, path: &Path, privileged: bool) -> io::Result<()> {
    let found = fs::metadata(model)?;
    if privileged {
        chown(path, Some(found.uid()), Some(found.gid()))?;
    }
    // Write for ourselves, so that the container can make files in it as the root of an image could.
    fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777 | 0o700))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn text(bytes: &[u8]) -> Result<CString, LaunchError> {
    CString::new(bytes)
        .map_err(|_| LaunchError::stage("a path holds a zero byte", io::ErrorKind::InvalidInput.into()))
}

/// Where file systems are mounted, the root excepted.
fn submounts() -> io::Result<Vec<PathBuf>> {
    Ok(parse_mounts(&fs::read("/proc/self/mountinfo")?))
}

fn parse_mounts(mountinfo: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some(path) = line.split(|byte| *byte == b' ').nth(4) else {
            continue;
        };
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(path)));
        if path != Path::new("/") && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// Mount tables write blanks and the like as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = |bytes: &[u8]| {
            bytes.iter().try_fold(0u16, |sum, b| {
                (b'0'..=b'7').contains(b).then(|| sum * 8 + u16::from(b - b'0'))
            })
        };
        if *first == b'\\'
            && tail.len() >= 3
            && let Some(value) = octal(&tail[..3])
        {
            plain.push(value as u8);
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

/// Removes a root's layers after its container has ended.
pub fn remove_scratch(scratch: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(scratch) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(b"work"))
        {
            // The kernel leaves a folder without permissions, which its owner cannot list.
            let inner = path.join("work");
            if inner.is_dir() {
                fs::set_permissions(&inner, fs::Permissions::from_mode(0o700))?;
            }
        }
    }
    fs::remove_dir_all(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:1 / /media/my\\040disk rw - ext4 x rw\n";
        assert_eq!(
            parse_mounts(table),
            [PathBuf::from("/proc"), PathBuf::from("/media/my disk")]
        );
    }
}
