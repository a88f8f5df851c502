//! Training jobs: XGBoostJob, PyTorchJob, TFJob, JAXJob and PaddleJob (`kubeflow.org/v1`) as the Training Operator 1.9
//! runs them: Pods and headless Services per replica, the environment by which the processes of a framework find each
//! other, run policies, restarts, conditions.
//!
//! [`domain`] decides, purely; [`controller`] reads, decides and writes; [`admission`] refuses what can never run. Another
//! kind is a row of [`domain::kind::KINDS`], an environment and a success rule.

pub mod admission;
mod api;
pub mod controller;
pub mod domain;
mod events;

use std::sync::Arc;

use ferroflow_api::ferroflow::training::v1::training_service_server::TrainingServiceServer;
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_kernel::Clock;
use ferroflow_rpc::ServerBuilder;
use ferroflow_telemetry::Readiness;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

/// What the service is made of.
pub struct Deps {
    /// Acts as `system:serviceaccount:kubeflow:training`.
    pub client: kube::Client,
    /// Decides what callers may read.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies callers.
    pub key: CallerKey,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where the controllers say that they run.
    pub readiness: Readiness,
}

/// The service.
pub struct Training {
    deps: Deps,
}

impl Training {
    /// Full names of the gRPC services, by which the gateway routes.
    pub const GRPC_SERVICES: &[&str] = &["ferroflow.training.v1.TrainingService"];

    /// The service, not yet running.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    fn reader(&self) -> api::Reader {
        api::Reader::new(self.deps.client.clone(), self.deps.authorizer.clone())
    }

    /// REST below `/apis/ferroflow/v1/training`.
    pub fn rest(&self) -> axum::Router {
        api::router(self.reader())
    }

    /// gRPC, with health and reflection.
    #[must_use]
    pub fn grpc(&self) -> tonic::service::Routes {
        ServerBuilder::new("training", self.deps.key.clone())
            .add(TrainingServiceServer::new(self.reader()))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// The validating webhook.
    pub fn webhooks(&self) -> axum::Router {
        admission::router()
    }

    /// Runs the controllers until cancelled.
    ///
    /// # Errors
    /// None today; the signature is every service's.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let controllers = domain::kind::KINDS.iter().map(|kind| {
            let probe = self
                .deps
                .readiness
                .register(format!("training: {} controller", kind.kind));
            let run = controller::run(
                kind,
                self.deps.client.clone(),
                self.deps.clock.clone(),
                cancel.clone(),
            );
            async move {
                probe.ready();
                run.await;
            }
        });
        join_all(controllers).await;
        Ok(())
    }
}
