//! PersistentVolumeClaims, PersistentVolumes, StorageClasses.

use serde_json::{Value, json};

use super::checks::{
    age, default, immutable, list, name, object, one_of, present, same, spec_path, subdomain, text,
};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};
use crate::quantity::Quantity;

/// Rules of PersistentVolumeClaims.
pub struct Claim;
/// Rules of PersistentVolumes.
pub struct Volume;
/// Rules of StorageClasses.
pub struct StorageClass;

const MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

fn access_modes(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    for mode in list(spec, "accessModes").iter().filter_map(Value::as_str) {
        if !MODES.contains(&mode) {
            errors.push(FieldError::not_supported(path.child("accessModes"), mode, &MODES));
        }
    }
    let single = |mode: &&Value| mode.as_str() == Some("ReadWriteOncePod");
    let modes = list(spec, "accessModes");
    if modes.iter().any(|mode| single(&mode)) && !modes.iter().all(|mode| single(&mode)) {
        errors.push(FieldError::forbidden(
            path.child("accessModes"),
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

/// Errors of the spec of a claim.
pub fn claim_spec(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if list(spec, "accessModes").is_empty() {
        errors.push(FieldError::required(
            path.child("accessModes"),
            "at least 1 access mode is required",
        ));
    }
    access_modes(&mut errors, spec, path);
    let at = path.child("resources").key("storage");
    match spec["resources"]["requests"]["storage"].as_str() {
        None => errors.push(FieldError::required(at, "")),
        Some(found) => {
            if Quantity::parse(found).is_some_and(|amount| amount.nanos <= 0) {
                errors.push(FieldError::invalid(at, found, "must be greater than zero"));
            }
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        subdomain(&mut errors, class, &path.child("storageClassName"));
    }
    if present(spec, "volumeMode") {
        one_of(&mut errors, spec, path, "volumeMode", &["Block", "Filesystem"]);
    }
    errors
}

fn short_modes(value: &Value) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        _ => "RWOP",
    };
    list(value, "accessModes")
        .iter()
        .map(short)
        .collect::<Vec<_>>()
        .join(",")
}

impl KindRules for Claim {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_some() {
            default(&mut obj["spec"], "volumeMode", json!("Filesystem"));
            let _made = object(&mut obj["spec"], "resources");
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"phase": "Pending"});
        // What StorageObjectInUseProtection adds.
        let held = list(&obj["metadata"], "finalizers")
            .iter()
            .any(|one| one == "kubernetes.io/pvc-protection");
        if !held {
            match obj["metadata"]["finalizers"].as_array_mut() {
                Some(all) => all.push(json!("kubernetes.io/pvc-protection")),
                None => obj["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]),
            }
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        claim_spec(&obj["spec"], &spec_path())
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = claim_spec(&obj["spec"], &spec_path());
        let (mut new, mut before) = (obj["spec"].clone(), old["spec"].clone());
        if text(&before, "volumeName").is_empty() {
            before["volumeName"] = new["volumeName"].clone();
        }
        if !present(&before, "storageClassName") {
            before["storageClassName"] = new["storageClassName"].clone();
        }
        if text(&obj["status"], "phase") == "Bound" {
            new["resources"]["requests"]["storage"] = before["resources"]["requests"]["storage"].clone();
            new["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
        }
        if !same(&new, &before) {
            errors.push(FieldError::forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"));
        }
        let size = |value: &Value| {
            value
                .as_str()
                .and_then(Quantity::parse)
                .map_or(0, |amount| amount.nanos)
        };
        let (now, was) = (
            size(&obj["spec"]["resources"]["requests"]["storage"]),
            size(&old["spec"]["resources"]["requests"]["storage"]),
        );
        if now < was && now <= size(&old["status"]["capacity"]["storage"]) {
            errors.push(FieldError::forbidden(
                "spec.resources.requests.storage",
                "field can not be less than status.capacity",
            ));
        }
        immutable(
            &mut errors,
            &obj["spec"]["volumeMode"],
            &old["spec"]["volumeMode"],
            FieldPath::new("volumeMode"),
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::name()];
        for title in [
            "Status",
            "Volume",
            "Capacity",
            "Access Modes",
            "StorageClass",
            "VolumeAttributesClass",
            "Age",
        ] {
            columns.push(Column::new(title, "string", 0));
        }
        columns.push(Column::new("VolumeMode", "string", 1));
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&obj["spec"], &obj["status"]);
        let bound = !text(spec, "volumeName").is_empty();
        let phase = if obj["metadata"]["deletionTimestamp"].is_string() {
            "Terminating"
        } else {
            text(status, "phase")
        };
        let unset = |value: &Value| json!(value.as_str().unwrap_or("<unset>"));
        vec![
            name(obj),
            json!(phase),
            json!(text(spec, "volumeName")),
            json!(if bound {
                status["capacity"]["storage"].as_str().unwrap_or_default()
            } else {
                ""
            }),
            json!(if bound { short_modes(status) } else { String::new() }),
            json!(text(spec, "storageClassName")),
            unset(&spec["volumeAttributesClassName"]),
            age(obj, now),
            unset(&spec["volumeMode"]),
        ]
    }
}

impl KindRules for Volume {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        default(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
        default(spec, "volumeMode", json!("Filesystem"));
        if spec["hostPath"].is_object() && spec["hostPath"]["type"].is_null() {
            spec["hostPath"]["type"] = json!("");
        }
        if spec["claimRef"].is_object() {
            default(&mut spec["claimRef"], "kind", json!("PersistentVolumeClaim"));
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": crate::times::now()});
        let held = list(&obj["metadata"], "finalizers")
            .iter()
            .any(|one| one == "kubernetes.io/pv-protection");
        if !held {
            match obj["metadata"]["finalizers"].as_array_mut() {
                Some(all) => all.push(json!("kubernetes.io/pv-protection")),
                None => obj["metadata"]["finalizers"] = json!(["kubernetes.io/pv-protection"]),
            }
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        if list(spec, "accessModes").is_empty() {
            errors.push(FieldError::required(path.child("accessModes"), ""));
        }
        access_modes(&mut errors, spec, &path);
        if spec["capacity"].as_object().is_none_or(serde_json::Map::is_empty) {
            errors.push(FieldError::required(path.child("capacity"), ""));
            errors.push(FieldError::not_supported(
                path.child("capacity"),
                Value::Null,
                &["storage"],
            ));
        }
        one_of(
            &mut errors,
            spec,
            &path,
            "persistentVolumeReclaimPolicy",
            &["Delete", "Recycle", "Retain"],
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::name()];
        for title in [
            "Capacity",
            "Access Modes",
            "Reclaim Policy",
            "Status",
            "Claim",
            "StorageClass",
            "VolumeAttributesClass",
            "Reason",
            "Age",
        ] {
            columns.push(Column::new(title, "string", 0));
        }
        columns.push(Column::new("VolumeMode", "string", 1));
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let spec = &obj["spec"];
        let claim = &spec["claimRef"];
        let claim = if claim.is_object() {
            format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
        } else {
            String::new()
        };
        let phase = if obj["metadata"]["deletionTimestamp"].is_string() {
            "Terminating"
        } else {
            text(&obj["status"], "phase")
        };
        let unset = |value: &Value| json!(value.as_str().unwrap_or("<unset>"));
        vec![
            name(obj),
            spec["capacity"]["storage"].clone(),
            json!(short_modes(spec)),
            spec["persistentVolumeReclaimPolicy"].clone(),
            json!(phase),
            json!(claim),
            json!(text(spec, "storageClassName")),
            unset(&spec["volumeAttributesClassName"]),
            json!(text(&obj["status"], "reason")),
            age(obj, now),
            unset(&spec["volumeMode"]),
        ]
    }
}

impl KindRules for StorageClass {
    fn default(&self, obj: &mut Value) {
        default(obj, "reclaimPolicy", json!("Delete"));
        default(obj, "volumeBindingMode", json!("Immediate"));
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::default();
        if text(obj, "provisioner").is_empty() {
            errors.push(FieldError::required("provisioner", ""));
        }
        one_of(&mut errors, obj, &path, "reclaimPolicy", &["Delete", "Retain"]);
        one_of(
            &mut errors,
            obj,
            &path,
            "volumeBindingMode",
            &["Immediate", "WaitForFirstConsumer"],
        );
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (field, text) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if !same(&obj[field], &old[field]) {
                errors.push(FieldError::forbidden(field, text));
            }
        }
        immutable(
            &mut errors,
            &obj["volumeBindingMode"],
            &old["volumeBindingMode"],
            FieldPath::new("volumeBindingMode"),
        );
        errors
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![Column::name()];
        for title in [
            "Provisioner",
            "ReclaimPolicy",
            "VolumeBindingMode",
            "AllowVolumeExpansion",
            "Age",
        ] {
            columns.push(Column::new(title, "string", 0));
        }
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let mut shown = text(&obj["metadata"], "name").to_owned();
        if text(
            &obj["metadata"]["annotations"],
            "storageclass.kubernetes.io/is-default-class",
        ) == "true"
        {
            shown.push_str(" (default)");
        }
        vec![
            json!(shown),
            obj["provisioner"].clone(),
            obj["reclaimPolicy"].clone(),
            obj["volumeBindingMode"].clone(),
            json!(obj["allowVolumeExpansion"] == true),
            age(obj, now),
        ]
    }
}
