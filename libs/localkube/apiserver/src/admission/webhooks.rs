//! Mutating and validating webhooks.

use serde_json::Value;

use super::Operation;
use crate::error::ApiResult;
use crate::handler::Ctx;
use crate::server::ApiServer;

pub(crate) async fn mutate(
    _server: &ApiServer,
    _ctx: &Ctx,
    _operation: Operation,
    _obj: &mut Value,
    _old: Option<&Value>,
    _subresource: &str,
) -> ApiResult<()> {
    Ok(())
}

pub(crate) async fn validate(
    _server: &ApiServer,
    _ctx: &Ctx,
    _operation: Operation,
    _obj: Option<&Value>,
    _old: Option<&Value>,
    _subresource: &str,
) -> ApiResult<()> {
    Ok(())
}
