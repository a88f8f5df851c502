//! The pipelines service: experiments, pipelines, runs and the scheduler that turns a run into Pods.
//!
//! - [`domain`]: PipelineSpec, validation and the planner, pure
//! - [`store`]: rows, on SQLite and PostgreSQL
//! - [`worker`]: the scheduler: a Pod per step through `kube::Client`
//! - [`api`]: KFP `v2beta1` REST
//!
//! A run survives the loss of this process at any moment: what is decided is recorded before it is done, a Pod's name
//! belongs to its attempt, and the launcher creates `outcome.json` once.

pub mod api;
pub mod domain;
pub mod options;
pub mod store;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use ferroflow_api::kubeflow::pipelines::backend::api::v2beta1::{
    experiment_service_server::ExperimentServiceServer, pipeline_service_server::PipelineServiceServer,
    run_service_server::RunServiceServer,
};
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_bus::EventBus;
use ferroflow_db::Db;
use ferroflow_db::relay::Relay;
use ferroflow_kernel::{Clock, Result};
use ferroflow_rpc::{ServerBuilder, Transport};
use ferroflow_telemetry::{Metrics, Readiness};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Grpc};
pub use crate::options::Options;
use crate::store::Store;
use crate::worker::Scheduler;
use crate::worker::artifacts::{Artifacts, RemoteArtifacts};
use crate::worker::hints::Hints;
use crate::worker::lineage::Lineage;

/// What the service is given.
pub struct Deps {
    /// Kubernetes, as `system:serviceaccount:kubeflow:pipelines`.
    pub client: kube::Client,
    /// Rows; opened with [`Pipelines::MIGRATIONS`].
    pub db: Db,
    /// Where events go.
    pub bus: Arc<dyn EventBus>,
    /// Rights.
    pub authorizer: Arc<dyn Authorizer>,
    /// The key that the platform's services share.
    pub key: CallerKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is ready.
    pub readiness: Readiness,
    /// Figures.
    pub metrics: Metrics,
    /// The artifacts service.
    pub artifacts: Transport,
    /// The metadata service.
    pub metadata: Transport,
}

/// The pipelines service.
pub struct Pipelines {
    api: Api,
    scheduler: Scheduler,
    lineage: Lineage,
    db: Db,
    bus: Arc<dyn EventBus>,
    key: CallerKey,
    readiness: Readiness,
}

impl Pipelines {
    /// The schema, in steps.
    pub const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;
    /// Names of the gRPC services.
    pub const GRPC_SERVICES: &'static [&'static str] = &[
        "kubeflow.pipelines.backend.api.v2beta1.RunService",
        "kubeflow.pipelines.backend.api.v2beta1.ExperimentService",
        "kubeflow.pipelines.backend.api.v2beta1.PipelineService",
    ];

    /// Builds the service; nothing runs yet.
    ///
    /// # Errors
    /// None today.
    #[expect(clippy::unused_async, reason = "every service is built in the same way")]
    pub async fn new(deps: Deps, options: Options) -> Result<Self> {
        let artifacts: Arc<dyn Artifacts> = Arc::new(RemoteArtifacts::new(deps.artifacts.clone()));
        Ok(Self::with_artifacts(deps, options, artifacts))
    }

    /// Builds the service with another way to the artifacts.
    pub fn with_artifacts(deps: Deps, options: Options, artifacts: Arc<dyn Artifacts>) -> Self {
        let Deps {
            client,
            db,
            bus,
            authorizer,
            key,
            clock,
            readiness,
            metrics,
            artifacts: _,
            metadata,
        } = deps;
        let store = Store::new(db.clone());
        let scheduler = Scheduler::new(worker::Parts {
            store: store.clone(),
            client: client.clone(),
            artifacts: artifacts.clone(),
            options: options.clone(),
            clock: clock.clone(),
            hints: Hints::new(key.clone()),
            metrics,
        });
        let lineage = Lineage::new(store.clone(), metadata);
        let api = Api {
            store,
            scheduler: scheduler.clone(),
            authorizer,
            artifacts,
            options,
            clock,
            client,
        };
        Self {
            api,
            scheduler,
            lineage,
            db,
            bus,
            key,
            readiness,
        }
    }

    /// The REST routes; they expect a `Caller` in the extensions, except those of [`Pipelines::open`].
    pub fn rest(&self) -> axum::Router {
        self.api.clone().router()
    }

    /// The route that launchers call, which needs no `Caller`.
    pub fn open(&self) -> axum::Router {
        self.api.clone().hints()
    }

    /// The gRPC services.
    pub fn grpc(&self) -> tonic::service::Routes {
        let service = Grpc::new(self.rest());
        ServerBuilder::new("pipelines", self.key.clone())
            .add(RunServiceServer::new(service.clone()))
            .add(ExperimentServiceServer::new(service.clone()))
            .add(PipelineServiceServer::new(service))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// Works until it is cancelled: the scheduler, the clock of recurring runs and the event relay.
    ///
    /// # Errors
    /// If the runs that are under way cannot be read.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let probe = self.readiness.register("pipelines: scheduler");
        let relay = Relay::new(self.db.clone(), self.bus.clone());
        let (done, (), (), ()) = tokio::join!(
            self.scheduler.run(cancel.clone(), probe),
            schedules(&self.api, &self.scheduler, cancel.clone()),
            relay.run(cancel.clone()),
            self.lineage.run(self.scheduler.clone(), cancel.clone()),
        );
        done.map_err(|error| anyhow::anyhow!("pipelines: {error}"))
    }
}

/// Makes the runs of schedules when they are due.
async fn schedules(api: &Api, scheduler: &Scheduler, cancel: CancellationToken) {
    // a schedule may be made or changed by another process of the service
    const LONGEST: Duration = Duration::from_secs(5);
    loop {
        let pause = match api.make_due_runs().await {
            Ok(Some(next)) => Duration::try_from(next.duration_since(api.clock.now()))
                .unwrap_or_default()
                .min(LONGEST),
            Ok(None) => LONGEST,
            Err(error) => {
                tracing::error!(%error, "recurring runs cannot be read; trying again");
                Duration::from_secs(5)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = scheduler.rescheduled() => {}
            () = cancel.cancelled() => return,
        }
    }
}
