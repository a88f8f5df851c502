//! Which runtime serves a model, by KServe's rules.

use ferroflow_api::crd::serving::{ModelSpec, ServingRuntimeSpec};
use std::cmp::Reverse;
use std::fmt;

/// Why there is no runtime, in KServe's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    RuntimeNotRecognized,
    RuntimeDisabled,
    NoSupportingRuntime,
    InvalidPredictorSpec,
    /// The model's storage cannot be prepared.
    ModelLoadFailed,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A predictor that cannot be run as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One word.
    pub reason: FailureReason,
    /// In words.
    pub message: String,
}

/// The runtime that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Its name.
    pub name: String,
    /// Whether it is a ClusterServingRuntime.
    pub cluster: bool,
    /// What it says.
    pub spec: ServingRuntimeSpec,
}

/// Chooses among the namespace's runtimes, then among the cluster's. Both lists are (name, age in seconds, spec).
pub fn select(
    model: &ModelSpec,
    namespaced: &[(String, i64, ServingRuntimeSpec)],
    cluster: &[(String, i64, ServingRuntimeSpec)],
) -> Result<Selected, Failure> {
    let fail = |reason, message: String| Err(Failure { reason, message });
    let protocol = model.protocol_version.as_deref().unwrap_or("v1");
    if let Some(wanted) = model.runtime.as_deref().filter(|name| !name.is_empty()) {
        let found = namespaced
            .iter()
            .find(|(name, ..)| name == wanted)
            .map(|found| (false, found));
        let found = found.or_else(|| {
            cluster
                .iter()
                .find(|(name, ..)| name == wanted)
                .map(|found| (true, found))
        });
        let Some((is_cluster, (name, _, spec))) = found else {
            return fail(
                FailureReason::RuntimeNotRecognized,
                format!("there is no ServingRuntime or ClusterServingRuntime named {wanted:?}"),
            );
        };
        if spec.disabled == Some(true) {
            return fail(
                FailureReason::RuntimeDisabled,
                format!("serving runtime {wanted:?} is disabled"),
            );
        }
        if !speaks(spec, protocol) {
            let text = format!("serving runtime {wanted:?} does not support protocol version {protocol:?}");
            return fail(FailureReason::NoSupportingRuntime, text);
        }
        if supports(model, spec, false).is_none() {
            let text = format!(
                "serving runtime {wanted:?} does not support model format {}",
                format_text(model)
            );
            return fail(FailureReason::NoSupportingRuntime, text);
        }
        return Ok(Selected {
            name: name.clone(),
            cluster: is_cluster,
            spec: spec.clone(),
        });
    }
    for (is_cluster, runtimes) in [(false, namespaced), (true, cluster)] {
        let mut fitting: Vec<_> = runtimes
            .iter()
            .filter(|(_, _, spec)| spec.disabled != Some(true) && spec.multi_model != Some(true))
            .filter(|(_, _, spec)| speaks(spec, protocol))
            .filter_map(|(name, age, spec)| Some((supports(model, spec, true)?, name, age, spec)))
            .collect();
        // The greatest priority, then the youngest, then the first name.
        fitting.sort_by_key(|(priority, name, age, _)| (Reverse(*priority), **age, (*name).clone()));
        if let Some((_, name, _, spec)) = fitting.first() {
            return Ok(Selected {
                name: (*name).clone(),
                cluster: is_cluster,
                spec: (*spec).clone(),
            });
        }
    }
    let text = format!(
        "no serving runtime supports model format {} with protocol version {protocol:?}; known formats: {}",
        format_text(model),
        known_formats(namespaced.iter().chain(cluster).map(|(_, _, spec)| spec)).join(", "),
    );
    fail(FailureReason::NoSupportingRuntime, text)
}

fn format_text(model: &ModelSpec) -> String {
    match &model.model_format.version {
        Some(version) => format!("{:?} version {version:?}", model.model_format.name),
        None => format!("{:?}", model.model_format.name),
    }
}

