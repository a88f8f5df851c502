//! Garbage collection by owner references: background, foreground and orphaning.
//!
//! Watches the metadata of every resource that can be listed, watched and deleted, custom ones included.

mod graph;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::PartialObjectMeta;
use kube::core::discovery::{ApiResource, verbs};
use kube::discovery::{Discovery, Scope};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::informer::{Backoff, is_not_found};
use crate::queue::Queue;
use graph::{Graph, Node, OwnerState, Verdict, Work};

const COMPONENT: &str = "garbage-collector";
/// How often the list of resources is read again without a reason.
const REDISCOVER: Duration = Duration::from_secs(30);
/// Never garbage, and many.
const IGNORED: [&str; 1] = ["events"];

#[derive(Clone)]
struct Watched {
    resource: ApiResource,
    namespaced: bool,
    stop: CancellationToken,
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    resources: RwLock<Vec<Watched>>,
    queue: Queue<Work>,
    /// an owner's kind was not found: look for new resources
    unknown: Notify,
    cancel: CancellationToken,
}

/// Runs the collector until cancelled.
pub async fn run(context: Context) {
    let queue = Queue::new();
    let cancel = context.cancel.clone();
    let collector = Arc::new(Collector {
        client: context.client.clone(),
        graph: Mutex::new(Graph::default()),
        resources: RwLock::new(Vec::new()),
        queue: queue.clone(),
        unknown: Notify::new(),
        cancel: cancel.clone(),
    });
    let discovery = tokio::spawn(Arc::clone(&collector).discover());
    queue
        .drive(COMPONENT, 8, cancel, move |work| {
            Arc::clone(&collector).handle(work)
        })
        .await;
    discovery.abort();
}

