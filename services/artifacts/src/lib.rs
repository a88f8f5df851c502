//! The artifacts service: bytes at their URI, for every tenant only its own.
//!
//! One core ([`objects`]) with three faces: streaming HTTP below `/artifacts/v1`, an S3 endpoint (at `/s3`, and at the root
//! of its own port), and `ferroflow.artifacts.v1` over gRPC. Bytes lie in a [`ferroflow_blob::Blob`] as
//! `<bucket>/<key>`, on a laptop as plain files; rows hold whose a prefix is (`domain::claims`) and what bytes cannot carry.
//!
//! Invariants: a claim precedes the first byte, and never changes hands; an object appears whole or not at all; credentials
//! and signed URLs are stateless, and cover no more than was asked for.

mod api;
mod domain;
mod error;
mod objects;
mod store;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ferroflow_api::ferroflow::artifacts::v1::artifact_service_server::ArtifactServiceServer;
use ferroflow_auth::{Authorizer, CallerKey};
use ferroflow_blob::Blob;
use ferroflow_db::Db;
use ferroflow_kernel::Clock;
use ferroflow_rpc::ServerBuilder;
use ferroflow_telemetry::Readiness;
use tokio_util::sync::CancellationToken;

use api::credentials::Service;
use domain::grant::CredentialKey;
use objects::{Objects, PIPELINES_BUCKET, Policy};
use store::Store;

/// How often unfinished writes and uploads are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// What the service needs.
pub struct Deps {
    /// Its rows, opened with [`Artifacts::MIGRATIONS`].
    pub db: Db,
    /// Its bytes; keys are `<bucket>/<key>`.
    pub blob: Arc<dyn Blob>,
    /// Decides rights on `objects.artifacts.ferroflow.dev`.
    pub authorizer: Arc<dyn Authorizer>,
    /// Verifies callers, and is what credentials and signed URLs are derived from.
    pub key: CallerKey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it says that it is ready.
    pub readiness: Readiness,
}

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where S3 clients in Pods reach it.
    pub s3_endpoint: String,
    /// Buckets that all namespaces share, besides `mlpipeline`.
    pub shared_buckets: Vec<String>,
    /// The namespace that owns bytes which came past the service, for example files copied into the data folder.
    pub unclaimed_namespace: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            s3_endpoint: "http://minio-service.kubeflow:9000".to_owned(),
            shared_buckets: Vec::new(),
            unclaimed_namespace: ferroflow_kernel::DEFAULT_NAMESPACE.to_owned(),
        }
    }
}

/// The service.
pub struct Artifacts {
    service: Service,
    key: CallerKey,
    readiness: Readiness,
}

impl Artifacts {
    /// Migrations of its rows.
    pub const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;

    /// Full names of its gRPC services.
    pub const GRPC_SERVICES: &'static [&'static str] = &["ferroflow.artifacts.v1.ArtifactService"];

    /// Puts the service together, and makes KFP's bucket.
    pub async fn new(deps: Deps, options: Options) -> anyhow::Result<Self> {
        let store = Store::new(deps.db);
        store.make_bucket(PIPELINES_BUCKET, deps.clock.now()).await?;
        let mut shared_buckets = options.shared_buckets;
        shared_buckets.push(PIPELINES_BUCKET.to_owned());
        let policy = Policy {
            shared_buckets,
            unclaimed_namespace: options.unclaimed_namespace,
        };
        let objects = Objects::new(deps.blob, store, deps.authorizer, deps.clock, policy);
        let service = Service {
            objects,
            credentials: CredentialKey::derive(deps.key.secret()),
            callers: deps.key.clone(),
            s3_endpoint: options.s3_endpoint.into(),
        };
        Ok(Self {
            service,
            key: deps.key,
            readiness: deps.readiness,
        })
    }

    /// `/artifacts/v1/...`, `/s3/...`, and S3 at the root for everything else (the port of `minio-service`). It verifies its callers itself, because there are more ways than the caller token
    /// to be one: credentials made here, signed URLs, and S3 signatures.
    pub fn rest(&self) -> Router {
        let s3 = api::s3::router(self.service.clone(), "/s3");
        api::http::router(self.service.clone())
            .nest_service("/s3", s3)
            .fallback_service(self.s3())
    }

    /// The S3 endpoint at the root, for a port of its own (`minio-service.kubeflow:9000`).
    pub fn s3(&self) -> Router {
        api::s3::router(self.service.clone(), "")
    }

    /// gRPC.
    pub fn grpc(&self) -> tonic::service::Routes {
        ServerBuilder::new("artifacts", self.key.clone())
            .add(ArtifactServiceServer::new(api::grpc::Grpc(self.service.clone())))
            .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
            .build()
    }

    /// Removes what crashes and forgetful clients leave behind, now and then, until cancelled.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        self.readiness.register("artifacts").ready();
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                _ = ticks.tick() => {
                    if let Err(failure) = self.service.objects.sweep().await {
                        tracing::warn!(%failure, "unfinished writes could not be removed; trying again in an hour");
                    }
                }
            }
        }
    }
}
