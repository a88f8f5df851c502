//! The `RuntimeImage` resource (`ferroflow.dev/v1`, cluster-scoped).

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// What stands for the images whose names match.
///
/// Exactly one of `python`, `host`, `builtin` and `engine` is given.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ferroflow.dev",
    version = "v1",
    kind = "RuntimeImage",
    plural = "runtimeimages",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeImageSpec {
    /// Glob patterns (`*` also matches `/`). A pattern without a tag matches every tag.
    #[serde(rename = "match", default)]
    pub patterns: Vec<String>,
    /// The highest wins among the resources that match; then the longest pattern.
    #[serde(default)]
    pub priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<PythonRuntime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRuntime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<BuiltinRuntime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineRuntime>,
    /// The image's environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The image's CMD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The image's WORKDIR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

/// A Python environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PythonRuntime {
    /// `3.11`; without it the first `3.N` in the image's tag, else the machine's `python3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Requirements as for `pip install`. `{version}` stands for the first version number in the image's tag; an image whose
    /// tag has none gets the requirement without its version.
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_url: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_index_urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub find_links: Vec<String>,
}

/// The machine's own tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostRuntime {}

/// Ferroflow's own executable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuiltinRuntime {
    /// Which one, e.g. `launcher`; without it the last part of the image's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The image itself, by a container engine of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineRuntime {}

impl RuntimeImageSpec {
    /// Says what is wrong with the resource, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if self.patterns.is_empty() {
            return Err("spec.match: must hold at least one pattern".to_owned());
        }
        let given = [
            self.python.is_some(),
            self.host.is_some(),
            self.builtin.is_some(),
            self.engine.is_some(),
        ];
        match given.iter().filter(|g| **g).count() {
            1 => Ok(()),
            n => Err(format!(
                "spec: exactly one of python, host, builtin and engine must be given, not {n}"
            )),
        }
    }
}
