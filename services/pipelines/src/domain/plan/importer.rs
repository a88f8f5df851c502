//! Importer tasks: an artifact that exists already.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::graph::Unit;
use super::{Planner, TaskView};
use crate::domain::ir::Importer;
use crate::domain::placeholders::{self, Scope};
use crate::domain::resolve::{Inputs, Upstream, local_path, typed_constant};
use crate::domain::run::{Artifact, Outputs, TaskState};
use crate::domain::step::run_fact;
use crate::domain::values::normalise;

impl Planner<'_> {
    pub(super) fn importer(
        &mut self,
        view: TaskView,
        unit: &Unit<'_, '_>,
        importer: &Importer,
        inputs: &Inputs,
    ) -> Upstream {
        if importer.download_to_workspace {
            let why = "importer: download_to_workspace is not implemented yet; see docs/status.md";
            return self.push(view, TaskState::Failed, Some(why.to_owned()));
        }
        let uri = importer
            .artifact_uri
            .runtime_parameter
            .as_ref()
            .and_then(|name| inputs.parameters.get(name).cloned())
            .or_else(|| importer.artifact_uri.constant.clone())
            .or_else(|| importer.artifact_uri.constant_value.as_ref().map(typed_constant));
        let executor_input = serde_json::json!({"inputs": {"parameterValues": inputs.parameters}});
        let (run, path) = (self.run, view.path.clone());
        let fact = |name: &str| run_fact(run, &path, name);
        let scope = Scope {
            executor_input: &executor_input,
            run: &fact,
            local_path: &local_path,
        };
        let made = || -> Result<Artifact, String> {
            let uri = uri.as_ref().and_then(Value::as_str).filter(|uri| !uri.is_empty());
            let uri = uri.ok_or("importer: artifact_uri has no value; pass the URI of the artifact")?;
            let metadata = importer
                .metadata
                .as_ref()
                .map(|m| placed(m, &scope))
                .transpose()?;
            Ok(Artifact {
                name: "artifact".to_owned(),
                uri: placeholders::render(uri, &scope)?,
                schema_title: importer.type_schema.schema_title.clone(),
                schema_version: importer.type_schema.schema_version.clone(),
                metadata: metadata.and_then(|m| m.as_object().cloned()).unwrap_or_default(),
                digest: None,
                size: None,
            })
        };
        if self.run.terminate {
            return self.push(view, TaskState::Canceled, None);
        }
        match made() {
            Ok(artifact) => {
                let name = unit.component.output_definitions.artifacts.keys().next();
                let name = name.map_or("artifact", String::as_str).to_owned();
                let outputs = Outputs {
                    artifacts: BTreeMap::from([(name, vec![artifact])]),
                    ..Outputs::default()
                };
                let view = TaskView {
                    outputs: Arc::new(outputs),
                    ..view
                };
                self.push(view, TaskState::Succeeded, None)
            }
            Err(why) => self.push(view, TaskState::Failed, Some(why)),
        }
    }
}

/// Placeholders in metadata, at any depth.
fn placed(value: &Value, scope: &Scope<'_>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(placeholders::render(text, scope)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|i| placed(i, scope)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut placed_fields = Map::new();
            for (key, value) in fields {
                let key = placeholders::render(key, scope)?;
                placed_fields.insert(key, placed(value, scope)?);
            }
            Value::Object(placed_fields)
        }
        other => normalise(other.clone()),
    })
}
