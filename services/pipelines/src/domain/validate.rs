//! Checks of a PipelineSpec before it is stored or run: every name it uses exists, no task waits for itself,
//! every required input is given, and nothing in it is unknown to the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_kernel::{Code, Error, Result};
use serde_json::Value;

use super::condition::Condition;
use super::ir::{Component, Dag, PipelineSpec, Task};
use super::values::{check_argument, parse_duration};

/// Checks a pipeline and gives, per component with a graph, its tasks in an order in which each comes after
/// those it needs (the root's key is empty).
///
/// # Errors
/// `InvalidArgument` or `Unimplemented` that names the task, the value and the remedy.
pub fn check(spec: &PipelineSpec) -> Result<BTreeMap<String, Vec<String>>> {
    if spec.pipeline_info.name.is_empty() {
        return Err(Error::field(
            "pipelineInfo.name",
            "is empty; give the pipeline a name",
        ));
    }
    if spec.root.dag.is_none() {
        return Err(Error::field(
            "root.dag",
            "is missing; a pipeline has tasks, compile it again with kfp",
        ));
    }
    let mut checker = Checker {
        spec,
        order: BTreeMap::new(),
        stack: Vec::new(),
    };
    checker.component("", &spec.root)?;
    Ok(checker.order)
}

/// Checks the parameters of a run against the pipeline's inputs and gives all of them, with defaults filled in.
///
/// # Errors
/// `InvalidArgument` for a missing, an extra or a wrongly typed parameter.
pub fn arguments(spec: &PipelineSpec, given: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let declared = &spec.root.input_definitions.parameters;
    if let Some(extra) = given.keys().find(|name| !declared.contains_key(*name)) {
        let known = declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {known}")
        };
        return Err(Error::field(
            format!("runtime_config.parameters.{extra}"),
            format!(
                "pipeline {:?} has no such parameter; {known}",
                spec.pipeline_info.name
            ),
        ));
    }
    let mut all = BTreeMap::new();
    for (name, input) in declared {
        let field = format!("runtime_config.parameters.{name}");
        match given.get(name) {
            Some(value) => {
                let value = check_argument(&field, value, input)?;
                if !value.is_null() {
                    all.insert(name.clone(), value);
                }
            }
            None => match &input.default_value {
                Some(default) => {
                    all.insert(name.clone(), super::values::normalise(default.clone()));
                }
                None if input.is_optional => {}
                None => {
                    return Err(Error::field(
                        field,
                        format!(
                            "is missing and has no default; pipeline {:?} needs a {}",
                            spec.pipeline_info.name, input.parameter_type
                        ),
                    ));
                }
            },
        }
    }
    if let Some((name, _)) = spec
        .root
        .input_definitions
        .artifacts
        .iter()
        .find(|(_, a)| !a.is_optional)
    {
        return Err(Error::field(
            format!("root.inputDefinitions.artifacts.{name}"),
            "a pipeline that is run on its own cannot take an artifact; read it with dsl.importer",
        ));
    }
    Ok(all)
}

struct Checker<'a> {
    spec: &'a PipelineSpec,
    order: BTreeMap<String, Vec<String>>,
    stack: Vec<&'a str>,
}

impl<'a> Checker<'a> {
    fn component(&mut self, name: &'a str, component: &'a Component) -> Result<()> {
        if self.stack.contains(&name) {
            let cycle = [&self.stack[..], &[name]].concat().join(" -> ");
            return Err(Error::field(
                format!("components.{name}"),
                format!("uses itself ({cycle}); remove the recursion"),
            ));
        }
        if self.order.contains_key(name) {
            return Ok(());
        }
        let Some(dag) = &component.dag else {
            return self.executor(name, component);
        };
        self.stack.push(name);
        let place = if name.is_empty() {
            "root".to_owned()
        } else {
            format!("components.{name}")
        };
        let order = sorted(&place, dag)?;
        for (key, task) in &dag.tasks {
            if key.is_empty() || key.contains('/') {
                return Err(Error::field(
                    format!("{place}.dag.tasks"),
                    format!("{key:?} is no name for a task; use letters, digits and dashes"),
                ));
            }
            self.task(&place, component, dag, key, task)?;
        }
        self.outputs(&place, dag)?;
        self.order.insert(name.to_owned(), order);
        self.stack.pop();
        Ok(())
    }

