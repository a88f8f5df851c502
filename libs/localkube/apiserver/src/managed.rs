//! Field ownership (`metadata.managedFields`) and server-side apply.

use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::objects::write::Part;
use crate::server::ApiServer;

pub(crate) fn on_create(_ctx: &Ctx, _obj: &mut Value) {}

pub(crate) fn on_update(_ctx: &Ctx, _old: &Value, _new: &mut Value, _part: Part) {}

pub(crate) fn same_owners(_old: &Value, _new: &Value) -> bool {
    true
}

pub(crate) async fn apply(_server: &ApiServer, _ctx: &Ctx, _applied: Value, _part: Part) -> ApiResult<(Value, bool)> {
    Err(ApiError::not_implemented("server-side apply is not available yet"))
}
