//! The words every service shares: errors, time, identifiers, paging and the event envelope. No I/O.

mod clock;
mod error;
mod event;
mod id;
mod page;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Code, Error, FieldViolation, Result};
pub use event::Event;
pub use id::{is_dns_label, is_dns_subdomain, new_id, random_suffix};
pub use page::{Page, PageToken};

/// The namespace a request means when it names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The namespace in which Ferroflow's own services live.
pub const PLATFORM_NAMESPACE: &str = "kubeflow";
/// The version of this build, as `MAJOR.MINOR.PATCH`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
