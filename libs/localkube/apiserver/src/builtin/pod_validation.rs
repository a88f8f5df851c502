//! Errors of a Pod's spec with Kubernetes' texts, in Kubernetes' order.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{
    amount, config_key_problems, label, labels, list, non_negative, one_of, port, port_name_problems,
    port_number, present, subdomain, text,
};
use crate::field_error::{FieldError, FieldPath};
use crate::meta;
use crate::quantity::Quantity;

type Errors = Vec<FieldError>;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// Sources of a volume, in the order in which Kubernetes looks at them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Everything that is wrong with a PodSpec.
pub fn spec(spec: &Value, path: &FieldPath) -> Errors {
    let mut errors = Vec::new();
    let names = volumes(&mut errors, spec, &path.child("volumes"));
    containers(&mut errors, spec, &names, path);
    init_containers(&mut errors, spec, &names, &path.child("initContainers"));
    one_of(
        &mut errors,
        spec,
        path,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
    );
    one_of(
        &mut errors,
        spec,
        path,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels(&mut errors, &spec["nodeSelector"], &path.child("nodeSelector"));
    for (at, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            errors.push(FieldError::required(
                path.child("imagePullSecrets").index(at).child("name"),
                "",
            ));
        }
    }
    for (field, check) in [("serviceAccountName", true), ("nodeName", true)] {
        let found = text(spec, field);
        if check && !found.is_empty() {
            subdomain(&mut errors, found, &path.child(field));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            path.child("activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    for field in ["hostname", "subdomain"] {
        let found = text(spec, field);
        if !found.is_empty() {
            label(&mut errors, found, &path.child(field));
        }
    }
    tolerations(&mut errors, spec, &path.child("tolerations"));
    let priority = text(spec, "priorityClassName");
    if !priority.is_empty() {
        subdomain(&mut errors, priority, &path.child("priorityClassName"));
    }
    if present(spec, "preemptionPolicy") {
        one_of(
            &mut errors,
            spec,
            path,
            "preemptionPolicy",
            &["PreemptLowerPriority", "Never"],
        );
    }
    errors
}

fn volumes(errors: &mut Errors, spec: &Value, path: &FieldPath) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(at);
        let mut own = Vec::new();
        volume_source(&mut own, volume, &path);
        let name = text(volume, "name");
        if name.is_empty() {
            own.push(FieldError::required(path.child("name"), ""));
        } else {
            label(&mut own, name, &path.child("name"));
        }
        if names.contains(name) {
            own.push(FieldError::duplicate(path.child("name"), name));
        }
        if own.is_empty() {
            names.insert(name.to_owned());
        }
        errors.append(&mut own);
    }
    names
}

