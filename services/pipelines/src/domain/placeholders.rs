//! Placeholders in commands, arguments, images and constants: `{{$.inputs.parameters['x']}}` and its kin,
//! `{"IfPresent": ..}` and `{"Concat": ..}`.
//!
//! `{{$}}`, the whole ExecutorInput, is left for the launcher, so that it travels once.

use serde_json::Value;

/// What placeholders can name.
pub struct Scope<'a> {
    /// `ml_pipelines.ExecutorInput` in its JSON form.
    pub executor_input: &'a Value,
    /// Facts of the run by name, such as `pipeline_job_uuid`.
    pub run: &'a dyn Fn(&str) -> Option<String>,
    /// Where a URI lies in the container's file system.
    pub local_path: &'a dyn Fn(&str) -> String,
}

/// Replaces the placeholders of one argument. The result is empty for an `IfPresent` whose input is not there
/// and that has no `Else`.
///
/// # Errors
/// A placeholder that names something which does not exist.
pub fn argument(text: &str, scope: &Scope<'_>) -> Result<Vec<String>, String> {
    if text.trim_start().starts_with('{')
        && (text.contains("\"IfPresent\"") || text.contains("\"Concat\""))
        && let Ok(structure) = serde_json::from_str::<Value>(text)
    {
        return structured(&structure, scope);
    }
    render(text, scope).map(|text| vec![text])
}

fn structured(value: &Value, scope: &Scope<'_>) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => argument(text, scope),
        Value::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(structured(item, scope)?);
            }
            Ok(all)
        }
        Value::Object(fields) => {
            if let Some(parts) = fields.get("Concat") {
                return structured(parts, scope).map(|parts| vec![parts.concat()]);
            }
            let Some(choice) = fields.get("IfPresent") else {
                return render(&value.to_string(), scope).map(|text| vec![text]);
            };
            let name = choice
                .get("InputName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let inputs = &scope.executor_input["inputs"];
            let is_there = !inputs["parameterValues"][name].is_null() || !inputs["artifacts"][name].is_null();
            let branch = if is_there {
                choice.get("Then")
            } else {
                choice.get("Else")
            };
            branch.map_or_else(|| Ok(Vec::new()), |branch| structured(branch, scope))
        }
        other => Ok(vec![other.to_string()]),
    }
}

