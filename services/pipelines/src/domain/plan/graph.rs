//! Graphs, their tasks and the passes of loops.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Planner, TaskView};
use crate::domain::condition::Condition;
use crate::domain::ir::{Component, Executor, RetryPolicy, Task};
use crate::domain::resolve::{self, Inputs, Sources, Unresolved, Upstream};
use crate::domain::run::{Outputs, RunSpec, TaskKind, TaskState};
use crate::domain::step::run_fact;
use crate::domain::values::{normalise, shorten};

impl<'a> Planner<'a> {
    /// A graph: `view` is what it belongs to (the run, a task or a pass of a loop).
    pub(super) fn graph(
        &mut self,
        view: TaskView,
        name: &str,
        component: &'a Component,
        inputs: &Arc<Inputs>,
        retry: Option<&'a RetryPolicy>,
    ) -> Upstream {
        let (index, path) = (self.tasks.len(), view.path.clone());
        self.tasks.push(view);
        let Some(dag) = &component.dag else {
            return self.settle(
                index,
                TaskState::Failed,
                Arc::default(),
                Some("the component has no graph".into()),
            );
        };
        let package = &self.run.package;
        let mut done: HashMap<&str, Upstream> = HashMap::with_capacity(dag.tasks.len());
        for key in package.order(name) {
            if let Some((key, task)) = dag.tasks.get_key_value(key) {
                let end = self.task(
                    &path,
                    key,
                    task,
                    inputs,
                    &done,
                    task.retry_policy.as_ref().or(retry),
                );
                done.insert(key, end);
            }
        }
        let mut outputs = Outputs::default();
        for (output, source) in &dag.outputs.parameters {
            let many = source
                .value_from_oneof
                .iter()
                .flat_map(|o| &o.parameter_selectors);
            let value = source
                .value_from_parameter
                .iter()
                .chain(many)
                .find_map(|selector| {
                    done.get(selector.producer_subtask.as_str())?
                        .outputs
                        .parameters
                        .get(&selector.output_parameter_key)
                });
            if let Some(value) = value {
                outputs.parameters.insert(output.clone(), value.clone());
            }
        }
        for (output, source) in &dag.outputs.artifacts {
            let artifacts = source.artifact_selectors.iter().find_map(|selector| {
                done.get(selector.producer_subtask.as_str())?
                    .outputs
                    .artifacts
                    .get(&selector.output_artifact_key)
            });
            if let Some(artifacts) = artifacts {
                outputs.artifacts.insert(output.clone(), artifacts.clone());
            }
        }
        let ends = dag
            .tasks
            .keys()
            .filter_map(|key| Some((key.as_str(), done.get(key.as_str())?)));
        let (state, error) = summary(ends, self.run.terminate);
        self.settle(index, state, Arc::new(outputs), error)
    }

