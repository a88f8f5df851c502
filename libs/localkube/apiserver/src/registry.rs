//! Which resources the server has, in which versions; built-in ones and those of CustomResourceDefinitions.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::crd::CustomVersion;
use crate::definitions::Definitions;
use crate::error::GroupResource;
use crate::kinds::{BuiltinKind, KindRules, ScalePaths};

/// A resource in one served version.
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub status: bool,
    pub scale: Option<ScalePaths>,
    pub generation: bool,
    /// Name of its objects in the store; versions of one resource share it.
    pub storage: Arc<str>,
    pub behaviour: Behaviour,
}

/// What makes the kind special.
pub enum Behaviour {
    /// Rules in code, fields by the published definition of this name.
    Builtin {
        rules: Arc<dyn KindRules>,
        definition: Option<String>,
    },
    Custom(Arc<CustomVersion>),
}

impl Resource {
    pub fn gr(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.plural)
    }
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
    pub fn list_kind(&self) -> String {
        match &self.behaviour {
            Behaviour::Custom(c) => c.list_kind.clone(),
            Behaviour::Builtin { .. } => format!("{}List", self.kind),
        }
    }
    pub fn custom(&self) -> Option<&Arc<CustomVersion>> {
        match &self.behaviour {
            Behaviour::Custom(c) => Some(c),
            Behaviour::Builtin { .. } => None,
        }
    }
    pub fn rules(&self) -> Option<&Arc<dyn KindRules>> {
        match &self.behaviour {
            Behaviour::Builtin { rules, .. } => Some(rules),
            Behaviour::Custom(_) => None,
        }
    }
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
    /// Subresources other than status and scale, with their kind's group version kind and verbs.
    pub fn extra_subresources(&self) -> Vec<Subresource> {
        let sub = |name, group, version, kind, verbs: &[&'static str]| Subresource {
            name,
            group,
            version,
            kind,
            verbs: verbs.to_vec(),
        };
        match (self.group.as_str(), self.plural.as_str()) {
            ("", "pods") => vec![
                sub("attach", "", "v1", "PodAttachOptions", &["create", "get"]),
                sub("binding", "", "v1", "Binding", &["create"]),
                sub(
                    "ephemeralcontainers",
                    "",
                    "v1",
                    "Pod",
                    &["get", "patch", "update"],
                ),
                sub("eviction", "policy", "v1", "Eviction", &["create"]),
                sub("exec", "", "v1", "PodExecOptions", &["create", "get"]),
                sub("log", "", "v1", "Pod", &["get"]),
                sub(
                    "portforward",
                    "",
                    "v1",
                    "PodPortForwardOptions",
                    &["create", "get"],
                ),
                sub(
                    "proxy",
                    "",
                    "v1",
                    "PodProxyOptions",
                    &["create", "delete", "get", "patch", "update"],
                ),
                sub("resize", "", "v1", "Pod", &["get", "patch", "update"]),
            ],
            ("", "services") => vec![sub(
                "proxy",
                "",
                "v1",
                "ServiceProxyOptions",
                &["create", "delete", "get", "patch", "update"],
            )],
            ("", "nodes") => vec![sub(
                "proxy",
                "",
                "v1",
                "NodeProxyOptions",
                &["create", "delete", "get", "patch", "update"],
            )],
            ("", "serviceaccounts") => {
                vec![sub(
                    "token",
                    "authentication.k8s.io",
                    "v1",
                    "TokenRequest",
                    &["create"],
                )]
            }
            ("", "namespaces") => vec![sub("finalize", "", "v1", "Namespace", &["update"])],
            _ => Vec::new(),
        }
    }
}

/// A subresource as discovery shows it.
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: Vec<&'static str>,
}

pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// `apps/v1` to (`apps`, `v1`), `v1` to (``, `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// An immutable view of all resources.
#[derive(Default)]
pub struct Snapshot {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    by_kind: HashMap<(String, String, String), Arc<Resource>>,
    /// Groups in discovery order, each with its versions, preferred first.
    pub groups: Vec<(String, Vec<String>)>,
}

