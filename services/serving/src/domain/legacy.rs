//! What the mutating webhook does: one form for all ways to name a model.

use serde_json::{Map, Value, json};

/// Fields of a predictor that stand for `model` with the same format.
pub const LEGACY_FORMATS: [&str; 10] = [
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
];

/// Fills in what the user may leave out: turns a legacy format into `model`, and sets the protocol. A legacy format replaces a
/// `model`, as in KServe: `kubectl apply` of an object that was rewritten before sends it beside the `model` that it became. An
/// object that is not of the expected shape is left for validation to refuse.
#[must_use]
pub fn with_defaults(mut object: Value) -> Value {
    let Some(predictor) = object
        .pointer_mut("/spec/predictor")
        .and_then(Value::as_object_mut)
    else {
        return object;
    };
    let named: Vec<&str> = LEGACY_FORMATS
        .into_iter()
        .filter(|format| predictor.get(*format).is_some_and(|spec| !spec.is_null()))
        .collect();
    if let [format] = named.as_slice()
        && let Some(Value::Object(legacy)) = predictor.remove(*format)
    {
        let mut model = Map::new();
        model.insert("modelFormat".into(), json!({ "name": format }));
        model.extend(legacy);
        predictor.insert("model".into(), Value::Object(model));
    }
    if let Some(model) = predictor.get_mut("model").and_then(Value::as_object_mut) {
        let format = model
            .get("modelFormat")
            .and_then(|format| format.get("name"))
            .and_then(Value::as_str);
        let protocol = if format == Some("triton") { "v2" } else { "v1" };
        let missing = model.get("protocolVersion").is_none_or(Value::is_null);
        if missing {
            model.insert("protocolVersion".into(), protocol.into());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_format_becomes_a_model() {
        let object = json!({"spec": {"predictor": {"minReplicas": 1, "xgboost": {"storageUri": "s3://b/m", "resources": {}}}}});
        assert_eq!(
            with_defaults(object),
            json!({"spec": {"predictor": {"minReplicas": 1, "model": {
                "modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/m", "resources": {}, "protocolVersion": "v1"}}}})
        );
    }

    #[test]
    fn a_legacy_format_that_is_applied_again_replaces_the_model_that_it_became() {
        let both = json!({"spec": {"predictor": {
            "xgboost": {"storageUri": "s3://b/new"},
            "model": {"modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/old", "protocolVersion": "v1"}}}});
        assert_eq!(
            with_defaults(both),
            json!({"spec": {"predictor": {"model": {
                "modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/new", "protocolVersion": "v1"}}}})
        );
    }

    #[test]
    fn what_is_given_stays() {
        let object = json!({"spec": {"predictor": {"model": {"modelFormat": {"name": "onnx"}, "protocolVersion": "v2"}}}});
        assert_eq!(with_defaults(object.clone()), object);
        for odd in [
            json!({}),
            json!({"spec": {"predictor": [1]}}),
            json!({"spec": {"predictor": {"xgboost": {}, "onnx": {}}}}),
        ] {
            assert_eq!(with_defaults(odd.clone()), odd);
        }
    }
}
