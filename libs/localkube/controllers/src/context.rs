//! What all controllers share: the client, one cache per kind, and the event sink.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::Events;
use crate::informer::Informer;

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// PEM of the CA that signs the API server's certificate, for the `kube-root-ca.crt` ConfigMaps.
    pub ca_pem: String,
    /// Folder in which the `local` storage class makes one folder per volume.
    pub volumes_dir: PathBuf,
    /// Name of the default storage class; claims that name no class get it.
    pub storage_class: String,
    /// Reconciles that one controller runs at the same time.
    pub workers: usize,
}

impl ControllerConfig {
    /// Usual settings around the two that have no default.
    #[must_use]
    pub fn new(ca_pem: impl Into<String>, volumes_dir: impl Into<PathBuf>) -> Self {
        Self {
            ca_pem: ca_pem.into(),
            volumes_dir: volumes_dir.into(),
            storage_class: "local".to_owned(),
            workers: 8,
        }
    }
}

macro_rules! caches {
    ($($field:ident: $kind:ty, $doc:literal;)*) => {
        /// One informer per kind that a controller reads.
        #[derive(Clone)]
        pub struct Caches { $(#[doc = $doc] pub $field: Informer<$kind>,)* }

        impl Caches {
            fn new(client: &Client) -> Self {
                Self { $($field: Informer::new(client.clone()),)* }
            }

            /// Starts every watch.
            pub fn start(&self, tasks: &TaskTracker, cancel: &CancellationToken) {
                $(tasks.spawn(self.$field.clone().run(cancel.clone()));)*
            }

            /// Waits until every cache holds a complete list.
            pub async fn synced(&self) {
                $(self.$field.synced().await;)*
            }
        }
    };
}

caches! {
    pods: Pod, "Pods";
    nodes: Node, "Nodes";
    leases: Lease, "Leases (heartbeats of nodes)";
    namespaces: Namespace, "Namespaces";
    service_accounts: ServiceAccount, "ServiceAccounts";
    config_maps: ConfigMap, "ConfigMaps";
    services: Service, "Services";
    endpoints: Endpoints, "Endpoints";
    endpoint_slices: EndpointSlice, "EndpointSlices";
    claims: PersistentVolumeClaim, "PersistentVolumeClaims";
    volumes: PersistentVolume, "PersistentVolumes";
    storage_classes: StorageClass, "StorageClasses";
    quotas: ResourceQuota, "ResourceQuotas";
    jobs: Job, "Jobs";
    cron_jobs: CronJob, "CronJobs";
    deployments: Deployment, "Deployments";
    replica_sets: ReplicaSet, "ReplicaSets";
    stateful_sets: StatefulSet, "StatefulSets";
    revisions: ControllerRevision, "ControllerRevisions";
}

/// Handed to every controller; cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub client: Client,
    /// Settings.
    pub config: Arc<ControllerConfig>,
    /// Event sink.
    pub events: Events,
    /// Caches.
    pub caches: Caches,
    /// Ends everything.
    pub cancel: CancellationToken,
}

impl Context {
    /// Caches are empty until [`Caches::start`].
    #[must_use]
    pub fn new(client: Client, config: ControllerConfig, events: Events, cancel: CancellationToken) -> Self {
        let caches = Caches::new(&client);
        Self {
            client,
            config: Arc::new(config),
            events,
            caches,
            cancel,
        }
    }
}

impl std::ops::Deref for Context {
    type Target = Caches;

    fn deref(&self) -> &Caches {
        &self.caches
    }
}
