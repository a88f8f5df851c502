//! Hyperparameter tuning: Katib's Experiment, Suggestion and Trial (`kubeflow.org/v1beta1`), its gRPC services
//! `api.v1.beta1.{DBManager, Suggestion}`, and the metrics collectors.
//!
//! [`domain`] decides, purely; [`controllers`] read, decide and write; [`admission`] refuses what can never run and puts the
//! collector into Pods; [`store`] keeps what trials report. An algorithm is a pure function in [`domain::algorithm`].

pub mod admission;
mod api;
pub mod controllers;
pub mod domain;
mod events;
mod resources;
pub mod store;
mod template_source;

use std::sync::Arc;

use ferroflow_api::api::v1::beta1::db_manager_server::DbManagerServer;
use ferroflow_api::api::v1::beta1::suggestion_server::SuggestionServer;
use ferroflow_api::ferroflow::tuning::v1::tuning_service_server::TuningServiceServer;
use ferroflow_auth::{Authorizer, Caller, CallerKey, Principal};
use ferroflow_db::Db;
use ferroflow_kernel::Clock;
use ferroflow_rpc::{LateRoutes, ServerBuilder, Transport};
use ferroflow_telemetry::Readiness;
use tokio_util::sync::CancellationToken;

use api::Reader;
use api::db_manager::DbManagerService;
use api::suggestion::SuggestionService;
use controllers::suggestion::Algorithms;
use domain::collector::Injection;
use store::ObservationLogs;

/// Metrics of one report may be many.
const MESSAGE_LIMIT: usize = 256 * 1024 * 1024;

/// What the service is made of.
pub struct Deps {
    /// Acts as `system:serviceaccount:kubeflow:tuning`.
    pub client: kube::Client,
    /// Opened with [`Tuning::MIGRATIONS`].
    pub db: Db,
    /// Decides what callers may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies callers.
    pub key: CallerKey,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where the controllers say that they run.
    pub readiness: Readiness,
}

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Image that holds the launcher.
    pub launcher_image: String,
    /// `host:port` by which Pods reach the DBManager and the REST API.
    pub db_manager: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            launcher_image: format!("ghcr.io/ferroflow/launcher:v{}", env!("CARGO_PKG_VERSION")),
            db_manager: "katib-db-manager.kubeflow:6789".to_owned(),
        }
    }
}

/// The service.
pub struct Tuning {
    deps: Deps,
    options: Options,
    logs: ObservationLogs,
}

impl Tuning {
    /// Full names of the gRPC services, by which the gateway routes.
    pub const GRPC_SERVICES: &[&str] = &[
        "api.v1.beta1.DBManager",
        "api.v1.beta1.Suggestion",
        "ferroflow.tuning.v1.TuningService",
    ];
    /// The schema of the store.
    pub const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;

    /// The service, not yet running.
    #[must_use]
    pub fn new(deps: Deps, options: Options) -> Self {
        let logs = ObservationLogs::new(deps.db.clone());
        Self { deps, options, logs }
    }

    fn reader(&self) -> Reader {
        Reader::new(
            self.deps.client.clone(),
            self.deps.authorizer.clone(),
            self.logs.clone(),
        )
    }

    fn db_manager(&self) -> DbManagerService {
        DbManagerService::new(self.logs.clone(), self.deps.authorizer.clone())
    }

    /// REST below `/apis/ferroflow/v1/tuning`.
    pub fn rest(&self) -> axum::Router {
        api::router(self.reader(), self.db_manager())
    }

    /// gRPC, with health and reflection. Needs a tokio runtime.
    #[must_use]
    pub fn grpc(&self) -> tonic::service::Routes {
        let db_manager = DbManagerServer::new(self.db_manager())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let suggestion = SuggestionServer::new(SuggestionService)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        ServerBuilder::new("tuning", self.deps.key.clone())
            .add(db_manager)
            .add(suggestion)
            .add(TuningServiceServer::new(self.reader()))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// Webhooks: defaults, validation, injection.
    pub fn webhooks(&self) -> axum::Router {
        let injection = Injection {
            launcher_image: self.options.launcher_image.clone(),
            db_manager: self.options.db_manager.clone(),
        };
        admission::router(self.deps.client.clone(), injection)
    }

    /// Runs the controllers until cancelled.
    ///
    /// # Errors
    /// None today; the signature is every service's.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let routes = LateRoutes::default();
        routes.bind(self.grpc());
        let Deps {
            client,
            key,
            clock,
            readiness,
            ..
        } = self.deps;
        let transport = Transport::in_process(routes, key, "tuning");
        let caller = Caller::new(Principal::service_account("kubeflow", "tuning"));
        let probes = ["experiment", "suggestion", "trial"]
            .map(|c| readiness.register(format!("tuning: {c} controller")));
        let algorithms = Algorithms {
            transport,
            caller,
            clock: clock.clone(),
        };
        let experiments =
            controllers::experiment::run(client.clone(), clock.clone(), algorithms.clone(), cancel.clone());
        let suggestions = controllers::suggestion::run(client.clone(), algorithms, cancel.clone());
        let trials = controllers::trial::run(client, clock, self.logs, cancel);
        for probe in &probes {
            probe.ready();
        }
        tokio::join!(experiments, suggestions, trials);
        Ok(())
    }
}
