//! `status` of ResourceQuotas: what a namespace uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::context::Context;
use crate::informer::Key;
use crate::pods;
use crate::quantity::Amount;
use crate::queue::Queue;

const COMPONENT: &str = "resourcequota-controller";
/// Kinds that no watch of ours covers are counted this often.
const RECOUNT: Duration = Duration::from_secs(30);

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<Key>) {
    let cancel = context.cancel.clone();
    let again = queue.clone();
    queue
        .drive(COMPONENT, 2, cancel, move |key| {
            let (context, again) = (context.clone(), again.clone());
            async move { reconcile(&context, &again, key).await }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Key> {
    let queue: Queue<Key> = Queue::new();
    let own = queue.clone();
    context.quotas.listen(move |change| {
        if let Some(quota) = &change.new {
            own.add(Key::of(&**quota));
        }
    });
    macro_rules! recount {
        ($($cache:ident),*) => {$(
            let (queue_of, quotas) = (queue.clone(), context.quotas.clone());
            context.$cache.listen(move |change| {
                if let Some(object) = change.latest() {
                    for quota in quotas.in_namespace(object.metadata.namespace.as_deref().unwrap_or_default()) {
                        queue_of.add(Key::of(&*quota));
                    }
                }
            });
        )*};
    }
    recount!(
        pods,
        services,
        claims,
        config_maps,
        service_accounts,
        jobs,
        cron_jobs,
        deployments,
        replica_sets,
        stateful_sets
    );
    queue
}

/// What a namespace uses of `name`; `None` for what is not known.
fn used(context: &Context, namespace: &str, name: &str) -> Option<Amount> {
    let count = |number: usize| Some(Amount::whole(i64::try_from(number).unwrap_or(i64::MAX)));
    let live: Vec<Arc<Pod>> = context
        .pods
        .in_namespace(namespace)
        .into_iter()
        .filter(|pod| !pods::finished(pod))
        .collect();
    match name {
        "pods" | "count/pods" => count(live.len()),
        "services" | "count/services" => count(context.services.in_namespace(namespace).len()),
        "configmaps" | "count/configmaps" => count(context.config_maps.in_namespace(namespace).len()),
        "resourcequotas" | "count/resourcequotas" => count(context.quotas.in_namespace(namespace).len()),
        "persistentvolumeclaims" | "count/persistentvolumeclaims" => {
            count(context.claims.in_namespace(namespace).len())
        }
        "count/serviceaccounts" => count(context.service_accounts.in_namespace(namespace).len()),
        "count/jobs.batch" => count(context.jobs.in_namespace(namespace).len()),
        "count/cronjobs.batch" => count(context.cron_jobs.in_namespace(namespace).len()),
        "count/deployments.apps" => count(context.deployments.in_namespace(namespace).len()),
        "count/replicasets.apps" => count(context.replica_sets.in_namespace(namespace).len()),
        "count/statefulsets.apps" => count(context.stateful_sets.in_namespace(namespace).len()),
        "services.nodeports" | "services.loadbalancers" => {
            let wanted = if name.ends_with("nodeports") {
                "NodePort"
            } else {
                "LoadBalancer"
            };
            let is = |service: &k8s_openapi::api::core::v1::Service| {
                service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some(wanted)
            };
            count(
                context
                    .services
                    .in_namespace(namespace)
                    .iter()
                    .filter(|service| is(service))
                    .count(),
            )
        }
        "requests.storage" => {
            let mut total = Amount::default();
            for claim in context.claims.in_namespace(namespace) {
                let wanted = claim
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.resources.as_ref())
                    .and_then(|all| all.requests.as_ref());
                total += wanted
                    .and_then(|all| all.get("storage"))
                    .map(Amount::of)
                    .unwrap_or_default();
            }
            Some(total)
        }
        _ => {
            let (limits, resource) = match name.split_once('.') {
                Some(("limits", resource)) => (true, resource),
                Some(("requests", resource)) => (false, resource),
                None if matches!(name, "cpu" | "memory" | "ephemeral-storage") => (false, name),
                _ => return None,
            };
            let mut total = Amount::default();
            for pod in &live {
                total += pod_amount(pod, limits, resource);
            }
            Some(total)
        }
    }
}

fn pod_amount(pod: &Pod, limits: bool, resource: &str) -> Amount {
    let Some(spec) = &pod.spec else {
        return Amount::default();
    };
    let of = |container: &Container| -> Amount {
        let resources = container.resources.as_ref();
        let map = resources.and_then(|all| {
            if limits {
                all.limits.as_ref()
            } else {
                all.requests.as_ref()
            }
        });
        map.and_then(|all| all.get(resource))
            .map(Amount::of)
            .unwrap_or_default()
    };
    let mut running = Amount::default();
    for container in &spec.containers {
        running += of(container);
    }
    let mut peak = Amount::default();
    let mut sidecars = Amount::default();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            peak = peak.max(sidecars);
        } else {
            let mut here = sidecars;
            here += of(container);
            peak = peak.max(here);
        }
    }
    running += sidecars;
    running.max(peak)
}

fn binary(name: &str) -> bool {
    name.contains("memory") || name.contains("storage")
}

async fn reconcile(context: &Context, queue: &Queue<Key>, key: Key) -> anyhow::Result<()> {
    let Some(quota) = context.quotas.get(&key) else {
        return Ok(());
    };
    let status = status(&quota, |name| used(context, &key.namespace, name));
    if quota.status.as_ref() != Some(&status) {
        let mut changed = (*quota).clone();
        changed.status = Some(status);
        context.quotas.replace_status(&changed).await?;
    }
    queue.add_after(key, RECOUNT);
    Ok(())
}

fn status(quota: &ResourceQuota, used: impl Fn(&str) -> Option<Amount>) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
    let before = quota
        .status
        .as_ref()
        .and_then(|status| status.used.clone())
        .unwrap_or_default();
    let counts: BTreeMap<String, Quantity> = hard
        .iter()
        .flatten()
        .filter_map(|(name, _)| {
            let quantity = used(name)
                .map(|amount| amount.quantity(binary(name)))
                .or_else(|| before.get(name).cloned())?;
            Some((name.clone(), quantity))
        })
        .collect();
    ResourceQuotaStatus {
        hard,
        used: (!counts.is_empty()).then_some(counts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_of_what_is_limited() {
        let quota: ResourceQuota = serde_json::from_value(
            json!({"spec": {"hard": {"pods": "3", "requests.cpu": "2", "other": "1"}}}),
        )
        .unwrap();
        let status = status(&quota, |name| match name {
            "pods" => Some(Amount::whole(2)),
            "requests.cpu" => Some(Amount(1500)),
            _ => None,
        });
        assert_eq!(
            serde_json::to_value(status.used).unwrap(),
            json!({"pods": "2", "requests.cpu": "1500m"})
        );
    }

    #[test]
    fn pods_count_by_their_peak() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]}}))
        .unwrap();
        assert_eq!(pod_amount(&pod, false, "cpu"), Amount::whole(3));
        assert_eq!(pod_amount(&pod, true, "cpu"), Amount::whole(2));
    }
}
