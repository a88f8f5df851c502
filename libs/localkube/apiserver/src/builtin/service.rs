//! Services, Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{
    age, default, default_absent, each, immutable, label, labels, list, name, object, one_of, pairs, port,
    port_number, present, spec_path, subdomain, text,
};
use crate::field_error::FieldError;
use crate::kinds::{Column, KindRules};
use crate::meta;

/// Rules of Services.
pub struct Service;
/// Rules of Endpoints.
pub struct Endpoints;
/// Rules of EndpointSlices.
pub struct EndpointSlice;

fn headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None"
}

impl Service {
    fn validate(obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        let kind = text(spec, "type");
        let ports = list(spec, "ports");
        if ports.is_empty() && !headless(spec) && kind != "ExternalName" {
            errors.push(FieldError::required(path.child("ports"), ""));
        }
        match kind {
            "LoadBalancer" | "NodePort" if headless(spec) => {
                let text = format!("may not be set to 'None' for {kind} services");
                errors.push(FieldError::invalid(
                    path.child("clusterIPs").index(0),
                    "None",
                    text,
                ));
            }
            "ExternalName" => {
                if !list(spec, "clusterIPs").is_empty() {
                    errors.push(FieldError::forbidden(
                        path.child("clusterIPs"),
                        "may not be set for ExternalName services",
                    ));
                }
                let target = text(spec, "externalName").trim_end_matches('.');
                if target.is_empty() {
                    errors.push(FieldError::required(path.child("externalName"), ""));
                } else {
                    subdomain(&mut errors, target, &path.child("externalName"));
                }
            }
            _ => {}
        }
        let mut names = BTreeSet::new();
        for (at, one) in ports.iter().enumerate() {
            let path = path.child("ports").index(at);
            let own = text(one, "name");
            if own.is_empty() {
                if ports.len() > 1 {
                    errors.push(FieldError::required(path.child("name"), ""));
                }
            } else {
                label(&mut errors, own, &path.child("name"));
                if !names.insert(own) {
                    errors.push(FieldError::duplicate(path.child("name"), own));
                }
            }
            port_number(
                &mut errors,
                one["port"].as_i64().unwrap_or(0),
                &path.child("port"),
            );
            one_of(&mut errors, one, &path, "protocol", &["SCTP", "TCP", "UDP"]);
            port(&mut errors, &one["targetPort"], &path.child("targetPort"));
            if let Some(application) = one["appProtocol"].as_str() {
                let problems = meta::qualified_name_problems(application);
                errors.extend(
                    problems
                        .into_iter()
                        .map(|problem| FieldError::invalid(path.child("appProtocol"), application, problem)),
                );
            }
        }
        labels(&mut errors, &spec["selector"], &path.child("selector"));
        one_of(&mut errors, spec, &path, "sessionAffinity", &["ClientIP", "None"]);
        if let Some(seconds) = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64()
            && !(1..=86_400).contains(&seconds)
        {
            let at = path
                .child("sessionAffinityConfig")
                .child("clientIP")
                .child("timeoutSeconds");
            errors.push(FieldError::invalid(
                at,
                seconds,
                "must be greater than 0 and less than 86400",
            ));
        }
        one_of(
            &mut errors,
            spec,
            &path,
            "type",
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
        if kind == "ClusterIP" {
            for (at, one) in ports.iter().enumerate() {
                if one["nodePort"].as_i64().unwrap_or(0) != 0 {
                    let at = path.child("ports").index(at).child("nodePort");
                    errors.push(FieldError::forbidden(
                        at,
                        "may not be used when `type` is 'ClusterIP'",
                    ));
                }
            }
        }
        let mut seen = BTreeSet::new();
        for (at, one) in ports.iter().enumerate() {
            let key = (text(one, "protocol"), one["port"].as_i64().unwrap_or(0));
            if !seen.insert(key) {
                // Kubernetes prints its internal type here, with all its fields.
                let shown = json!({"Name": "", "Protocol": key.0, "AppProtocol": null, "Port": key.1, "TargetPort": 0, "NodePort": 0});
                errors.push(FieldError::duplicate(path.child("ports").index(at), shown));
            }
        }
        if present(spec, "allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
            errors.push(FieldError::forbidden(
                path.child("allocateLoadBalancerNodePorts"),
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
        let external = matches!(kind, "NodePort" | "LoadBalancer");
        let policy = text(spec, "externalTrafficPolicy");
        if external {
            one_of(
                &mut errors,
                spec,
                &path,
                "externalTrafficPolicy",
                &["Cluster", "Local"],
            );
        } else if !policy.is_empty() {
            errors.push(FieldError::invalid(
                path.child("externalTrafficPolicy"),
                policy,
                "may only be set for externally-accessible services",
            ));
        }
        if present(spec, "internalTrafficPolicy") {
            one_of(
                &mut errors,
                spec,
                &path,
                "internalTrafficPolicy",
                &["Cluster", "Local"],
            );
        }
        errors
    }
}

impl KindRules for Service {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        default(spec, "sessionAffinity", json!("None"));
        match text(spec, "sessionAffinity") {
            "None" => {
                if let Some(map) = spec.as_object_mut() {
                    map.remove("sessionAffinityConfig");
                }
            }
            "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
                spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
            }
            _ => {}
        }
        default(spec, "type", json!("ClusterIP"));
        each(spec, "ports", |one| {
            default(one, "protocol", json!("TCP"));
            let number = one["port"].clone();
            if one["targetPort"] == 0 {
                one["targetPort"] = Value::Null;
            }
            default(one, "targetPort", number);
        });
        let kind = text(spec, "type").to_owned();
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            default(spec, "externalTrafficPolicy", json!("Cluster"));
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            default(spec, "internalTrafficPolicy", json!("Cluster"));
        }
        if kind == "LoadBalancer" && !present(spec, "allocateLoadBalancerNodePorts") {
            spec["allocateLoadBalancerNodePorts"] = json!(true);
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, obj: &mut Value, old: &Value) {
        // What a change of type leaves behind goes with it.
        let spec = &mut obj["spec"];
        let (kind, before) = (
            text(spec, "type").to_owned(),
            text(&old["spec"], "type").to_owned(),
        );
        let external = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
        let Some(map) = spec.as_object_mut() else { return };
        if external(&before) && !external(&kind) {
            if map.get("externalTrafficPolicy") == old["spec"].get("externalTrafficPolicy") {
                map.remove("externalTrafficPolicy");
            }
            for one in map
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let same = list(&old["spec"], "ports")
                    .iter()
                    .any(|own| own["nodePort"] == one["nodePort"]);
                if let Some(one) = one.as_object_mut().filter(|_| same) {
                    one.remove("nodePort");
                }
            }
        }
        if before == "LoadBalancer" && kind != "LoadBalancer" {
            map.remove("allocateLoadBalancerNodePorts");
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (new, before) = (&obj["spec"], &old["spec"]);
        if text(new, "type") != "ExternalName"
            && text(before, "type") != "ExternalName"
            && !text(before, "clusterIP").is_empty()
        {
            immutable_address(&mut errors, new, before);
        }
        errors.extend(Self::validate(obj));
        errors
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        match label {
            "spec.clusterIP" => Some(text(&obj["spec"], "clusterIP").to_owned()),
            "spec.type" => Some(text(&obj["spec"], "type").to_owned()),
            _ => None,
        }
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Type", "string", 0),
            Column::new("Cluster-IP", "string", 0),
            Column::new("External-IP", "string", 0),
            Column::new("Port(s)", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("Selector", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let spec = &obj["spec"];
        let address = text(spec, "clusterIP");
        let outside = match text(spec, "type") {
            "ExternalName" => text(spec, "externalName").to_owned(),
            "LoadBalancer" => {
                let found: Vec<&str> = list(&obj["status"]["loadBalancer"], "ingress")
                    .iter()
                    .map(|one| {
                        if text(one, "ip").is_empty() {
                            text(one, "hostname")
                        } else {
                            text(one, "ip")
                        }
                    })
                    .collect();
                if found.is_empty() {
                    "<pending>".to_owned()
                } else {
                    found.join(",")
                }
            }
            _ => {
                let found: Vec<&str> = list(spec, "externalIPs")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                if found.is_empty() {
                    "<none>".to_owned()
                } else {
                    found.join(",")
                }
            }
        };
        let ports: Vec<String> = list(spec, "ports")
            .iter()
            .map(|one| match one["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{}/{}", one["port"], text(one, "protocol")),
                node => format!("{}:{node}/{}", one["port"], text(one, "protocol")),
            })
            .collect();
        vec![
            name(obj),
            spec["type"].clone(),
            json!(if address.is_empty() { "<none>" } else { address }),
            json!(outside),
            json!(if ports.is_empty() {
                "<none>".to_owned()
            } else {
                ports.join(",")
            }),
            age(obj, now),
            pairs(&spec["selector"]),
        ]
    }
}

fn immutable_address(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let before = errors.len();
    immutable(
        errors,
        &new["clusterIP"],
        &old["clusterIP"],
        spec_path().child("clusterIPs").index(0),
    );
    for error in &mut errors[before..] {
        error.value = Some(json!([text(new, "clusterIP")]));
        "may not change once set".clone_into(&mut error.detail);
    }
}

impl KindRules for Endpoints {
    fn default(&self, obj: &mut Value) {
        each(obj, "subsets", |subset| {
            each(subset, "ports", |one| default(one, "protocol", json!("TCP")));
        });
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Endpoints", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let mut found = Vec::new();
        for subset in list(obj, "subsets") {
            for address in list(subset, "addresses") {
                let ports = list(subset, "ports");
                if ports.is_empty() {
                    found.push(text(address, "ip").to_owned());
                }
                found.extend(
                    ports
                        .iter()
                        .map(|one| format!("{}:{}", text(address, "ip"), one["port"])),
                );
            }
        }
        let more = found.len().saturating_sub(3);
        found.truncate(3);
        let mut shown = if found.is_empty() {
            "<none>".to_owned()
        } else {
            found.join(",")
        };
        if more > 0 {
            shown = format!("{shown} + {more} more...");
        }
        vec![name(obj), json!(shown), age(obj, now)]
    }
}

impl KindRules for EndpointSlice {
    fn default(&self, obj: &mut Value) {
        each(obj, "ports", |one| {
            if one["name"].is_null() {
                one["name"] = json!("");
            }
            default(one, "protocol", json!("TCP"));
        });
        default_absent(obj, "endpoints", Value::Null);
        each(obj, "endpoints", |one| {
            default_absent(one, "conditions", json!({}));
        });
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        one_of(
            &mut errors,
            obj,
            &crate::field_error::FieldPath::default(),
            "addressType",
            &["FQDN", "IPv4", "IPv6"],
        );
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(
            &mut errors,
            &obj["addressType"],
            &old["addressType"],
            crate::field_error::FieldPath::new("addressType"),
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("AddressType", "string", 0),
            Column::new("Ports", "string", 0),
            Column::new("Endpoints", "string", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let ports: Vec<String> = list(obj, "ports")
            .iter()
            .map(|one| one["port"].to_string())
            .collect();
        let found: Vec<&str> = list(obj, "endpoints")
            .iter()
            .flat_map(|one| list(one, "addresses"))
            .filter_map(Value::as_str)
            .collect();
        vec![
            name(obj),
            obj["addressType"].clone(),
            json!(if ports.is_empty() {
                "<unset>".to_owned()
            } else {
                ports.join(",")
            }),
            json!(if found.is_empty() {
                "<unset>".to_owned()
            } else {
                found.join(",")
            }),
            age(obj, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: Value) -> Vec<String> {
        let mut obj = json!({"metadata": {"name": "s"}, "spec": spec});
        Service.default(&mut obj);
        Service
            .validate_create(&obj)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn texts() {
        assert!(errors(json!({"ports": [{"port": 80}]})).is_empty());
        assert_eq!(errors(json!({})), ["spec.ports: Required value"]);
        assert!(errors(json!({"clusterIP": "None"})).is_empty());
        assert_eq!(
            errors(json!({"ports": [{"port": 0, "targetPort": 1}]})),
            ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]
        );
        assert_eq!(errors(json!({"ports": [{"port": 1}, {"port": 2}]})).len(), 2);
    }
}