impl Snapshot {
    fn build(resources: Vec<Arc<Resource>>) -> Self {
        let mut out = Self::default();
        for r in &resources {
            let versions = match out.groups.iter_mut().find(|(g, _)| *g == r.group) {
                Some((_, versions)) => versions,
                None => {
                    out.groups.push((r.group.clone(), Vec::new()));
                    &mut out
                        .groups
                        .last_mut()
                        .unwrap_or_else(|| unreachable!("just pushed"))
                        .1
                }
            };
            if !versions.contains(&r.version) {
                versions.push(r.version.clone());
            }
            out.by_path
                .insert((r.group.clone(), r.version.clone(), r.plural.clone()), r.clone());
            out.by_kind
                .insert((r.group.clone(), r.version.clone(), r.kind.clone()), r.clone());
        }
        for (_, versions) in &mut out.groups {
            versions.sort_by(|a, b| crate::crd::version_order(a, b));
        }
        // Groups without kinds of their own in the store.
        for group in ["authentication.k8s.io", "authorization.k8s.io"] {
            if !out.groups.iter().any(|(g, _)| g == group) {
                let at = out
                    .groups
                    .iter()
                    .position(|(g, _)| g == "autoscaling")
                    .unwrap_or(out.groups.len());
                out.groups.insert(at, (group.to_owned(), vec!["v1".to_owned()]));
            }
        }
        out.resources = resources;
        out
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind
            .get(&(group.to_owned(), version.to_owned(), kind.to_owned()))
    }
    /// Any version of a resource.
    pub fn any(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|r| r.group == group && r.plural == plural)
    }
    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.groups
            .iter()
            .any(|(g, v)| g == group && v.iter().any(|x| x == version))
    }
    pub fn in_group_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources
            .iter()
            .filter(move |r| r.group == group && r.version == version)
    }
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}

/// The resources; replaced as a whole when a CustomResourceDefinition changes.
pub struct Registry {
    current: ArcSwap<Snapshot>,
    builtin: Vec<Arc<Resource>>,
}

impl Registry {
    pub fn new(kinds: Vec<BuiltinKind>, definitions: &Definitions) -> Self {
        let builtin: Vec<Arc<Resource>> = kinds
            .into_iter()
            .map(|k| Arc::new(builtin_resource(k, definitions)))
            .collect();
        Self {
            current: ArcSwap::from_pointee(Snapshot::build(builtin.clone())),
            builtin,
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the custom resources.
    pub fn set_custom(&self, custom: Vec<Arc<Resource>>) {
        let mut all = self.builtin.clone();
        all.extend(custom);
        self.current.store(Arc::new(Snapshot::build(all)));
    }
}

fn builtin_resource(k: BuiltinKind, definitions: &Definitions) -> Resource {
    let singular = if k.singular.is_empty() {
        k.kind.to_lowercase()
    } else {
        k.singular.to_owned()
    };
    // Both kinds of events are one set of objects.
    let storage_group = if k.group == "events.k8s.io" { "" } else { k.group };
    let scale = k.scale.then(|| ScalePaths {
        spec_replicas: ".spec.replicas".into(),
        status_replicas: ".status.replicas".into(),
        selector: Some(".spec.selector".into()),
    });
    Resource {
        group: k.group.into(),
        version: k.version.into(),
        kind: k.kind.into(),
        plural: k.plural.into(),
        singular,
        short_names: k.short_names.iter().map(ToString::to_string).collect(),
        categories: k.categories.iter().map(ToString::to_string).collect(),
        namespaced: k.namespaced,
        status: k.status,
        scale,
        generation: k.generation,
        storage: Arc::from(format!("{storage_group}/{}", k.plural)),
        behaviour: Behaviour::Builtin {
            definition: definitions.of_kind(k.group, k.version, k.kind),
            rules: k.rules,
        },
    }
}

/// `events.k8s.io/v1` and `v1` Events differ in names of fields only; they are stored as `v1`.
pub mod events {
    use super::{Value, json};

    const NAMES: [(&str, &str); 6] = [
        ("regarding", "involvedObject"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ];

    fn rename(obj: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
        if let Some(map) = obj.as_object_mut() {
            for (from, to) in pairs {
                if let Some(v) = map.remove(from) {
                    map.insert(to.to_owned(), v);
                }
            }
        }
    }
    fn controller_names(obj: &mut Value, to_core: bool) {
        let (a, b) = ("reportingController", "reportingComponent");
        rename(obj, std::iter::once(if to_core { (a, b) } else { (b, a) }));
    }

    pub fn to_core(obj: &mut Value) {
        rename(obj, NAMES.into_iter());
        controller_names(obj, true);
        obj["apiVersion"] = json!("v1");
    }
    pub fn from_core(obj: &mut Value) {
        rename(obj, NAMES.into_iter().map(|(a, b)| (b, a)));
        controller_names(obj, false);
        obj["apiVersion"] = json!("events.k8s.io/v1");
    }
}