    /// One task of a graph.
    pub(super) fn task(
        &mut self,
        parent: &str,
        key: &'a str,
        task: &'a Task,
        graph: &Arc<Inputs>,
        done: &HashMap<&str, Upstream>,
        retry: Option<&'a RetryPolicy>,
    ) -> Upstream {
        let path = format!("{parent}/{key}");
        let name = task.component_ref.name.as_str();
        let run = self.run;
        let component = run.package.component(name);
        let display = if task.task_info.name.is_empty() {
            key
        } else {
            &task.task_info.name
        };
        let after = task.dependencies();
        let mut view = TaskView {
            path: path.clone(),
            parent: Some(parent.to_owned()),
            name: key.to_owned(),
            display_name: display.to_owned(),
            kind: component.map_or(TaskKind::Container, |c| kind(run, c, task)),
            state: TaskState::Pending,
            cached: false,
            message: None,
            inputs: Arc::default(),
            outputs: Arc::default(),
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            iteration: None,
        };
        let mut blocked = None;
        for dependency in after {
            let Some(upstream) = done.get(dependency).filter(|u| u.state.is_final()) else {
                return self.push(view, TaskState::Pending, None);
            };
            if !task.trigger_policy.runs_after_failure() && upstream.state != TaskState::Succeeded {
                blocked.get_or_insert_with(|| match upstream.state {
                    TaskState::Failed => format!("task {dependency:?} failed"),
                    TaskState::Canceled => format!("task {dependency:?} was canceled"),
                    _ => format!("task {dependency:?} was skipped"),
                });
            }
        }
        if let Some(why) = blocked {
            return self.push(view, TaskState::Skipped, Some(why));
        }
        let Some(component) = component else {
            return self.push(
                view,
                TaskState::Failed,
                Some(format!("component {name:?} does not exist")),
            );
        };
        let sources = Sources {
            graph,
            upstream: &|name| done.get(name).cloned(),
            run: &|name| run_fact(run, &path, name),
        };
        let inputs = match resolve::inputs(task, component, &sources) {
            Ok(inputs) => Arc::new(inputs),
            Err(Unresolved::Absent(why)) => return self.push(view, TaskState::Skipped, Some(why)),
            Err(Unresolved::Fault(why)) => return self.push(view, TaskState::Failed, Some(why)),
        };
        view.inputs = inputs.clone();
        if !task.trigger_policy.condition.is_empty() {
            match Condition::parse(&task.trigger_policy.condition).and_then(|c| c.eval(&inputs.parameters)) {
                Ok(true) => {}
                Ok(false) => {
                    return self.push(
                        view,
                        TaskState::Skipped,
                        Some("its condition is false".to_owned()),
                    );
                }
                Err(why) => return self.push(view, TaskState::Failed, Some(why)),
            }
        }
        let unit = Unit {
            key,
            task,
            component,
            retry,
            sources: &sources,
        };
        match items(task, &inputs) {
            Ok(Some(passes)) => self.passes(view, &unit, passes),
            Ok(None) => self.unit(view, &unit, &inputs),
            Err(why) => self.push(view, TaskState::Failed, Some(why)),
        }
    }

    /// One use of a component: a graph or an executor.
    pub(super) fn unit(&mut self, view: TaskView, unit: &Unit<'a, '_>, inputs: &Arc<Inputs>) -> Upstream {
        if unit.component.dag.is_some() {
            return self.graph(
                view,
                &unit.task.component_ref.name,
                unit.component,
                inputs,
                unit.retry,
            );
        }
        let label = unit.component.executor_label.as_deref().unwrap_or_default();
        match self.run.package.executor(label) {
            Some(Executor {
                container: Some(container),
                ..
            }) => self.container(view, unit, container, label, inputs),
            Some(Executor {
                importer: Some(importer),
                ..
            }) => self.importer(view, unit, importer, inputs),
            _ => self.push(
                view,
                TaskState::Failed,
                Some(format!("executor {label:?} does not exist")),
            ),
        }
    }

    /// A loop: its passes in order, at most `parallelism_limit` of them unfinished at a time.
    pub(super) fn passes(&mut self, view: TaskView, unit: &Unit<'a, '_>, passes: Vec<Inputs>) -> Upstream {
        let index = self.tasks.len();
        let parent = view.path.clone();
        self.tasks.push(view);
        let limit = match unit.task.iterator_policy.parallelism_limit {
            0 => usize::MAX,
            limit => limit,
        };
        let mut unfinished = 0;
        let mut ends: Vec<(String, Upstream)> = Vec::with_capacity(passes.len());
        for (number, inputs) in passes.into_iter().enumerate() {
            let inputs = Arc::new(inputs);
            let pass = TaskView {
                path: format!("{parent}/{number}"),
                parent: Some(parent.clone()),
                name: format!("{}-{number}", unit.key),
                display_name: format!("{}[{number}]", unit.key),
                kind: if unit.component.dag.is_some() {
                    TaskKind::Iteration
                } else {
                    TaskKind::Container
                },
                state: TaskState::Pending,
                cached: false,
                message: None,
                inputs: inputs.clone(),
                outputs: Arc::default(),
                after: Vec::new(),
                iteration: Some(number),
            };
            let end = if unfinished >= limit && !self.run.terminate {
                self.push(pass, TaskState::Pending, None)
            } else {
                self.unit(pass, unit, &inputs)
            };
            if !end.state.is_final() {
                unfinished += 1;
            }
            ends.push((number.to_string(), end));
        }
        let mut outputs = Outputs::default();
        for name in unit.component.output_definitions.parameters.keys() {
            let values = ends
                .iter()
                .filter_map(|(_, end)| end.outputs.parameters.get(name).cloned())
                .collect();
            outputs.parameters.insert(name.clone(), Value::Array(values));
        }
        for name in unit.component.output_definitions.artifacts.keys() {
            let all = ends
                .iter()
                .filter_map(|(_, end)| end.outputs.artifacts.get(name))
                .flatten()
                .cloned()
                .collect();
            outputs.artifacts.insert(name.clone(), all);
        }
        let (state, error) = summary(ends.iter().map(|(n, e)| (n.as_str(), e)), self.run.terminate);
        self.settle(index, state, Arc::new(outputs), error)
    }
}