fn volume_source(errors: &mut Errors, volume: &Value, path: &FieldPath) {
    let mut found = 0;
    for source in SOURCES.iter().filter(|source| present(volume, source)) {
        found += 1;
        if found > 1 {
            errors.push(FieldError::forbidden(
                path.child(source),
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        let value = &volume[*source];
        let path = path.child(source);
        match *source {
            "hostPath" => {
                let folder = text(value, "path");
                if folder.is_empty() {
                    errors.push(FieldError::required(path.child("path"), ""));
                } else if folder.split('/').any(|part| part == "..") {
                    errors.push(FieldError::invalid(
                        path.child("path"),
                        folder,
                        "must not contain '..'",
                    ));
                }
                let allowed = [
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ];
                if !allowed.contains(&text(value, "type")) {
                    errors.push(FieldError::not_supported(
                        path.child("type"),
                        text(value, "type"),
                        &allowed,
                    ));
                }
            }
            "secret" | "configMap" => {
                let name = if *source == "secret" { "secretName" } else { "name" };
                if text(value, name).is_empty() {
                    errors.push(FieldError::required(path.child(name), ""));
                }
                mode(errors, value, "defaultMode", &path);
                key_paths(errors, value, &path);
            }
            "persistentVolumeClaim" if text(value, "claimName").is_empty() => {
                errors.push(FieldError::required(path.child("claimName"), ""));
            }
            "image" if text(value, "reference").is_empty() => {
                errors.push(FieldError::required(path.child("reference"), ""));
            }
            "downwardAPI" | "projected" => mode(errors, value, "defaultMode", &path),
            _ => {}
        }
    }
    if found == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn mode(errors: &mut Errors, value: &Value, field: &str, path: &FieldPath) {
    if let Some(bits) = value[field].as_i64()
        && !(0..=0o777).contains(&bits)
    {
        errors.push(FieldError::invalid(path.child(field), bits, FILE_MODE));
    }
}

fn key_paths(errors: &mut Errors, value: &Value, path: &FieldPath) {
    for (at, item) in list(value, "items").iter().enumerate() {
        let path = path.child("items").index(at);
        if text(item, "key").is_empty() {
            errors.push(FieldError::required(path.child("key"), ""));
        }
        let file = text(item, "path");
        if file.is_empty() {
            errors.push(FieldError::required(path.child("path"), ""));
        }
        descending(errors, file, &path.child("path"));
        mode(errors, item, "mode", &path);
    }
}

fn descending(errors: &mut Errors, file: &str, path: &FieldPath) {
    if file.starts_with('/') {
        errors.push(FieldError::invalid(path, file, "must be a relative path"));
    }
    if file.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, file, "must not contain '..'"));
    }
}

fn containers(errors: &mut Errors, spec: &Value, volumes: &BTreeSet<String>, path: &FieldPath) {
    let path = path.child("containers");
    let all = list(spec, "containers");
    if all.is_empty() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (at, container) in all.iter().enumerate() {
        let path = path.index(at);
        common(errors, container, volumes, &path);
        if !names.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(path.child("name"), text(container, "name")));
        }
        lifecycle(errors, container, &path);
        probes(errors, container, &path);
    }
    host_ports(errors, all, &path);
}

fn init_containers(errors: &mut Errors, spec: &Value, volumes: &BTreeSet<String>, path: &FieldPath) {
    let mut names: BTreeSet<&str> = list(spec, "containers")
        .iter()
        .map(|container| text(container, "name"))
        .collect();
    for (at, container) in list(spec, "initContainers").iter().enumerate() {
        let path = path.index(at);
        common(errors, container, volumes, &path);
        let name = text(container, "name");
        if names.contains(name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        } else if !name.is_empty() {
            names.insert(name);
        }
        if text(container, "restartPolicy") == "Always" {
            lifecycle(errors, container, &path);
            probes(errors, container, &path);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if present(container, field) {
                    errors.push(FieldError::forbidden(
                        path.child(field),
                        "may not be set for init containers without restartPolicy=Always",
                    ));
                }
            }
        }
    }
}

fn host_ports(errors: &mut Errors, all: &[Value], path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (at, container) in all.iter().enumerate() {
        for (index, one) in list(container, "ports").iter().enumerate() {
            let host = one["hostPort"].as_i64().unwrap_or(0);
            let key = format!("{}/{}/{host}", text(one, "protocol"), text(one, "hostIP"));
            if host != 0 && !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(
                    path.index(at).child("ports").index(index).child("hostPort"),
                    key,
                ));
            }
        }
    }
}

fn common(errors: &mut Errors, container: &Value, volumes: &BTreeSet<String>, path: &FieldPath) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        label(errors, name, &path.child("name"));
    }
    if text(container, "image").is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    }
    one_of(
        errors,
        container,
        path,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, container, &path.child("ports"));
    env(errors, container, &path.child("env"));
    env_from(errors, container, &path.child("envFrom"));
    mounts(errors, container, volumes, &path.child("volumeMounts"));
    one_of(
        errors,
        container,
        path,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
    );
    resources(errors, &container["resources"], &path.child("resources"));
    security(
        errors,
        &container["securityContext"],
        &path.child("securityContext"),
    );
}

fn security(errors: &mut Errors, context: &Value, path: &FieldPath) {
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = context[field].as_i64()
            && !(0..=i64::from(i32::MAX)).contains(&id)
        {
            errors.push(FieldError::invalid(
                path.child(field),
                id,
                "must be between 0 and 2147483647, inclusive",
            ));
        }
    }
    if context["allowPrivilegeEscalation"] == false && context["privileged"] == true {
        errors.push(FieldError::invalid(
            path,
            context.clone(),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ));
    }
}

