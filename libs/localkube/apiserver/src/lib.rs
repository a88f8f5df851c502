//! A local Kubernetes API server.
//!
//! Objects are JSON values in SQLite with an in-memory index ([`ApiServer::open`]). The same [`axum::Router`] is called in process by
//! `kube::Client` ([`ApiServer::client`]) and served over HTTPS ([`serve_https`]), so controllers, `kubectl` and SDKs see one API.
//!
//! - `store`: versions, the watch window, durability.
//! - `registry`, `kinds`, `builtin`, `crd`: which resources there are and their rules.
//! - `handler`, `request`: from an HTTP request to an operation; `objects`: the operations; `subresources`: what is not CRUD.
//! - `auth`: tokens, certificates, RBAC; `admission`: built-in plugins and webhooks.
//! - `definitions`: the published schemas of built-in kinds, from which decoding, strategic merge and OpenAPI follow.

mod admission;
mod auth;
mod background;
mod bootstrap;
mod builtin;
mod client;
mod crd;
mod definitions;
mod discovery;
mod error;
pub mod field_error;
mod fields;
mod handler;
mod jsonpath;
pub mod kinds;
mod managed;
pub mod meta;
mod objects;
mod openapi;
mod patch;
mod protobuf;
mod proxy;
pub mod quantity;
mod registry;
mod request;
mod selectors;
mod serve;
mod server;
mod store;
mod subresources;
mod table;
pub mod times;

pub use auth::keys::KeyError;
pub use auth::tokens::{TokenError, TokenRequest};
pub use auth::{service_account, user};
pub use k8s_openapi::api::authentication::v1::UserInfo;
pub use serve::serve_https;
pub use server::{ApiServer, ApiServerConfig, OpenError, ServiceCidr};
pub use store::OpenStoreError;
