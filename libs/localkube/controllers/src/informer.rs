//! A cache of one kind of object, fed by a watch, through which a controller also writes.
//!
//! The answer to a write enters the cache at once, so a controller reads its own writes and needs no
//! bookkeeping of what it expects to see. An event that is older than what the cache holds is ignored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Client, Resource};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace (empty for a cluster-scoped object) and name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// namespace, empty when the object has none
    pub namespace: String,
    /// name
    pub name: String,
}

impl Key {
    /// A key of its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A kind that an informer can hold.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}
impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static>
    Kind for K
{
}

/// What happened to one object; `old` is absent for a new object, `new` for one that is gone.
pub struct Change<K> {
    /// state before
    pub old: Option<Arc<K>>,
    /// state after
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest state known.
    pub fn latest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    /// uids of deleted objects, of which late answers and events may still arrive
    gone: Gone,
}

/// The latest deleted uids. A uid never comes back, so to remember too many is no error.
#[derive(Default)]
struct Gone {
    uids: HashSet<String>,
    order: VecDeque<String>,
}

impl Gone {
    const REMEMBERED: usize = 4096;

    fn insert(&mut self, uid: &str) {
        if !uid.is_empty() && self.uids.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
            if self.order.len() > Self::REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.uids.remove(&oldest);
            }
        }
    }
}

struct Inner<K> {
    client: Client,
    state: RwLock<State<K>>,
    listeners: RwLock<Vec<Listener<K>>>,
    synced: watch::Sender<bool>,
}

/// See the module's documentation.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

/// The controlling owner of an object.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object
        .meta()
        .owner_references
        .as_ref()?
        .iter()
        .find(|owner| owner.controller == Some(true))
}

fn version_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn uid_of<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

