//! InferenceServices: which runtime serves a model, the Deployment and Services that do it, and what the status says.
//!
//! - [`domain`] decides, without I/O: defaults, validation, choice of the runtime, Deployment, Services, status;
//! - [`controller`] acts on it through a `kube::Client`; [`webhook`] answers AdmissionReviews; [`api`] is for dashboards.
//!
//! The data plane is the `modelserver` crate, which runs inside the predictor Pods.

pub mod api;
pub mod controller;
pub mod credentials;
pub mod domain;
pub mod runtimes;
pub mod webhook;

pub use domain::ServingConfig;

use ferroflow_api::ferroflow::serving::v1::serving_service_server::ServingServiceServer;
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_kernel::Clock;
use ferroflow_rpc::{ServerBuilder, Transport};
use ferroflow_telemetry::{Metrics, Probe, Readiness};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the composition root gives.
pub struct Deps {
    /// Acts as `system:serviceaccount:kubeflow:serving`.
    pub client: kube::Client,
    /// Decides who may read what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies callers.
    pub key: CallerKey,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What must be up.
    pub readiness: Readiness,
    /// Counters of the process.
    pub metrics: Metrics,
    /// The way to the artifacts service, which lends credentials to storage initializers; `None` where models are read with
    /// credentials of the cluster's own.
    pub artifacts: Option<Transport>,
}

/// The serving service.
pub struct Serving {
    deps: Deps,
    config: ServingConfig,
    probe: Probe,
}

impl Serving {
    /// Full names of its gRPC services.
    pub const GRPC_SERVICES: &'static [&'static str] = &["ferroflow.serving.v1.ServingService"];

    /// Puts the service together; nothing runs yet.
    pub fn new(deps: Deps, config: ServingConfig) -> Self {
        let probe = deps.readiness.register("serving: inferenceservice controller");
        Self { deps, config, probe }
    }

    /// gRPC with health and reflection.
    pub fn grpc(&self) -> tonic::service::Routes {
        let api = api::ServingApi::new(self.deps.client.clone(), self.deps.authorizer.clone());
        ServerBuilder::new("serving", self.deps.key.clone())
            .add(ServingServiceServer::new(api))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// AdmissionReview handlers.
    pub fn webhooks(&self) -> axum::Router {
        webhook::router(self.deps.client.clone(), self.deps.clock.clone())
    }

    /// Creates the shipped runtimes and runs the controller until cancelled.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        // The API or the CRDs may be a moment behind.
        while let Err(error) = runtimes::ensure(&self.deps.client, &self.config).await {
            tracing::warn!(%error, "cannot create the serving runtimes yet");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
        let Deps {
            client,
            clock,
            artifacts,
            ..
        } = self.deps;
        let context = Arc::new(controller::Context::new(client, self.config, clock, artifacts));
        controller::run(context, self.probe, cancel).await;
        Ok(())
    }
}
