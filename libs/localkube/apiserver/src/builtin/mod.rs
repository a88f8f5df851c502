//! Built-in kinds: names and rules (defaulting, validation, printer columns).

mod access;
mod checks;
mod cluster;
mod config;
mod job;
mod pod;
mod pod_defaults;
mod pod_validation;
mod service;
mod storage;
mod workloads;

use std::sync::Arc;

use crate::kinds::{BuiltinKind, KindRules, NoRules};

/// Every built-in kind with its rules, in the order of discovery.
pub fn kinds() -> Vec<BuiltinKind> {
    let mut out = Vec::new();
    let mut add = |group: &'static str,
                   version: &'static str,
                   kind: &'static str,
                   plural: &'static str,
                   short_names: &'static [&'static str],
                   flags: &str,
                   rules: Arc<dyn KindRules>| {
        out.push(BuiltinKind {
            group,
            version,
            kind,
            plural,
            singular: "",
            short_names,
            categories: if flags.contains('a') { &["all"] } else { &[] },
            namespaced: flags.contains('n'),
            status: flags.contains('s'),
            scale: flags.contains('c'),
            generation: flags.contains('g'),
            rules,
        });
    };
    let none = || Arc::new(NoRules) as Arc<dyn KindRules>;
    // flags: n namespaced, s status subresource, c scale subresource, g generation, a in category "all"
    add(
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        &["cm"],
        "n",
        Arc::new(config::ConfigMap),
    );
    add(
        "",
        "v1",
        "Endpoints",
        "endpoints",
        &["ep"],
        "n",
        Arc::new(service::Endpoints),
    );
    add(
        "",
        "v1",
        "Event",
        "events",
        &["ev"],
        "n",
        Arc::new(cluster::Event),
    );
    add(
        "",
        "v1",
        "LimitRange",
        "limitranges",
        &["limits"],
        "n",
        Arc::new(cluster::LimitRange),
    );
    add(
        "",
        "v1",
        "Namespace",
        "namespaces",
        &["ns"],
        "s",
        Arc::new(cluster::Namespace),
    );
    add("", "v1", "Node", "nodes", &["no"], "s", Arc::new(cluster::Node));
    add(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &["pvc"],
        "ns",
        Arc::new(storage::Claim),
    );
    add(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        &["pv"],
        "s",
        Arc::new(storage::Volume),
    );
    add("", "v1", "Pod", "pods", &["po"], "nsga", Arc::new(pod::Pod));
    add("", "v1", "PodTemplate", "podtemplates", &[], "ng", none());
    add(
        "",
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        &["rc"],
        "nscga",
        none(),
    );
    add(
        "",
        "v1",
        "ResourceQuota",
        "resourcequotas",
        &["quota"],
        "ns",
        Arc::new(cluster::ResourceQuota),
    );
    add("", "v1", "Secret", "secrets", &[], "n", Arc::new(config::Secret));
    add(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        &["sa"],
        "n",
        Arc::new(config::ServiceAccount),
    );
    add(
        "",
        "v1",
        "Service",
        "services",
        &["svc"],
        "nsa",
        Arc::new(service::Service),
    );
    add(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        &[],
        "n",
        Arc::new(cluster::ControllerRevision),
    );
    add(
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        &["ds"],
        "nsga",
        Arc::new(workloads::DaemonSet),
    );
    add(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        &["deploy"],
        "nscga",
        Arc::new(workloads::Deployment),
    );
    add(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        &["rs"],
        "nscga",
        Arc::new(workloads::ReplicaSet),
    );
    add(
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        &["sts"],
        "nscga",
        Arc::new(workloads::StatefulSet),
    );
    add("events.k8s.io", "v1", "Event", "events", &["ev"], "n", none());
    add(
        "batch",
        "v1",
        "CronJob",
        "cronjobs",
        &["cj"],
        "nsga",
        Arc::new(job::CronJob),
    );
    add("batch", "v1", "Job", "jobs", &[], "nsga", Arc::new(job::Job));
    add(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &["hpa"],
        "nsa",
        Arc::new(cluster::Autoscaler),
    );
    add(
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        &[],
        "g",
        none(),
    );
    add(
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        &["ing"],
        "nsg",
        none(),
    );
    add(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        &["netpol"],
        "ng",
        Arc::new(cluster::NetworkPolicy),
    );
    add(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        &["pdb"],
        "nsg",
        Arc::new(cluster::DisruptionBudget),
    );
    add(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        &[],
        "",
        Arc::new(access::Binding { cluster: true }),
    );
    add(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        &[],
        "",
        Arc::new(access::Role { cluster: true }),
    );
    add(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        &[],
        "n",
        Arc::new(access::Binding { cluster: false }),
    );
    add(
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        &[],
        "n",
        Arc::new(access::Role { cluster: false }),
    );
    add(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        &["sc"],
        "",
        Arc::new(storage::StorageClass),
    );
    let webhooks: &[&str] = &[];
    let group = "admissionregistration.k8s.io";
    add(
        group,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        webhooks,
        "g",
        Arc::new(access::Webhooks { mutating: true }),
    );
    add(
        group,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        webhooks,
        "g",
        Arc::new(access::Webhooks { mutating: false }),
    );
    add(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        "sg",
        none(),
    );
    add(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        &["pc"],
        "g",
        Arc::new(cluster::PriorityClass),
    );
    add(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        &[],
        "n",
        Arc::new(cluster::Lease),
    );
    add(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        &[],
        "",
        none(),
    );
    add(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        &[],
        "ng",
        Arc::new(service::EndpointSlice),
    );
    out
}
