//! What an installation consists of in the Kubernetes API: namespaces, definitions, roles, accounts, webhooks, and the
//! first user's profile. On a cluster the chart applies the same manifests.

use std::collections::HashSet;

use anyhow::Context as _;
use ferroflow_kernel::{DEFAULT_NAMESPACE, PLATFORM_NAMESPACE};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::names::SERVICES;

/// Everything but the webhook configurations, in the order in which it can be made.
pub(crate) fn manifests() -> anyhow::Result<Vec<Value>> {
    let mut all =
        vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLATFORM_NAMESPACE}})];
    all.extend(ferroflow_api::manifests::crds()?);
    all.extend(SERVICES.iter().map(|service| account(service)));
    all.extend(ferroflow_api::manifests::rbac()?);
    all.extend(SERVICES.iter().map(|service| binding(service)));
    let mut seen = HashSet::new();
    // some files of a service name its account and binding themselves
    all.retain(|manifest| seen.insert((manifest["kind"].to_string(), manifest["metadata"].to_string())));
    Ok(all)
}

/// Applies everything that is missing or different, and the first user's profile.
pub(crate) async fn apply(client: &Client, owner: &str) -> anyhow::Result<()> {
    for manifest in manifests()? {
        ensure(client, &manifest).await?;
    }
    let profile = json!({
        "apiVersion": "kubeflow.org/v1", "kind": "Profile", "metadata": {"name": DEFAULT_NAMESPACE},
        "spec": {"owner": {"kind": "User", "name": owner}},
    });
    ensure(client, &profile).await
}

/// Applies the webhook configurations; done once their services answer.
pub(crate) async fn apply_webhooks(client: &Client) -> anyhow::Result<()> {
    for manifest in ferroflow_api::manifests::webhooks()? {
        ensure(client, &manifest).await?;
    }
    Ok(())
}

fn account(service: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": service, "namespace": PLATFORM_NAMESPACE}})
}

fn binding(service: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("ferroflow-{service}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("ferroflow-{service}")},
        "subjects": [{"kind": "ServiceAccount", "name": service, "namespace": PLATFORM_NAMESPACE}],
    })
}

/// Creates the object, or changes the fields in which it differs.
pub(crate) async fn ensure(client: &Client, manifest: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&manifest["apiVersion"]), text(&manifest["kind"]));
    let name = text(&manifest["metadata"]["name"]);
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api: Api<DynamicObject> = match manifest["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let context = || format!("applying {kind} {name}");
    let Some(existing) = api.get_opt(&name).await.with_context(context)? else {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).with_context(context)?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(context)?;
        return Ok(());
    };
    let found = serde_json::to_value(&existing)?;
    if !ferroflow_reconcile::contains(&found, manifest) {
        api.patch(&name, &PatchParams::default(), &Patch::Merge(manifest))
            .await
            .with_context(context)?;
    }
    Ok(())
}
