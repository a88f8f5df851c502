//! A pipeline package: the PipelineSpec and, if any, the PlatformSpec, as clients submit and upload them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_kernel::{Error, Result};
use serde_json::{Map, Value, json};

use super::ir::{Component, Executor, PipelineSpec};
use super::validate;
use super::values::shorten;

/// A pipeline that was read and found valid.
#[derive(Debug)]
pub struct Package {
    /// The pipeline.
    pub spec: PipelineSpec,
    /// The JSON of the PipelineSpec as it came.
    pub spec_json: Value,
    /// The JSON of the PlatformSpec as it came.
    pub platform_json: Option<Value>,
    /// Tasks of each graph in an order in which every task comes after those it needs; the root's key is empty.
    order: BTreeMap<String, Vec<String>>,
}

impl Package {
    /// Reads what the API calls `pipeline_spec`: the spec itself, or `{"pipeline_spec": .., "platform_spec": ..}`.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field, the value and the remedy.
    pub fn from_json(document: &Value) -> Result<Arc<Self>> {
        let Some(fields) = document.as_object() else {
            return Err(not_a_spec(&format!("it is {}", shorten(&document.to_string()))));
        };
        match fields.get("pipeline_spec") {
            Some(spec) => Self::read(
                spec.clone(),
                fields.get("platform_spec").filter(|v| !v.is_null()).cloned(),
            ),
            None => Self::read(document.clone(), None),
        }
    }

    /// Reads the text of a package: JSON, or YAML with the PlatformSpec as a second document.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field, the value and the remedy.
    pub fn from_text(text: &str) -> Result<Arc<Self>> {
        // The SDK's YAML writer leaves `n` and `yes` apart as YAML 1.2 does: only true and false are booleans.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        let mut documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
            .map_err(|error| not_a_spec(&shorten(&error.to_string())))?;
        documents.retain(|document| !document.is_null());
        let mut documents = documents.into_iter();
        match (documents.next(), documents.next(), documents.next()) {
            (Some(spec), None, _) => Self::from_json(&spec),
            (Some(spec), Some(platform), None) => Self::read(spec, Some(platform)),
            (None, ..) => Err(not_a_spec("it is empty")),
            (_, _, Some(_)) => Err(not_a_spec("it has more than two YAML documents")),
        }
    }

    fn read(spec_json: Value, platform_json: Option<Value>) -> Result<Arc<Self>> {
        let Some(fields) = spec_json.as_object() else {
            return Err(not_a_spec(&format!("it is {}", shorten(&spec_json.to_string()))));
        };
        for field in ["pipelineInfo", "root", "schemaVersion"] {
            if !fields.contains_key(field) {
                return Err(not_a_spec(&format!("field {field} is missing")));
            }
        }
        if fields["schemaVersion"] != "2.1.0" {
            return Err(Error::field(
                "pipeline_spec.schemaVersion",
                format!(
                    "{} is not supported; compile with kfp 2.x, which writes \"2.1.0\"",
                    fields["schemaVersion"]
                ),
            ));
        }
        let spec: PipelineSpec =
            serde_json::from_value(spec_json.clone()).map_err(|error| not_a_spec(&error.to_string()))?;
        if let Some(platform) = &platform_json
            && !platform["platforms"].is_object()
        {
            return Err(Error::field(
                "platform_spec.platforms",
                "is missing or not an object; compile the pipeline again with kfp and kfp-kubernetes",
            ));
        }
        let order = validate::check(&spec)?;
        Ok(Arc::new(Self {
            spec,
            spec_json,
            platform_json,
            order,
        }))
    }

    /// What the API gives back as `pipeline_spec`.
    pub fn to_json(&self) -> Value {
        match &self.platform_json {
            None => self.spec_json.clone(),
            Some(platform) => json!({"pipeline_spec": self.spec_json, "platform_spec": platform}),
        }
    }

    /// The component of a name; the root's is empty.
    pub fn component(&self, name: &str) -> Option<&Component> {
        if name.is_empty() {
            Some(&self.spec.root)
        } else {
            self.spec.components.get(name)
        }
    }

    /// Tasks of the graph of a component, each after those it needs.
    pub fn order(&self, component: &str) -> &[String] {
        self.order.get(component).map_or(&[], Vec::as_slice)
    }

    /// The executor of a label.
    pub fn executor(&self, label: &str) -> Option<&Executor> {
        self.spec.deployment_spec.executors.get(label)
    }

    /// What the PlatformSpec says about an executor on Kubernetes (`KubernetesExecutorConfig`).
    pub fn kubernetes_config(&self, executor: &str) -> Option<&Map<String, Value>> {
        self.platform_json
            .as_ref()?
            .pointer("/platforms/kubernetes/deploymentSpec/executors")?
            .get(executor)?
            .as_object()
    }
}

fn not_a_spec(why: &str) -> Error {
    Error::field(
        "pipeline_spec",
        format!("not a PipelineSpec: {why}; submit what kfp.compiler.Compiler().compile() writes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pipeline_spec_is_refused_with_the_remedy() {
        for (text, want) in [
            (
                "",
                "pipeline_spec: not a PipelineSpec: it is empty; submit what kfp.compiler.Compiler().compile() writes",
            ),
            (
                "hello",
                "pipeline_spec: not a PipelineSpec: it is \"hello\"; submit what kfp.compiler.Compiler().compile() writes",
            ),
            (
                "apiVersion: v1\nkind: Pod\n",
                "pipeline_spec: not a PipelineSpec: field pipelineInfo is missing; submit what kfp.compiler.Compiler().compile() writes",
            ),
            (
                "pipelineInfo: {name: a}\nroot: {dag: {tasks: {}}}\nschemaVersion: 2.0.0\n",
                "pipeline_spec.schemaVersion: \"2.0.0\" is not supported; compile with kfp 2.x, which writes \"2.1.0\"",
            ),
        ] {
            assert_eq!(Package::from_text(text).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn a_platform_spec_may_follow_or_be_wrapped() {
        let text = include_str!("../../tests/fixtures/platform.yaml");
        let package = Package::from_text(text).unwrap();
        assert!(
            package
                .kubernetes_config("exec-flip")
                .unwrap()
                .contains_key("secretAsEnv")
        );
        let again = Package::from_json(&package.to_json()).unwrap();
        assert_eq!(again.platform_json, package.platform_json);
    }
}