    fn executor(&self, name: &str, component: &Component) -> Result<()> {
        let field = format!("components.{name}.executorLabel");
        let Some(label) = &component.executor_label else {
            return Err(Error::field(
                format!("components.{name}"),
                "has neither a dag nor an executorLabel; compile the pipeline again with kfp",
            ));
        };
        let Some(executor) = self.spec.deployment_spec.executors.get(label) else {
            return Err(Error::field(
                field,
                format!(
                    "no executor {label:?} in deploymentSpec.executors; compile the pipeline again with kfp"
                ),
            ));
        };
        if executor.resolver.is_some() || executor.custom_job.is_some() {
            return Err(Error::new(
                Code::Unimplemented,
                format!(
                    "{field}: executor {label:?} is a resolver or a custom job, which only Vertex AI runs; use a container component"
                ),
            ));
        }
        // kfp-kubernetes compiles CreatePVC and DeletePVC to images that only Argo's driver understands
        if let Some(container) = &executor.container
            && let Some(what) = container.image.strip_prefix("argostub/")
        {
            return Err(Error::new(
                Code::Unimplemented,
                format!(
                    "{field}: {what} of kfp-kubernetes is not implemented yet; make the claim with kubectl and use mount_pvc, or pass files as artifacts"
                ),
            ));
        }
        match (&executor.container, &executor.importer) {
            (Some(container), None) if container.image.is_empty() => Err(Error::field(
                format!("deploymentSpec.executors.{label}.container.image"),
                "is empty; give the component an image",
            )),
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(Error::field(
                format!("deploymentSpec.executors.{label}"),
                "must have exactly one of container and importer; compile the pipeline again with kfp",
            )),
        }
    }

