//! The metadata service: one lineage graph of artifacts, executions and contexts.
//!
//! It speaks ML Metadata's gRPC (all 52 calls of `ml_metadata.MetadataStoreService`), and in `ferroflow.metadata.v1` and JSON
//! what people ask the graph for: the lineage of a run, and models with their metrics. MLMD knows no tenants; here every row
//! has a namespace, which is the caller's own, and each call asks for a right in it.

mod api;
mod domain;
mod store;

use std::sync::Arc;

use axum::Router;
use ferroflow_api::ferroflow::metadata::v1::metadata_service_server::MetadataServiceServer;
use ferroflow_api::ml_metadata::metadata_store_service_server::MetadataStoreServiceServer;
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_db::Db;
use ferroflow_kernel::Clock;
use ferroflow_rpc::ServerBuilder;
use ferroflow_telemetry::Readiness;
use tokio_util::sync::CancellationToken;

use api::enter::Service;

/// MLMD's clients send and take large messages; its own default is 4 MiB, its users raise it.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// What the service needs.
pub struct Deps {
    /// Its rows, opened with [`Metadata::MIGRATIONS`].
    pub db: Db,
    /// Decides rights on `artifacts`, `executions`, `contexts` and `types` of `metadata.ferroflow.dev`.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies callers.
    pub key: CallerKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it says that it is ready.
    pub readiness: Readiness,
}

/// The service.
pub struct Metadata {
    service: Service,
    key: CallerKey,
    readiness: Readiness,
}

impl Metadata {
    /// Migrations of its rows.
    pub const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;

    /// Full names of its gRPC services.
    pub const GRPC_SERVICES: &'static [&'static str] = &[
        "ml_metadata.MetadataStoreService",
        "ferroflow.metadata.v1.MetadataService",
    ];

    /// Puts the service together.
    pub fn new(deps: Deps) -> Self {
        let service = Service {
            db: deps.db,
            authorizer: deps.authorizer,
            clock: deps.clock,
        };
        Self {
            service,
            key: deps.key,
            readiness: deps.readiness,
        }
    }

    /// JSON; expects the caller in the request's extensions.
    pub fn rest(&self) -> Router {
        api::rest::router(self.service.clone())
    }

    /// gRPC.
    pub fn grpc(&self) -> tonic::service::Routes {
        let mlmd = MetadataStoreServiceServer::new(api::mlmd::Mlmd(self.service.clone()))
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        ServerBuilder::new("metadata", self.key.clone())
            .add(mlmd)
            .add(MetadataServiceServer::new(api::overview::Overview(
                self.service.clone(),
            )))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// Serves until cancelled; there is nothing to do besides.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        self.readiness.register("metadata").ready();
        cancel.cancelled().await;
        Ok(())
    }
}
