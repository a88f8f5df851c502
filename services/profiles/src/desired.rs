//! The objects that a profile stands for: a pure function of it.

use std::collections::BTreeMap;

use ferroflow_api::crd::profiles::Profile;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

/// The label by which webhooks find the namespaces of profiles.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "kubeflow-profile");

fn meta(namespace: Option<&str>, name: &str, owner: &OwnerReference) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        owner_references: Some(vec![owner.clone()]),
        ..Default::default()
    }
}

/// The profile's namespace.
pub(crate) fn namespace(profile: &Profile) -> Namespace {
    let labels = [
        PART_OF,
        ("katib.kubeflow.org/metrics-collector-injection", "enabled"),
        ("istio-injection", "enabled"),
    ];
    let text = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    Namespace {
        metadata: ObjectMeta {
            name: Some(profile.name_any()),
            labels: Some(labels.iter().map(text).collect()),
            annotations: Some(BTreeMap::from([(
                "owner".to_owned(),
                profile.spec.owner.name.clone(),
            )])),
            // the namespace `default` was there before its profile and must outlive it
            owner_references: owner(profile)
                .filter(|o| o.name != ferroflow_kernel::DEFAULT_NAMESPACE)
                .map(|o| vec![o]),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn owner(profile: &Profile) -> Option<OwnerReference> {
    profile.controller_owner_ref(&())
}

/// The accounts that workloads of the namespace use.
pub(crate) fn service_accounts(profile: &Profile) -> Vec<ServiceAccount> {
    let (Some(owner), namespace) = (owner(profile), profile.name_any()) else {
        return Vec::new();
    };
    let account = |name: &str| ServiceAccount {
        metadata: meta(Some(&namespace), name, &owner),
        ..Default::default()
    };
    vec![account("default-editor"), account("default-viewer")]
}

/// Who may do what in the namespace.
pub(crate) fn role_bindings(profile: &Profile) -> Vec<RoleBinding> {
    let (Some(owner), namespace) = (owner(profile), profile.name_any()) else {
        return Vec::new();
    };
    let account = |name: &str| Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.clone()),
        api_group: None,
    };
    let binding = |name: &str, role: &str, subject: Subject| RoleBinding {
        metadata: meta(Some(&namespace), name, &owner),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![subject]),
    };
    let mut person = profile.spec.owner.clone();
    if person.kind != "ServiceAccount" {
        person.api_group = Some("rbac.authorization.k8s.io".to_owned());
    }
    vec![
        binding("namespaceAdmin", "kubeflow-admin", person),
        binding("default-editor", "kubeflow-edit", account("default-editor")),
        // what a Pod runs as when it names no account: Katib's trials, training replicas
        binding("default", "kubeflow-edit", account("default")),
        binding("default-viewer", "kubeflow-view", account("default-viewer")),
    ]
}

/// The namespace's quota, if the profile has one.
pub(crate) fn quota(profile: &Profile) -> Option<ResourceQuota> {
    let spec = profile.spec.resource_quota_spec.clone()?;
    Some(ResourceQuota {
        metadata: meta(Some(&profile.name_any()), "kf-resource-quota", &owner(profile)?),
        spec: Some(spec),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferroflow_api::crd::profiles::ProfileSpec;

    fn profile() -> Profile {
        let owner = Subject {
            kind: "User".into(),
            name: "ann@example.com".into(),
            ..Default::default()
        };
        let mut profile = Profile::new(
            "team",
            ProfileSpec {
                owner,
                ..Default::default()
            },
        );
        profile.metadata.uid = Some("u".into());
        profile
    }

    #[test]
    fn the_owner_becomes_admin_and_workloads_editors() {
        let bindings = role_bindings(&profile());
        let admin = bindings
            .iter()
            .find(|b| b.name_any() == "namespaceAdmin")
            .unwrap();
        assert_eq!(admin.role_ref.name, "kubeflow-admin");
        assert_eq!(admin.subjects.as_ref().unwrap()[0].name, "ann@example.com");
        assert!(bindings.iter().all(|b| b.namespace().as_deref() == Some("team")));
        assert_eq!(service_accounts(&profile()).len(), 2);
    }

    #[test]
    fn the_namespace_belongs_to_the_profile_unless_it_is_default() {
        assert!(namespace(&profile()).metadata.owner_references.is_some());
        let mut default = profile();
        default.metadata.name = Some("default".into());
        assert!(namespace(&default).metadata.owner_references.is_none());
    }
}