/// One use of a component by a task.
pub(super) struct Unit<'a, 's> {
    pub(super) key: &'a str,
    pub(super) task: &'a Task,
    pub(super) component: &'a Component,
    pub(super) retry: Option<&'a RetryPolicy>,
    pub(super) sources: &'s Sources<'s>,
}

fn kind(run: &RunSpec, component: &Component, task: &Task) -> TaskKind {
    if task.parameter_iterator.is_some() || task.artifact_iterator.is_some() {
        return TaskKind::Loop;
    }
    if component.dag.is_some() {
        return TaskKind::Dag;
    }
    let label = component.executor_label.as_deref().unwrap_or_default();
    match run.package.executor(label) {
        Some(Executor {
            importer: Some(_), ..
        }) => TaskKind::Importer,
        _ => TaskKind::Container,
    }
}

/// State and error of a group from those of its members.
fn summary<'e>(
    ends: impl Iterator<Item = (&'e str, &'e Upstream)>,
    terminate: bool,
) -> (TaskState, Option<String>) {
    let mut unfinished = false;
    let mut canceled = false;
    let mut started = false;
    let mut failed = None;
    for (name, end) in ends {
        unfinished |= !end.state.is_final();
        started |= end.state != TaskState::Pending;
        canceled |= end.state == TaskState::Canceled;
        if end.state == TaskState::Failed && failed.is_none() {
            failed = Some(match &end.error {
                Some(why) => format!("task {name:?} failed: {why}"),
                None => format!("task {name:?} failed"),
            });
        }
    }
    let state = match (unfinished, &failed) {
        (true, _) if terminate => TaskState::Canceling,
        (true, _) if started => TaskState::Running,
        (true, _) => TaskState::Pending,
        (false, _) if canceled => TaskState::Canceled,
        (false, Some(_)) => TaskState::Failed,
        (false, None) => TaskState::Succeeded,
    };
    (state, failed)
}

/// Inputs of each pass of a loop; none when the task is no loop.
fn items(task: &Task, inputs: &Inputs) -> Result<Option<Vec<Inputs>>, String> {
    if let Some(iterator) = &task.parameter_iterator {
        let list = match (&iterator.items.raw, &iterator.items.input_parameter) {
            (Some(raw), _) => Value::String(raw.clone()),
            (None, Some(name)) => inputs.parameters.get(name).cloned().unwrap_or(Value::Null),
            (None, None) => Value::Null,
        };
        let list = match list {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            other => other,
        };
        let Value::Array(items) = list else {
            return Err(format!(
                "the items of the loop are no list but {}",
                shorten(&list.to_string())
            ));
        };
        let passes = items.into_iter().map(|item| {
            let mut pass = inputs.clone();
            pass.parameters
                .insert(iterator.item_input.clone(), normalise(item));
            pass
        });
        return Ok(Some(passes.collect()));
    }
    let Some(iterator) = &task.artifact_iterator else {
        return Ok(None);
    };
    let artifacts = inputs
        .artifacts
        .get(&iterator.items.input_artifact)
        .cloned()
        .unwrap_or_default();
    let passes = artifacts.into_iter().map(|artifact| {
        let mut pass = inputs.clone();
        pass.artifacts.insert(iterator.item_input.clone(), vec![artifact]);
        pass
    });
    Ok(Some(passes.collect()))
}
