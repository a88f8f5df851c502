//! From a template and a point of the search space to the resource that tries it.

use ferroflow_api::crd::tuning::{ParameterAssignment, TrialParameterSpec};
use serde_json::Value;

/// A template, as the experiment or a ConfigMap holds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// `spec.trialTemplate.trialSpec`: values go into its texts.
    Inline(Value),
    /// YAML or JSON text of a ConfigMap: values go in before it is parsed, so they may become numbers.
    Text(String),
}

/// A template that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name in the template stands for nothing.
    #[error("unable to find parameter: {reference} in parameter assignment {assignments}")]
    NoValue {
        /// What was looked for.
        reference: String,
        /// What there is.
        assignments: String,
    },
    /// The number of values is not the number of names.
    #[error(
        "number of TrialAssignment: {assignments} != number of nonMetaTrialParameters in TrialSpec: {parameters}"
    )]
    Count {
        /// Values.
        assignments: usize,
        /// Names.
        parameters: usize,
    },
    /// The text is no YAML.
    #[error("the template is no YAML: {0}")]
    Yaml(String),
    /// The result is no object.
    #[error("the template is not an object with apiVersion and kind")]
    NotAnObject,
}

/// How a name is written in a template.
#[must_use]
pub fn placeholder(name: &str) -> String {
    format!("${{trialParameters.{name}}}")
}

/// Names that the template uses, in order of appearance.
#[must_use]
pub fn placeholders(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${trialParameters.") {
        let inner = &rest[start + "${trialParameters.".len()..];
        let Some(end) = inner.find('}') else { break };
        let name = inner[..end].to_owned();
        if !names.contains(&name) {
            names.push(name);
        }
        rest = &inner[end..];
    }
    names
}

/// A reference to the trial itself instead of a parameter: `${trialSpec.Name}`, `${trialSpec.Labels[x]}` and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaReference {
    /// Name of the trial.
    Name,
    /// Namespace of the trial.
    Namespace,
    /// Kind of the resource.
    Kind,
    /// API version of the resource.
    ApiVersion,
    /// A label of the template.
    Label(String),
    /// An annotation of the template.
    Annotation(String),
}

/// Reads a reference; `None` when it names a parameter.
#[must_use]
pub fn meta_reference(reference: &str) -> Option<MetaReference> {
    let key = reference.strip_prefix("${trialSpec.")?.strip_suffix('}')?;
    let indexed = |word: &str| {
        Some(
            key.strip_prefix(word)?
                .strip_prefix('[')?
                .strip_suffix(']')?
                .to_owned(),
        )
    };
    match key {
        "Name" => Some(MetaReference::Name),
        "Namespace" => Some(MetaReference::Namespace),
        "Kind" => Some(MetaReference::Kind),
        "APIVersion" => Some(MetaReference::ApiVersion),
        _ => indexed("Labels")
            .map(MetaReference::Label)
            .or_else(|| indexed("Annotations").map(MetaReference::Annotation)),
    }
}

impl Template {
    /// The template as text, as it appears in messages.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Inline(value) => value.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// Puts values in the place of names.
    ///
    /// # Errors
    /// If the text is no YAML, or the result no object.
    pub fn substitute(&self, values: &[(String, String)]) -> Result<Value, TemplateError> {
        let rendered = match self {
            Self::Inline(value) => substitute(value, values),
            Self::Text(text) => serde_saphyr::from_str(&replace(text, values)).map_err(|error| {
                TemplateError::Yaml(error.to_string().lines().next().unwrap_or_default().to_owned())
            })?,
        };
        if rendered.is_object() {
            Ok(rendered)
        } else {
            Err(TemplateError::NotAnObject)
        }
    }

