//! Role-based access control.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::UserInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MASTERS, groups, username};
use crate::selectors::LabelSelector;
use crate::store::Store;

pub const ROLES: &str = "rbac.authorization.k8s.io/roles";
pub const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
pub const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
pub const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// A `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for paths that are no resources.
    pub path: Option<&'a str>,
}

impl Rule {
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|x| x == "*" || x == wanted);
        if !any(&self.verbs, a.verb) {
            return false;
        }
        if let Some(path) = a.path {
            return self.non_resource_urls.iter().any(|u| {
                u == "*" || u == path || u.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
            });
        }
        any(&self.api_groups, a.group) && self.covers_resource(a) && self.covers_name(a.name)
    }

    fn covers_resource(&self, a: &Attributes<'_>) -> bool {
        self.resources.iter().any(|r| {
            if r == "*" {
                return true;
            }
            if a.subresource.is_empty() {
                return r == a.resource;
            }
            r.split_once('/')
                .is_some_and(|(res, sub)| sub == a.subresource && (res == "*" || res == a.resource))
        })
    }

    fn covers_name(&self, name: &str) -> bool {
        self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name)
    }
}

/// Rules of one role with the text that explains a grant.
#[derive(Debug, Clone)]
pub struct Grant {
    pub namespace: Option<String>,
    pub rules: Arc<Vec<Rule>>,
    pub binding: String,
    pub role: String,
}

/// Grants by subject.
#[derive(Debug, Default)]
pub struct Index {
    by_subject: HashMap<Subject, Vec<Grant>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// The rules of a role, those of an aggregated one included.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    serde_json::from_value(role["rules"].clone()).unwrap_or_default()
}

/// The union of the rules that an aggregation selects.
pub fn aggregated_rules(role: &Value, all: &[Arc<crate::store::Obj>]) -> Option<Vec<Rule>> {
    let selectors: Vec<LabelSelector> = role["aggregationRule"]["clusterRoleSelectors"]
        .as_array()?
        .iter()
        .filter_map(|s| LabelSelector::from_object(s).ok())
        .collect();
    let mut out: Vec<Rule> = Vec::new();
    for other in all {
        let other = other.value();
        if other["metadata"]["name"] == role["metadata"]["name"] {
            continue;
        }
        let labels = other["metadata"]["labels"].as_object();
        if selectors.iter().any(|s| s.matches(labels)) {
            for rule in rules_of(other) {
                if !out.contains(&rule) {
                    out.push(rule);
                }
            }
        }
    }
    Some(out)
}

impl Index {
    pub fn build(store: &Store) -> Self {
        let mut out = Self::default();
        let cluster_roles: HashMap<String, Arc<Vec<Rule>>> = store
            .list(CLUSTER_ROLES, None, None)
            .1
            .iter()
            .map(|o| {
                (
                    o.value()["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    Arc::new(rules_of(o.value())),
                )
            })
            .collect();
        let roles: HashMap<(String, String), Arc<Vec<Rule>>> = store
            .list(ROLES, None, None)
            .1
            .iter()
            .map(|o| {
                let meta = &o.value()["metadata"];
                let get = |f: &str| meta[f].as_str().unwrap_or_default().to_owned();
                ((get("namespace"), get("name")), Arc::new(rules_of(o.value())))
            })
            .collect();
        for obj in store.list(CLUSTER_ROLE_BINDINGS, None, None).1 {
            let b = obj.value();
            let role = b["roleRef"]["name"].as_str().unwrap_or_default();
            if let Some(rules) = cluster_roles.get(role) {
                let binding = format!(
                    "ClusterRoleBinding {:?}",
                    b["metadata"]["name"].as_str().unwrap_or_default()
                );
                out.add(b, None, rules, &binding, &format!("ClusterRole {role:?}"));
            }
        }
        for obj in store.list(ROLE_BINDINGS, None, None).1 {
            let b = obj.value();
            let ns = b["metadata"]["namespace"].as_str().unwrap_or_default();
            let role = b["roleRef"]["name"].as_str().unwrap_or_default();
            let kind = b["roleRef"]["kind"].as_str().unwrap_or_default();
            let rules = if kind == "ClusterRole" {
                cluster_roles.get(role)
            } else {
                roles.get(&(ns.to_owned(), role.to_owned()))
            };
            if let Some(rules) = rules {
                let binding = format!(
                    "RoleBinding {:?}",
                    format!("{}/{ns}", b["metadata"]["name"].as_str().unwrap_or_default())
                );
                out.add(b, Some(ns), rules, &binding, &format!("{kind} {role:?}"));
            }
        }
        out
    }

    fn add(&mut self, b: &Value, namespace: Option<&str>, rules: &Arc<Vec<Rule>>, binding: &str, role: &str) {
        for subject in b["subjects"].as_array().into_iter().flatten() {
            let name = subject["name"].as_str().unwrap_or_default();
            let (key, shown) = match subject["kind"].as_str() {
                Some("User") => (Subject::User(name.to_owned()), format!("User {name:?}")),
                Some("Group") => (Subject::Group(name.to_owned()), format!("Group {name:?}")),
                Some("ServiceAccount") => {
                    let ns = subject["namespace"].as_str().or(namespace).unwrap_or_default();
                    (
                        Subject::User(format!("system:serviceaccount:{ns}:{name}")),
                        format!("ServiceAccount {:?}", format!("{name}/{ns}")),
                    )
                }
                _ => continue,
            };
            self.by_subject.entry(key).or_default().push(Grant {
                namespace: namespace.map(str::to_owned),
                rules: rules.clone(),
                binding: binding.to_owned(),
                role: format!("{role} to {shown}"),
            });
        }
    }

    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let name = Subject::User(username(user).to_owned());
        std::iter::once(name)
            .chain(groups(user).iter().map(|g| Subject::Group(g.clone())))
            .filter_map(|s| self.by_subject.get(&s))
            .flatten()
            .filter(move |g| g.namespace.as_deref().is_none_or(|ns| ns == namespace))
    }

    /// Whether the user may; with the reason when so.
    pub fn allows(&self, user: &UserInfo, a: &Attributes<'_>) -> Option<String> {
        if groups(user).iter().any(|g| g == MASTERS) {
            return Some(String::new());
        }
        self.grants(user, a.namespace)
            .find(|g| g.rules.iter().any(|r| r.allows(a)))
            .map(|g| format!("RBAC: allowed by {} of {}", g.binding, g.role))
    }

    /// All rules that hold for the user in a namespace (`""` for those of the cluster only).
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if groups(user).iter().any(|g| g == MASTERS) {
            let star = || vec!["*".to_owned()];
            return vec![
                Rule {
                    verbs: star(),
                    api_groups: star(),
                    resources: star(),
                    ..Rule::default()
                },
                Rule {
                    verbs: star(),
                    non_resource_urls: star(),
                    ..Rule::default()
                },
            ];
        }
        self.grants(user, namespace)
            .flat_map(|g| g.rules.iter().cloned())
            .collect()
    }
}
