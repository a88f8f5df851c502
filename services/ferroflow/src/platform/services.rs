//! The services on one page: what each is made of, wherever it runs.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use ferroflow_auth::{Authorizer, CallerKey, SubjectAccessAuthorizer, VerifyLayer};
use ferroflow_bus::EventBus;
use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::Clock;
use ferroflow_rpc::{GrpcMetrics, Transport, observe_rest};
use ferroflow_telemetry::{Metrics, Readiness};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// The adapters that services are built from: these are all that differs between a laptop and a cluster.
pub(crate) trait Adapters: Send + Sync {
    /// A Kubernetes client that acts as the service's own account.
    fn client(&self, service: &str) -> kube::Client;
    /// Where the service's rows are.
    fn database(&self, service: &str) -> DbOptions;
    /// The way from one service to another.
    fn transport(&self, from: &str, to: &str) -> anyhow::Result<Transport>;
    /// Where events go.
    fn bus(&self) -> Arc<dyn EventBus>;
    /// What signs and verifies callers.
    fn key(&self) -> CallerKey;
    /// Tells the time.
    fn clock(&self) -> Arc<dyn Clock>;
    /// Told what is up.
    fn readiness(&self) -> Readiness;
    /// Counters of the process.
    fn metrics(&self) -> Metrics;
    /// URL of the folder or bucket that holds artifacts.
    fn artifacts(&self) -> String;
    /// Where Pods send their spans: the URL of an OTLP collector, as they resolve it.
    fn collector(&self) -> Option<String>;
    /// Under which domain and port models are reached from outside.
    fn models(&self) -> (String, u16);
}

/// A service that is built and does not run yet.
pub(crate) struct Part {
    pub name: &'static str,
    pub rest: Option<Router>,
    pub grpc: Routes,
    pub grpc_services: &'static [&'static str],
    pub webhooks: Option<Router>,
    /// Whether `run` may go on in one process of the installation only.
    pub singleton: bool,
    pub run: BoxFuture<'static, anyhow::Result<()>>,
}

impl Part {
    /// The same with a span for each request, and its gRPC calls counted.
    fn observed(self, counted: &GrpcMetrics) -> Self {
        Self {
            rest: self.rest.map(|rest| observe_rest(self.name, rest)),
            grpc: counted.observe(self.grpc),
            ..self
        }
    }

    /// Its REST routes, for callers that carry a caller token or credentials of their own.
    pub(crate) fn rest(&self, key: &CallerKey) -> Option<Router> {
        let rest = self.rest.clone()?;
        Some(rest.layer(VerifyLayer::optional(key.clone())))
    }

    /// Its gRPC routes.
    pub(crate) fn grpc(&self) -> Router {
        self.grpc.clone().prepare().into_axum_router()
    }
}

async fn open_db(adapters: &dyn Adapters, service: &str, migrations: &[&str]) -> anyhow::Result<Db> {
    Db::open(&adapters.database(service), migrations)
        .await
        .with_context(|| format!("opening the rows of {service}"))
}

fn authorizer(adapters: &dyn Adapters, service: &str) -> Arc<dyn Authorizer> {
    Arc::new(SubjectAccessAuthorizer::new(adapters.client(service)))
}

pub(crate) fn profiles(adapters: &dyn Adapters, cancel: &CancellationToken) -> Part {
    let service = ferroflow_profiles::Profiles::new(ferroflow_profiles::Deps {
        client: adapters.client("profiles"),
        authorizer: authorizer(adapters, "profiles"),
        key: adapters.key(),
        readiness: adapters.readiness(),
    });
    Part {
        name: "profiles",
        rest: None,
        grpc: service.grpc(),
        grpc_services: ferroflow_profiles::Profiles::GRPC_SERVICES,
        webhooks: None,
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    }
}

pub(crate) fn notebooks(adapters: &dyn Adapters, cancel: &CancellationToken) -> Part {
    let service = ferroflow_notebooks::Notebooks::new(ferroflow_notebooks::Deps {
        client: adapters.client("notebooks"),
        authorizer: authorizer(adapters, "notebooks"),
        key: adapters.key(),
        readiness: adapters.readiness(),
    });
    Part {
        name: "notebooks",
        rest: None,
        grpc: service.grpc(),
        grpc_services: ferroflow_notebooks::Notebooks::GRPC_SERVICES,
        webhooks: None,
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    }
}

