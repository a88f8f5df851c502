//! Profiles: a namespace that belongs to somebody, with its accounts, roles and quota.

mod api;
mod controller;
mod desired;

use std::sync::Arc;

use ferroflow_api::ferroflow::profiles::v1::profile_service_server::ProfileServiceServer;
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_rpc::ServerBuilder;
use ferroflow_telemetry::Readiness;
use tokio_util::sync::CancellationToken;

/// What the service needs.
#[derive(Clone)]
pub struct Deps {
    /// Acts as the service's own account.
    pub client: kube::Client,
    /// Decides rights.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies caller tokens.
    pub key: CallerKey,
    /// Told when the controller runs.
    pub readiness: Readiness,
}

/// The profiles service.
pub struct Profiles {
    deps: Deps,
}

impl Profiles {
    /// Full names of the gRPC services.
    pub const GRPC_SERVICES: &[&str] = &["ferroflow.profiles.v1.ProfileService"];

    /// A service of these parts.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    /// The gRPC API.
    pub fn grpc(&self) -> tonic::service::Routes {
        let api = api::Api::new(self.deps.client.clone(), self.deps.authorizer.clone());
        ServerBuilder::new("profiles", self.deps.key.clone())
            .add(ProfileServiceServer::new(api))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// Runs the controller until `cancel`.
    ///
    /// # Errors
    /// None now; kept for services that can fail for good.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let probe = self.deps.readiness.register("profiles: profile controller");
        controller::run(self.deps.client, probe, cancel).await;
        Ok(())
    }
}
