//! The server's parts and how they are opened and closed.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use k8s_openapi::api::authentication::v1::UserInfo;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::keys::{KeyError, Keys};
use crate::auth::tokens::{TokenError, TokenRequest, Tokens};
use crate::auth::{self, rbac};
use crate::definitions::Definitions;
use crate::registry::Registry;
use crate::store::{OpenStoreError, Store};

/// An IPv4 range of Service addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCidr {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Default for ServiceCidr {
    fn default() -> Self {
        Self {
            base: Ipv4Addr::new(127, 96, 0, 0),
            prefix: 12,
        }
    }
}

impl ServiceCidr {
    pub fn size(&self) -> u32 {
        1u32 << (32 - u32::from(self.prefix.clamp(8, 30)))
    }
    pub fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(offset))
    }
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        u32::from(ip).wrapping_sub(u32::from(self.base)) < self.size()
    }
}

impl std::fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct ApiServerConfig {
    /// Holds `localkube.db` and `pki/`; made when missing.
    pub data_dir: PathBuf,
    /// Addresses of Services.
    pub service_cidr: ServiceCidr,
    /// Ports of NodePort Services.
    pub node_ports: std::ops::RangeInclusive<u16>,
    /// Changes that a watch can go back; older ones are answered with 410 Gone.
    pub watch_window: usize,
    /// How long Event objects are kept.
    pub event_ttl: Duration,
}

impl ApiServerConfig {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            service_cidr: ServiceCidr::default(),
            node_ports: 30000..=32767,
            watch_window: crate::store::WINDOW,
            event_ttl: Duration::from_secs(3600),
        }
    }
}

/// Why the server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make the data folder {path}: {source}; check that it is writable")]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error("the data folder {path} is in use by another process; stop that one or use another folder")]
    InUse { path: PathBuf },
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("the token key cannot be used: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    #[error("cannot write the objects that every cluster has: {0}")]
    Bootstrap(String),
}

