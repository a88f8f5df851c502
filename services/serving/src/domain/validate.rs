//! What the validating webhook refuses.

use super::legacy::LEGACY_FORMATS;
use super::source;
use ferroflow_api::crd::serving::{InferenceService, PredictorSpec};

/// Longest name: the Deployment adds `-predictor` and a Pod more, and a Service's name is a DNS label of 63.
const MAX_NAME: usize = 63 - "-predictor".len();

/// Checks an InferenceService after defaulting. `formats` are those that the namespace's runtimes take; `None` when they
/// could not be listed. The error names the field, the value and what would do.
pub fn validate(service: &InferenceService, formats: Option<&[String]>) -> Result<(), String> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    valid_name(name)?;
    for (field, given) in [
        ("transformer", &service.spec.transformer),
        ("explainer", &service.spec.explainer),
    ] {
        if given.as_ref().is_some_and(|given| !given.is_null()) {
            return Err(format!(
                "spec.{field}: components other than the predictor are not supported yet; remove it"
            ));
        }
    }
    if service.spec.rest.contains_key("canary") {
        return Err("spec.canary: canaries are not supported yet; remove it".into());
    }
    predictor(&service.spec.predictor, formats)
}

fn valid_name(name: &str) -> Result<(), String> {
    let letters = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !letters || !first || name.ends_with('-') {
        return Err(format!(
            "the InferenceService \"{name}\" is invalid: a InferenceService name must consist of lower case alphanumeric characters or '-', \
             and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used for validation is \
             '[a-z]([-a-z0-9]*[a-z0-9])?')"
        ));
    }
    if name.len() > MAX_NAME {
        return Err(format!(
            "metadata.name: {name:?} has {} characters, at most {MAX_NAME} leave room for \"-predictor\"",
            name.len()
        ));
    }
    Ok(())
}

fn predictor(predictor: &PredictorSpec, formats: Option<&[String]>) -> Result<(), String> {
    let mut ways: Vec<&str> = LEGACY_FORMATS
        .into_iter()
        .filter(|format| predictor.rest.get(*format).is_some_and(|spec| !spec.is_null()))
        .collect();
    if predictor.model.is_some() {
        ways.push("model");
    } else if !predictor.containers.is_empty() {
        ways.push("containers");
    }
    if ways.len() != 1 {
        let found = if ways.is_empty() {
            "none".to_owned()
        } else {
            ways.join(", ")
        };
        return Err(format!(
            "exactly one of [model, containers, {}] must be specified in spec.predictor, found {found}",
            LEGACY_FORMATS.join(", ")
        ));
    }
    let (least, most) = (
        predictor.min_replicas.unwrap_or(1),
        predictor.max_replicas.unwrap_or(0),
    );
    if least < 0 {
        return Err("'MinReplicas' cannot be less than 0".into());
    }
    if most < 0 {
        return Err("'MaxReplicas' cannot be less than 0".into());
    }
    if most != 0 && least > most {
        return Err("'MinReplicas' cannot be greater than MaxReplicas".into());
    }
    if predictor.container_concurrency.is_some_and(|limit| limit < 0) {
        return Err("parallelism cannot be less than 0".into());
    }
    if predictor.rest.contains_key("workerSpec") {
        return Err(
            "spec.predictor.workerSpec: several nodes per replica are not supported yet; remove it".into(),
        );
    }
    let Some(model) = &predictor.model else {
        return Ok(());
    };
    if let Some(protocol) = &model.protocol_version {
        let known = ["v1", "v2", "grpc-v1", "grpc-v2"];
        if !known.contains(&protocol.as_str()) {
            return Err(format!(
                "invalid protocol {protocol}. Must be one of [{}]",
                known.join(", ")
            ));
        }
    }
    if let Some(uri) = &model.storage_uri {
        source(uri)?;
    }
    if model.storage.is_some() {
        return Err(
            "spec.predictor.model.storage: Secrets by key are not supported yet; use storageUri".into(),
        );
    }
    let format = &model.model_format.name;
    if format.is_empty() {
        return Err("spec.predictor.model.modelFormat.name: Required value".into());
    }
    // A named runtime may still come; then the status tells.
    let named = model
        .runtime
        .as_deref()
        .is_some_and(|runtime| !runtime.is_empty());
    match formats {
        Some(formats) if !named && !formats.contains(format) => Err(format!(
            "spec.predictor.model.modelFormat.name: Unsupported value: {format:?}: no serving runtime takes it; known formats: {}; \
             or add a ServingRuntime",
            formats.join(", ")
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn check(name: &str, spec: Value) -> Result<(), String> {
        let object = json!({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": name}, "spec": spec});
        let service: InferenceService = serde_json::from_value(object).unwrap();
        validate(
            &service,
            Some(&["onnx".into(), "sklearn".into(), "xgboost".into()]),
        )
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn model(model: Value) -> Value {
        json!({"predictor": {"model": model}})
    }

    #[test]
    fn good_ones_pass() {
        let spec = model(
            json!({"modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/m", "protocolVersion": "v2"}),
        );
        assert_eq!(check("digits", spec), Ok(()));
        assert_eq!(
            check(
                "own",
                json!({"predictor": {"containers": [{"name": "kserve-container", "image": "x"}]}})
            ),
            Ok(())
        );
        assert_eq!(
            check(
                "later",
                model(json!({"modelFormat": {"name": "foo"}, "runtime": "mine"}))
            ),
            Ok(())
        );
    }

    #[test]
    fn bad_ones_are_told_the_field() {
        let good = || model(json!({"modelFormat": {"name": "xgboost"}}));
        let ways = "exactly one of [model, containers, sklearn, xgboost, tensorflow, pytorch, triton, onnx, huggingface, pmml, lightgbm, paddle] must be specified in spec.predictor, found ";
        for (name, spec, text) in [
            ("a", model(json!({"modelFormat": {"name": "foo"}})),
             "spec.predictor.model.modelFormat.name: Unsupported value: \"foo\": no serving runtime takes it; known formats: onnx, sklearn, xgboost; or add a ServingRuntime".to_owned()),
            ("a", json!({"predictor": {}}), format!("{ways}none")),
            ("a", json!({"predictor": {"xgboost": {}, "model": {"modelFormat": {"name": "xgboost"}}}}), format!("{ways}xgboost, model")),
            ("a", json!({"predictor": {"minReplicas": 3, "maxReplicas": 1, "model": {"modelFormat": {"name": "onnx"}}}}),
             "'MinReplicas' cannot be greater than MaxReplicas".into()),
            ("a", model(json!({"modelFormat": {"name": "xgboost"}, "protocolVersion": "v3"})),
             "invalid protocol v3. Must be one of [v1, v2, grpc-v1, grpc-v2]".into()),
            ("a", json!({"predictor": {"model": {"modelFormat": {"name": "onnx"}}}, "transformer": {"containers": []}}),
             "spec.transformer: components other than the predictor are not supported yet; remove it".into()),
            ("1a", good(), "the InferenceService \"1a\" is invalid: a InferenceService name must consist of lower case alphanumeric characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".into()),
        ] {
            assert_eq!(check(name, spec).unwrap_err(), text);
        }
        assert!(
            check(&"a".repeat(60), good())
                .unwrap_err()
                .contains("has 60 characters, at most 53")
        );
        assert!(
            check(
                "a",
                model(json!({"modelFormat": {"name": "onnx"}, "storageUri": "ftp://x/y"}))
            )
            .unwrap_err()
            .contains("[ftp://x/y] is not supported")
        );
    }
}
