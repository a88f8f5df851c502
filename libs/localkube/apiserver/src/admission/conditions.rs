//! `matchConditions` of webhooks.

use serde_json::Value;

use super::Operation;
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;

/// Whether all conditions hold.
pub(crate) fn hold(
    _ctx: &Ctx,
    hook: &Value,
    _operation: Operation,
    _obj: Option<&Value>,
    _old: Option<&Value>,
    _sub: &str,
    name: &str,
) -> ApiResult<bool> {
    if hook["matchConditions"].as_array().is_some_and(|c| !c.is_empty()) {
        return Err(ApiError::not_implemented(format!("matchConditions of webhook {name:?}")));
    }
    Ok(true)
}
