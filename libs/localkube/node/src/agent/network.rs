//! Addresses and names of Pods, kept current from the cluster's Services, EndpointSlices and Pods.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use localkube_podnet::{AddressPool, ClusterView, PodCidr, write_hosts};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    pool: AddressPool,
    table: PathBuf,
    view: Mutex<ClusterView>,
    pods: Mutex<HashMap<String, Names>>,
}

/// The hosts file of one running Pod.
struct Names {
    namespace: String,
    own: String,
    path: PathBuf,
    written: String,
}

impl Network {
    pub fn open(folder: &Path, range: Option<PodCidr>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let table = folder.join("services.table");
        ClusterView::default().table().publish(&table)?;
        let inner = Inner {
            pool: match range {
                Some(range) => AddressPool::open_range(folder, range)?,
                None => AddressPool::open(folder)?,
            },
            table,
            view: Mutex::default(),
            pods: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn table(&self) -> &Path {
        &self.inner.table
    }

    pub fn lease(&self, uid: &str) -> io::Result<Ipv4Addr> {
        self.inner.pool.lease(uid)
    }

    /// Gives the address back and stops keeping the Pod's names.
    pub fn release(&self, uid: &str) {
        self.inner.pods.lock().remove(uid);
        if let Err(error) = self.inner.pool.release(uid) {
            warn!(%error, uid, "cannot release a Pod's address");
        }
    }

    /// Writes the Pod's hosts file and keeps it current. `own` are its own lines, that of its address first.
    pub fn keep_names(&self, uid: &str, namespace: &str, own: String, path: &Path) -> io::Result<()> {
        let text = join(&self.inner.view.lock().hosts(namespace), &own);
        write_hosts(path, &text)?;
        let names = Names {
            namespace: namespace.to_owned(),
            own,
            path: path.to_owned(),
            written: text,
        };
        self.inner.pods.lock().insert(uid.to_owned(), names);
        Ok(())
    }

    fn publish(&self, view: ClusterView) {
        if *self.inner.view.lock() == view {
            return;
        }
        if let Err(error) = view.table().publish(&self.inner.table) {
            warn!(%error, "cannot write the table of Services");
        }
        let mut texts: HashMap<String, String> = HashMap::new();
        for names in self.inner.pods.lock().values_mut() {
            let common = texts
                .entry(names.namespace.clone())
                .or_insert_with(|| view.hosts(&names.namespace));
            let text = join(common, &names.own);
            if text != names.written {
                if let Err(error) = write_hosts(&names.path, &text) {
                    warn!(%error, path = %names.path.display(), "cannot write a Pod's hosts file");
                }
                names.written = text;
            }
        }
        *self.inner.view.lock() = view;
    }

    /// Follows the cluster until cancelled.
    pub async fn run(self, client: kube::Client, cancel: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let all = watcher::Config::default();
        // a Pod that is over has no address any more
        let alive = all.clone().fields("status.phase!=Succeeded,status.phase!=Failed");
        let (services, a) = follow::<Service>(&client, all.clone(), &changed);
        let (slices, b) = follow::<EndpointSlice>(&client, all, &changed);
        let (pods, c) = follow::<Pod>(&client, alive, &changed);
        let compute = async {
            loop {
                changed.notified().await;
                let view = ClusterView::new(&services.state(), &slices.state(), &pods.state());
                self.publish(view);
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = async { tokio::join!(a, b, c); } => {}
            () = compute => {}
        }
    }
}

/// The first of the Pod's own lines says how it calls itself: those names come first in the line of its address, since the
/// very first is what `hostname -f` gives. Its other lines are its `hostAliases`.
fn join(common: &str, own: &str) -> String {
    let mut own = own.lines();
    let itself = own.next().unwrap_or_default();
    let (address, names) = itself.split_once(char::is_whitespace).unwrap_or((itself, ""));
    let first: Vec<&str> = names.split_whitespace().collect();
    let (mut text, mut told) = (String::with_capacity(common.len() + itself.len()), false);
    for line in common.lines() {
        let mut words = line.split_whitespace();
        if !told && !first.is_empty() && words.next() == Some(address) {
            told = true;
            let others = words.filter(|name| !first.contains(name));
            let all: Vec<&str> = [address]
                .into_iter()
                .chain(first.iter().copied())
                .chain(others)
                .collect();
            text.push_str(&all.join(" "));
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    let itself = Some(itself).filter(|line| !told && !line.is_empty());
    for line in itself.into_iter().chain(own) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn follow<K>(
    client: &kube::Client,
    which: watcher::Config,
    changed: &Arc<Notify>,
) -> (Store<K>, impl Future<Output = ()>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store::<K>();
    let changed = changed.clone();
    let stream = watcher(Api::all(client.clone()), which)
        .default_backoff()
        .modify(|object: &mut K| object.meta_mut().managed_fields = None)
        .reflect(writer);
    let drive = async move {
        let mut stream = std::pin::pin!(stream);
        while stream.next().await.is_some() {
            changed.notify_one();
        }
    };
    (store, drive)
}

#[cfg(test)]
mod tests {
    use super::join;

    const COMMON: &str = "# by\n127.0.0.1 localhost\n127.20.0.1 web web-0 web-0.web\n127.20.0.2 web web-1\n";

    #[test]
    fn a_pod_of_a_stateful_set_is_called_by_its_full_name() {
        let own = "127.20.0.1\tweb-0.web.ns.svc.cluster.local web-0.web web-0\n127.0.0.1\tfoo.local\n";
        assert_eq!(
            join(COMMON, own),
            "# by\n127.0.0.1 localhost\n127.20.0.1 web-0.web.ns.svc.cluster.local web-0.web web-0 web\n127.20.0.2 web web-1\n127.0.0.1\tfoo.local\n"
        );
    }

    #[test]
    fn a_pod_that_the_cluster_does_not_know_yet_knows_itself() {
        let own = "127.20.0.9\tnew\n";
        assert_eq!(join(COMMON, own), format!("{COMMON}{own}"));
        assert_eq!(join(COMMON, ""), COMMON);
    }
}
