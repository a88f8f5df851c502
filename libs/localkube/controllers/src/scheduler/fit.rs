//! Whether a Pod may run on a Node: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::Amount;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Amount>;

fn requests_of(container: &Container) -> Option<&BTreeMap<String, Quantity>> {
    container.resources.as_ref()?.requests.as_ref()
}

/// What a Pod asks for: the sum of its containers and sidecars, at least each init container, plus overhead.
#[must_use]
pub fn requests(spec: &PodSpec) -> Amounts {
    let mut total = Amounts::new();
    let add = |total: &mut Amounts, container: &Container| {
        for (name, quantity) in requests_of(container).into_iter().flatten() {
            *total.entry(name.clone()).or_default() += Amount::of(quantity);
        }
    };
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut here = sidecars.clone();
        add(&mut here, container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = here.clone();
        }
        for (name, amount) in here {
            let entry = peak.entry(name).or_default();
            *entry = (*entry).max(amount);
        }
    }
    for container in &spec.containers {
        add(&mut total, container);
    }
    for (name, amount) in sidecars {
        *total.entry(name).or_default() += amount;
    }
    for (name, amount) in peak {
        let entry = total.entry(name).or_default();
        *entry = (*entry).max(amount);
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        *total.entry(name.clone()).or_default() += Amount::of(quantity);
    }
    total
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let same_value =
        toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            _ => !key.is_empty() && same_value,
        }
}

/// Whether some toleration accepts the taint.
#[must_use]
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn requirement(term: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = term.values.as_deref().unwrap_or_default();
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match term.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, than)| have > than),
        "Lt" => numbers().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|one| requirement(one, labels.and_then(|labels| labels.get(&one.key))))
        && fields
            .iter()
            .all(|one| one.key == "metadata.name" && requirement(one, node.metadata.name.as_ref()))
}

/// Whether `nodeSelector` and required node affinity accept the Node.
#[must_use]
pub fn selected(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let by_labels = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|Affinity { node_affinity, .. }| node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    by_labels
        && required.is_none_or(|selector| {
            selector
                .node_selector_terms
                .iter()
                .any(|term| term_matches(term, node))
        })
}

/// Reasons in the words of Kubernetes' scheduler; empty when the Pod may run there.
#[must_use]
pub fn refusals(pod: &Pod, node: &Node, used: &Amounts, pods_there: usize) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let node_spec = node.spec.clone().unwrap_or_default();
    if node_spec.unschedulable == Some(true) {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if !tolerated(tolerations, &taint) {
            return vec!["node(s) were unschedulable".to_owned()];
        }
    }
    let blocking = |taint: &&Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(tolerations, taint)
    };
    if let Some(taint) = node_spec.taints.iter().flatten().find(blocking) {
        return vec![format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key,
            taint.value.as_deref().unwrap_or_default()
        )];
    }
    if !selected(spec, node) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    let can = |name: &str| allocatable.and_then(|all| all.get(name)).map(Amount::of);
    let mut refused = Vec::new();
    if can("pods")
        .is_some_and(|limit| Amount::whole(i64::try_from(pods_there).unwrap_or(i64::MAX) + 1) > limit)
    {
        refused.push("Too many pods".to_owned());
    }
    for (name, wanted) in requests(spec) {
        let taken = used.get(&name).copied().unwrap_or_default();
        if wanted > Amount::default() && wanted > can(&name).unwrap_or_default() - taken {
            refused.push(format!("Insufficient {name}"));
        }
    }
    refused
}

/// Whether the Node says that it is ready.
#[must_use]
pub fn node_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. ...`
#[must_use]
pub fn explain(total: usize, refusals: &[Vec<String>]) -> String {
    if total == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in refusals.iter().flatten() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    format!(
        "0/{total} nodes are available: {}. no new claims to deallocate, preemption: 0/{total} nodes are available: \
         {total} Preemption is not helpful for scheduling.",
        parts.join(", ")
    )
}

/// What is said about a Pod that no node can take because of its claims.
#[must_use]
pub fn explain_claims(total: usize, problem: &str) -> String {
    format!("0/{total} nodes are available: {problem}. not found")
}

/// Sums of what Pods on one node use, as far as they still run.
#[must_use]
pub fn used<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> (Amounts, usize) {
    let mut total = Amounts::new();
    let mut count = 0;
    for pod in pods.filter(|pod| !crate::pods::finished(pod)) {
        count += 1;
        for (name, amount) in pod.spec.as_ref().map(requests).unwrap_or_default() {
            *total.entry(name).or_default() += amount;
        }
    }
    (total, count)
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]);
        }
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn node(spec: Value) -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n", "labels": {"zone": "a", "gen": "3"}}, "spec": spec,
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}}),
        )
        .unwrap()
    }

    #[test]
    fn resources() {
        let used = Amounts::from([("cpu".to_owned(), Amount(600))]);
        assert_eq!(
            refusals(&pod(json!({})), &node(json!({})), &used, 0),
            ["Insufficient cpu"]
        );
        assert!(refusals(&pod(json!({})), &node(json!({})), &Amounts::new(), 1).is_empty());
        assert_eq!(
            refusals(&pod(json!({})), &node(json!({})), &Amounts::new(), 2),
            ["Too many pods"]
        );
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2"}}},
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}))
        .unwrap();
        assert_eq!(requests(&spec)["cpu"], Amount(2000));
    }

    #[test]
    fn taints_and_tolerations() {
        let tainted = node(json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
        assert_eq!(
            refusals(&pod(json!({})), &tainted, &Amounts::new(), 0),
            ["node(s) had untolerated taint {k: v}"]
        );
        let tolerant = pod(json!({"tolerations": [{"key": "k", "operator": "Exists"}]}));
        assert!(refusals(&tolerant, &tainted, &Amounts::new(), 0).is_empty());
        let wrong = pod(json!({"tolerations": [{"key": "k", "value": "other"}]}));
        assert_eq!(refusals(&wrong, &tainted, &Amounts::new(), 0).len(), 1);
    }

    #[test]
    fn selectors() {
        let wants = |spec: Value| refusals(&pod(spec), &node(json!({})), &Amounts::new(), 0).is_empty();
        assert!(wants(json!({"nodeSelector": {"zone": "a"}})));
        assert!(!wants(json!({"nodeSelector": {"zone": "b"}})));
        let affinity = |operator: &str, values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "gen", "operator": operator, "values": values}]}]}}}})
        };
        assert!(wants(affinity("Gt", json!(["2"]))));
        assert!(!wants(affinity("Lt", json!(["2"]))));
    }

    #[test]
    fn explanation() {
        let text = explain(
            2,
            &[
                vec!["Insufficient cpu".to_owned()],
                vec!["Insufficient cpu".to_owned(), "Too many pods".to_owned()],
            ],
        );
        assert_eq!(
            text,
            "0/2 nodes are available: 1 Too many pods, 2 Insufficient cpu. no new claims to deallocate, preemption: \
             0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
    }
}