pub(crate) fn training(adapters: &dyn Adapters, cancel: &CancellationToken) -> Part {
    let service = ferroflow_training::Training::new(ferroflow_training::Deps {
        client: adapters.client("training"),
        authorizer: authorizer(adapters, "training"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
    });
    Part {
        name: "training",
        rest: Some(service.rest()),
        grpc: service.grpc(),
        grpc_services: ferroflow_training::Training::GRPC_SERVICES,
        webhooks: Some(service.webhooks()),
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    }
}

pub(crate) async fn tuning(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    let deps = ferroflow_tuning::Deps {
        client: adapters.client("tuning"),
        db: open_db(adapters, "tuning", ferroflow_tuning::Tuning::MIGRATIONS).await?,
        authorizer: authorizer(adapters, "tuning"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
    };
    let service = ferroflow_tuning::Tuning::new(deps, ferroflow_tuning::Options::default());
    Ok(Part {
        name: "tuning",
        rest: Some(service.rest()),
        grpc: service.grpc(),
        grpc_services: ferroflow_tuning::Tuning::GRPC_SERVICES,
        webhooks: Some(service.webhooks()),
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    })
}

pub(crate) fn serving(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    let (domain, port) = adapters.models();
    let config = ferroflow_serving::ServingConfig {
        domain,
        port: Some(port),
        ..Default::default()
    };
    let deps = ferroflow_serving::Deps {
        client: adapters.client("serving"),
        authorizer: authorizer(adapters, "serving"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
        metrics: adapters.metrics(),
        artifacts: Some(adapters.transport("serving", "artifacts")?),
    };
    let service = ferroflow_serving::Serving::new(deps, config);
    Ok(Part {
        name: "serving",
        rest: None,
        grpc: service.grpc(),
        grpc_services: ferroflow_serving::Serving::GRPC_SERVICES,
        webhooks: Some(service.webhooks()),
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    })
}

pub(crate) async fn artifacts(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    use ferroflow_artifacts::{Artifacts, Deps, Options};
    let environment = ferroflow_blob::Options::from_env(std::env::vars());
    let deps = Deps {
        db: open_db(adapters, "artifacts", Artifacts::MIGRATIONS).await?,
        blob: ferroflow_blob::open(&adapters.artifacts(), &environment)?,
        authorizer: authorizer(adapters, "artifacts"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
    };
    let service = Artifacts::new(deps, Options::default()).await?;
    Ok(Part {
        name: "artifacts",
        rest: Some(service.rest()),
        grpc: service.grpc(),
        grpc_services: Artifacts::GRPC_SERVICES,
        webhooks: None,
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    })
}

pub(crate) async fn pipelines(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    use ferroflow_pipelines::{Deps, Options, Pipelines};
    let deps = Deps {
        client: adapters.client("pipelines"),
        db: open_db(adapters, "pipelines", Pipelines::MIGRATIONS).await?,
        bus: adapters.bus(),
        authorizer: authorizer(adapters, "pipelines"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
        metrics: adapters.metrics(),
        artifacts: adapters.transport("pipelines", "artifacts")?,
        metadata: adapters.transport("pipelines", "metadata")?,
    };
    let options = Options {
        collector: adapters.collector(),
        ..Options::default()
    };
    let service = Pipelines::new(deps, options).await?;
    Ok(Part {
        name: "pipelines",
        rest: Some(service.rest()),
        grpc: service.grpc(),
        grpc_services: Pipelines::GRPC_SERVICES,
        webhooks: None,
        singleton: true,
        run: Box::pin(service.run(cancel.clone())),
    })
}

pub(crate) async fn metadata(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    use ferroflow_metadata::{Deps, Metadata};
    let service = Metadata::new(Deps {
        db: open_db(adapters, "metadata", Metadata::MIGRATIONS).await?,
        authorizer: authorizer(adapters, "metadata"),
        key: adapters.key(),
        clock: adapters.clock(),
        readiness: adapters.readiness(),
    });
    Ok(Part {
        name: "metadata",
        rest: Some(service.rest()),
        grpc: service.grpc(),
        grpc_services: Metadata::GRPC_SERVICES,
        webhooks: None,
        singleton: false,
        run: Box::pin(service.run(cancel.clone())),
    })
}

/// Builds one service, the only one of its process.
pub(crate) async fn one(
    service: &str,
    adapters: &dyn Adapters,
    cancel: &CancellationToken,
) -> anyhow::Result<Part> {
    let counted = GrpcMetrics::new(&adapters.metrics());
    Ok(build(service, adapters, cancel).await?.observed(&counted))
}

async fn build(service: &str, adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Part> {
    match service {
        "profiles" => Ok(profiles(adapters, cancel)),
        "notebooks" => Ok(notebooks(adapters, cancel)),
        "training" => Ok(training(adapters, cancel)),
        "tuning" => tuning(adapters, cancel).await,
        "serving" => serving(adapters, cancel),
        "artifacts" => artifacts(adapters, cancel).await,
        "metadata" => metadata(adapters, cancel).await,
        "pipelines" => pipelines(adapters, cancel).await,
        other => anyhow::bail!("{other} is no service behind the gateway"),
    }
}

/// The services behind the gateway in the order in which they are built, with the gRPC names that each answers to.
pub(crate) const BEHIND_GATEWAY: &[(&str, &[&str])] = &[
    ("profiles", ferroflow_profiles::Profiles::GRPC_SERVICES),
    ("notebooks", ferroflow_notebooks::Notebooks::GRPC_SERVICES),
    ("training", ferroflow_training::Training::GRPC_SERVICES),
    ("tuning", ferroflow_tuning::Tuning::GRPC_SERVICES),
    ("serving", ferroflow_serving::Serving::GRPC_SERVICES),
    ("artifacts", ferroflow_artifacts::Artifacts::GRPC_SERVICES),
    ("metadata", ferroflow_metadata::Metadata::GRPC_SERVICES),
    ("pipelines", ferroflow_pipelines::Pipelines::GRPC_SERVICES),
];

/// Builds every service.
pub(crate) async fn all(adapters: &dyn Adapters, cancel: &CancellationToken) -> anyhow::Result<Vec<Part>> {
    let counted = GrpcMetrics::new(&adapters.metrics());
    let mut parts = Vec::new();
    for (service, _) in BEHIND_GATEWAY {
        parts.push(build(service, adapters, cancel).await?.observed(&counted));
    }
    Ok(parts)
}
