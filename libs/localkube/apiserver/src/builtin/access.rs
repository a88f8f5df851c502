//! Roles, bindings, and webhook configurations.

use serde_json::{Value, json};

use super::checks::{age, default, each, list, name, object, one_of, present, text};
use crate::field_error::{FieldError, FieldPath};
use crate::kinds::{Column, KindRules};

/// Rules of Roles and ClusterRoles.
pub struct Role {
    /// of the whole cluster
    pub cluster: bool,
}
/// Rules of RoleBindings and ClusterRoleBindings.
pub struct Binding {
    /// of the whole cluster
    pub cluster: bool,
}
/// Rules of Mutating- and ValidatingWebhookConfigurations.
pub struct Webhooks {
    /// whether the hooks change objects
    pub mutating: bool,
}

const RBAC: &str = "rbac.authorization.k8s.io";

impl KindRules for Role {
    fn default(&self, obj: &mut Value) {
        if obj["rules"].is_null()
            && let Some(map) = obj.as_object_mut()
        {
            map.insert("rules".to_owned(), Value::Null);
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (at, rule) in list(obj, "rules").iter().enumerate() {
            let path = FieldPath::new("rules").index(at);
            let filled = |field: &str| !list(rule, field).is_empty();
            if !filled("verbs") {
                errors.push(FieldError::required(
                    path.child("verbs"),
                    "verbs must contain at least one value",
                ));
            }
            if filled("nonResourceURLs") {
                if !self.cluster {
                    let text = "namespaced rules cannot apply to non-resource URLs";
                    errors.push(FieldError::invalid(
                        path.child("nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        text,
                    ));
                }
                if filled("apiGroups") || filled("resources") || filled("resourceNames") {
                    let text = "rules cannot apply to both regular resources and non-resource URLs";
                    errors.push(FieldError::invalid(
                        path.child("nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        text,
                    ));
                }
                continue;
            }
            if !filled("apiGroups") {
                errors.push(FieldError::required(
                    path.child("apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if !filled("resources") {
                errors.push(FieldError::required(
                    path.child("resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(obj)
    }
}

impl KindRules for Binding {
    fn default(&self, obj: &mut Value) {
        if obj["roleRef"].is_object() {
            default(&mut obj["roleRef"], "apiGroup", json!(RBAC));
        }
        each(obj, "subjects", |subject| {
            if matches!(text(subject, "kind"), "User" | "Group") {
                default(subject, "apiGroup", json!(RBAC));
            }
        });
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (reference, path) = (&obj["roleRef"], FieldPath::new("roleRef"));
        if text(reference, "apiGroup") != RBAC {
            errors.push(FieldError::not_supported(
                path.child("apiGroup"),
                text(reference, "apiGroup"),
                &[RBAC],
            ));
        }
        let kinds: &[&str] = if self.cluster {
            &["ClusterRole"]
        } else {
            &["Role", "ClusterRole"]
        };
        if !kinds.contains(&text(reference, "kind")) {
            errors.push(FieldError::not_supported(
                path.child("kind"),
                text(reference, "kind"),
                kinds,
            ));
        }
        if text(reference, "name").is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        for (at, subject) in list(obj, "subjects").iter().enumerate() {
            let path = FieldPath::new("subjects").index(at);
            if text(subject, "name").is_empty() {
                errors.push(FieldError::required(path.child("name"), ""));
            }
            let group = text(subject, "apiGroup");
            match text(subject, "kind") {
                "ServiceAccount" => {
                    if !group.is_empty() {
                        errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[""]));
                    }
                    if self.cluster && text(subject, "namespace").is_empty() {
                        errors.push(FieldError::required(path.child("namespace"), ""));
                    }
                }
                "User" | "Group" => {
                    if group != RBAC {
                        errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[RBAC]));
                    }
                }
                other => errors.push(FieldError::not_supported(
                    path.child("kind"),
                    other,
                    &["ServiceAccount", "User", "Group"],
                )),
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, _old: &Value) -> Vec<FieldError> {
        // `roleRef` may not change: admission says so.
        self.validate_create(obj)
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Role", "string", 0),
            Column::new("Age", "string", 0),
        ];
        for title in ["Users", "Groups", "ServiceAccounts"] {
            columns.push(Column::new(title, "string", 1));
        }
        columns
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let of = |kind: &str| {
            let names: Vec<String> = list(obj, "subjects")
                .iter()
                .filter(|one| text(one, "kind") == kind)
                .map(|one| {
                    if kind == "ServiceAccount" {
                        format!("{}/{}", text(one, "namespace"), text(one, "name"))
                    } else {
                        text(one, "name").to_owned()
                    }
                })
                .collect();
            json!(names.join(", "))
        };
        let role = format!(
            "{}/{}",
            text(&obj["roleRef"], "kind"),
            text(&obj["roleRef"], "name")
        );
        vec![
            name(obj),
            json!(role),
            age(obj, now),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    }
}

impl KindRules for Webhooks {
    fn default(&self, obj: &mut Value) {
        each(obj, "webhooks", |hook| {
            default(hook, "failurePolicy", json!("Fail"));
            default(hook, "matchPolicy", json!("Equivalent"));
            let _made = object(hook, "namespaceSelector");
            let _made = object(hook, "objectSelector");
            default(hook, "timeoutSeconds", json!(10));
            if self.mutating {
                default(hook, "reinvocationPolicy", json!("Never"));
            }
            each(hook, "rules", |rule| default(rule, "scope", json!("*")));
            if let Some(service) = hook
                .pointer_mut("/clientConfig/service")
                .filter(|service| service.is_object())
            {
                default(service, "port", json!(443));
            }
        });
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        for (at, hook) in list(obj, "webhooks").iter().enumerate() {
            let path = FieldPath::new("webhooks").index(at);
            let own = text(hook, "name");
            if own.split('.').count() < 3 {
                let text = "should be a domain with at least three segments separated by dots";
                errors.push(FieldError::invalid(path.child("name"), own, text));
            }
            if !names.insert(own) {
                errors.push(FieldError::duplicate(path.child("name"), own));
            }
            if list(hook, "admissionReviewVersions").is_empty() {
                errors.push(FieldError::required(
                    path.child("admissionReviewVersions"),
                    "must specify one of v1, v1beta1",
                ));
            }
            one_of(&mut errors, hook, &path, "failurePolicy", &["Fail", "Ignore"]);
            match text(hook, "sideEffects") {
                "None" | "NoneOnDryRun" => {}
                "" => errors.push(FieldError::required(
                    path.child("sideEffects"),
                    "must specify one of None, NoneOnDryRun",
                )),
                other => errors.push(FieldError::not_supported(
                    path.child("sideEffects"),
                    other,
                    &["None", "NoneOnDryRun"],
                )),
            }
            if let Some(seconds) = hook["timeoutSeconds"].as_i64()
                && !(1..=30).contains(&seconds)
            {
                errors.push(FieldError::invalid(
                    path.child("timeoutSeconds"),
                    seconds,
                    "the timeout value must be between 1 and 30 seconds",
                ));
            }
            let client = &hook["clientConfig"];
            if present(client, "url") == present(client, "service") {
                errors.push(FieldError::required(
                    path.child("clientConfig"),
                    "exactly one of url or service is required",
                ));
            }
        }
        errors
    }

    fn validate_update(&self, obj: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(obj)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Webhooks", "integer", 0),
            Column::new("Age", "string", 0),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        vec![name(obj), json!(list(obj, "webhooks").len()), age(obj, now)]
    }
}
