//! Where no mount namespace can be made, volumes are not at their paths. What the Pod spec says of such a path is then
//! rewritten to where the volume is, and `FERROFLOW_MOUNTS` holds the mapping (JSON, path in the Pod to path here) for
//! programs that have paths built in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::plan::{ContainerSpec, Mount};

/// The variable with the mapping.
pub const VARIABLE: &str = "FERROFLOW_MOUNTS";

/// The same container for a machine without mounts.
pub(super) fn without_mounts(mut spec: ContainerSpec) -> ContainerSpec {
    let mut mounts = std::mem::take(&mut spec.mounts);
    // The machine's own files stay what they are; deeper mounts win.
    mounts
        .retain(|mount| mount.source != mount.target && !matches!(mount.target.to_str(), Some("/etc/hosts")));
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.target.components().count()));
    for text in spec
        .argv
        .iter_mut()
        .skip(1)
        .chain(spec.env.iter_mut().map(|(_, value)| value))
    {
        if let Some(mapped) = map(&mounts, Path::new(text.as_str())) {
            *text = mapped.display().to_string();
        }
    }
    if let Some(mapped) = map(&mounts, &spec.working_dir) {
        spec.working_dir = mapped;
    }
    if let Some(mapped) = map(&mounts, &spec.termination_message_path) {
        spec.termination_message_path = mapped;
    }
    let table: BTreeMap<&Path, &Path> = mounts
        .iter()
        .map(|mount| (mount.target.as_path(), mount.source.as_path()))
        .collect();
    if let Ok(text) = serde_json::to_string(&table) {
        spec.env.push((VARIABLE.to_owned(), text));
    }
    if let Some(temporary) = mounts.iter().find(|mount| mount.target == Path::new("/tmp")) {
        spec.env
            .push(("TMPDIR".to_owned(), temporary.source.display().to_string()));
    }
    spec
}

fn map(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let mount = mounts.iter().find(|mount| path.starts_with(&mount.target))?;
    let rest = path.strip_prefix(&mount.target).ok()?;
    Some(if rest.as_os_str().is_empty() {
        mount.source.clone()
    } else {
        mount.source.join(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_volumes_are_rewritten_and_told() {
        let mount = |source: &str, target: &str| Mount {
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        let spec = ContainerSpec {
            name: "main".into(),
            argv: vec![
                "/bin/server".into(),
                "/mnt/models/m.json".into(),
                "--quiet".into(),
            ],
            env: vec![
                ("MODEL".into(), "/mnt/models".into()),
                ("OTHER".into(), "/mnt/modelsx".into()),
            ],
            working_dir: "/mnt/models/sub/w".into(),
            mounts: vec![
                mount("/pod/a", "/mnt/models"),
                mount("/pod/b", "/mnt/models/sub"),
                mount("/cache", "/cache"),
            ],
            termination_message_path: "/dev/termination-log".into(),
            stdin: false,
            stdin_once: false,
            tty: false,
            image: String::new(),
            image_id: String::new(),
        };
        let mapped = without_mounts(spec);
        assert_eq!(mapped.argv, ["/bin/server", "/pod/a/m.json", "--quiet"]);
        assert_eq!(mapped.env[0].1, "/pod/a");
        assert_eq!(mapped.env[1].1, "/mnt/modelsx");
        assert_eq!(mapped.working_dir, Path::new("/pod/b/w"));
        assert_eq!(
            mapped.env[2].1,
            r#"{"/mnt/models":"/pod/a","/mnt/models/sub":"/pod/b"}"#
        );
    }
}
