//! Decisions about training jobs: pure, of (job, what exists, now).

pub mod environment;
pub mod job;
pub mod kind;
pub mod plan;
pub mod status;
pub mod validation;
