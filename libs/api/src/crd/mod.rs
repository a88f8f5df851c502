//! Custom resources as Rust types: permissive to read, exact to write. The schemas are in `crds/*.yaml`.

pub mod notebooks;
pub mod profiles;
pub mod serving;
pub mod training;
pub mod tuning;
