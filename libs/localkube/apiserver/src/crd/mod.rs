//! CustomResourceDefinitions: from the object to served resources.

pub mod cel;
mod formats;
pub mod schema;

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::field_error::{FieldError, FieldPath};
use crate::jsonpath::JsonPath;
use crate::kinds::{Column, ScalePaths};
use crate::registry::{Behaviour, Resource};
use crate::times;
use schema::Schema;

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One served version of a custom resource.
pub struct CustomVersion {
    pub list_kind: String,
    pub crd_name: String,
    pub schema: Option<Schema>,
    /// The schema as written, for OpenAPI.
    pub source: Value,
    pub columns: Vec<(Column, JsonPath)>,
    /// Paths for field selectors.
    pub selectable: Vec<String>,
    pub terminating: bool,
    pub deprecation: Option<String>,
    pub storage_version: String,
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}
fn texts(v: &Value) -> Vec<String> {
    v.as_array()
        .into_iter()
        .flatten()
        .filter_map(|x| x.as_str().map(str::to_owned))
        .collect()
}

/// Kubernetes' order of versions: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then others by name.
pub fn version_order(a: &str, b: &str) -> Ordering {
    fn parts(v: &str) -> Option<(u8, u32, u32)> {
        let rest = v.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let tail = &rest[digits..];
        if tail.is_empty() {
            return Some((2, major, 0));
        }
        if let Some(n) = tail.strip_prefix("beta") {
            return Some((1, major, n.parse().ok()?));
        }
        Some((0, major, tail.strip_prefix("alpha")?.parse().ok()?))
    }
    match (parts(a), parts(b)) {
        (Some(x), Some(y)) => y.cmp(&x),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Defaults of a definition's spec.
pub fn default(crd: &mut Value) {
    let kind = text(&crd["spec"]["names"]["kind"]);
    let spec = &mut crd["spec"];
    if spec["names"].is_object() {
        if text(&spec["names"]["singular"]).is_empty() {
            spec["names"]["singular"] = kind.to_lowercase().into();
        }
        if text(&spec["names"]["listKind"]).is_empty() && !kind.is_empty() {
            spec["names"]["listKind"] = format!("{kind}List").into();
        }
    }
    if spec.is_object() && spec.get("conversion").is_none_or(Value::is_null) {
        spec["conversion"] = json!({"strategy": "None"});
    }
}

/// Violations of a definition.
pub fn validate(crd: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let spec = &crd["spec"];
    let path = FieldPath::new("spec");
    let group = text(&spec["group"]);
    let names = &spec["names"];
    let plural = text(&names["plural"]);
    if group.is_empty() {
        out.push(FieldError::required(path.child("group"), ""));
    } else if group.split('.').count() < 2 {
        out.push(FieldError::invalid(
            path.child("group"),
            group.as_str(),
            "should be a domain with at least one dot",
        ));
    }
    let expected = format!("{plural}.{group}");
    if crd["metadata"]["name"] != expected {
        out.push(FieldError::invalid(
            "metadata.name",
            crd["metadata"]["name"].clone(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    match spec["scope"].as_str() {
        Some("Namespaced" | "Cluster") => {}
        None | Some("") => out.push(FieldError::required(path.child("scope"), "")),
        Some(other) => {
            out.push(FieldError::not_supported(
                path.child("scope"),
                other,
                &["Cluster", "Namespaced"],
            ));
        }
    }
    for field in ["plural", "kind"] {
        if text(&names[field]).is_empty() {
            out.push(FieldError::required(path.child("names").child(field), ""));
        }
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let storage = versions.iter().filter(|v| v["storage"] == true).count();
    let at = path.child("versions");
    if versions.is_empty() || storage != 1 {
        out.push(FieldError::invalid(
            &at,
            spec["versions"].clone(),
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let at = at.index(i).child("schema").child("openAPIV3Schema");
        let source = &version["schema"]["openAPIV3Schema"];
        if source.is_null() {
            out.push(FieldError::required(&at, "schemas are required"));
            continue;
        }
        if source["type"] != "object" {
            out.push(FieldError::invalid(
                at.child("type"),
                text(&source["type"]),
                "must be object at the root",
            ));
        }
        structural(source, &at, &mut out);
        if let Err(e) = Schema::parse(source) {
            out.push(FieldError::invalid(&at, "", e));
        }
    }
    match spec["conversion"]["strategy"].as_str() {
        Some("None") | None => {}
        Some("Webhook") => out.push(FieldError::invalid(
            path.child("conversion").child("strategy"),
            "Webhook",
            "localkube converts between versions by apiVersion alone; use None",
        )),
        Some(other) => out.push(FieldError::not_supported(
            path.child("conversion").child("strategy"),
            other,
            &["None", "Webhook"],
        )),
    }
    out
}

/// Every level needs a type, unless it is an int-or-string or keeps unknown fields.
fn structural(schema: &Value, at: &FieldPath, out: &mut Vec<FieldError>) {
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if text(&schema["type"]).is_empty() && !free {
        out.push(FieldError::required(
            at.child("type"),
            "must not be empty for specified object fields",
        ));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        structural(child, &at.child("properties").key(name), out);
    }
    if schema["additionalProperties"].is_object() {
        structural(
            &schema["additionalProperties"],
            &at.child("additionalProperties"),
            out,
        );
    }
    if schema["type"] == "array" && schema["items"].is_null() {
        out.push(FieldError::required(at.child("items"), "must be specified"));
    } else if schema["items"].is_object() {
        structural(&schema["items"], &at.child("items"), out);
    }
}

/// The status of a definition that was just made.
pub fn initial_status(crd: &Value) -> Value {
    let stored: Vec<&Value> = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .map(|v| &v["name"])
        .collect();
    json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored})
}

/// The status of an accepted definition (or of one whose names are taken).
pub fn status(crd: &Value, taken: Option<&str>) -> Value {
    let now = times::now();
    let old = &crd["status"];
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let same = old["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind && c["status"] == status);
        let since = same.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let names = &crd["spec"]["names"];
    let mut stored: Vec<Value> = old["storedVersions"].as_array().cloned().unwrap_or_default();
    for v in crd["spec"]["versions"].as_array().into_iter().flatten() {
        if v["storage"] == true && !stored.contains(&v["name"]) {
            stored.push(v["name"].clone());
        }
    }
    let conditions = match taken {
        None => json!([
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]),
        Some(why) => json!([
            condition("NamesAccepted", "False", "PluralConflict", why),
            condition(
                "Established",
                "False",
                "NotAccepted",
                "not all names are accepted"
            ),
        ]),
    };
    let mut conditions = conditions;
    if !crd["metadata"]["deletionTimestamp"].is_null()
        && let Some(list) = conditions.as_array_mut()
    {
        list.push(condition(
            "Terminating",
            "True",
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
        ));
    }
    let accepted = if taken.is_none() {
        names.clone()
    } else {
        json!({"plural": "", "kind": ""})
    };
    json!({"conditions": conditions, "acceptedNames": accepted, "storedVersions": stored})
}

/// The resources that a definition serves; none while its names are not accepted.
pub fn resources(crd: &Value) -> Vec<Arc<Resource>> {
    let established = crd["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    if !established {
        return Vec::new();
    }
    let spec = &crd["spec"];
    let names = &spec["names"];
    let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let storage_version = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| text(&v["name"]))
        .unwrap_or_default();
    let storage: Arc<str> = Arc::from(format!("{group}/{plural}"));
    versions
        .iter()
        .filter(|v| v["served"] == true)
        .map(|v| {
            let sub = &v["subresources"];
            let scale = sub["scale"].as_object().map(|s| ScalePaths {
                spec_replicas: text(&s["specReplicasPath"]),
                status_replicas: text(&s["statusReplicasPath"]),
                selector: s
                    .get("labelSelectorPath")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            });
            let source = v["schema"]["openAPIV3Schema"].clone();
            let columns = v["additionalPrinterColumns"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|c| {
                    let column = Column {
                        name: text(&c["name"]),
                        kind: text(&c["type"]),
                        format: text(&c["format"]),
                        description: text(&c["description"]),
                        priority: c["priority"]
                            .as_i64()
                            .and_then(|p| i32::try_from(p).ok())
                            .unwrap_or(0),
                    };
                    (
                        column,
                        JsonPath::parse(c["jsonPath"].as_str().unwrap_or_default()),
                    )
                })
                .collect();
            let version = text(&v["name"]);
            Arc::new(Resource {
                kind: text(&names["kind"]),
                singular: text(&names["singular"]),
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                status: sub["status"].is_object(),
                scale,
                generation: true,
                storage: storage.clone(),
                behaviour: Behaviour::Custom(Arc::new(CustomVersion {
                    list_kind: text(&names["listKind"]),
                    crd_name: text(&crd["metadata"]["name"]),
                    schema: Schema::parse(&source).ok(),
                    source,
                    columns,
                    selectable: v["selectableFields"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|f| text(&f["jsonPath"]))
                        .collect(),
                    terminating: !crd["metadata"]["deletionTimestamp"].is_null(),
                    deprecation: (v["deprecated"] == true).then(|| {
                        v["deprecationWarning"].as_str().map_or_else(
                            || format!("{group}/{version} {} is deprecated", text(&names["kind"])),
                            str::to_owned,
                        )
                    }),
                    storage_version: storage_version.clone(),
                })),
                version,
                group: group.clone(),
                plural: plural.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_order() {
        let mut v = vec!["v1alpha1", "foo", "v2", "v1beta1", "v1", "v10", "v1beta2"];
        v.sort_by(|a, b| version_order(a, b));
        assert_eq!(v, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
