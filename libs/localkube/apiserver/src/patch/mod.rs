//! The kinds of patches.

pub mod strategic;

use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (k, v) in patch {
        if v.is_null() {
            map.remove(k);
        } else {
            merge(map.entry(k.clone()).or_insert(Value::Null), v);
        }
    }
}

/// RFC 6902, with Kubernetes' codes: 400 for a malformed patch, 422 for one that does not apply.
pub fn json_patch(target: &mut Value, patch: &Value) -> ApiResult<()> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    if operations.0.len() > 10_000 {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            "The allowed maximum operations in a JSON patch is 10000",
            serde_json::json!({}),
        ));
    }
    json_patch::patch(target, &operations).map_err(|e| {
        let op = operations.0.get(e.operation);
        let text = match op {
            Some(json_patch::PatchOperation::Test(t)) => {
                format!("testing value {} failed: test failed", t.path)
            }
            Some(json_patch::PatchOperation::Remove(r)) => {
                format!("remove operation does not apply: doc is missing path: {:?}: missing value", r.path.to_string())
            }
            Some(json_patch::PatchOperation::Replace(r)) => {
                format!("replace operation does not apply: doc is missing key: {}: missing value", r.path)
            }
            Some(json_patch::PatchOperation::Add(a)) => {
                format!("add operation does not apply: doc is missing path: {:?}: missing value", a.path.to_string())
            }
            _ => e.to_string(),
        };
        ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {text}"),
            serde_json::json!({}),
        )
    })
}
