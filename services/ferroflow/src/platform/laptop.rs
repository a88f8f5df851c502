//! Everything in one process: the Kubernetes API is `localkube`, rows are SQLite files, services call each other in process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use ferroflow_auth::{CallerKey, Principal, SubjectAccessAuthorizer};
use ferroflow_bus::{EventBus, MemoryBus, NatsBus};
use ferroflow_db::DbOptions;
use ferroflow_gateway::{AuthMode, Authenticator, Gateway, GatewayDeps, HostRules, RouteTable, Upstream};
use ferroflow_kernel::{Clock, DEFAULT_NAMESPACE, PLATFORM_NAMESPACE, SystemClock};
use ferroflow_rpc::{LateRoutes, Transport};
use ferroflow_telemetry::{Metrics, Probe, Readiness};
use localkube::{LocalKube, LocalKubeConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses::ClusterAddresses;
use super::names::{SERVICES, admin_user, host_name, os_user, service_user};
use super::services::{self, Adapters, Part};
use super::{bootstrap, endpoints, routes};
use crate::data_dir::DataDir;
use crate::settings::{Auth, Settings};
use crate::up;

/// A running laptop installation.
pub(crate) struct Laptop {
    pub readiness: Readiness,
    tasks: TaskTracker,
    failures: mpsc::Receiver<anyhow::Error>,
    _data: Arc<DataDir>,
}

/// The adapters of a laptop.
struct LaptopAdapters {
    settings: Settings,
    data: Arc<DataDir>,
    kube: LocalKube,
    key: CallerKey,
    bus: Arc<dyn EventBus>,
    readiness: Readiness,
    metrics: Metrics,
    routes: HashMap<&'static str, LateRoutes>,
    gateway: SocketAddr,
}

impl Adapters for LaptopAdapters {
    fn client(&self, service: &str) -> kube::Client {
        self.kube.client(service_user(service), PLATFORM_NAMESPACE)
    }

    fn database(&self, service: &str) -> DbOptions {
        match self.settings.database.as_str() {
            "" => DbOptions::sqlite(&self.data.path("db").join(format!("{service}.db")), service),
            url => DbOptions::url(url, service),
        }
    }

    fn transport(&self, from: &str, to: &str) -> anyhow::Result<Transport> {
        let routes = self
            .routes
            .get(to)
            .with_context(|| format!("{to} is no service"))?;
        Ok(Transport::in_process(routes.clone(), self.key.clone(), from))
    }

    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    fn key(&self) -> CallerKey {
        self.key.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn collector(&self) -> Option<String> {
        let url = self.settings.otlp_endpoint.as_str();
        match endpoints::loopback(url) {
            Some(_) => Some(endpoints::COLLECTOR.to_owned()),
            None => Some(url.to_owned()).filter(|url| !url.is_empty()),
        }
    }

    fn artifacts(&self) -> String {
        format!("file://{}", self.data.path("artifacts").display())
    }

    fn models(&self) -> (String, u16) {
        ("localhost".to_owned(), self.gateway.port())
    }
}

impl Laptop {
    /// Starts everything; `readiness` tells when it is up.
    pub(crate) async fn start(
        settings: &Settings,
        data: DataDir,
        listener: TcpListener,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let data = Arc::new(data);
        let tasks = TaskTracker::new();
        let (failed, failures) = mpsc::channel(16);
        let readiness = Readiness::default();
        let starting = readiness.register("gateway");
        let gateway = listener.local_addr()?;

        let config = kube_config(settings, &data)?;
        let https = same_port_as_before(&data).await?;
        let kube = LocalKube::open(&config, https, &tasks, &cancel).await?;
        let owner = os_user();
        let kubeconfig = kube.kubeconfig(&admin_user(&owner))?;
        data.write("kubeconfig", kubeconfig.as_bytes())?;

        let admin = kube.client(admin_user("ferroflow"), DEFAULT_NAMESPACE);
        bootstrap::apply(&admin, &owner).await?;

        data.folder("db")?;
        data.folder("artifacts")?;
        let adapters = LaptopAdapters {
            settings: settings.clone(),
            key: CallerKey::load_or_create(&data.path("caller.key"))?,
            data: data.clone(),
            kube: kube.clone(),
            bus: bus(settings).await?,
            readiness: readiness.clone(),
            metrics: Metrics::of_process(),
            routes: SERVICES
                .iter()
                .map(|name| (*name, LateRoutes::default()))
                .collect(),
            gateway,
        };
        let parts = services::all(&adapters, &cancel).await?;
        let mut table = RouteTable {
            model_domains: vec![".localhost".to_owned()],
            ..Default::default()
        };
        table.paths.push(ferroflow_gateway::Route {
            key: "/kube".to_owned(),
            strip: "/kube".to_owned(),
            open: false,
            upstream: Upstream::InProcess(kube.server().router()),
        });
        let mut runs = Vec::new();
        for part in parts {
            mount(&part, &adapters, &kube, &mut table);
            runs.push((part.name, part.run));
        }

        let s3 = TcpListener::bind("127.0.0.1:0").await?;
        let fronts = endpoints::fronts(gateway, s3.local_addr()?, &settings.otlp_endpoint);
        endpoints::publish(&admin, &fronts).await?;
        bootstrap::apply_webhooks(&admin).await?;

        let report = move |name: &'static str| {
            let failed = failed.clone();
            move |result: anyhow::Result<()>| {
                if let Err(error) = result {
                    let _full = failed.try_send(error.context(name));
                }
            }
        };
        let done = report("localkube");
        tasks.spawn(watch(kube.clone().run(config, cancel.clone()), done));
        for (name, run) in runs {
            tasks.spawn(watch(run, report(name)));
        }
        let client = adapters.client("gateway");
        let addresses = Arc::new(ClusterAddresses::start(&client, &readiness, &tasks, &cancel));
        let deps = gateway_deps(settings, &adapters, table, addresses, &owner);
        let s3_router = s3_router(&deps.routes);
        let login = (settings.auth == Auth::Token).then(|| deps.authenticator.login_link());
        tasks.spawn(watch(
            serve_gateway(Gateway::new(deps), listener, cancel.clone(), starting),
            report("gateway"),
        ));
        tasks.spawn(serve_s3(s3, s3_router, cancel.clone()));
        publish_endpoint(&data, gateway, &kube, login)?;
        tasks.close();
        Ok(Self {
            readiness,
            tasks,
            failures,
            _data: data,
        })
    }

    /// Waits until `cancel`, or until a part ends by itself, whose error is answered.
    pub(crate) async fn wait(&mut self, cancel: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = cancel.cancelled() => Ok(()),
            Some(error) = self.failures.recv() => Err(error),
        }
    }

    /// Waits until every part has stopped.
    pub(crate) async fn stop(self) {
        self.tasks.wait().await;
    }
}

