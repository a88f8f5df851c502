//! Deletes everything in a namespace that is being deleted, then lets it go.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::discovery::{ApiResource, verbs};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client};

use crate::context::Context;
use crate::informer::{Key, is_not_found};
use crate::pods;
use crate::queue::Queue;

const COMPONENT: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<String>) {
    let cancel = context.cancel.clone();
    let again = queue.clone();
    queue
        .drive(COMPONENT, 4, cancel, move |name| {
            let (context, again) = (context.clone(), again.clone());
            async move { empty(&context, &again, &name).await }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<String> {
    let queue = Queue::new();
    let namespaces = queue.clone();
    context.namespaces.listen(move |change| {
        if let Some(namespace) = change
            .new
            .as_ref()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            namespaces.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    queue
}

async fn empty(context: &Context, queue: &Queue<String>, name: &str) -> anyhow::Result<()> {
    let Some(namespace) = context.namespaces.get(&Key::new("", name)) else {
        return Ok(());
    };
    let held = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref())
        .is_some_and(|all| all.iter().any(|one| one == FINALIZER));
    if namespace.metadata.deletion_timestamp.is_none() || !held {
        return Ok(());
    }
    let left = delete_content(&context.client, name).await?;
    if left.objects.is_empty() {
        let mut done = (*namespace).clone();
        if let Some(finalizers) = done.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|one| one != FINALIZER);
        }
        return match context.namespaces.replace_part("finalize", &done).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let conditions = left.conditions(Timestamp::now());
    let told = |namespace: &Namespace| {
        let have: Vec<_> = namespace
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .map(|one| (&one.type_, &one.message))
            .collect();
        have == conditions
            .iter()
            .map(|one| (&one.type_, &one.message))
            .collect::<Vec<_>>()
    };
    if !told(&namespace) {
        let mut changed = (*namespace).clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        context.namespaces.replace_status(&changed).await?;
    }
    queue.add_after(name.to_owned(), LOOK_AGAIN);
    Ok(())
}

#[derive(Default)]
struct Left {
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Left {
    fn conditions(&self, now: Timestamp) -> Vec<NamespaceCondition> {
        let list = |counts: &BTreeMap<String, usize>, what: &str| {
            counts
                .iter()
                .map(|(name, count)| format!("{name} has {count} resource instances{what}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let condition = |kind: &str, status: bool, reason: &str, message: String| NamespaceCondition {
            type_: kind.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(pods::time(now)),
        };
        let held = !self.finalizers.is_empty();
        let mut finalizers = "All content-preserving finalizers finished".to_owned();
        if held {
            let parts: Vec<String> = self
                .finalizers
                .iter()
                .map(|(name, count)| format!("{name} in {count} resource instances"))
                .collect();
            finalizers = format!(
                "Some content in the namespace has finalizers remaining: {}",
                parts.join(", ")
            );
        }
        vec![
            condition(
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            condition(
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
            condition(
                "NamespaceContentRemaining",
                true,
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", list(&self.objects, "")),
            ),
            condition(
                "NamespaceFinalizersRemaining",
                held,
                if held {
                    "SomeFinalizersRemain"
                } else {
                    "ContentHasNoFinalizers"
                },
                finalizers,
            ),
        ]
    }
}

async fn delete_content(client: &Client, namespace: &str) -> anyhow::Result<Left> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut left = Left::default();
    for group in discovery.groups() {
        for (resource, capabilities) in group.resources_by_stability() {
            let deletable = capabilities.scope == Scope::Namespaced
                && capabilities.supports_operation(verbs::DELETE)
                && capabilities.supports_operation(verbs::LIST);
            if deletable {
                delete_all(client, namespace, &resource, &mut left).await?;
            }
        }
    }
    Ok(left)
}

async fn delete_all(
    client: &Client,
    namespace: &str,
    resource: &ApiResource,
    left: &mut Left,
) -> anyhow::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let list = match api.list_metadata(&ListParams::default()).await {
        Ok(list) => list,
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if list.items.is_empty() {
        return Ok(());
    }
    for object in &list.items {
        if object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match api
            .delete(
                object.metadata.name.as_deref().unwrap_or_default(),
                &DeleteParams::background(),
            )
            .await
        {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let name = if resource.group.is_empty() {
        format!("{}.", resource.plural)
    } else {
        format!("{}.{}", resource.plural, resource.group)
    };
    for object in api.list_metadata(&ListParams::default()).await?.items {
        *left.objects.entry(name.clone()).or_default() += 1;
        for finalizer in object.metadata.finalizers.iter().flatten() {
            *left.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    Ok(())
}
