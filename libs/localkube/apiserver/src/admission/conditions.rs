//! `matchConditions` of webhooks.

use serde_json::{Value, json};

use super::Operation;
use crate::crd::cel::{Expression, environment, to_cel};
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::objects::text;

/// Whether all conditions hold. One that cannot be evaluated refuses the request, unless the webhook ignores failures.
pub(crate) fn hold(
    ctx: &Ctx,
    hook: &Value,
    operation: Operation,
    obj: Option<&Value>,
    old: Option<&Value>,
    sub: &str,
    name: &str,
) -> ApiResult<bool> {
    let Some(conditions) = hook["matchConditions"].as_array().filter(|c| !c.is_empty()) else {
        return Ok(true);
    };
    let res = &ctx.res;
    let request = json!({"operation": operation.name(), "name": ctx.info.name, "namespace": ctx.ns(), "subResource": sub,
        "userInfo": ctx.user, "dryRun": ctx.dry_run().unwrap_or(false),
        "kind": {"group": res.group, "version": res.version, "kind": res.kind},
        "resource": {"group": res.group, "version": res.version, "resource": res.plural}});
    let (object, old) = (
        to_cel(obj.unwrap_or(&Value::Null), None),
        to_cel(old.unwrap_or(&Value::Null), None),
    );
    let request = to_cel(&request, None);
    let variables = [("object", &object), ("oldObject", &old), ("request", &request)];
    let env = environment();
    let mut failure = None;
    for condition in conditions {
        let result =
            Expression::compile(&env, text(condition, "expression")).and_then(|e| e.evaluate(&variables));
        match result {
            Ok(cel::Value::Bool(true)) => {}
            Ok(cel::Value::Bool(false)) => return Ok(false),
            Ok(_) => failure = Some("cel evaluation did not return a boolean".to_owned()),
            Err(e) => failure = Some(format!("{}: {e}", text(condition, "name"))),
        }
    }
    match failure {
        None => Ok(true),
        Some(_) if text(hook, "failurePolicy") == "Ignore" => Ok(false),
        Some(why) => Err(ApiError::internal(format!(
            "failed calling webhook {name:?}: {why}"
        ))),
    }
}
