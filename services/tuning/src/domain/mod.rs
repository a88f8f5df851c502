//! Decisions about experiments, trials and suggestions: pure, of (spec, what exists, now).

pub mod algorithm;
pub mod collector;
pub mod condition;
pub mod defaults;
pub mod experiment;
pub mod gjson;
pub mod observation;
pub mod template;
pub mod trial;
pub mod validation;
