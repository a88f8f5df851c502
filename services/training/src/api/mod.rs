//! What dashboards read: jobs of all kinds, as gRPC and as JSON.

mod grpc;
mod rest;
mod summary;

pub use grpc::Reader;
pub use rest::router;
