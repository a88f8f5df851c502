//! ResourceQuota.

use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::Operation;
use crate::error::ApiResult;
use crate::handler::Ctx;
use crate::server::ApiServer;

/// Refuses what would exceed a quota of the namespace.
pub(crate) async fn reserve(
    _server: &ApiServer,
    _ctx: &Ctx,
    _operation: Operation,
    _obj: &Value,
    _old: Option<&Value>,
) -> ApiResult<Option<OwnedMutexGuard<()>>> {
    Ok(None)
}