    fn task(
        &mut self,
        place: &str,
        parent: &Component,
        dag: &'a Dag,
        key: &str,
        task: &'a Task,
    ) -> Result<()> {
        let field = format!("{place}.dag.tasks.{key}");
        let name = &task.component_ref.name;
        let Some(component) = self.spec.components.get(name) else {
            let known = self
                .spec
                .components
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::field(
                format!("{field}.componentRef.name"),
                format!("no component {name:?}; known are {known}"),
            ));
        };
        let mut optional: BTreeSet<&str> = BTreeSet::new();
        if let Some(iterator) = &task.parameter_iterator {
            optional.insert(&iterator.item_input);
            self.parameter_loop(&field, task)?;
        }
        if let Some(iterator) = &task.artifact_iterator {
            optional.insert(&iterator.item_input);
            if !task.inputs.artifacts.contains_key(&iterator.items.input_artifact) {
                return Err(Error::field(
                    format!("{field}.artifactIterator.items.inputArtifact"),
                    format!(
                        "the task has no input artifact {:?}",
                        iterator.items.input_artifact
                    ),
                ));
            }
        }
        for (input, declared) in &component.input_definitions.parameters {
            let given = task.inputs.parameters.contains_key(input);
            if !given
                && !declared.is_optional
                && declared.default_value.is_none()
                && !optional.contains(input.as_str())
            {
                return Err(Error::field(
                    format!("{field}.inputs.parameters.{input}"),
                    format!(
                        "is missing; component {name:?} needs a {}",
                        declared.parameter_type
                    ),
                ));
            }
        }
        for (input, declared) in &component.input_definitions.artifacts {
            let given = task.inputs.artifacts.contains_key(input);
            if !given && !declared.is_optional && !optional.contains(input.as_str()) {
                return Err(Error::field(
                    format!("{field}.inputs.artifacts.{input}"),
                    format!(
                        "is missing; component {name:?} needs a {}",
                        declared.artifact_type.schema_title
                    ),
                ));
            }
        }
        self.sources(&field, parent, dag, task)?;
        if !task.trigger_policy.condition.is_empty() {
            let condition_field = format!("{field}.triggerPolicy.condition");
            let condition = Condition::parse(&task.trigger_policy.condition)
                .map_err(|error| Error::field(&condition_field, error))?;
            if let Some(input) = condition
                .inputs()
                .into_iter()
                .find(|i| !task.inputs.parameters.contains_key(*i))
            {
                return Err(Error::field(
                    condition_field,
                    format!("reads input {input:?}, which the task does not have"),
                ));
            }
        }
        if let Some(retry) = &task.retry_policy {
            for (part, text) in [
                ("backoffDuration", &retry.backoff_duration),
                ("backoffMaxDuration", &retry.backoff_max_duration),
            ] {
                if !text.is_empty() {
                    parse_duration(text)
                        .map_err(|error| Error::field(format!("{field}.retryPolicy.{part}"), error))?;
                }
            }
        }
        self.component(name, component)
    }

    fn parameter_loop(&self, field: &str, task: &Task) -> Result<()> {
        let Some(iterator) = &task.parameter_iterator else {
            return Ok(());
        };
        let items = format!("{field}.parameterIterator.items");
        match (&iterator.items.raw, &iterator.items.input_parameter) {
            (Some(raw), _) => match serde_json::from_str::<Value>(raw) {
                Ok(Value::Array(_)) => Ok(()),
                _ => Err(Error::field(
                    format!("{items}.raw"),
                    format!("{raw:?} is not a JSON list"),
                )),
            },
            (None, Some(input)) if task.inputs.parameters.contains_key(input) => Ok(()),
            (None, Some(input)) => Err(Error::field(
                format!("{items}.inputParameter"),
                format!("the task has no input parameter {input:?}"),
            )),
            (None, None) => Err(Error::field(items, "has neither raw nor inputParameter")),
        }
    }

    /// Every input comes from something that exists.
    fn sources(&self, field: &str, parent: &Component, dag: &Dag, task: &Task) -> Result<()> {
        for (input, source) in &task.inputs.parameters {
            let field = format!("{field}.inputs.parameters.{input}");
            if let Some(output) = &source.task_output_parameter {
                self.output(
                    &field,
                    dag,
                    &output.producer_task,
                    &output.output_parameter_key,
                    false,
                )?;
            } else if let Some(name) = &source.component_input_parameter {
                if !parent.input_definitions.parameters.contains_key(name) {
                    return Err(Error::field(
                        format!("{field}.componentInputParameter"),
                        format!("the graph has no input parameter {name:?}; declare it or pass a constant"),
                    ));
                }
            } else if source.runtime_value.is_none() && source.task_final_status.is_none() {
                return Err(Error::field(
                    field,
                    "has no source; compile the pipeline again with kfp",
                ));
            }
            super::resolve::Selector::parse(&source.parameter_expression_selector)
                .map_err(|error| Error::field(format!("{field}.parameterExpressionSelector"), error))?;
        }
        for (input, source) in &task.inputs.artifacts {
            let field = format!("{field}.inputs.artifacts.{input}");
            if let Some(output) = &source.task_output_artifact {
                self.output(
                    &field,
                    dag,
                    &output.producer_task,
                    &output.output_artifact_key,
                    true,
                )?;
            } else if let Some(name) = &source.component_input_artifact {
                if !parent.input_definitions.artifacts.contains_key(name) {
                    return Err(Error::field(
                        format!("{field}.componentInputArtifact"),
                        format!("the graph has no input artifact {name:?}"),
                    ));
                }
            } else {
                return Err(Error::field(
                    field,
                    "has no source; compile the pipeline again with kfp",
                ));
            }
        }
        Ok(())
    }

    /// `producer` has an output `key`.
    fn output(&self, field: &str, dag: &Dag, producer: &str, key: &str, artifact: bool) -> Result<()> {
        let component = dag
            .tasks
            .get(producer)
            .and_then(|t| self.spec.components.get(&t.component_ref.name));
        let Some(component) = component else {
            // An unknown task was refused when the tasks were sorted; an unknown component is refused at its task.
            return Ok(());
        };
        let (found, kind) = if artifact {
            (
                component.output_definitions.artifacts.contains_key(key),
                "artifact",
            )
        } else {
            (
                component.output_definitions.parameters.contains_key(key),
                "parameter",
            )
        };
        if found {
            return Ok(());
        }
        Err(Error::field(
            field,
            format!("task {producer:?} has no output {kind} {key:?}"),
        ))
    }

    fn outputs(&self, place: &str, dag: &Dag) -> Result<()> {
        let unknown = |field: String, task: &str| {
            Error::field(
                field,
                format!("no task {task:?} in this graph; known are {}", names(dag)),
            )
        };
        for (output, source) in &dag.outputs.parameters {
            let field = format!("{place}.dag.outputs.parameters.{output}");
            let many = source
                .value_from_oneof
                .iter()
                .flat_map(|o| &o.parameter_selectors);
            for selector in source.value_from_parameter.iter().chain(many) {
                if !dag.tasks.contains_key(&selector.producer_subtask) {
                    return Err(unknown(field, &selector.producer_subtask));
                }
                self.output(
                    &field,
                    dag,
                    &selector.producer_subtask,
                    &selector.output_parameter_key,
                    false,
                )?;
            }
        }
        for (output, source) in &dag.outputs.artifacts {
            let field = format!("{place}.dag.outputs.artifacts.{output}");
            for selector in &source.artifact_selectors {
                if !dag.tasks.contains_key(&selector.producer_subtask) {
                    return Err(unknown(field, &selector.producer_subtask));
                }
                self.output(
                    &field,
                    dag,
                    &selector.producer_subtask,
                    &selector.output_artifact_key,
                    true,
                )?;
            }
        }
        Ok(())
    }
}

