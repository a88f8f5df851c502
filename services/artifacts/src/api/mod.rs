//! The three faces of the service: HTTP, S3 and gRPC.

pub(crate) mod archive;
pub(crate) mod body;
pub(crate) mod credentials;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod s3;
pub(crate) mod uri;
pub(crate) mod wire;
