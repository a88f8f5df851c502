//! The faces of the service: ML Metadata's gRPC, our own, and JSON for the dashboard.

pub(crate) mod convert;
pub(crate) mod enter;
pub(crate) mod mlmd;
pub(crate) mod mlmd_read;
pub(crate) mod mlmd_write;
pub(crate) mod overview;
pub(crate) mod rest;