fn names(dag: &Dag) -> String {
    dag.tasks
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Kahn's algorithm; ties keep the order of the text.
fn sorted(place: &str, dag: &Dag) -> Result<Vec<String>> {
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut followers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, task) in &dag.tasks {
        let dependencies = task.dependencies();
        for dependency in &dependencies {
            if !dag.tasks.contains_key(*dependency) {
                return Err(Error::field(
                    format!("{place}.dag.tasks.{key}"),
                    format!("depends on unknown task {dependency:?}; known are {}", names(dag)),
                ));
            }
            followers.entry(dependency).or_default().push(key);
        }
        waiting.insert(key, dependencies.len());
    }
    let mut order: Vec<String> = Vec::with_capacity(dag.tasks.len());
    let mut ready: std::collections::VecDeque<&str> = dag
        .tasks
        .keys()
        .map(String::as_str)
        .filter(|key| waiting.get(key) == Some(&0))
        .collect();
    while let Some(key) = ready.pop_front() {
        order.push(key.to_owned());
        for follower in followers.remove(key).unwrap_or_default() {
            if let Some(left) = waiting.get_mut(follower) {
                *left -= 1;
                if *left == 0 {
                    ready.push_back(follower);
                }
            }
        }
    }
    if order.len() == dag.tasks.len() {
        return Ok(order);
    }
    Err(Error::field(
        format!("{place}.dag.tasks"),
        format!(
            "the tasks wait for each other in a cycle: {}; remove one dependency",
            cycle(dag, &order)
        ),
    ))
}

