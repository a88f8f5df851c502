//! What a pipeline is and what happens next: pure, synchronous, without I/O.

pub mod cache;
pub mod condition;
pub mod ir;
pub mod package;
pub mod placeholders;
pub mod plan;
pub mod resolve;
pub mod run;
pub mod step;
pub mod validate;
pub mod values;
