//! The one public port: authentication, Host and Origin checks, routing by path, gRPC service name and Host, the
//! dashboard's files, and proxying to models and notebooks.
//!
//! `route` and `guard` decide and do no I/O; `authenticate` finds out who calls; `upstream` carries requests on.

mod authenticate;
mod dashboard;
mod guard;
mod observe;
mod peer;
mod route;
mod serve;
mod session;
mod upstream;

pub use authenticate::{AuthMode, Authenticator, Workload};
pub use guard::HostRules;
pub use route::{Route, RouteTable};
pub use serve::{Gateway, GatewayDeps};
pub use upstream::{Addresses, Upstream};
