//! Where an experiment's trial template comes from.

use ferroflow_api::crd::tuning::ExperimentSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;

use crate::domain::template::Template;

/// The template of an experiment: its own, or that of a ConfigMap. `None` when it names neither.
///
/// # Errors
/// A text for people, when the ConfigMap cannot be read or has no such key.
pub async fn load(client: &Client, spec: &ExperimentSpec) -> Result<Option<Template>, String> {
    let Some(template) = &spec.trial_template else {
        return Ok(None);
    };
    if let Some(inline) = &template.trial_spec {
        return Ok(Some(Template::Inline(inline.clone())));
    }
    let Some(source) = &template.config_map else {
        return Ok(None);
    };
    let (namespace, name, path) = (
        &source.config_map_namespace,
        &source.config_map_name,
        &source.template_path,
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = maps.get(name).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    })?;
    let text = map.data.as_ref().and_then(|data| data.get(path));
    let text = text.ok_or_else(|| format!("configmap {namespace}/{name} has no key {path:?}"))?;
    Ok(Some(Template::Text(text.clone())))
}
