//! Custom resources as Rust types: permissive to read, exact to write. The schemas are in `crds/*.yaml`.

pub mod training;
pub mod tuning;
