//! Built-in kinds: names and rules (defaulting, validation, printer columns).

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
    add("", "v1", "ConfigMap", "configmaps", &["cm"], "n", none());
    add("", "v1", "Endpoints", "endpoints", &["ep"], "n", none());
    add("", "v1", "Event", "events", &["ev"], "n", none());
    add("", "v1", "LimitRange", "limitranges", &["limits"], "n", none());
    add("", "v1", "Namespace", "namespaces", &["ns"], "s", none());
    add("", "v1", "Node", "nodes", &["no"], "s", none());
    add("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], "ns", none());
    add("", "v1", "PersistentVolume", "persistentvolumes", &["pv"], "s", none());
    add("", "v1", "Pod", "pods", &["po"], "nsga", none());
    add("", "v1", "PodTemplate", "podtemplates", &[], "ng", none());
    add("", "v1", "ReplicationController", "replicationcontrollers", &["rc"], "nscga", none());
    add("", "v1", "ResourceQuota", "resourcequotas", &["quota"], "ns", none());
    add("", "v1", "Secret", "secrets", &[], "n", none());
    add("", "v1", "ServiceAccount", "serviceaccounts", &["sa"], "n", none());
    add("", "v1", "Service", "services", &["svc"], "nsa", none());
    add("apps", "v1", "ControllerRevision", "controllerrevisions", &[], "n", none());
    add("apps", "v1", "DaemonSet", "daemonsets", &["ds"], "nsga", none());
    add("apps", "v1", "Deployment", "deployments", &["deploy"], "nscga", none());
    add("apps", "v1", "ReplicaSet", "replicasets", &["rs"], "nscga", none());
    add("apps", "v1", "StatefulSet", "statefulsets", &["sts"], "nscga", none());
    add("events.k8s.io", "v1", "Event", "events", &["ev"], "n", none());
    add("batch", "v1", "CronJob", "cronjobs", &["cj"], "nsga", none());
    add("batch", "v1", "Job", "jobs", &[], "nsga", none());
    add("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &["hpa"], "nsa", none());
    add("networking.k8s.io", "v1", "IngressClass", "ingressclasses", &[], "g", none());
    add("networking.k8s.io", "v1", "Ingress", "ingresses", &["ing"], "nsg", none());
    add("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", &["netpol"], "ng", none());
    add("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], "nsg", none());
    add("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", &[], "", none());
    add("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", &[], "", none());
    add("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", &[], "n", none());
    add("rbac.authorization.k8s.io", "v1", "Role", "roles", &[], "n", none());
    add("storage.k8s.io", "v1", "StorageClass", "storageclasses", &["sc"], "", none());
    let webhooks: &[&str] = &[];
    let group = "admissionregistration.k8s.io";
    add(group, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", webhooks, "g", none());
    add(group, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", webhooks, "g", none());
    add("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], "sg", none());
    add("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &["pc"], "g", none());
    add("coordination.k8s.io", "v1", "Lease", "leases", &[], "n", none());
    add("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", &[], "", none());
    add("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &[], "ng", none());
    out
}
