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

    /// Writes the Pod's hosts file and keeps it current. `own` are its own lines.
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

/// The Pod's own lines stand in for what the cluster does not say of it yet.
fn join(common: &str, own: &str) -> String {
    let known = |line: &str| {
        let address = line.split_whitespace().next().unwrap_or_default();
        common
            .lines()
            .any(|other| other.split_whitespace().next() == Some(address))
    };
    let missing: String = own
        .lines()
        .filter(|line| !known(line))
        .map(|line| format!("{line}\n"))
        .collect();
    format!("{common}{missing}")
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
        .reflect(writer);
    let drive = async move {
        let mut stream = std::pin::pin!(stream);
        while stream.next().await.is_some() {
            changed.notify_one();
        }
    };
    (store, drive)
}