/// One cycle among the tasks that are not in `done`, as `a -> b -> a`.
fn cycle(dag: &Dag, done: &[String]) -> String {
    let stuck = |key: &str| !done.iter().any(|d| d == key);
    let Some(start) = dag.tasks.keys().find(|key| stuck(key)) else {
        return String::new();
    };
    let mut path: Vec<&str> = vec![start];
    while let Some(task) = path.last().and_then(|last| dag.tasks.get(*last)) {
        let Some(next) = task.dependencies().into_iter().find(|d| stuck(d)) else {
            break;
        };
        if let Some(from) = path.iter().position(|p| *p == next) {
            let mut ring: Vec<&str> = path[from..].to_vec();
            ring.push(next);
            ring.reverse();
            return ring.join(" -> ");
        }
        path.push(next);
    }
    path.join(" -> ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::package::Package;
    use super::*;

    fn pipeline(tasks: &Value) -> Value {
        json!({
            "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
            "components": {"comp-a": {
                "executorLabel": "exec-a",
                "inputDefinitions": {"parameters": {"x": {"parameterType": "STRING"}}},
                "outputDefinitions": {"parameters": {"out": {"parameterType": "STRING"}}}}},
            "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "busybox"}}}},
            "root": {
                "inputDefinitions": {"parameters": {
                    "rows": {"parameterType": "NUMBER_INTEGER"},
                    "note": {"parameterType": "STRING", "defaultValue": "n", "isOptional": true}}},
                "dag": {"tasks": tasks}}
        })
    }

    fn task(x: &Value, after: &[&str]) -> Value {
        json!({"componentRef": {"name": "comp-a"}, "dependentTasks": after,
               "inputs": {"parameters": {"x": x}}})
    }

    fn constant() -> Value {
        json!({"runtimeValue": {"constant": "v"}})
    }

    fn refused(tasks: &Value) -> String {
        Package::from_json(&pipeline(tasks)).unwrap_err().to_string()
    }

    #[test]
    fn a_cycle_is_shown() {
        let tasks = json!({"a": task(&constant(), &["c"]), "b": task(&constant(), &["a"]), "c": task(&constant(), &["b"])});
        assert_eq!(
            refused(&tasks),
            "root.dag.tasks: the tasks wait for each other in a cycle: a -> b -> c -> a; remove one dependency"
        );
    }

    #[test]
    fn an_unknown_task_is_named() {
        assert_eq!(
            refused(&json!({"a": task(&constant(), &["ghost"])})),
            "root.dag.tasks.a: depends on unknown task \"ghost\"; known are a"
        );
        let from_ghost =
            json!({"taskOutputParameter": {"producerTask": "ghost", "outputParameterKey": "out"}});
        assert_eq!(
            refused(&json!({"a": task(&from_ghost, &[])})),
            "root.dag.tasks.a: depends on unknown task \"ghost\"; known are a"
        );
    }

    #[test]
    fn a_missing_parameter_of_a_task_is_named() {
        assert_eq!(
            refused(&json!({"a": {"componentRef": {"name": "comp-a"}}})),
            "root.dag.tasks.a.inputs.parameters.x: is missing; component \"comp-a\" needs a STRING"
        );
    }

    #[test]
    fn unknown_components_outputs_and_inputs_are_named() {
        assert_eq!(
            refused(&json!({"a": {"componentRef": {"name": "nope"}}})),
            "root.dag.tasks.a.componentRef.name: no component \"nope\"; known are comp-a"
        );
        let tasks = json!({"a": task(&constant(), &[]),
            "b": task(&json!({"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "no"}}), &[])});
        assert_eq!(
            refused(&tasks),
            "root.dag.tasks.b.inputs.parameters.x: task \"a\" has no output parameter \"no\""
        );
        assert_eq!(
            refused(&json!({"a": task(&json!({"componentInputParameter": "no"}), &[])})),
            "root.dag.tasks.a.inputs.parameters.x.componentInputParameter: the graph has no input parameter \"no\"; declare it or pass a constant"
        );
    }

    #[test]
    fn a_component_that_uses_itself_is_refused() {
        let mut spec = pipeline(&json!({"a": {"componentRef": {"name": "comp-b"}}}));
        spec["components"]["comp-b"] =
            json!({"dag": {"tasks": {"again": {"componentRef": {"name": "comp-b"}}}}});
        assert_eq!(
            Package::from_json(&spec).unwrap_err().to_string(),
            "components.comp-b: uses itself ( -> comp-b -> comp-b); remove the recursion"
        );
    }

    #[test]
    fn arguments_are_complete_and_typed() {
        let package = Package::from_json(&pipeline(&json!({}))).unwrap();
        let given = |value: Value| {
            let given = value.as_object().unwrap().clone().into_iter().collect();
            arguments(&package.spec, &given).map_err(|e| e.to_string())
        };
        assert_eq!(
            given(json!({"rows": 3.0})).unwrap(),
            BTreeMap::from([("rows".to_owned(), json!(3)), ("note".to_owned(), json!("n"))])
        );
        assert_eq!(
            given(json!({})).unwrap_err(),
            "runtime_config.parameters.rows: is missing and has no default; pipeline \"p\" needs a NUMBER_INTEGER"
        );
        assert_eq!(
            given(json!({"rows": 1, "extra": 2})).unwrap_err(),
            "runtime_config.parameters.extra: pipeline \"p\" has no such parameter; it has note, rows"
        );
        assert_eq!(
            given(json!({"rows": "x"})).unwrap_err(),
            "runtime_config.parameters.rows: expected NUMBER_INTEGER, got STRING \"x\"; pass an integer such as 3"
        );
    }

    #[test]
    fn every_fixture_of_the_real_compiler_is_valid() {
        for text in [
            include_str!("../../tests/fixtures/one_step.yaml"),
            include_str!("../../tests/fixtures/chain.yaml"),
            include_str!("../../tests/fixtures/branches.yaml"),
            include_str!("../../tests/fixtures/nested.yaml"),
            include_str!("../../tests/fixtures/loops.yaml"),
            include_str!("../../tests/fixtures/exits.yaml"),
            include_str!("../../tests/fixtures/containers.yaml"),
            include_str!("../../tests/fixtures/imports.yaml"),
        ] {
            Package::from_text(text).unwrap();
        }
    }
}
