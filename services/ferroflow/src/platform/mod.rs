//! Puts the services together with the adapters of where they run.

mod addresses;
mod bootstrap;
mod endpoints;
mod laptop;
mod names;
mod routes;
pub(crate) mod serve;
mod services;

pub(crate) use laptop::Laptop;
