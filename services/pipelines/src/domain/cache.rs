//! The key under which a task's result can be taken again.
//!
//! Upstream's key has the *names* of input artifacts, so that a task whose input changed under the same name
//! is wrongly skipped, and leaves out the environment. This one has what the artifacts contain (their digest,
//! or their URI where no digest is known), the environment and what the platform adds; so a hit means: the same
//! program on the same inputs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::Digest as _;

use super::ir::{Component, Container};
use super::resolve::Inputs;

/// The key of one task. Entries are looked up by (namespace, pipeline name, key).
pub fn fingerprint(
    component: &Component,
    container: &Container,
    image: &str,
    inputs: &Inputs,
    platform: Option<&Value>,
) -> String {
    let artifacts: BTreeMap<&str, Vec<&str>> = inputs
        .artifacts
        .iter()
        .map(|(name, list)| {
            let contents = list
                .iter()
                .map(|a| a.digest.as_deref().unwrap_or(&a.uri))
                .collect();
            (name.as_str(), contents)
        })
        .collect();
    let outputs: BTreeMap<&str, &str> = component
        .output_definitions
        .artifacts
        .iter()
        .map(|(name, output)| (name.as_str(), output.artifact_type.schema_title.as_str()))
        .collect();
    let output_parameters: BTreeMap<&str, &str> = component
        .output_definitions
        .parameters
        .iter()
        .map(|(name, output)| (name.as_str(), output.parameter_type.as_str()))
        .collect();
    let env: Vec<(&str, &str)> = container
        .env
        .iter()
        .map(|e| (e.name.as_str(), e.value.as_str()))
        .collect();
    // Everything here is ordered; at worst, a differently ordered object inside a value misses a former result.
    digest(&json!({
        "artifacts": artifacts,
        "parameters": inputs.parameters,
        "outputs": outputs,
        "output_parameters": output_parameters,
        "image": image,
        "command": container.command,
        "args": container.args,
        "env": env,
        "platform": platform,
    }))
}

/// The key of a task whose author chose one.
pub fn chosen(component: &str, key: &str) -> String {
    digest(&json!({"component": component, "key": key}))
}

fn digest(value: &Value) -> String {
    hex::encode(sha2::Sha256::digest(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::ir::EnvVar;
    use super::super::run::Artifact;
    use super::*;

    fn key(change: impl Fn(&mut Container, &mut Inputs)) -> String {
        let mut container = Container {
            image: "i".into(),
            command: vec!["c".into()],
            ..Default::default()
        };
        let mut inputs = Inputs::default();
        inputs.parameters.insert("x".into(), json!(1));
        let artifact = Artifact {
            uri: "s3://b/1".into(),
            digest: Some("sha256:aa".into()),
            ..Default::default()
        };
        inputs.artifacts.insert("data".into(), vec![artifact]);
        change(&mut container, &mut inputs);
        fingerprint(&Component::default(), &container, &container.image, &inputs, None)
    }

    #[test]
    fn what_changes_the_result_changes_the_key() {
        let same = key(|_, _| {});
        assert_eq!(same, key(|_, _| {}));
        assert_ne!(same, key(|c, _| c.args.push("a".into())));
        assert_ne!(
            same,
            key(|c, _| c.env.push(EnvVar {
                name: "A".into(),
                value: "b".into()
            }))
        );
        assert_ne!(same, key(|_, i| drop(i.parameters.insert("x".into(), json!(2)))));
        assert_ne!(
            same,
            key(|_, i| i.artifacts.get_mut("data").unwrap()[0].digest = Some("sha256:bb".into()))
        );
    }

    #[test]
    fn the_same_bytes_elsewhere_are_the_same_input() {
        assert_eq!(
            key(|_, _| {}),
            key(|_, i| i.artifacts.get_mut("data").unwrap()[0].uri = "s3://b/2".into())
        );
    }
}