/// Replaces every `{{$.…}}` in a text.
///
/// # Errors
/// A placeholder that names something which does not exist.
pub fn render(text: &str, scope: &Scope<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{$.") {
        out.push_str(&rest[..start]);
        let Some(length) = rest[start..].find("}}") else {
            break;
        };
        let name = &rest[start + 4..start + length];
        match lookup(name, scope)? {
            Some(value) => out.push_str(&value),
            // Braces of the user's own text.
            None => out.push_str(&rest[start..start + length + 2]),
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(name: &str, scope: &Scope<'_>) -> Result<Option<String>, String> {
    let input = scope.executor_input;
    if let Some((key, tail)) = keyed(name, "inputs.parameters[") {
        if !tail.is_empty() {
            return Ok(None);
        }
        return match &input["inputs"]["parameterValues"][key] {
            Value::Null => Err(format!(
                "placeholder {{{{$.{name}}}}}: input parameter {key:?} has no value"
            )),
            Value::String(text) => Ok(Some(text.clone())),
            other => Ok(Some(other.to_string())),
        };
    }
    if let Some((key, tail)) = keyed(name, "outputs.parameters[") {
        return match input["outputs"]["parameters"][key]["outputFile"].as_str() {
            Some(file) if tail == ".output_file" => Ok(Some(file.to_owned())),
            _ => Err(format!(
                "placeholder {{{{$.{name}}}}}: no output parameter {key:?}"
            )),
        };
    }
    for side in ["inputs", "outputs"] {
        let Some((key, tail)) = keyed(name, &format!("{side}.artifacts[")) else {
            continue;
        };
        let artifact = &input[side]["artifacts"][key]["artifacts"][0];
        if artifact.is_null() {
            return Err(format!(
                "placeholder {{{{$.{name}}}}}: no artifact {key:?} among the {side}"
            ));
        }
        let uri = artifact["uri"].as_str().unwrap_or_default();
        return match tail {
            ".uri" => Ok(Some(uri.to_owned())),
            ".path" => Ok(Some((scope.local_path)(uri))),
            ".metadata" => Ok(Some(artifact["metadata"].to_string())),
            _ => match keyed(tail, ".metadata[") {
                Some((field, "")) => Ok(Some(match &artifact["metadata"][field] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })),
                _ => Ok(None),
            },
        };
    }
    if name == "outputs.output_file" {
        return Ok(input["outputs"]["outputFile"].as_str().map(str::to_owned));
    }
    if let Some(value) = name.strip_prefix("json_escape[1].") {
        return Ok(lookup(value, scope)?.map(|v| Value::String(v).to_string().trim_matches('"').to_owned()));
    }
    Ok((scope.run)(name))
}

/// Splits `prefix['key']tail` into key and tail.
fn keyed<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let rest = name.strip_prefix(prefix)?;
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (key, tail) = rest[1..].split_once(quote)?;
    Some((key, tail.strip_prefix(']')?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(text: &str) -> Result<Vec<String>, String> {
        let executor_input = json!({
            "inputs": {
                "parameterValues": {"text": "hi", "n": 3, "list": [1, "a"]},
                "artifacts": {"data": {"artifacts": [
                    {"name": "data", "uri": "s3://b/k", "metadata": {"rows": 4}}]}}
            },
            "outputs": {
                "parameters": {"out": {"outputFile": "/tmp/kfp/outputs/out"}},
                "artifacts": {"model": {"artifacts": [{"uri": "s3://b/m"}]}},
                "outputFile": "/s3/b/t/output_metadata.json"
            }
        });
        let scope = Scope {
            executor_input: &executor_input,
            run: &|name| (name == "pipeline_job_uuid").then(|| "r1".to_owned()),
            local_path: &|uri| uri.replacen("s3://", "/s3/", 1),
        };
        argument(text, &scope)
    }

    #[test]
    fn every_kind_of_placeholder() {
        for (text, want) in [
            ("{{$.inputs.parameters['text']}}!", "hi!"),
            (
                "{{$.inputs.parameters['n']}}{{$.inputs.parameters['list']}}",
                "3[1,\"a\"]",
            ),
            ("{{$.inputs.parameters[\"text\"]}}", "hi"),
            (
                "{{$.outputs.parameters['out'].output_file}}",
                "/tmp/kfp/outputs/out",
            ),
            ("{{$.inputs.artifacts['data'].uri}}", "s3://b/k"),
            ("{{$.inputs.artifacts['data'].path}}", "/s3/b/k"),
            ("{{$.inputs.artifacts['data'].metadata['rows']}}", "4"),
            ("{{$.outputs.artifacts['model'].path}}", "/s3/b/m"),
            ("{{$.outputs.output_file}}", "/s3/b/t/output_metadata.json"),
            ("{{$.pipeline_job_uuid}}", "r1"),
            ("{{$}}", "{{$}}"),
            ("{{$.unknown}} {{ jinja }}", "{{$.unknown}} {{ jinja }}"),
        ] {
            assert_eq!(run(text).unwrap(), [want], "{text}");
        }
    }

    #[test]
    fn if_present_and_concat_nest() {
        let then = r#"{"IfPresent": {"InputName": "text", "Then": ["--t", {"Concat": ["{{$.inputs.parameters['text']}}", "-x"]}]}}"#;
        assert_eq!(run(then).unwrap(), ["--t", "hi-x"]);
        assert!(
            run(&then.replace("\"text\", \"Then", "\"no\", \"Then"))
                .unwrap()
                .is_empty()
        );
        let otherwise = r#"{"IfPresent": {"InputName": "no", "Then": ["a"], "Else": ["b", "c"]}}"#;
        assert_eq!(run(otherwise).unwrap(), ["b", "c"]);
        assert_eq!(
            run(r#"{"a": "{{$.inputs.parameters['n']}}"}"#).unwrap(),
            [r#"{"a": "3"}"#]
        );
    }

    #[test]
    fn an_input_without_a_value_is_an_error() {
        assert_eq!(
            run("{{$.inputs.parameters['gone']}}").unwrap_err(),
            "placeholder {{$.inputs.parameters['gone']}}: input parameter \"gone\" has no value"
        );
    }
}
