//! What controllers of custom resources have in common: keeping a child object as desired, and being the only one.

pub mod field;
pub mod lease;

use std::fmt::Debug;

use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Creates `desired`, or changes the fields in which the existing object differs from it. Fields that `desired` does not mention
/// (defaults, status, what users added) stay.
///
/// # Errors
/// What the API server answers; a lost race is tried again once.
pub async fn ensure<K>(api: &Api<K>, desired: &K) -> kube::Result<K>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = desired.meta().name.clone().unwrap_or_default();
    let wanted = serde_json::to_value(desired).map_err(kube::Error::SerdeError)?;
    let existing = match api.get_opt(&name).await? {
        Some(existing) => existing,
        None => match api.create(&PostParams::default(), desired).await {
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await?,
            created => return created,
        },
    };
    let found = serde_json::to_value(&existing).map_err(kube::Error::SerdeError)?;
    if contains(&found, &wanted) {
        return Ok(existing);
    }
    api.patch(&name, &PatchParams::default(), &Patch::Merge(wanted))
        .await
}

/// Whether every field of `wanted` is in `found` with the same value. Lists are compared item by item.
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            value.is_null()
                || found
                    .get(key)
                    .map_or_else(|| is_empty(value), |found| contains(found, value))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| contains(f, w))
        }
        (found, wanted) => found == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::contains;
    use serde_json::json;

    #[test]
    fn defaults_and_foreign_fields_are_no_difference() {
        let found =
            json!({"spec": {"replicas": 1, "ports": [{"port": 80, "protocol": "TCP"}]}, "status": {"x": 1}});
        assert!(contains(
            &found,
            &json!({"spec": {"replicas": 1, "ports": [{"port": 80}]}})
        ));
        assert!(contains(
            &found,
            &json!({"spec": {"selector": {}}, "status": null})
        ));
        assert!(!contains(&found, &json!({"spec": {"replicas": 0}})));
        assert!(!contains(&found, &json!({"spec": {"ports": []}})));
    }
}