pub(crate) struct Inner {
    /// Held until the shutdown; the system releases it when the process is killed.
    lock: parking_lot::Mutex<Option<std::fs::File>>,
    pub config: ApiServerConfig,
    pub store: Store,
    pub registry: Registry,
    pub definitions: Arc<Definitions>,
    pub keys: Keys,
    pub tokens: Tokens,
    pub rbac: RwLock<Arc<rbac::Index>>,
    pub rbac_stale: AtomicBool,
    pub backends: RwLock<HashMap<(String, String), Router>>,
    /// Held while an address or node port is chosen and stored.
    pub allocation: tokio::sync::Mutex<()>,
    /// Held while a quota is checked and the object is stored.
    pub quota: tokio::sync::Mutex<()>,
    /// Held while the registry follows a definition, so that the newest one wins.
    pub crds: parking_lot::Mutex<()>,
    pub openapi: crate::openapi::Documents,
    pub protobuf: crate::protobuf::Layouts,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

/// Two servers on one file would each believe their own index.
fn lock(dir: &std::path::Path) -> Result<std::fs::File, OpenError> {
    let failed = |source| OpenError::DataDir {
        path: dir.to_owned(),
        source,
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(dir.join("localkube.lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A local Kubernetes API server. Cheap to clone; all clones are one server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

impl ApiServer {
    /// Opens the data folder, makes what is missing in it, and starts the server's background work.
    pub async fn open(config: ApiServerConfig) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&config.data_dir).map_err(|source| OpenError::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let lock = lock(&config.data_dir)?;
        let keys = Keys::open(&config.data_dir.join("pki"))?;
        let tokens = Tokens::new(&keys)?;
        let store = Store::open(&config.data_dir.join("localkube.db"), config.watch_window).await?;
        let definitions = Definitions::load();
        let registry = Registry::new(crate::builtin::kinds(), &definitions);
        let server = Self {
            inner: Arc::new(Inner {
                lock: parking_lot::Mutex::new(Some(lock)),
                config,
                store,
                registry,
                definitions,
                keys,
                tokens,
                rbac: RwLock::new(Arc::new(rbac::Index::default())),
                rbac_stale: AtomicBool::new(true),
                backends: RwLock::new(HashMap::new()),
                allocation: tokio::sync::Mutex::new(()),
                quota: tokio::sync::Mutex::new(()),
                crds: parking_lot::Mutex::new(()),
                openapi: crate::openapi::Documents::default(),
                protobuf: crate::protobuf::Layouts::default(),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        server.inner.reload_custom_resources();
        server
            .bootstrap()
            .await
            .map_err(|e| OpenError::Bootstrap(e.to_string()))?;
        crate::background::start(&server);
        Ok(server)
    }

    /// Routes of the whole API. A caller is known by `Authorization: Bearer` or by a [`UserInfo`] extension of the request.
    pub fn router(&self) -> Router {
        let server = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let server = server.clone();
            async move { crate::handler::handle(server, request).await }
        })
    }

    /// The CA that signs every certificate of this server, in PEM.
    pub fn ca_pem(&self) -> &str {
        self.inner.keys.ca_pem()
    }

    /// A TLS configuration with a certificate of this CA for the given DNS names and IP addresses (`["localhost", "127.0.0.1"]`).
    pub fn serving_config(&self, names: &[String]) -> Result<rustls::ServerConfig, KeyError> {
        self.inner.keys.serving_config(names)
    }

    /// A TLS client configuration that trusts this CA.
    pub fn client_tls_config(&self) -> Result<rustls::ClientConfig, KeyError> {
        self.inner.keys.client_config()
    }

    /// A token of an existing ServiceAccount.
    pub fn issue_token(&self, req: &TokenRequest) -> Result<String, TokenError> {
        let missing = || TokenError::NoAccount {
            namespace: req.namespace.clone(),
            name: req.service_account.clone(),
        };
        let account = self
            .inner
            .store
            .get("/serviceaccounts", &req.namespace, &req.service_account)
            .ok_or_else(missing)?;
        let uid = account.value()["metadata"]["uid"].as_str().unwrap_or_default();
        Ok(self.inner.tokens.issue(req, uid)?.0)
    }

    /// A token without an end, for a kubeconfig; it survives restarts.
    pub fn static_token(&self, user: &UserInfo) -> Result<String, TokenError> {
        self.inner.tokens.issue_static(user)
    }

    /// A kubeconfig for the URL and token.
    pub fn kubeconfig(&self, url: &str, token: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: ferroflow\n  cluster:\n    server: {url}\n    certificate-authority-data: {ca}\n\
             users:\n- name: ferroflow\n  user:\n    token: {token}\n\
             contexts:\n- name: ferroflow\n  context:\n    cluster: ferroflow\n    user: ferroflow\n    namespace: default\n\
             current-context: ferroflow\n"
        )
    }

    /// Webhooks (and `services/proxy` without a running endpoint) of this Service are called in process through the router.
    pub fn register_backend(&self, namespace: &str, service: &str, router: Router) {
        self.inner
            .backends
            .write()
            .insert((namespace.to_owned(), service.to_owned()), router);
    }

    /// Ends watches and background work, and closes the database. Later requests fail with 500.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.store.close().await;
        self.inner.lock.lock().take();
    }
}

impl Inner {
    /// The current rights; rebuilt when roles or bindings changed.
    pub fn rbac(&self) -> Arc<rbac::Index> {
        if self.rbac_stale.swap(false, Ordering::AcqRel) {
            let index = Arc::new(rbac::Index::build(&self.store));
            *self.rbac.write() = index.clone();
            return index;
        }
        self.rbac.read().clone()
    }

    /// To be called after every durable write.
    pub fn wrote(&self, resource: &str) {
        if resource.starts_with("rbac.authorization.k8s.io/") {
            self.rbac_stale.store(true, Ordering::Release);
        } else if resource == "apiextensions.k8s.io/customresourcedefinitions" {
            self.reload_custom_resources();
        }
    }

    pub fn reload_custom_resources(&self) {
        let _one_at_a_time = self.crds.lock();
        let crds = self
            .store
            .list("apiextensions.k8s.io/customresourcedefinitions", None, None)
            .1;
        self.registry.set_custom(
            crds.iter()
                .flat_map(|c| crate::crd::resources(c.value()))
                .collect(),
        );
        self.openapi.forget_custom();
    }

    /// Authenticates a bearer token.
    pub fn authenticate(&self, token: &str) -> Option<(UserInfo, Vec<String>)> {
        use crate::auth::tokens::{ISSUER, Verified};
        match self.tokens.verify(token)? {
            Verified::Static(user) => Some((user, vec![ISSUER.to_owned()])),
            Verified::Account {
                claims,
                audiences,
                jti,
            } => {
                let account =
                    self.store
                        .get("/serviceaccounts", &claims.namespace, &claims.serviceaccount.name)?;
                let uid = account.value()["metadata"]["uid"].as_str().unwrap_or_default();
                if uid != claims.serviceaccount.uid {
                    return None;
                }
                let mut user = auth::service_account(&claims.namespace, &claims.serviceaccount.name);
                user.uid = Some(uid.to_owned());
                let mut extra = std::collections::BTreeMap::new();
                extra.insert(
                    "authentication.kubernetes.io/credential-id".to_owned(),
                    vec![format!("JTI={jti}")],
                );
                if let Some(pod) = &claims.pod {
                    let found = self.store.get("/pods", &claims.namespace, &pod.name)?;
                    if found.value()["metadata"]["uid"] != pod.uid.as_str() {
                        return None;
                    }
                    extra.insert(
                        "authentication.kubernetes.io/pod-name".to_owned(),
                        vec![pod.name.clone()],
                    );
                    extra.insert(
                        "authentication.kubernetes.io/pod-uid".to_owned(),
                        vec![pod.uid.clone()],
                    );
                }
                user.extra = Some(extra);
                Some((user, audiences))
            }
        }
    }
}
