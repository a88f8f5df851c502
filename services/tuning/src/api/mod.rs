//! Katib's gRPC services, and what dashboards and collectors call.

pub mod db_manager;
mod reader;
mod rest;
pub mod suggestion;
mod summary;

pub use reader::Reader;
pub use rest::router;
