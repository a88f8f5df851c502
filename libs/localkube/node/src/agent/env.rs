//! A container's environment: values, fields, keys of ConfigMaps and Secrets, and `$(NAME)` references.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity;

/// The keys of a ConfigMap or Secret, as text; None when it does not exist.
pub type Keys = Option<BTreeMap<String, Vec<u8>>>;

/// What a Pod's environment may refer to, fetched beforehand.
#[derive(Debug, Default)]
pub struct Sources {
    pub config_maps: HashMap<String, Keys>,
    pub secrets: HashMap<String, Keys>,
    pub pod_ip: String,
    pub host_ip: String,
    /// the node's allocatable cpu (cores) and memory (bytes): the limits of a container that has none
    pub cores: f64,
    pub memory: f64,
}

/// Names of the ConfigMaps and Secrets that the Pod's environment refers to.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    let Some(spec) = &pod.spec else {
        return (config_maps, secrets);
    };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for from in container.env_from.iter().flatten() {
            config_maps.extend(from.config_map_ref.iter().map(|reference| reference.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            config_maps.extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
        }
    }
    for names in [&mut config_maps, &mut secrets] {
        names.sort();
        names.dedup();
    }
    (config_maps, secrets)
}

/// The container's variables in order, later ones winning. `base` comes first (image and service variables).
/// An error is the message of `CreateContainerConfigError`.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    base: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, String> {
    let mut result: Vec<(String, String)> = Vec::new();
    let set = |result: &mut Vec<(String, String)>, name: String, value: String| match result
        .iter_mut()
        .find(|(known, _)| *known == name)
    {
        Some(entry) => entry.1 = value,
        None => result.push((name, value)),
    };
    for (name, value) in base {
        set(&mut result, name, value);
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let (kind, name, optional, all) = if let Some(reference) = &from.config_map_ref {
            (
                "configmap",
                &reference.name,
                reference.optional,
                &sources.config_maps,
            )
        } else if let Some(reference) = &from.secret_ref {
            ("secret", &reference.name, reference.optional, &sources.secrets)
        } else {
            continue;
        };
        match all.get(name).and_then(Option::as_ref) {
            Some(keys) => {
                for (key, value) in keys {
                    set(
                        &mut result,
                        format!("{prefix}{key}"),
                        String::from_utf8_lossy(value).into_owned(),
                    );
                }
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} \"{name}\" not found")),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &result)),
            (_, Some(source)) => from_source(pod, container, sources, source)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut result, variable.name.clone(), value);
        }
    }
    Ok(result)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    let key = if let Some(wanted) = &source.config_map_key_ref {
        Some((
            "configmap",
            &sources.config_maps,
            &wanted.name,
            &wanted.key,
            wanted.optional,
        ))
    } else {
        source.secret_key_ref.as_ref().map(|wanted| {
            (
                "secret",
                &sources.secrets,
                &wanted.name,
                &wanted.key,
                wanted.optional,
            )
        })
    };
    if let Some((kind, all, name, key, optional)) = key {
        let optional = optional == Some(true);
        let Some(keys) = all.get(name).and_then(Option::as_ref) else {
            return if optional {
                Ok(None)
            } else {
                Err(format!("{kind} \"{name}\" not found"))
            };
        };
        return match keys.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional => Ok(None),
            None => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                Err(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
            }
        };
    }
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, &sources.pod_ip, &sources.host_ip).map(Some);
    }
    if let Some(wanted) = &source.resource_field_ref {
        return resource_value(container, &wanted.resource, wanted.divisor.as_ref(), sources).map(Some);
    }
    Ok(None)
}

/// A field of the Pod, as the downward API names them.
pub fn field_value(pod: &Pod, path: &str, pod_ip: &str, host_ip: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let owned = |value: Option<&str>| Ok(value.unwrap_or_default().to_owned());
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("field path {path} is not supported")),
        };
        return owned(map.as_ref().and_then(|map| map.get(key)).map(String::as_str));
    }
    match path {
        "metadata.name" => owned(meta.name.as_deref()),
        "metadata.namespace" => owned(meta.namespace.as_deref()),
        "metadata.uid" => owned(meta.uid.as_deref()),
        "metadata.labels" => Ok(lines(meta.labels.as_ref())),
        "metadata.annotations" => Ok(lines(meta.annotations.as_ref())),
        "spec.nodeName" => owned(spec.and_then(|spec| spec.node_name.as_deref())),
        "spec.serviceAccountName" => owned(spec.and_then(|spec| spec.service_account_name.as_deref())),
        "status.podIP" | "status.podIPs" => Ok(pod_ip.to_owned()),
        "status.hostIP" | "status.hostIPs" => Ok(host_ip.to_owned()),
        _ => Err(format!("field path {path} is not supported")),
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    Some((map, rest.strip_suffix(']')?.trim_matches(['\'', '"'])))
}

