//! Defaults of a Pod's spec, shared with the templates of workloads.

use serde_json::{Value, json};

use super::checks::{default, default_number, each, list, object, present, text};
use crate::quantity::Quantity;

/// `Always` for images whose tag is `latest` or absent.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or(image);
    let latest = !image.contains('@') && last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    if latest { "Always" } else { "IfNotPresent" }
}

fn probe(container: &mut Value, name: &str) {
    let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) else {
        return;
    };
    for (field, to) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        default_number(probe, field, to);
    }
    http_get(probe);
    if let Some(grpc) = probe
        .get_mut("grpc")
        .filter(|grpc| grpc.is_object() && grpc["service"].is_null())
    {
        grpc["service"] = json!("");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet").filter(|http| http.is_object()) {
        default(http, "path", json!("/"));
        default(http, "scheme", json!("HTTP"));
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    default(container, "imagePullPolicy", json!(policy));
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    let _made = object(container, "resources");
    each(container, "ports", |port| default(port, "protocol", json!("TCP")));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(container, name);
    }
    if let Some(lifecycle) = container
        .get_mut("lifecycle")
        .filter(|lifecycle| lifecycle.is_object())
    {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(name) {
                http_get(handler);
            }
        }
    }
    each(container, "env", |variable| {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(reference, "apiVersion", json!("v1"));
        }
        if let Some(reference) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            default(reference, "divisor", json!("0"));
        }
    });
}

const NOT_A_SOURCE: &str = "name";

fn volume(volume: &mut Value) {
    let none = volume.as_object().is_some_and(|map| {
        map.iter()
            .all(|(key, value)| key == NOT_A_SOURCE || value.is_null())
    });
    if none && let Some(map) = volume.as_object_mut() {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| source.is_object()) {
            default(source, "defaultMode", json!(420));
        }
    }
    if let Some(source) = volume.get_mut("downwardAPI").filter(|source| source.is_object()) {
        downward_items(source);
    }
    if let Some(source) = volume.get_mut("projected").filter(|source| source.is_object()) {
        each(source, "sources", |part| {
            if let Some(token) = part
                .get_mut("serviceAccountToken")
                .filter(|token| token.is_object())
            {
                default(token, "expirationSeconds", json!(3600));
            }
            if let Some(downward) = part
                .get_mut("downwardAPI")
                .filter(|downward| downward.is_object())
            {
                downward_items(downward);
            }
        });
    }
    if let Some(source) = volume.get_mut("hostPath").filter(|source| source.is_object())
        && source["type"].is_null()
    {
        source["type"] = json!("");
    }
    if let Some(source) = volume.get_mut("image").filter(|source| source.is_object()) {
        let policy = pull_policy(text(source, "reference"));
        default(source, "pullPolicy", json!(policy));
    }
    if let Some(spec) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default(spec, "volumeMode", json!("Filesystem"));
    }
}

fn downward_items(source: &mut Value) {
    each(source, "items", |item| {
        if let Some(reference) = item.get_mut("fieldRef").filter(|reference| reference.is_object()) {
            default(reference, "apiVersion", json!("v1"));
        }
        if let Some(reference) = item
            .get_mut("resourceFieldRef")
            .filter(|reference| reference.is_object())
        {
            default(reference, "divisor", json!("0"));
        }
    });
}

/// Defaults of any PodSpec.
pub fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "restartPolicy", json!("Always"));
    let _made = object(spec, "securityContext");
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "schedulerName", json!("default-scheduler"));
    for name in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, name, container);
    }
    each(spec, "volumes", volume);
    let account = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (new, _) => new.to_owned(),
    };
    spec["serviceAccountName"] = json!(account);
    spec["serviceAccount"] = json!(account);
}

/// Defaults of a template: its spec is made when absent.
pub fn template(template: &mut Value) {
    if object(template, "spec").is_some() {
        spec(&mut template["spec"]);
    }
    let _made = object(template, "metadata");
}

/// Defaults that only Pods have.
pub fn pod(spec: &mut Value) {
    for name in ["initContainers", "containers"] {
        each(spec, name, |container| {
            let Some(limits) = container
                .pointer("/resources/limits")
                .and_then(Value::as_object)
                .cloned()
            else {
                return;
            };
            if let Some(requests) = container
                .get_mut("resources")
                .and_then(|resources| object(resources, "requests"))
            {
                for (resource, amount) in limits {
                    requests.entry(resource).or_insert(amount);
                }
            }
        });
    }
    if !present(spec, "enableServiceLinks") {
        spec["enableServiceLinks"] = json!(true);
    }
    if spec["hostNetwork"] == true {
        for name in ["initContainers", "containers"] {
            each(spec, name, |container| {
                each(container, "ports", |port| {
                    let number = port["containerPort"].as_i64().unwrap_or(0);
                    default_number(port, "hostPort", number);
                });
            });
        }
    }
}

/// What admission adds to every new Pod: two tolerations of silent nodes, and priority.
pub fn admit(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = list(spec, "tolerations").iter().any(|one| {
            let (own, effect) = (text(one, "key"), text(one, "effect"));
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if tolerated {
            continue;
        }
        let toleration =
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            Some(all) => all.push(toleration),
            None => spec["tolerations"] = json!([toleration]),
        }
    }
    if text(spec, "priorityClassName").is_empty() {
        default(spec, "priority", json!(0));
        default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    }
}

/// The quality-of-service class.
pub fn qos(spec: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut any = false;
    for container in list(spec, "containers")
        .iter()
        .chain(list(spec, "initContainers"))
    {
        for resource in ["cpu", "memory"] {
            let read = |kind: &str| {
                let found = container["resources"][kind][resource]
                    .as_str()
                    .and_then(Quantity::parse)?;
                (found.nanos > 0).then_some(found.nanos)
            };
            let (limit, request) = (read("limits"), read("requests"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        assert_eq!(pull_policy("busybox"), "Always");
        assert_eq!(pull_policy("localhost:5000/busybox"), "Always");
        assert_eq!(pull_policy("busybox:1.36"), "IfNotPresent");
        assert_eq!(pull_policy("busybox@sha256:00"), "IfNotPresent");
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut first = json!({"containers": [{"name": "c", "image": "i", "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}], "serviceAccount": "a"});
        spec(&mut first);
        pod(&mut first);
        let mut second = first.clone();
        spec(&mut second);
        pod(&mut second);
        assert_eq!(first, second);
        assert_eq!(first["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(first["serviceAccountName"], "a");
        assert_eq!(first["containers"][0]["livenessProbe"]["failureThreshold"], 3);
    }

    #[test]
    fn classes() {
        let of = |resources: Value| qos(&json!({"containers": [{"name": "c", "resources": resources}]}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            of(json!({"requests": both.clone(), "limits": both})),
            "Guaranteed"
        );
    }
}