    /// The resource of one trial, with its name and namespace.
    ///
    /// # Errors
    /// If names and values do not fit, or see [`Template::substitute`].
    pub fn render(
        &self,
        parameters: &[TrialParameterSpec],
        assignments: &[ParameterAssignment],
        trial: &str,
        namespace: &str,
    ) -> Result<Value, TemplateError> {
        let own = parameters
            .iter()
            .filter(|p| meta_reference(&p.reference).is_none())
            .count();
        if own != assignments.len() {
            return Err(TemplateError::Count {
                assignments: assignments.len(),
                parameters: own,
            });
        }
        let plain = match self {
            Self::Inline(value) => value.clone(),
            Self::Text(_) => self.substitute(&[]).unwrap_or(Value::Null),
        };
        let missing = |reference: &str| TemplateError::NoValue {
            reference: reference.to_owned(),
            assignments: assignments
                .iter()
                .map(|a| format!("{}={}", a.name, a.value))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut values = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            let reference = &parameter.reference;
            let value = match meta_reference(reference) {
                None => assignments
                    .iter()
                    .find(|a| a.name == *reference)
                    .map(|a| a.value.clone()),
                Some(MetaReference::Name) => Some(trial.to_owned()),
                Some(MetaReference::Namespace) => Some(namespace.to_owned()),
                Some(MetaReference::Kind) => text_at(&plain, "/kind"),
                Some(MetaReference::ApiVersion) => text_at(&plain, "/apiVersion"),
                Some(MetaReference::Label(label)) => field(&plain, "labels", &label),
                Some(MetaReference::Annotation(annotation)) => field(&plain, "annotations", &annotation),
            };
            values.push((parameter.name.clone(), value.ok_or_else(|| missing(reference))?));
        }
        let mut resource = self.substitute(&values)?;
        let fields = resource.as_object_mut().ok_or(TemplateError::NotAnObject)?;
        let metadata = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        let metadata = metadata.as_object_mut().ok_or(TemplateError::NotAnObject)?;
        metadata.insert("name".to_owned(), Value::String(trial.to_owned()));
        metadata.insert("namespace".to_owned(), Value::String(namespace.to_owned()));
        Ok(resource)
    }
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

fn field(value: &Value, group: &str, key: &str) -> Option<String> {
    value
        .get("metadata")?
        .get(group)?
        .get(key)?
        .as_str()
        .map(str::to_owned)
}

fn replace(text: &str, values: &[(String, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&placeholder(name), value)
    })
}

fn substitute(value: &Value, values: &[(String, String)]) -> Value {
    match value {
        Value::String(text) => Value::String(replace(text, values)),
        Value::Array(items) => Value::Array(items.iter().map(|item| substitute(item, values)).collect()),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (replace(key, values), substitute(value, values)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameter(name: &str, reference: &str) -> TrialParameterSpec {
        TrialParameterSpec {
            name: name.into(),
            description: None,
            reference: reference.into(),
        }
    }

    fn assignment(name: &str, value: &str) -> ParameterAssignment {
        ParameterAssignment {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn values_go_into_texts_and_cannot_break_the_template() {
        let template = Template::Inline(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {"team": "a"}},
            "spec": {"args": ["--lr=${trialParameters.rate}", "${trialParameters.me}/${trialParameters.team}"]},
        }));
        let parameters = [
            parameter("rate", "lr"),
            parameter("me", "${trialSpec.Name}"),
            parameter("team", "${trialSpec.Labels[team]}"),
        ];
        let resource = template
            .render(&parameters, &[assignment("lr", "0.1\"}")], "e-1", "ns")
            .unwrap();
        assert_eq!(resource["spec"]["args"], json!(["--lr=0.1\"}", "e-1/a"]));
        assert_eq!(
            resource["metadata"],
            json!({"labels": {"team": "a"}, "name": "e-1", "namespace": "ns"})
        );
    }

    #[test]
    fn a_text_template_may_hold_numbers() {
        let text = "apiVersion: v1\nkind: X\nspec:\n  replicas: ${trialParameters.n}\n";
        let template = Template::Text(text.into());
        let resource = template
            .render(&[parameter("n", "n")], &[assignment("n", "3")], "t", "ns")
            .unwrap();
        assert_eq!(resource["spec"]["replicas"], 3);
        assert_eq!(placeholders(text), ["n"]);
    }

    #[test]
    fn names_and_values_must_fit() {
        let template = Template::Inline(json!({"kind": "Job"}));
        let error = template
            .render(&[parameter("a", "a")], &[], "t", "ns")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "number of TrialAssignment: 0 != number of nonMetaTrialParameters in TrialSpec: 1"
        );
        let error = template
            .render(&[parameter("a", "b")], &[assignment("a", "1")], "t", "ns")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to find parameter: b in parameter assignment a=1"
        );
    }
}