fn speaks(spec: &ServingRuntimeSpec, protocol: &str) -> bool {
    if spec.protocol_versions.is_empty() {
        return protocol == "v1";
    }
    spec.protocol_versions.iter().any(|known| known == protocol)
}

/// The priority with which a runtime takes the model, if it does.
fn supports(model: &ModelSpec, spec: &ServingRuntimeSpec, auto: bool) -> Option<i32> {
    let wanted = &model.model_format;
    let formats = spec.supported_model_formats.iter().filter(|format| {
        let version =
            format.version.is_none() || wanted.version.is_none() || format.version == wanted.version;
        format.name == wanted.name && version && (!auto || format.auto_select == Some(true))
    });
    formats.map(|format| format.priority.unwrap_or(0)).max()
}

/// Names of the formats that enabled runtimes take, sorted.
pub fn known_formats<'a>(runtimes: impl Iterator<Item = &'a ServingRuntimeSpec>) -> Vec<String> {
    let enabled = runtimes.filter(|spec| spec.disabled != Some(true) && spec.multi_model != Some(true));
    let mut names: Vec<String> = enabled
        .flat_map(|spec| &spec.supported_model_formats)
        .map(|format| format.name.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "callers write json! in place")]
    fn runtime(name: &str, age: i64, spec: serde_json::Value) -> (String, i64, ServingRuntimeSpec) {
        let mut whole = json!({"containers": [{"name": "kserve-container"}]});
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        (name.into(), age, serde_json::from_value(whole).unwrap())
    }

    fn model(value: serde_json::Value) -> ModelSpec {
        serde_json::from_value(value).unwrap()
    }

    fn xgboost(priority: i32) -> serde_json::Value {
        json!({"supportedModelFormats": [{"name": "xgboost", "autoSelect": true, "priority": priority}], "protocolVersions": ["v1", "v2"]})
    }

    #[test]
    fn priority_then_youth_then_name() {
        let cluster = [
            runtime("a", 9, xgboost(1)),
            runtime("c", 5, xgboost(2)),
            runtime("b", 5, xgboost(2)),
            runtime("d", 7, xgboost(2)),
        ];
        let wanted = model(json!({"modelFormat": {"name": "xgboost"}, "protocolVersion": "v2"}));
        assert_eq!(select(&wanted, &[], &cluster).unwrap().name, "b");
        let own = [runtime("mine", 1, xgboost(0))];
        let chosen = select(&wanted, &own, &cluster).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.cluster), ("mine", false));
    }

    #[test]
    fn failures_say_what_is_missing() {
        let mut disabled = xgboost(1);
        disabled["disabled"] = true.into();
        let cluster = [runtime("x", 1, xgboost(1)), runtime("off", 1, disabled)];
        for (wanted, reason, text) in [
            (
                json!({"modelFormat": {"name": "foo"}}),
                FailureReason::NoSupportingRuntime,
                r#"no serving runtime supports model format "foo" with protocol version "v1"; known formats: xgboost"#,
            ),
            (
                json!({"modelFormat": {"name": "xgboost"}, "protocolVersion": "grpc-v1"}),
                FailureReason::NoSupportingRuntime,
                r#"no serving runtime supports model format "xgboost" with protocol version "grpc-v1"; known formats: xgboost"#,
            ),
            (
                json!({"modelFormat": {"name": "xgboost"}, "runtime": "nope"}),
                FailureReason::RuntimeNotRecognized,
                r#"there is no ServingRuntime or ClusterServingRuntime named "nope""#,
            ),
            (
                json!({"modelFormat": {"name": "xgboost"}, "runtime": "off"}),
                FailureReason::RuntimeDisabled,
                r#"serving runtime "off" is disabled"#,
            ),
            (
                json!({"modelFormat": {"name": "onnx"}, "runtime": "x"}),
                FailureReason::NoSupportingRuntime,
                r#"serving runtime "x" does not support model format "onnx""#,
            ),
        ] {
            let failure = select(&model(wanted), &[], &cluster).unwrap_err();
            assert_eq!((failure.reason, failure.message.as_str()), (reason, text));
        }
    }
}