/// The way downward API files list labels: `key="value"`, sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    pairs.join("\n")
}

/// A request or limit of the container in units of the divisor, rounded up.
pub fn resource_value(
    container: &Container,
    resource: &str,
    divisor: Option<&Quantity>,
    sources: &Sources,
) -> Result<String, String> {
    let (kind, name) = resource
        .split_once('.')
        .ok_or_else(|| format!("resource {resource} is not supported"))?;
    let resources = container.resources.clone().unwrap_or_default();
    let limit = resources
        .limits
        .as_ref()
        .and_then(|limits| limits.get(name))
        .map(quantity::value);
    let stated = match kind {
        "limits" => limit,
        "requests" => resources
            .requests
            .as_ref()
            .and_then(|requests| requests.get(name))
            .map(quantity::value)
            .or(limit),
        _ => return Err(format!("resource {resource} is not supported")),
    };
    let whole = match name {
        "cpu" => sources.cores,
        "memory" => sources.memory,
        _ => 0.0,
    };
    let value = stated.unwrap_or(if kind == "limits" { whole } else { 0.0 });
    let unit = divisor
        .map(quantity::value)
        .filter(|unit| *unit > 0.0)
        .unwrap_or(1.0);
    Ok(format!("{:.0}", (value / unit).ceil()))
}

/// Replaces `$(NAME)` by a variable that is already known; `$$` is a dollar, an unknown name stays as it is written.
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        result.push_str(&rest[..position]);
        rest = &rest[position..];
        if let Some(after) = rest.strip_prefix("$$") {
            result.push('$');
            rest = after;
        } else if let Some(end) = rest.strip_prefix("$(").and_then(|inner| inner.find(')')) {
            let name = &rest[2..2 + end];
            match known.iter().rev().find(|(variable, _)| variable == name) {
                Some((_, value)) => result.push_str(value),
                None => result.push_str(&rest[..end + 3]),
            }
            rest = &rest[end + 3..];
        } else {
            result.push('$');
            rest = &rest[1..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let known = [pair("A", "1"), pair("B", "two")];
        for (text, wanted) in [
            ("$(A)-$(B)", "1-two"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("a$b", "a$b"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("é$(B)é", "étwoé"),
        ] {
            assert_eq!(expand(text, &known), wanted, "{text}");
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x", "b": "y"}},
            "spec": {"nodeName": "n", "containers": [{
                "name": "main",
                "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
                "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "S_"}],
                "env": [
                    {"name": "PLAIN", "value": "v"},
                    {"name": "EXPANDED", "value": "$(PLAIN)-$(S_k)-$(LATER)"},
                    {"name": "LATER", "value": "l"},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}},
                    {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "none", "key": "t", "optional": true}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}
                ]
            }]}
        }))
        .unwrap()
    }

    fn sources() -> Sources {
        let keys =
            |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]));
        Sources {
            config_maps: HashMap::from([("settings".to_owned(), keys("k", "sv"))]),
            secrets: HashMap::from([("token".to_owned(), keys("t", "s3")), ("none".to_owned(), None)]),
            pod_ip: "127.1.2.3".to_owned(),
            ..Sources::default()
        }
    }

    #[test]
    fn each_source_of_a_variable_is_resolved() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env = resolve(&pod, container, &sources(), vec![pair("PLAIN", "image")]).unwrap();
        let wanted = [
            pair("PLAIN", "v"),
            pair("S_k", "sv"),
            pair("EXPANDED", "v-sv-$(LATER)"),
            pair("LATER", "l"),
            pair("NAME", "p"),
            pair("LABEL", "x"),
            pair("IP", "127.1.2.3"),
            pair("SECRET", "s3"),
            pair("CPU", "2"),
            pair("MEM", "64"),
        ];
        assert_eq!(env, wanted);
    }

    #[test]
    fn a_missing_secret_is_told_by_name() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mut sources = sources();
        sources.secrets.insert("token".to_owned(), None);
        assert_eq!(
            resolve(&pod, container, &sources, Vec::new()).unwrap_err(),
            "secret \"token\" not found"
        );
    }

    #[test]
    fn what_a_pod_refers_to_is_fetched_once() {
        assert_eq!(
            references(&pod()),
            (
                vec!["settings".to_owned()],
                vec!["none".to_owned(), "token".to_owned()]
            )
        );
    }
}
