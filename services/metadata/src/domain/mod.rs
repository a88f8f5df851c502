//! The graph's nodes and types, and the language of its filters. No I/O.

pub mod filter;
pub mod model;