fn ports(errors: &mut Errors, container: &Value, path: &FieldPath) {
    let mut names = BTreeSet::new();
    for (at, one) in list(container, "ports").iter().enumerate() {
        let path = path.index(at);
        let name = text(one, "name");
        if !name.is_empty() {
            let problems = port_name_problems(name);
            if problems.is_empty() {
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(path.child("name"), name));
                }
            } else {
                errors.extend(
                    problems
                        .into_iter()
                        .map(|problem| FieldError::invalid(path.child("name"), name, problem)),
                );
            }
        }
        match one["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(FieldError::required(path.child("containerPort"), "")),
            number => port_number(errors, number, &path.child("containerPort")),
        }
        let host = one["hostPort"].as_i64().unwrap_or(0);
        if host != 0 {
            port_number(errors, host, &path.child("hostPort"));
        }
        one_of(errors, one, &path, "protocol", &["SCTP", "TCP", "UDP"]);
    }
}

fn env_name(errors: &mut Errors, name: &str, path: &FieldPath) {
    if !name
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
    {
        let text = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        errors.push(FieldError::invalid(path, name, text));
    }
}

fn env(errors: &mut Errors, container: &Value, path: &FieldPath) {
    for (at, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(at);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            env_name(errors, name, &path.child("name"));
        }
        if present(variable, "valueFrom") {
            value_from(errors, variable, &path.child("valueFrom"));
        }
    }
}

const ENV_FIELDS: [&str; 11] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "metadata.annotations",
    "metadata.labels",
];

fn value_from(errors: &mut Errors, variable: &Value, path: &FieldPath) {
    let from = &variable["valueFrom"];
    let mut sources = 0;
    if present(from, "fieldRef") {
        sources += 1;
        field_reference(errors, &from["fieldRef"], &path.child("fieldRef"));
    }
    if present(from, "resourceFieldRef") {
        sources += 1;
        let path = path.child("resourceFieldRef");
        if text(&from["resourceFieldRef"], "resource").is_empty() {
            errors.push(FieldError::required(path.child("resource"), ""));
        }
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if present(from, source) {
            sources += 1;
            let path = path.child(source);
            subdomain(errors, text(&from[source], "name"), &path.child("name"));
            let key = text(&from[source], "key");
            if key.is_empty() {
                errors.push(FieldError::required(path.child("key"), ""));
            } else {
                errors.extend(
                    config_key_problems(key)
                        .into_iter()
                        .map(|problem| FieldError::invalid(path.child("key"), key, problem)),
                );
            }
        }
    }
    if present(from, "fileKeyRef") {
        sources += 1;
    }
    if sources == 0 {
        let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path, "", text));
    } else if !text(variable, "value").is_empty() {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not be specified when `value` is not empty",
        ));
    } else if sources > 1 {
        errors.push(FieldError::invalid(
            path,
            "",
            "may not have more than one field specified at a time",
        ));
    }
}

fn field_reference(errors: &mut Errors, reference: &Value, path: &FieldPath) {
    let field = text(reference, "fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(path.child("fieldPath"), ""));
        return;
    }
    if let Some((base, key)) = field.strip_suffix("']").and_then(|head| head.split_once("['")) {
        if matches!(base, "metadata.annotations" | "metadata.labels") {
            errors.extend(
                meta::qualified_name_problems(key)
                    .into_iter()
                    .map(|problem| FieldError::invalid(path, key, problem)),
            );
            return;
        }
        let text = format!("error converting fieldPath: field label does not support subscript: {base}");
        errors.push(FieldError::invalid(path.child("fieldPath"), field, text));
    } else if !ENV_FIELDS.contains(&field) {
        let text = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(path.child("fieldPath"), field, text));
    } else if matches!(field, "metadata.annotations" | "metadata.labels") {
        errors.push(FieldError::not_supported(
            path.child("fieldPath"),
            field,
            &ENV_FIELDS[..9],
        ));
    }
}

