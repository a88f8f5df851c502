//! What the command gave: the file that the SDK writes (`ml_pipelines.ExecutorOutput`), and the files of output
//! parameters of components that know no SDK.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};

use ferroflow_api::step::OutcomeArtifact;

/// An output artifact as it is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Produced {
    /// Name of the output.
    pub output: String,
    /// What is recorded.
    pub artifact: OutcomeArtifact,
    /// Where the command wrote it, if anywhere.
    pub path: PathBuf,
}

/// Reads the file that the SDK writes; empty when the command wrote none.
///
/// # Errors
/// If it is there and no JSON object.
pub fn executor_output(file: &Path) -> Result<Map<String, Value>, String> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(format!("reading {}: {error}", file.display())),
    };
    serde_json::from_slice(&text)
        .map_err(|error| format!("{} is no executor output: {error}", file.display()))
}

/// The output parameters: from the SDK's file, else from the parameter's own file.
///
/// # Errors
/// A parameter that was not given, or whose text is not of its type.
pub fn parameters(
    executor_input: &Value,
    executor_output: &Map<String, Value>,
    types: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, String> {
    let mut all = BTreeMap::new();
    for (name, declared) in types {
        let given = executor_output
            .get("parameterValues")
            .or_else(|| executor_output.get("parameter_values"));
        if let Some(value) = given.and_then(|values| values.get(name)) {
            all.insert(name.clone(), value.clone());
            continue;
        }
        let file = executor_input["outputs"]["parameters"][name]["outputFile"]
            .as_str()
            .unwrap_or_default();
        let text = fs::read_to_string(file)
            .map_err(|error| format!("output parameter {name:?}: {file} cannot be read: {error}"))?;
        let value = parse(&text, declared).map_err(|error| format!("output parameter {name:?}: {error}"))?;
        all.insert(name.clone(), value);
    }
    Ok(all)
}

/// Reads the text of a parameter's file by the parameter's type.
///
/// # Errors
/// A text that says what was expected.
pub fn parse(text: &str, declared: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let wrong = |what: &str| {
        format!(
            "expected {what}, got {:?}",
            trimmed.chars().take(80).collect::<String>()
        )
    };
    match declared {
        "NUMBER_INTEGER" => trimmed
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| wrong("an integer")),
        "NUMBER_DOUBLE" => trimmed
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| wrong("a finite number")),
        "BOOLEAN" => match trimmed.to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(wrong("true or false")),
        },
        "LIST" => serde_json::from_str(trimmed)
            .ok()
            .filter(Value::is_array)
            .ok_or_else(|| wrong("a JSON list")),
        "STRUCT" => serde_json::from_str(trimmed)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| wrong("a JSON object")),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// The output artifacts: what was planned, with what the command says about them laid over.
pub fn artifacts(executor_input: &Value, executor_output: &Map<String, Value>) -> Vec<Produced> {
    let mut all = Vec::new();
    let planned = executor_input["outputs"]["artifacts"].as_object();
    for (output, list) in planned.into_iter().flatten() {
        let said = executor_output
            .get("artifacts")
            .and_then(|a| a.get(output)?.get("artifacts")?.as_array());
        let Some(first) = list["artifacts"].get(0) else {
            continue;
        };
        let count = said.map_or(1, |said| said.len().max(1));
        for index in 0..count {
            let said = said.and_then(|said| said.get(index)).unwrap_or(&Value::Null);
            all.push(produced(output, first, said));
        }
    }
    all
}

fn produced(output: &str, planned: &Value, said: &Value) -> Produced {
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let uri = text(&said["uri"])
        .or_else(|| text(&planned["uri"]))
        .unwrap_or_default();
    let mut metadata = planned["metadata"].as_object().cloned().unwrap_or_default();
    if let Some(more) = said["metadata"].as_object() {
        metadata.extend(more.clone());
    }
    let kind = if said["type"].is_object() {
        &said["type"]
    } else {
        &planned["type"]
    };
    let custom = text(&said["custom_path"]).or_else(|| text(&said["customPath"]));
    let path = custom.map_or_else(|| crate::store::local_path(&uri), PathBuf::from);
    let artifact = OutcomeArtifact {
        name: text(&said["name"])
            .or_else(|| text(&planned["name"]))
            .unwrap_or_else(|| output.to_owned()),
        uri,
        schema_title: text(&kind["schemaTitle"]).unwrap_or_default(),
        schema_version: text(&kind["schemaVersion"]).unwrap_or_default(),
        metadata,
        digest: None,
        size: None,
    };
    Produced {
        output: output.to_owned(),
        artifact,
        path,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_read_by_type() {
        assert_eq!(parse(" 7\n", "NUMBER_INTEGER").unwrap(), json!(7));
        assert_eq!(parse("True", "BOOLEAN").unwrap(), json!(true));
        assert_eq!(parse("[1]", "LIST").unwrap(), json!([1]));
        assert_eq!(parse("a\n", "STRING").unwrap(), json!("a\n"));
        assert_eq!(
            parse("{}", "LIST").unwrap_err(),
            "expected a JSON list, got \"{}\""
        );
        assert!(parse("nan", "NUMBER_DOUBLE").is_err());
    }

    #[test]
    fn parameters_come_from_the_sdk_or_from_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b");
        fs::write(&file, "5").unwrap();
        let input = json!({"outputs": {"parameters": {"b": {"outputFile": file}, "c": {"outputFile": "/nowhere/c"}}}});
        let said = json!({"parameterValues": {"a": [1]}})
            .as_object()
            .unwrap()
            .clone();
        let types = |names: &[&str]| {
            names
                .iter()
                .map(|n| ((*n).to_owned(), "NUMBER_INTEGER".to_owned()))
                .collect()
        };
        let all = parameters(&input, &said, &types(&["a", "b"])).unwrap();
        assert_eq!(
            all,
            BTreeMap::from([("a".into(), json!([1])), ("b".into(), json!(5))])
        );
        let error = parameters(&input, &said, &types(&["c"])).unwrap_err();
        assert!(
            error.starts_with("output parameter \"c\": /nowhere/c cannot be read"),
            "{error}"
        );
    }

    #[test]
    fn what_the_command_says_about_an_artifact_is_laid_over() {
        let input = json!({"outputs": {"artifacts": {
            "model": {"artifacts": [{"name": "model", "uri": "s3://b/m", "metadata": {"a": 1, "b": 1},
                "type": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}]},
            "other": {"artifacts": [{"name": "other", "uri": "s3://b/o"}]}}}});
        let said = json!({"artifacts": {"model": {"artifacts": [
            {"name": "", "uri": "s3://b/elsewhere", "metadata": {"b": 2}, "custom_path": "/tmp/m"}]}}});
        let all = artifacts(&input, said.as_object().unwrap());
        assert_eq!(all[0].artifact.uri, "s3://b/elsewhere");
        assert_eq!(all[0].artifact.name, "model");
        assert_eq!(all[0].path, Path::new("/tmp/m"));
        assert_eq!(
            Value::Object(all[0].artifact.metadata.clone()),
            json!({"a": 1, "b": 2})
        );
        assert_eq!(all[1].path, Path::new("/s3/b/o"));
    }
}
