//! Puts the services together with the adapters of where they run.

mod addresses;
mod bootstrap;
mod cluster;
mod endpoints;
mod gateway;
mod laptop;
pub(crate) mod manifests;
mod names;
pub(crate) mod node;
mod one_port;
mod pods;
mod routes;
pub(crate) mod serve;
mod services;
mod webhook_port;

pub(crate) use laptop::Laptop;
pub(crate) use names::SERVICES;