fn env_from(errors: &mut Errors, container: &Value, path: &FieldPath) {
    for (at, one) in list(container, "envFrom").iter().enumerate() {
        let here = path.index(at);
        env_name(errors, text(one, "prefix"), &here.child("prefix"));
        let mut sources = 0;
        for source in ["configMapRef", "secretRef"] {
            if present(one, source) {
                sources += 1;
                let name = text(&one[source], "name");
                if name.is_empty() {
                    errors.push(FieldError::required(here.child(source).child("name"), ""));
                } else {
                    subdomain(errors, name, &here.child(source).child("name"));
                }
            }
        }
        match sources {
            0 => errors.push(FieldError::invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(FieldError::invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn mounts(errors: &mut Errors, container: &Value, volumes: &BTreeSet<String>, path: &FieldPath) {
    let mut points = BTreeSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let here = path.index(at);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(here.child("name"), ""));
        }
        if !volumes.contains(name) {
            errors.push(FieldError::not_found(here.child("name"), name));
        }
        let point = text(mount, "mountPath");
        if point.is_empty() {
            errors.push(FieldError::required(here.child("mountPath"), ""));
        }
        if !points.insert(point) {
            errors.push(FieldError::invalid(
                here.child("mountPath"),
                point,
                "must be unique",
            ));
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            descending(errors, sub, &path.child("subPath"));
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                errors.push(FieldError::invalid(
                    here.child("subPathExpr"),
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                ));
            }
            descending(errors, expression, &path.child("subPathExpr"));
        }
    }
}

/// Requests and limits of a container.
pub fn resources(errors: &mut Errors, value: &Value, path: &FieldPath) {
    let overcommits = |name: &str| !name.contains('/') && !name.starts_with("hugepages-");
    let known = |name: &str| {
        name.contains('/')
            || matches!(name, "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
    };
    for kind in ["limits", "requests"] {
        for (name, quantity) in value[kind].as_object().into_iter().flatten() {
            let here = path.child(kind).key(name);
            let problems = meta::qualified_name_problems(name);
            if problems.is_empty() {
                if !known(name) {
                    errors.push(FieldError::invalid(
                        &here,
                        name.as_str(),
                        "must be a standard resource type or fully qualified",
                    ));
                    errors.push(FieldError::invalid(
                        &here,
                        name.as_str(),
                        "must be a standard resource for containers",
                    ));
                }
            } else {
                errors.extend(
                    problems
                        .into_iter()
                        .map(|problem| FieldError::invalid(&here, name.as_str(), problem)),
                );
            }
            amount(errors, quantity, &here);
            if kind == "limits" {
                continue;
            }
            let Some(own) = quantity.as_str().and_then(Quantity::parse) else {
                continue;
            };
            let shown = quantity.as_str().unwrap_or_default();
            match value["limits"][name].as_str() {
                Some(limit_text) => {
                    let Some(limit) = Quantity::parse(limit_text) else {
                        continue;
                    };
                    if own.nanos != limit.nanos && !overcommits(name) {
                        errors.push(FieldError::invalid(
                            path.child("requests"),
                            shown,
                            format!("must be equal to {name} limit of {limit_text}"),
                        ));
                    } else if own.nanos > limit.nanos {
                        let text = format!("must be less than or equal to {name} limit of {limit_text}");
                        errors.push(FieldError::invalid(path.child("requests"), shown, text));
                    }
                }
                None if !overcommits(name) => {
                    errors.push(FieldError::required(
                        path.child("limits"),
                        "Limit must be set for non overcommitable resources",
                    ));
                }
                None => {}
            }
        }
    }
}

fn lifecycle(errors: &mut Errors, container: &Value, path: &FieldPath) {
    for name in ["postStart", "preStop"] {
        let value = &container["lifecycle"][name];
        if value.is_object() {
            handler(errors, value, &path.child("lifecycle").child(name));
        }
    }
}

fn probes(errors: &mut Errors, container: &Value, path: &FieldPath) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if !probe.is_object() {
            continue;
        }
        let path = path.child(name);
        handler(errors, probe, &path);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            non_negative(errors, probe, &path, field);
        }
        if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64() {
            if name == "readinessProbe" {
                errors.push(FieldError::invalid(
                    path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                ));
            } else if seconds <= 0 {
                errors.push(FieldError::invalid(
                    path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must be greater than 0",
                ));
            }
        }
        let successes = probe["successThreshold"].as_i64().unwrap_or(1);
        if name != "readinessProbe" && successes != 1 {
            errors.push(FieldError::invalid(
                path.child("successThreshold"),
                successes,
                "must be 1",
            ));
        }
    }
}