impl<K: Kind> Informer<K> {
    /// An empty cache; nothing is watched until [`Informer::run`].
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            inner: Arc::new(Inner {
                client,
                state: RwLock::new(State {
                    objects: BTreeMap::new(),
                    by_owner: HashMap::new(),
                    gone: Gone::default(),
                }),
                listeners: RwLock::new(Vec::new()),
                synced: watch::Sender::new(false),
            }),
        }
    }

    /// Calls `listener` on every change from now on; it must not block.
    pub fn listen(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.inner.listeners.write().push(Box::new(listener));
    }

    /// Watches until cancelled, with back-off when the server does not answer.
    pub async fn run(self, cancel: CancellationToken) {
        let api: Api<K> = Api::all(self.inner.client.clone());
        let mut stream =
            Box::pin(watch_kind::watcher(api, watcher::Config::default()).backoff(Backoff::default()));
        let mut listed: Option<HashSet<Key>> = None;
        loop {
            let event = tokio::select! {
                () = cancel.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                None => return,
                Some(Ok(Event::Init)) => listed = Some(HashSet::new()),
                Some(Ok(Event::InitApply(object))) => {
                    if let Some(listed) = &mut listed {
                        listed.insert(Key::of(&object));
                    }
                    self.observe(object);
                }
                Some(Ok(Event::InitDone)) => {
                    if let Some(listed) = listed.take() {
                        self.retain(&listed);
                    }
                    self.inner.synced.send_replace(true);
                }
                Some(Ok(Event::Apply(object))) => {
                    self.observe(object);
                }
                Some(Ok(Event::Delete(object))) => self.forget(&object),
                Some(Err(error)) => tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted"),
            }
        }
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        let mut receiver = self.inner.synced.subscribe();
        let _closed = receiver.wait_for(|synced| *synced).await;
    }

    /// Takes a state of an object into the cache unless a newer one is there.
    pub fn observe(&self, mut object: K) -> Arc<K> {
        // no controller reads them, they are most of a small object, and an update that has none keeps them
        object.meta_mut().managed_fields = None;
        let object = Arc::new(object);
        let key = Key::of(&*object);
        let old = {
            let mut state = self.inner.state.write();
            if state.gone.uids.contains(uid_of(&*object)) {
                return object;
            }
            if let Some(known) = state.objects.get(&key)
                && version_of(&**known) >= version_of(&*object)
            {
                return Arc::clone(known);
            }
            let old = state.objects.insert(key.clone(), Arc::clone(&object));
            if let Some(old) = &old {
                unindex(&mut state.by_owner, &key, &**old);
            }
            if let Some(owner) = controller_of(&*object) {
                state.by_owner.entry(owner.uid.clone()).or_default().insert(key);
            }
            old
        };
        self.notify(&Change {
            old,
            new: Some(Arc::clone(&object)),
        });
        object
    }

    fn forget(&self, object: &K) {
        self.inner.state.write().gone.insert(uid_of(object));
        self.remove(&Key::of(object), Some(uid_of(object)));
    }

    fn remove(&self, key: &Key, uid: Option<&str>) -> bool {
        let old = {
            let mut state = self.inner.state.write();
            let same = state
                .objects
                .get(key)
                .is_some_and(|known| uid.is_none_or(|uid| uid_of(&**known) == uid));
            if !same {
                return false;
            }
            let old = state.objects.remove(key);
            if let Some(old) = &old {
                unindex(&mut state.by_owner, key, &**old);
            }
            old
        };
        self.notify(&Change { old, new: None });
        true
    }

    fn retain(&self, listed: &HashSet<Key>) {
        let gone: Vec<Key> = {
            let state = self.inner.state.read();
            state
                .objects
                .keys()
                .filter(|key| !listed.contains(*key))
                .cloned()
                .collect()
        };
        for key in gone {
            self.remove(&key, None);
        }
    }

    fn notify(&self, change: &Change<K>) {
        for listener in self.inner.listeners.read().iter() {
            listener(change);
        }
    }

    /// The object of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.state.read().objects.get(key).cloned()
    }

    /// The objects whose controller has this uid.
    #[must_use]
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.inner.state.read();
        state
            .by_owner
            .get(uid)
            .map(|keys| {
                keys.iter()
                    .filter_map(|key| state.objects.get(key).cloned())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The objects of a namespace, by name.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.inner.state.read();
        state
            .objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// All objects, by namespace and name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.state.read().objects.values().cloned().collect()
    }

    fn path(namespace: &str) -> Request {
        Request::new(K::url_path(&(), (!namespace.is_empty()).then_some(namespace)))
    }

    async fn send(&self, request: http_request::Result) -> kube::Result<Arc<K>> {
        let object: K = self
            .inner
            .client
            .request(request.map_err(kube::Error::BuildRequest)?)
            .await?;
        Ok(self.observe(object))
    }

    /// Creates an object.
    pub async fn create(&self, namespace: &str, object: &K) -> kube::Result<Arc<K>> {
        let data = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(Self::path(namespace).create(&PostParams::default(), data))
            .await
    }

    /// Replaces an object.
    pub async fn replace(&self, object: &K) -> kube::Result<Arc<K>> {
        let key = Key::of(object);
        let data = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(Self::path(&key.namespace).replace(&key.name, &PostParams::default(), data))
            .await
    }

    /// Replaces an object's status.
    pub async fn replace_status(&self, object: &K) -> kube::Result<Arc<K>> {
        self.replace_part("status", object).await
    }

    /// Replaces through a subresource.
    pub async fn replace_part(&self, part: &str, object: &K) -> kube::Result<Arc<K>> {
        let key = Key::of(object);
        let data = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(Self::path(&key.namespace).replace_subresource(
            part,
            &key.name,
            &PostParams::default(),
            data,
        ))
        .await
    }

    /// Patches an object.
    pub async fn patch(&self, key: &Key, patch: &Patch<Value>) -> kube::Result<Arc<K>> {
        self.send(Self::path(&key.namespace).patch(&key.name, &PatchParams::default(), patch))
            .await
    }

    /// Patches an object's status.
    pub async fn patch_status(&self, key: &Key, patch: &Patch<Value>) -> kube::Result<Arc<K>> {
        self.send(Self::path(&key.namespace).patch_subresource(
            "status",
            &key.name,
            &PatchParams::default(),
            patch,
        ))
        .await
    }

    /// Deletes exactly this object, not another of the same name; one that is gone is fine.
    pub async fn delete(&self, object: &K, mut params: DeleteParams) -> kube::Result<()> {
        let key = Key::of(object);
        if params.preconditions.is_none() {
            params.preconditions = Some(Preconditions {
                uid: object.meta().uid.clone(),
                resource_version: None,
            });
        }
        let request = Self::path(&key.namespace)
            .delete(&key.name, &params)
            .map_err(kube::Error::BuildRequest)?;
        match self.inner.client.request::<Value>(request).await {
            Ok(answer) => {
                let still_there = waits(&answer);
                match serde_json::from_value::<K>(answer) {
                    Ok(object) if still_there => {
                        self.observe(object);
                    }
                    _ => self.mark_gone(&key, uid_of(object)),
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.mark_gone(&key, uid_of(object));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn mark_gone(&self, key: &Key, uid: &str) {
        let known = {
            let mut state = self.inner.state.write();
            let known = state
                .objects
                .get(key)
                .is_some_and(|known| uid_of(&**known) == uid);
            if known {
                state.gone.insert(uid);
            }
            known
        };
        if known {
            self.remove(key, Some(uid));
        }
    }
}

/// Whether the answer to a deletion is an object that goes on to exist: with finalizers or a grace period.
/// (A Pod that is gone is answered too, with a grace period of zero.)
fn waits(answer: &Value) -> bool {
    let meta = &answer["metadata"];
    meta["deletionTimestamp"].is_string()
        && (meta["finalizers"].as_array().is_some_and(|all| !all.is_empty())
            || meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0)
}

mod http_request {
    /// What `kube::core::Request` builds.
    pub type Result = std::result::Result<http::Request<Vec<u8>>, kube::core::request::Error>;
}

fn unindex<K: Resource>(by_owner: &mut HashMap<String, BTreeSet<Key>>, key: &Key, object: &K) {
    if let Some(owner) = controller_of(object)
        && let Some(keys) = by_owner.get_mut(&owner.uid)
    {
        keys.remove(key);
        if keys.is_empty() {
            by_owner.remove(&owner.uid);
        }
    }
}

/// Waits between tries of an interrupted watch: 50 ms, doubling to 5 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: Duration::from_millis(50),
        }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (wait * 2).min(Duration::from_secs(5));
        Some(wait)
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Whether a call failed because someone else wrote first, the object is gone, or its namespace is going.
#[must_use]
pub fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 409 => status.reason == "Conflict",
        Some(error) => is_not_found(error) || namespace_terminating(error),
        None => false,
    }
}

/// Whether the object of a call does not exist.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an object of this name exists already.
#[must_use]
pub fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether the namespace is being deleted, so that nothing can be created in it.
#[must_use]
pub fn namespace_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("is being terminated"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_deletion_leaves() {
        let answer = |meta: Value| json!({"metadata": meta});
        let at = "2026-01-01T00:00:00Z";
        assert!(waits(&answer(
            json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 30})
        )));
        assert!(waits(&answer(
            json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 0, "finalizers": ["a/b"]})
        )));
        assert!(!waits(&answer(
            json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 0})
        )));
        assert!(!waits(&json!({"kind": "Status", "metadata": {}})));
    }

    #[test]
    fn deleted_uids_are_remembered_for_a_while() {
        let mut gone = Gone::default();
        for number in 0..=Gone::REMEMBERED {
            gone.insert(&number.to_string());
        }
        assert!(!gone.uids.contains("0"));
        assert!(gone.uids.contains("1"));
        assert_eq!(gone.uids.len(), gone.order.len());
    }
}
