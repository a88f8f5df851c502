//! Who calls, and what they may do.
//!
//! A [`Caller`] (a [`Principal`] and the namespace it means) travels between services as a token that lives for a minute, in the
//! header [`CALLER_HEADER`], over gRPC and REST alike. The gateway makes the first one after it has authenticated the user; each
//! service verifies it ([`VerifyLayer`]) and asks one [`Authorizer`] for rights.

mod authorizer;
mod layer;
mod principal;
mod token;

pub use authorizer::{AccessReview, Authorizer, SubjectAccessAuthorizer};
pub use ferroflow_peer::peer_uid;
pub use layer::{CALLER_HEADER, VerifyLayer, VerifyService};
pub use principal::{Caller, Principal};
pub use token::{CallerKey, KeyError};
