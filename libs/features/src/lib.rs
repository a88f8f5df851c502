//! Nothing to call. `cargo test -p X -p features` builds X against the same dependency features as
//! `cargo test --workspace` does, so both share one set of compiled dependencies.
