//! The pipelines service: experiments, pipelines, runs and the scheduler that turns a run into Pods.

pub mod domain;
