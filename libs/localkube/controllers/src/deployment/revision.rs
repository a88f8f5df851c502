//! Revisions: which ReplicaSet belongs to the Deployment's template, and the annotations that `kubectl rollout` reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::api::ObjectMeta;

use super::rolling::{max_surge, wanted};

/// Label of ReplicaSets and Pods that tells templates apart.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Revision of a ReplicaSet, and of the Deployment's newest.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that was rolled back to.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when the ReplicaSet was sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most Pods that the Deployment could have then.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The value of an annotation.
#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The revision that an object's annotation says, 0 without one.
#[must_use]
pub fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(TEMPLATE_HASH);
        if labels.is_empty() {
            meta.labels = None;
        }
    }
    meta.creation_timestamp = None;
    template
}

/// Whether two templates are the same but for the hash label.
#[must_use]
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

/// Splits ReplicaSets into the one of the current template (the oldest, should there be several) and the others, oldest first.
#[must_use]
pub fn split(
    deployment: &Deployment,
    mut sets: Vec<Arc<ReplicaSet>>,
) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    sets.sort_by(|a, b| {
        let time = |set: &ReplicaSet| set.metadata.creation_timestamp.clone();
        time(a)
            .cmp(&time(b))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let is_new = |set: &Arc<ReplicaSet>| {
        let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.zip(own).is_some_and(|(a, b)| same_template(a, b))
    };
    let at = sets.iter().position(is_new);
    let new = at.map(|at| sets.remove(at));
    (new, sets)
}

/// The annotations that the newest ReplicaSet should have; `revision` is one more than all old ones.
#[must_use]
pub fn wanted_annotations(
    deployment: &Deployment,
    own: Option<&BTreeMap<String, String>>,
    revision_number: i64,
) -> BTreeMap<String, String> {
    let mut all = own.cloned().unwrap_or_default();
    let exists = own.is_some();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&name.as_str()) {
            all.insert(name.clone(), value.clone());
        }
    }
    let before = all
        .get(REVISION)
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(0);
    if before < revision_number {
        if exists && before > 0 {
            let history = all
                .get(HISTORY)
                .map_or_else(|| before.to_string(), |history| format!("{history},{before}"));
            all.insert(HISTORY.to_owned(), history);
        }
        all.insert(REVISION.to_owned(), revision_number.to_string());
    }
    if !exists {
        all.extend(size_annotations(deployment));
    }
    all
}

/// The annotations that remember for which size a ReplicaSet was scaled.
#[must_use]
pub fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let wanted = wanted(deployment);
    BTreeMap::from([
        (DESIRED.to_owned(), wanted.to_string()),
        (MAX.to_owned(), (wanted + max_surge(deployment)).to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_roll_back_remembers_the_earlier_revision() {
        let deployment: Deployment =
            serde_json::from_value(json!({"metadata": {"annotations": {"a": "b", REVISION: "4"}},
            "spec": {"replicas": 2, "selector": {}, "template": {}}}))
            .unwrap();
        let own = BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]);
        let wanted = wanted_annotations(&deployment, Some(&own), 5);
        assert_eq!(wanted.get(REVISION).map(String::as_str), Some("5"));
        assert_eq!(wanted.get(HISTORY).map(String::as_str), Some("1"));
        assert_eq!(wanted.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn the_hash_label_does_not_count() {
        let a: PodTemplateSpec = serde_json::from_value(json!({"metadata": {"labels": {"x": "y"}}})).unwrap();
        let b: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": {"x": "y", TEMPLATE_HASH: "h"}}})).unwrap();
        assert!(same_template(&a, &b));
    }
}
