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

/// RFC 6902; Kubernetes answers 422 without saying why to a patch that does not apply, so the why goes to the log.
pub fn json_patch(target: &mut Value, patch: &Value) -> ApiResult<()> {
    let rejected = |why: String| {
        tracing::debug!(why, "a JSON patch does not apply");
        ApiError::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
            serde_json::json!({}),
        )
        .with_empty_details()
    };
    if !patch.is_array() {
        return Err(ApiError::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type jsonpatch.Patch",
            go_kind(patch)
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| rejected(e.to_string()))?;
    if operations.0.len() > 10_000 {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            "The allowed maximum operations in a JSON patch is 10000",
            serde_json::json!({}),
        ));
    }
    json_patch::patch(target, &operations).map_err(|e| rejected(e.to_string()))
}

/// The kind of a JSON value in Go's words.
pub fn go_kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
