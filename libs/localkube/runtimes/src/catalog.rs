//! Which RuntimeImage an image gets: the user's before the defaults, then priority, then the longest pattern.

use crate::reference::Reference;
use crate::resource::RuntimeImageSpec;
use crate::{ImageError, OpenError};

/// The defaults that ship with Ferroflow.
const DEFAULTS: &[(&str, &str)] = &[
    ("python", include_str!("../defaults/python.yaml")),
    ("frameworks", include_str!("../defaults/frameworks.yaml")),
    ("notebooks", include_str!("../defaults/notebooks.yaml")),
    ("host", include_str!("../defaults/host.yaml")),
    ("builtin", include_str!("../defaults/builtin.yaml")),
];

/// A mapping with the name under which users know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub spec: RuntimeImageSpec,
}

/// Reads the defaults: several YAML documents a file.
pub fn defaults() -> Result<Vec<Entry>, OpenError> {
    let mut entries = Vec::new();
    for (file, text) in DEFAULTS {
        let fail = |text: String| OpenError::Default {
            name: (*file).to_owned(),
            text,
        };
        for document in text.split("\n---\n") {
            let image: serde_json::Value =
                serde_saphyr::from_str(document).map_err(|e| fail(e.to_string()))?;
            let name = image["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let spec: RuntimeImageSpec =
                serde_json::from_value(image["spec"].clone()).map_err(|e| fail(format!("{name}: {e}")))?;
            spec.check().map_err(|e| fail(format!("{name}: {e}")))?;
            entries.push(Entry { name, spec });
        }
    }
    Ok(entries)
}

/// Picks the mapping for an image.
pub fn choose<'a>(image: &Reference, users: &'a [Entry], defaults: &'a [Entry]) -> Option<&'a Entry> {
    best(image, users).or_else(|| best(image, defaults))
}

fn best<'a>(image: &Reference, entries: &'a [Entry]) -> Option<&'a Entry> {
    let ranked = entries
        .iter()
        .filter(|e| e.spec.check().is_ok())
        .filter_map(|entry| {
            let longest = entry
                .spec
                .patterns
                .iter()
                .filter(|p| matches(p, image))
                .map(|p| p.replace('*', "").len())
                .max()?;
            Some((
                (
                    entry.spec.priority,
                    longest,
                    std::cmp::Reverse(entry.name.as_str()),
                ),
                entry,
            ))
        });
    ranked.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, entry)| entry)
}

fn matches(pattern: &str, image: &Reference) -> bool {
    let has_tag = pattern.rsplit('/').next().is_some_and(|last| last.contains(':')) || pattern.contains('@');
    image
        .spellings(has_tag)
        .iter()
        .any(|s| glob(pattern.trim().as_bytes(), s.as_bytes()))
}

/// `*` stands for any characters, `?` for one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // where to go on when what follows the last `*` does not fit: after the `*`, one character further
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The text of `ErrImagePull` for an image that nothing maps.
pub fn not_mapped(image: &str) -> ImageError {
    let name: String = Reference::parse(image)
        .last()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let quoted = image.replace(['"', '\\', '\''], "");
    ImageError::NotMapped(format!(
        "no RuntimeImage maps image \"{quoted}\": this node runs Pods as processes, so say what stands for the image, for example\n\
         kubectl apply -f - <<'EOF'\n\
         apiVersion: ferroflow.dev/v1\nkind: RuntimeImage\nmetadata: {{name: {}}}\n\
         spec: {{match: [\"{quoted}\"], python: {{version: \"3.11\", packages: [numpy]}}}}\n\
         EOF\n\
         (or `host: {{}}` in place of `python` for the machine's own tools; see docs/runtime-images.md)",
        name.trim_matches('-')
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{HostRuntime, PythonRuntime};

    fn name_of(image: &str) -> Option<String> {
        choose(&Reference::parse(image), &[], &defaults().unwrap()).map(|e| e.name.clone())
    }

    #[test]
    fn defaults_cover_what_the_sdks_name() {
        for (image, name) in [
            ("python:3.11", "python"),
            ("docker.io/library/python:3.12-slim", "python"),
            ("tensorflow/tensorflow:2.13.0", "tensorflow"),
            (
                "docker.io/pytorch/pytorch:2.1.2-cuda11.8-cudnn8-runtime",
                "pytorch",
            ),
            ("kubeflow/xgboost-dist-iris:1.1", "xgboost"),
            ("kubeflownotebookswg/jupyter-scipy:v1.9.0", "jupyter"),
            (
                "ghcr.io/kubeflow/kubeflow/notebook-servers/jupyter-pytorch-full:latest",
                "jupyter",
            ),
            ("busybox", "host"),
            ("alpine:3.20", "host"),
            ("debian:bookworm-slim", "host"),
            ("ghcr.io/ferroflow/launcher:v0.1.0", "ferroflow"),
            (
                "ghcr.io/ferroflow/modelserver-sklearn:v0.1.0",
                "modelserver-sklearn",
            ),
            (
                "ghcr.io/ferroflow/modelserver-sklearn:1.5.0",
                "modelserver-sklearn-of-a-version",
            ),
            ("ghcr.io/ferroflow/modelserver-onnx:v0.1.0", "modelserver-onnx"),
        ] {
            assert_eq!(name_of(image).as_deref(), Some(name), "{image}");
        }
        assert_eq!(name_of("example.com/team/model:1"), None);
        assert_eq!(name_of("docker.io/kubeflowkatib/pytorch-mnist-cpu:latest"), None);
    }

    #[test]
    fn a_users_mapping_wins_then_priority_then_length() {
        let entry = |name: &str, pattern: &str, priority, python: bool| Entry {
            name: name.to_owned(),
            spec: RuntimeImageSpec {
                patterns: vec![pattern.to_owned()],
                priority,
                python: python.then(PythonRuntime::default),
                host: (!python).then(HostRuntime::default),
                ..Default::default()
            },
        };
        let defaults = defaults().unwrap();
        let users = [
            entry("a", "python*", 0, false),
            entry("b", "python:3.1*", 0, true),
            entry("c", "*", 5, false),
            entry("bad", "[", 9, false),
        ];
        assert_eq!(
            choose(&Reference::parse("python:3.11"), &users, &defaults)
                .unwrap()
                .name,
            "c"
        );
        assert_eq!(
            choose(&Reference::parse("python:3.11"), &users[..2], &defaults)
                .unwrap()
                .name,
            "b"
        );
        assert_eq!(
            choose(&Reference::parse("python:3.9"), &users[..2], &defaults)
                .unwrap()
                .name,
            "a"
        );
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, text, expected) in [
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*/jupyter*", "ghcr.io/x/jupyter-scipy", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("python", "python3", false),
            ("ab*ab", "abab", true),
            ("ab*ab", "aba", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn the_remedy_is_valid_yaml() {
        let ImageError::NotMapped(text) = not_mapped("example.com/Team/my_model:v1") else {
            panic!("wrong kind")
        };
        let yaml = text
            .split("EOF'\n")
            .nth(1)
            .unwrap()
            .split("\nEOF")
            .next()
            .unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(value["metadata"]["name"], "my-model");
        let spec: RuntimeImageSpec = serde_json::from_value(value["spec"].clone()).unwrap();
        spec.check().unwrap();
        assert_eq!(spec.patterns, ["example.com/Team/my_model:v1"]);
    }
}