fn handler(errors: &mut Errors, value: &Value, path: &FieldPath) {
    let mut found = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let own = &value[kind];
        if own.is_null() {
            continue;
        }
        found += 1;
        let path = path.child(kind);
        if found > 1 {
            errors.push(FieldError::forbidden(
                path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        match kind {
            "exec" if list(own, "command").is_empty() => {
                errors.push(FieldError::required(path.child("command"), ""));
            }
            "httpGet" => {
                if text(own, "path").is_empty() {
                    errors.push(FieldError::required(path.child("path"), ""));
                }
                port(errors, &own["port"], &path.child("port"));
                if !matches!(text(own, "scheme"), "HTTP" | "HTTPS") {
                    errors.push(FieldError::not_supported(
                        path.child("scheme"),
                        text(own, "scheme"),
                        &["HTTP", "HTTPS"],
                    ));
                }
            }
            "tcpSocket" => port(errors, &own["port"], &path.child("port")),
            "grpc" => port_number(errors, own["port"].as_i64().unwrap_or(0), &path.child("port")),
            _ => {}
        }
    }
    if found == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn tolerations(errors: &mut Errors, spec: &Value, path: &FieldPath) {
    for (at, one) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(at);
        let (key, operator, value, effect) = (
            text(one, "key"),
            text(one, "operator"),
            text(one, "value"),
            text(one, "effect"),
        );
        if !key.is_empty() {
            errors.extend(
                meta::qualified_name_problems(key)
                    .into_iter()
                    .map(|problem| FieldError::invalid(path.child("key"), key, problem)),
            );
        } else if operator != "Exists" {
            let text =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(path.child("operator"), operator, text));
        }
        if present(one, "tolerationSeconds") && effect != "NoExecute" {
            errors.push(FieldError::invalid(
                path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        match operator {
            "" | "Equal" => {
                let problems = meta::label_value_problems(value);
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(
                        path.child("operator"),
                        value,
                        problems.join(";"),
                    ));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(FieldError::invalid(
                        path.child("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    ));
                }
            }
            other => errors.push(FieldError::not_supported(
                path.child("operator"),
                other,
                &["Equal", "Exists"],
            )),
        }
        if !effect.is_empty() && !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            errors.push(FieldError::not_supported(
                path.child("effect"),
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            ));
        }
    }
}

/// Everything that is wrong with a PodTemplateSpec.
pub fn template(template: &Value, path: &FieldPath) -> Errors {
    let mut errors = Vec::new();
    labels(
        &mut errors,
        &template["metadata"]["labels"],
        &path.child("labels"),
    );
    errors.extend(spec(&template["spec"], &path.child("spec")));
    errors
}

#[cfg(test)]
mod tests {
    use super::super::pod_defaults;
    use super::*;
    use serde_json::json;

    fn errors(value: Value) -> Vec<String> {
        let mut value = value;
        pod_defaults::spec(&mut value);
        spec(&value, &FieldPath::new("spec"))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_plain_pod_is_fine() {
        assert!(errors(json!({"containers": [{"name": "c", "image": "i"}]})).is_empty());
    }

    #[test]
    fn texts() {
        assert_eq!(
            errors(json!({"containers": []})),
            ["spec.containers: Required value"]
        );
        let restart = errors(json!({"containers": [{"name": "c", "image": "i"}], "restartPolicy": "x"}));
        assert_eq!(
            restart,
            [
                r#"spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never""#
            ]
        );
        let mount = errors(
            json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}),
        );
        assert_eq!(
            mount,
            [r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#]
        );
        let requests = errors(
            json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
        );
        assert_eq!(
            requests,
            [
                r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#
            ]
        );
        let probe = errors(json!({"containers": [{"name": "c", "image": "i", "livenessProbe": {}}]}));
        assert_eq!(
            probe,
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"]
        );
    }
}
