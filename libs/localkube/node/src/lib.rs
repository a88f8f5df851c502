//! The node agent: runs the Pods that are bound to its Node as supervised processes, with a shim per Pod that outlives
//! it, and serves the kubelet's API for them.

mod agent;
mod kubelet;
pub mod nursery;
pub mod os;
pub mod plan;
pub mod policy;
mod shim;
pub mod state;
pub mod wire;

pub use agent::{NodeConfig, run};
pub use shim::shim_main;
