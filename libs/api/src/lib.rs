//! The wire formats that Ferroflow speaks: generated gRPC messages, clients and servers, the Rust types of the
//! custom resources, and the manifests (CRDs, RBAC, webhooks) that both the chart and the laptop apply. No logic.

pub mod crd;
pub mod manifests;
pub mod step;

/// Descriptors of every proto file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[expect(clippy::all, clippy::pedantic, reason = "generated code")]
mod protos {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}
pub use protos::*;
