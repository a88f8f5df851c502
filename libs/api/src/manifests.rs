//! YAML manifests, embedded: the same files that the Helm chart ships.

use rust_embed::RustEmbed;
use serde_json::Value;

#[derive(RustEmbed)]
#[folder = "crds/"]
struct Crds;

#[derive(RustEmbed)]
#[folder = "rbac/"]
struct Rbac;

#[derive(RustEmbed)]
#[folder = "webhooks/"]
struct Webhooks;

/// A manifest that is not YAML; a fault of the build.
#[derive(Debug, thiserror::Error)]
#[error("manifest {file} is not valid YAML: {source}")]
pub struct ManifestError {
    file: String,
    source: Box<serde_saphyr::Error>,
}

/// All CustomResourceDefinitions.
///
/// # Errors
/// If an embedded file is not YAML.
pub fn crds() -> Result<Vec<Value>, ManifestError> {
    load::<Crds>()
}

/// Roles and bindings of the services.
///
/// # Errors
/// If an embedded file is not YAML.
pub fn rbac() -> Result<Vec<Value>, ManifestError> {
    load::<Rbac>()
}

/// Mutating and validating webhook configurations.
///
/// # Errors
/// If an embedded file is not YAML.
pub fn webhooks() -> Result<Vec<Value>, ManifestError> {
    load::<Webhooks>()
}

fn load<T: RustEmbed>() -> Result<Vec<Value>, ManifestError> {
    let mut documents = Vec::new();
    let mut names: Vec<_> = T::iter().filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    for name in names {
        let Some(file) = T::get(&name) else { continue };
        let text = String::from_utf8_lossy(&file.data);
        let parsed: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|source| ManifestError {
            file: name.to_string(),
            source: Box::new(source),
        })?;
        documents.extend(parsed.into_iter().filter(|d| !d.is_null()));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_manifest_is_an_object_with_kind_and_name() {
        let all = [
            super::crds().unwrap(),
            super::rbac().unwrap(),
            super::webhooks().unwrap(),
        ]
        .concat();
        for document in all {
            assert!(document["kind"].is_string(), "{document}");
            assert!(document["metadata"]["name"].is_string(), "{document}");
        }
    }
}