impl Collector {
    /// Keeps one watch per resource; a change of the CustomResourceDefinitions is a reason to look again.
    async fn discover(self: Arc<Self>) {
        let definitions = ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &definitions);
        let mut changes =
            Box::pin(watcher::watcher(api, watcher::Config::default()).backoff(Backoff::default()));
        loop {
            if let Err(error) = self.rescan().await {
                tracing::debug!(%error, "discovery failed, trying again");
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                _ = changes.next() => {
                    // Definitions come in groups, and are served a moment after they are seen.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    while let Some(Some(_)) = futures::FutureExt::now_or_never(changes.next()) {}
                }
                () = self.unknown.notified() => {}
                () = tokio::time::sleep(REDISCOVER) => {}
            }
        }
    }

    async fn rescan(self: &Arc<Self>) -> kube::Result<()> {
        let discovery = Discovery::new(self.client.clone()).run().await?;
        let mut found = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.resources_by_stability() {
                let usable = [verbs::LIST, verbs::WATCH, verbs::DELETE]
                    .iter()
                    .all(|verb| capabilities.supports_operation(verb));
                if usable && !IGNORED.contains(&resource.plural.as_str()) {
                    found.push((resource, capabilities.scope == Scope::Namespaced));
                }
            }
        }
        let mut starting = Vec::new();
        {
            let mut resources = self.resources.write();
            let same = |a: &ApiResource, b: &ApiResource| {
                a.group == b.group && a.plural == b.plural && a.version == b.version
            };
            for watched in resources.iter().filter(|watched| !watched.stop.is_cancelled()) {
                if !found
                    .iter()
                    .any(|(resource, _)| same(resource, &watched.resource))
                {
                    watched.stop.cancel();
                }
            }
            for (resource, namespaced) in found {
                if resources
                    .iter()
                    .any(|watched| !watched.stop.is_cancelled() && same(&watched.resource, &resource))
                {
                    continue;
                }
                resources.push(Watched {
                    resource,
                    namespaced,
                    stop: self.cancel.child_token(),
                });
                starting.push(resources.len() - 1);
            }
        }
        for index in starting {
            tokio::spawn(Arc::clone(self).watch(index));
        }
        Ok(())
    }

    fn resource(&self, index: usize) -> Option<Watched> {
        self.resources.read().get(index).cloned()
    }

    async fn watch(self: Arc<Self>, index: usize) {
        let Some(watched) = self.resource(index) else {
            return;
        };
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &watched.resource);
        let mut stream =
            Box::pin(watcher::watcher(api, watcher::Config::default()).backoff(Backoff::default()));
        let mut listed: HashSet<String> = HashSet::new();
        loop {
            let event = tokio::select! {
                () = watched.stop.cancelled() => break,
                event = stream.next() => event,
            };
            match event {
                None => break,
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    listed.insert(object.metadata.uid.clone().unwrap_or_default());
                    self.enqueue(self.graph.lock().observe(Node::new(index, &object.metadata)));
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let gone: Vec<String> = self
                        .graph
                        .lock()
                        .of_resource(index)
                        .into_iter()
                        .filter(|uid| !listed.contains(uid))
                        .collect();
                    for uid in gone {
                        self.enqueue(self.graph.lock().remove(&uid));
                    }
                }
                Some(Ok(watcher::Event::Apply(object))) => {
                    self.enqueue(self.graph.lock().observe(Node::new(index, &object.metadata)));
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    self.enqueue(
                        self.graph
                            .lock()
                            .remove(object.metadata.uid.as_deref().unwrap_or_default()),
                    );
                }
                Some(Err(error)) => {
                    tracing::debug!(resource = %watched.resource.plural, %error, "watch interrupted");
                }
            }
        }
        let gone = self.graph.lock().of_resource(index);
        for uid in gone {
            self.enqueue(self.graph.lock().remove(&uid));
        }
    }

    fn enqueue(&self, work: Vec<Work>) {
        for one in work {
            self.queue.add(one);
        }
    }

    async fn handle(self: Arc<Self>, work: Work) -> anyhow::Result<()> {
        match work {
            Work::Dependent(uid) => self.dependent(&uid).await,
            Work::Owner(uid) => self.owner(&uid).await,
            Work::Orphan(uid) => self.orphan(&uid).await,
        }
    }

    fn api(&self, node: &Node) -> Option<Api<DynamicObject>> {
        let watched = self.resource(node.resource)?;
        Some(if watched.namespaced {
            Api::namespaced_with(self.client.clone(), &node.namespace, &watched.resource)
        } else {
            Api::all_with(self.client.clone(), &watched.resource)
        })
    }

    fn node(&self, uid: &str) -> Option<Node> {
        self.graph.lock().get(uid).cloned()
    }

    async fn dependent(&self, uid: &str) -> anyhow::Result<()> {
        let Some(node) = self.node(uid) else { return Ok(()) };
        let Some(api) = self.api(&node) else { return Ok(()) };
        let Some(live) = live(&api, &node.name).await? else {
            let work = self.graph.lock().remove(uid);
            self.enqueue(work);
            return Ok(());
        };
        if live.metadata.uid.as_deref() != Some(uid) || live.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in live.metadata.owner_references.clone().unwrap_or_default() {
            let state = self.owner_state(&node, &owner).await?;
            owners.push((owner, state));
        }
        let has_dependents = !self.graph.lock().dependents(uid).is_empty();
        match graph::judge(&owners, has_dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Drop(left) => {
                let patch = json!({"metadata": {"uid": uid, "resourceVersion": live.metadata.resource_version, "ownerReferences": left}});
                ignore_absent(
                    api.patch_metadata(&node.name, &PatchParams::default(), &Patch::Merge(patch))
                        .await
                        .map(|_| ()),
                )
            }
            Verdict::Delete { foreground } => {
                let policy = if node.orphan {
                    PropagationPolicy::Orphan
                } else if foreground || node.foreground {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(Preconditions {
                        uid: Some(uid.to_owned()),
                        resource_version: live.metadata.resource_version.clone(),
                    }),
                    ..DeleteParams::default()
                };
                ignore_absent(api.delete(&node.name, &params).await.map(|_| ()))
            }
        }
    }

    async fn owner_state(&self, node: &Node, owner: &OwnerReference) -> anyhow::Result<OwnerState> {
        if let Some(known) = self.node(&owner.uid) {
            return Ok(if known.waits() {
                OwnerState::Waiting
            } else {
                OwnerState::Solid
            });
        }
        // The graph may be behind: ask for the object itself.
        let found = self
            .resources
            .read()
            .iter()
            .find(|watched| {
                !watched.stop.is_cancelled()
                    && watched.resource.kind == owner.kind
                    && watched.resource.group == group_of(&owner.api_version)
            })
            .cloned();
        let Some(watched) = found else {
            self.unknown.notify_one();
            anyhow::bail!(
                "{}/{} names an owner of unknown kind {} {}",
                node.namespace,
                node.name,
                owner.api_version,
                owner.kind
            );
        };
        let api: Api<DynamicObject> = match (watched.namespaced, node.namespace.is_empty()) {
            (true, true) => return Ok(OwnerState::Absent),
            (true, false) => Api::namespaced_with(self.client.clone(), &node.namespace, &watched.resource),
            (false, _) => Api::all_with(self.client.clone(), &watched.resource),
        };
        let live = live(&api, &owner.name)
            .await?
            .filter(|live| live.metadata.uid.as_deref() == Some(&owner.uid));
        Ok(match live {
            None => OwnerState::Absent,
            Some(live) => {
                if Node::new(0, &live.metadata).waits() {
                    OwnerState::Waiting
                } else {
                    OwnerState::Solid
                }
            }
        })
    }

    /// An owner deleted in the foreground: its dependents go first.
    async fn owner(&self, uid: &str) -> anyhow::Result<()> {
        let Some(node) = self.node(uid).filter(Node::waits) else {
            return Ok(());
        };
        let (dependents, blocked) = {
            let graph = self.graph.lock();
            (graph.dependents(uid), graph.blocking(uid))
        };
        if blocked {
            for dependent in dependents.iter().filter(|dependent| !dependent.deleting) {
                self.queue.add(Work::Dependent(dependent.uid.clone()));
            }
            return Ok(());
        }
        self.remove_finalizer(&node, graph::FOREGROUND).await
    }

    /// Dependents lose the reference, then the owner its finalizer.
    async fn orphan(&self, uid: &str) -> anyhow::Result<()> {
        let Some(node) = self.node(uid).filter(|node| node.deleting && node.orphan) else {
            return Ok(());
        };
        let dependents = self.graph.lock().dependents(uid);
        let calls = dependents
            .iter()
            .filter_map(|dependent| Some((dependent, self.api(dependent)?)))
            .map(|(dependent, api)| async move {
                let left: Vec<&OwnerReference> =
                    dependent.owners.iter().filter(|owner| owner.uid != uid).collect();
                let patch = json!({"metadata": {"uid": dependent.uid, "ownerReferences": left}});
                ignore_absent(
                    api.patch_metadata(&dependent.name, &PatchParams::default(), &Patch::Merge(patch))
                        .await
                        .map(|_| ()),
                )
            });
        for result in join_all(calls).await {
            result?;
        }
        self.remove_finalizer(&node, graph::ORPHAN).await
    }

    async fn remove_finalizer(&self, node: &Node, name: &str) -> anyhow::Result<()> {
        let Some(api) = self.api(node) else { return Ok(()) };
        let Some(live) = live(&api, &node.name).await? else {
            return Ok(());
        };
        if live.metadata.uid.as_deref() != Some(&node.uid) {
            return Ok(());
        }
        let finalizers = live.metadata.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|one| one == name) {
            return Ok(());
        }
        let left: Vec<&String> = finalizers.iter().filter(|one| *one != name).collect();
        let patch = json!({"metadata": {"uid": node.uid, "resourceVersion": live.metadata.resource_version, "finalizers": left}});
        ignore_absent(
            api.patch_metadata(&node.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(|_| ()),
        )
    }
}

/// The metadata of an object, `None` when exactly this object does not exist. That its whole resource is not
/// served (a definition that is being replaced, say) is an error to try again after, and never a reason to delete.
async fn live(
    api: &Api<DynamicObject>,
    name: &str,
) -> kube::Result<Option<PartialObjectMeta<DynamicObject>>> {
    match api.get_metadata(name).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status))
            if status.code == 404
                && status
                    .details
                    .as_ref()
                    .is_some_and(|details| details.name == name) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn ignore_absent(result: kube::Result<()>) -> anyhow::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
