//! How services call one another: generated tonic clients over one [`Transport`], in process or over the network, with the
//! same layers on both (`tonic::transport::Server`'s own layers do not run in process, so they are not used).
//!
//! A server: `ServerBuilder::new("pipelines", key).add(FooServer::new(x)).build()` gives `Routes`.
//! A client: `FooClient::new(transport.call_as(&caller))`.

mod metrics;
mod observe;
mod rest;
mod server;
mod transport;

pub use metrics::GrpcMetrics;
pub use observe::observe_rest;
pub use rest::{ErrorBody, rest_error};
pub use server::ServerBuilder;
pub use transport::{CallAs, LateRoutes, Transport};