async fn watch(run: impl Future<Output = anyhow::Result<()>>, done: impl FnOnce(anyhow::Result<()>)) {
    done(run.await);
}

fn kube_config(settings: &Settings, data: &DataDir) -> anyhow::Result<LocalKubeConfig> {
    let executable = std::env::current_exe().context("finding the path of this program")?;
    Ok(LocalKubeConfig {
        data_dir: data.folder("kube")?,
        cache_dir: settings.cache_dir.clone(),
        executable,
        node_name: host_name("laptop"),
        shared_paths: Vec::new(),
    })
}

async fn bus(settings: &Settings) -> anyhow::Result<Arc<dyn EventBus>> {
    Ok(match settings.events.as_str() {
        "" => Arc::new(MemoryBus::default()),
        url => Arc::new(NatsBus::connect(url).await?),
    })
}

/// The Kubernetes API keeps its port between starts, so that a kubeconfig stays good; if the port is taken it gets another.
async fn same_port_as_before(data: &DataDir) -> anyhow::Result<TcpListener> {
    let file = data.path("run/kube-port");
    let before = std::fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0_u16);
    let listener = match TcpListener::bind(("127.0.0.1", before)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await?,
    };
    data.write(
        "run/kube-port",
        listener.local_addr()?.port().to_string().as_bytes(),
    )?;
    Ok(listener)
}

/// Makes a service known: to callers in this process, to the gateway, and as a webhook.
fn mount(part: &Part, adapters: &LaptopAdapters, kube: &LocalKube, table: &mut RouteTable) {
    if let Some(late) = adapters.routes.get(part.name) {
        late.bind(part.grpc.clone());
    }
    let grpc = Upstream::InProcess(part.grpc());
    table.grpc.extend(routes::grpc(part.grpc_services, &grpc));
    if let Some(rest) = part.rest(&adapters.key) {
        table
            .paths
            .extend(routes::of(part.name, &Upstream::InProcess(rest)));
    }
    if let Some(webhooks) = &part.webhooks {
        kube.server()
            .register_backend(PLATFORM_NAMESPACE, part.name, webhooks.clone());
    }
}

fn gateway_deps(
    settings: &Settings,
    adapters: &LaptopAdapters,
    routes: RouteTable,
    addresses: Arc<ClusterAddresses>,
    owner: &str,
) -> GatewayDeps {
    let client = adapters.client("gateway");
    let mode = if settings.auth == Auth::Token {
        AuthMode::Token
    } else {
        AuthMode::SameUser
    };
    let user = admin_user(owner);
    let owner = Principal {
        user: owner.to_owned(),
        groups: user.groups.unwrap_or_default(),
    };
    let authorizer = Arc::new(SubjectAccessAuthorizer::new(client.clone()));
    let mut hosts = HostRules::laptop();
    hosts.names.extend(settings.host.iter().cloned());
    GatewayDeps {
        routes,
        hosts,
        authenticator: Arc::new(Authenticator::new(
            mode,
            owner,
            client,
            addresses.clone(),
            authorizer,
        )),
        addresses,
        key: adapters.key.clone(),
        readiness: adapters.readiness.clone(),
        metrics: adapters.metrics.clone(),
    }
}

async fn serve_gateway(
    gateway: Gateway,
    listener: TcpListener,
    cancel: CancellationToken,
    starting: Probe,
) -> anyhow::Result<()> {
    starting.ready();
    Ok(gateway.serve(listener, cancel).await?)
}

/// The S3 endpoint that Pods know as `minio-service:9000`: the artifacts service's S3 routes at `/`.
fn s3_router(table: &RouteTable) -> Router {
    let route = table.paths.iter().find(|route| route.key == "/s3");
    match route.map(|route| &route.upstream) {
        Some(Upstream::InProcess(router)) => router.clone(),
        _ => Router::new(),
    }
}

async fn serve_s3(listener: TcpListener, router: Router, cancel: CancellationToken) {
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
    {
        tracing::error!(%error, "the S3 endpoint is no longer served");
    }
}

fn publish_endpoint(
    data: &DataDir,
    gateway: SocketAddr,
    kube: &LocalKube,
    login: Option<String>,
) -> anyhow::Result<()> {
    let url = up::url(gateway);
    let mut endpoint = json!({
        "url": url, "port": gateway.port(), "pid": std::process::id(), "kubernetes": kube.url(),
        "version": ferroflow_kernel::VERSION,
    });
    if let Some(link) = login {
        endpoint["login"] = Value::from(format!("{url}/login?link={link}"));
    }
    Ok(data.write("run/endpoint.json", format!("{endpoint:#}\n").as_bytes())?)
}
