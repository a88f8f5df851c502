//! Rows: one [`Db`] over SQLite or PostgreSQL.
//!
//! A store writes its SQL once, in the dialect that both engines share: `$1` parameters, `ON CONFLICT`, `RETURNING`,
//! columns of type `BIGINT`, `DOUBLE PRECISION`, `TEXT` and `{{bytes}}`, and `{{identity}}` for a generated key. The store's own
//! test-suite runs on both engines and is what keeps this true.
//!
//! Invariants: a write happens only inside a [`Tx`], which is one serializable transaction; [`Db::retry`] runs it again when
//! the engine asks for that; SQLite has one writer connection that begins with `BEGIN IMMEDIATE`, and a pool of readers. Events
//! are appended in the transaction of their change ([`Tx::append_event`]) and published by [`relay::Relay`].

mod engine;
mod error;
mod migrate;
pub mod relay;
mod row;
mod tx;
mod value;

pub use engine::{Db, DbOptions};
pub use error::DbError;
pub use row::Row;
pub use tx::Tx;
pub use value::Value;

/// Builds the parameter list of a statement: `params![id, name, 3_i64]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::Value::from($value)),*] };
}
