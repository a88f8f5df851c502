//! XGBoost models in its JSON and UBJSON forms, walked natively. Predictions are those of `Booster.predict`, bit for
//! bit where the C library's `expf` is the same.
//!
//! Sources: xgboost's `doc/model.schema`, and its behaviour as checked by `e2e/checks/xgboost_models.py`.

mod forest;
mod load;
mod objective;
mod schema;
mod ubj;

pub use forest::Booster;
pub use load::{LoadError, Rounds, load, parse};
