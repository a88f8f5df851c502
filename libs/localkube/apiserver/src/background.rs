//! The server's own controllers: removal of definitions, aggregation of roles, age of events.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::auth::rbac;
use crate::handler::Ctx;
use crate::objects::delete::{self, Options};
use crate::objects::text;
use crate::objects::write::establish;
use crate::request::{Accept, Form, Query, RequestInfo};
use crate::server::ApiServer;
use crate::store::{ChangeKind, Expect, Key, Obj, WriteError};

const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";
const SWEEP: Duration = Duration::from_secs(60);
/// Until a write that the store could not do is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts all of them; they end with the server.
pub(crate) fn start(server: &ApiServer) {
    let tasks: [(&str, futures::future::BoxFuture<'static, ()>); 3] = [
        ("definitions", Box::pin(remove_definitions(server.clone()))),
        ("roles", Box::pin(watch_roles(server.clone()))),
        ("events", Box::pin(expire_events(server.clone()))),
    ];
    for (name, task) in tasks {
        let stop = server.inner.stop.clone();
        server.inner.tasks.spawn(async move {
            tokio::select! {
                () = task => tracing::debug!(name, "a background task ended"),
                () = stop.cancelled() => {}
            }
        });
    }
}

/// A request of the server itself.
fn internal(server: &ApiServer, res: &Arc<crate::registry::Resource>, namespace: &str, name: &str) -> Ctx {
    Ctx {
        user: crate::auth::user("system:apiserver", &[crate::auth::MASTERS]),
        info: RequestInfo {
            verb: "delete".into(),
            group: res.group.clone(),
            version: res.version.clone(),
            resource: res.plural.clone(),
            namespace: namespace.into(),
            name: name.into(),
            ..RequestInfo::default()
        },
        query: Query::default(),
        accept: Accept {
            form: Form::Object,
            yaml: false,
            discovery_v2: false,
        },
        res: res.clone(),
        snapshot: server.inner.registry.snapshot(),
        defs: server.inner.definitions.clone(),
        user_agent: "localkube".into(),
        content_type: "application/json".into(),
        warnings: Mutex::new(Vec::new()),
    }
}

async fn remove_definitions(server: ApiServer) {
    let (first, mut subscription) = server.inner.store.list_and_watch(&CRDS.into(), None);
    for crd in first {
        remove_if_due(&server, crd.value()).await;
        establish_later(&server, crd.value());
    }
    loop {
        match subscription.live.recv().await {
            Ok(change) => {
                remove_if_due(&server, change.obj.value()).await;
                if change.kind == ChangeKind::Added {
                    establish_later(&server, change.obj.value());
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                let (all, again) = server.inner.store.list_and_watch(&CRDS.into(), None);
                subscription = again;
                for crd in all {
                    remove_if_due(&server, crd.value()).await;
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Accepts the names of a definition whose creation was cut off before that: by a crash, or because the disk was full.
fn establish_later(server: &ApiServer, crd: &Value) {
    let waits = |crd: &Value| crd["status"]["conditions"].is_null();
    if !waits(crd) {
        return;
    }
    let (server, name) = (server.clone(), text(&crd["metadata"], "name").to_owned());
    let (tasks, stop) = (server.inner.tasks.clone(), server.inner.stop.clone());
    let work = async move {
        loop {
            tokio::time::sleep(AGAIN).await;
            let found = server.inner.store.get(CRDS, "", &name);
            let Some(crd) = found.filter(|crd| waits(crd.value())) else {
                return;
            };
            match establish(&server, &crd).await {
                Ok(()) => server.inner.wrote(CRDS),
                Err(error) => tracing::warn!(%error, name, "the names of a definition are accepted later"),
            }
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Starts the removal of a definition's objects when it is under deletion.
async fn remove_if_due(server: &ApiServer, crd: &Value) {
    let finalizers = crd["metadata"]["finalizers"].as_array();
    let waits = finalizers.is_some_and(|f| f.iter().any(|f| f == crate::crd::CLEANUP));
    if crd["metadata"]["deletionTimestamp"].is_null() || !waits {
        return;
    }
    let (server, crd) = (server.clone(), crd.clone());
    let tasks = server.inner.tasks.clone();
    let stop = server.inner.stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = remove_objects(&server, &crd) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn remove_objects(server: &ApiServer, crd: &Value) {
    let group = text(&crd["spec"], "group");
    let plural = text(&crd["spec"]["names"], "plural");
    let storage: Arc<str> = format!("{group}/{plural}").into();
    if let Some(res) = server.inner.registry.snapshot().any(group, plural).cloned() {
        loop {
            let (objects, mut subscription) = server.inner.store.list_and_watch(&storage, None);
            if objects.is_empty() {
                break;
            }
            for obj in objects
                .iter()
                .filter(|o| o.value()["metadata"]["deletionTimestamp"].is_null())
            {
                let meta = &obj.value()["metadata"];
                let ctx = internal(server, &res, text(meta, "namespace"), text(meta, "name"));
                if let Err(error) =
                    delete::delete(server, &ctx, text(meta, "name"), &Options::default()).await
                {
                    tracing::warn!(%error, "an object of a deleted definition stays");
                }
            }
            if server.inner.store.count(&storage, None) > 0 {
                let _ = tokio::time::timeout(Duration::from_secs(5), subscription.live.recv()).await;
            }
        }
    }
    let name = text(&crd["metadata"], "name");
    let key = Key {
        resource: CRDS.into(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    loop {
        let Some(current) = server.inner.store.get_settled(&key).await else {
            return;
        };
        let mut new = current.value().clone();
        if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != crate::crd::CLEANUP);
        }
        let last = new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let done = if last {
            server.inner.store.remove(key.clone(), current.rv, new).await
        } else {
            server
                .inner
                .store
                .put(key.clone(), Expect::Version(current.rv), new)
                .await
        };
        match done {
            Ok(_) => {
                server.inner.wrote(CRDS);
                return;
            }
            Err(WriteError::Broken(why)) => {
                tracing::warn!(name, why, "a deleted definition stays for now");
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {}
        }
    }
}

async fn watch_roles(server: ApiServer) {
    let (_, mut subscription) = server
        .inner
        .store
        .list_and_watch(&rbac::CLUSTER_ROLES.into(), None);
    while !matches!(
        subscription.live.recv().await,
        Err(tokio::sync::broadcast::error::RecvError::Closed)
    ) {
        // Several changes at once are one round.
        while subscription.live.try_recv().is_ok() {}
        while !aggregate_cluster_roles(&server).await {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Writes the rules of aggregated ClusterRoles that are out of date. False when the store could not write.
pub(crate) async fn aggregate_cluster_roles(server: &ApiServer) -> bool {
    // Roles aggregate roles that aggregate others (admin, edit, view), so rounds go on until nothing changes.
    for _ in 0..4 {
        let all: Vec<Arc<Obj>> = server.inner.store.list(rbac::CLUSTER_ROLES, None, None).1;
        let (mut changed, mut broken) = (false, false);
        for role in &all {
            let Some(rules) = rbac::aggregated_rules(role.value(), &all) else {
                continue;
            };
            if rules == rbac::rules_of(role.value()) {
                continue;
            }
            let mut new = role.value().clone();
            new["rules"] = json!(rules);
            let name = text(&new["metadata"], "name").to_owned();
            let key = Key {
                resource: rbac::CLUSTER_ROLES.into(),
                namespace: String::new(),
                name,
            };
            match server.inner.store.put(key, Expect::Version(role.rv), new).await {
                Ok(_) => changed = true,
                Err(WriteError::Broken(_)) => broken = true,
                // somebody changed the role, and that starts another round
                Err(_) => {}
            }
        }
        if !changed {
            return !broken;
        }
        server.inner.wrote(rbac::CLUSTER_ROLES);
    }
    true
}

async fn expire_events(server: ApiServer) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        let ttl = i64::try_from(server.inner.config.event_ttl.as_secs()).unwrap_or(3600);
        let before = jiff::Timestamp::now().as_second() - ttl;
        for obj in server.inner.store.list("/events", None, None).1 {
            if obj.look(last_seen).is_some_and(|t| t.as_second() < before) {
                let event = obj.to_value();
                let meta = &event["metadata"];
                let key = Key {
                    resource: "/events".into(),
                    namespace: text(meta, "namespace").to_owned(),
                    name: text(meta, "name").to_owned(),
                };
                let _ = server.inner.store.remove(key, obj.rv, event).await;
            }
        }
    }
}

fn last_seen(event: &Value) -> Option<jiff::Timestamp> {
    ["lastTimestamp", "eventTime"]
        .iter()
        .find_map(|f| event[*f].as_str())
        .or_else(|| event["metadata"]["creationTimestamp"].as_str())
        .and_then(crate::times::parse)
}
