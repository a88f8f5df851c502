//! What happens next in a run: a pure function of what it is meant to do, what is known and the time.
//!
//! Only facts about container tasks are observed ([`Observed`]). States of graphs and loops, inputs, outputs and
//! skipped tasks all follow from those, so nothing derived can disagree with what happened, and planning again
//! after a crash gives the same plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::condition::Condition;
use super::ir::{Component, Container, Executor, Importer, RetryPolicy, Task, TaskInputParameter};
use super::placeholders::Scope;
use super::resolve::{self, Inputs, Sources, Unresolved, Upstream, local_path, typed_constant};
use super::run::{
    Artifact, AttemptState, CacheFact, Observed, Outputs, RunSpec, TaskFacts, TaskKind, TaskState,
};
use super::step::{self, Parts, StepPlan, run_fact};
use super::values::{parse_duration, shorten};
use super::{cache, placeholders};

/// Path of the run itself.
pub const ROOT: &str = "root";
/// Longest wait before a retry when the policy names none.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(3600);

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask the cache; the answer becomes a fact.
    LookUpCache {
        /// Path of the task.
        path: String,
        /// Key of the result.
        key: String,
    },
    /// Record the attempt, then create its Pod.
    Start {
        /// Path of the task.
        path: String,
        /// The attempt.
        plan: Box<StepPlan>,
        /// Under which key a success is to be remembered.
        cache_key: Option<String>,
    },
    /// End a running attempt.
    Stop {
        /// Path of the task.
        path: String,
        /// Number of the attempt.
        attempt: u32,
    },
}

/// A task as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// Its path.
    pub path: String,
    /// Path of what it is in.
    pub parent: Option<String>,
    /// Its name in its graph.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// What it is.
    pub kind: TaskKind,
    /// How far it is.
    pub state: TaskState,
    /// Whether its result was taken from the cache.
    pub cached: bool,
    /// Why it failed or was skipped, or what it waits for.
    pub message: Option<String>,
    /// What it was given.
    pub inputs: Arc<Inputs>,
    /// What it gave.
    pub outputs: Arc<Outputs>,
    /// The tasks of its graph that it waits for.
    pub after: Vec<String>,
    /// Which pass of a loop it is.
    pub iteration: Option<usize>,
}

/// What happens next in a run, and how it looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to do.
    pub actions: Vec<Action>,
    /// Every task that is known so far, each after what it is in.
    pub tasks: Vec<TaskView>,
    /// State of the run.
    pub state: TaskState,
    /// Why it failed.
    pub error: Option<String>,
    /// When to plan again even if nothing is observed until then.
    pub wake: Option<Timestamp>,
    /// Whether more would have been started if there had been room.
    pub starved: bool,
}

/// Plans a run. At most `room` attempts are started.
pub fn plan(run: &RunSpec, observed: &Observed, now: Timestamp, room: usize) -> Plan {
    let mut planner = Planner {
        run,
        observed,
        now,
        room,
        actions: Vec::new(),
        tasks: Vec::new(),
        wake: None,
        starved: false,
    };
    let inputs = Arc::new(Inputs {
        parameters: run.parameters.clone(),
        artifacts: BTreeMap::new(),
    });
    let view = TaskView {
        path: ROOT.to_owned(),
        parent: None,
        name: ROOT.to_owned(),
        display_name: run.display_name.clone(),
        kind: TaskKind::Root,
        state: TaskState::Pending,
        cached: false,
        message: None,
        inputs: inputs.clone(),
        outputs: Arc::default(),
        after: Vec::new(),
        iteration: None,
    };
    let end = planner.graph(view, "", &run.package.spec.root, &inputs, None);
    Plan {
        actions: planner.actions,
        tasks: planner.tasks,
        state: end.state,
        error: end.error,
        wake: planner.wake,
        starved: planner.starved,
    }
}

/// The plan of an attempt that was decided on before a restart, so that its Pod can be created after all.
pub fn rebuild(run: &RunSpec, observed: &Observed, now: Timestamp, path: &str) -> Option<StepPlan> {
    let mut before = observed.clone();
    let facts = before.get_mut(path)?;
    facts.attempts.pop()?;
    // Whatever was waited for is over, since the attempt was decided on.
    for attempt in &mut facts.attempts {
        attempt.ended_at = Some(Timestamp::MIN);
    }
    if facts.cache == CacheFact::Unasked {
        facts.cache = CacheFact::Miss;
    }
    let run = RunSpec {
        terminate: false,
        ..run.clone()
    };
    plan(&run, &before, now, usize::MAX)
        .actions
        .into_iter()
        .find_map(|action| match action {
            Action::Start {
                path: started, plan, ..
            } if started == path => Some(*plan),
            _ => None,
        })
}

struct Planner<'a> {
    run: &'a RunSpec,
    observed: &'a Observed,
    now: Timestamp,
    room: usize,
    actions: Vec<Action>,
    tasks: Vec<TaskView>,
    wake: Option<Timestamp>,
    starved: bool,
}

impl<'a> Planner<'a> {
    /// A graph: `view` is what it belongs to (the run, a task or a pass of a loop).
    fn graph(
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

    fn settle(
        &mut self,
        index: usize,
        state: TaskState,
        outputs: Arc<Outputs>,
        error: Option<String>,
    ) -> Upstream {
        if let Some(view) = self.tasks.get_mut(index) {
            view.state = state;
            view.outputs = outputs.clone();
            view.message.clone_from(&error);
        }
        Upstream {
            state,
            outputs,
            error,
        }
    }

    /// One task of a graph.
    fn task(
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

    fn push(&mut self, view: TaskView, state: TaskState, message: Option<String>) -> Upstream {
        let index = self.tasks.len();
        let outputs = view.outputs.clone();
        self.tasks.push(view);
        self.settle(index, state, outputs, message)
    }

    /// One use of a component: a graph or an executor.
    fn unit(&mut self, view: TaskView, unit: &Unit<'a, '_>, inputs: &Arc<Inputs>) -> Upstream {
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
    fn passes(&mut self, view: TaskView, unit: &Unit<'a, '_>, passes: Vec<Inputs>) -> Upstream {
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

    fn importer(
        &mut self,
        view: TaskView,
        unit: &Unit<'a, '_>,
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

    fn container(
        &mut self,
        mut view: TaskView,
        unit: &Unit<'a, '_>,
        container: &'a Container,
        label: &str,
        inputs: &Inputs,
    ) -> Upstream {
        let none = TaskFacts::default();
        let facts = self.observed.get(&view.path).unwrap_or(&none);
        if let CacheFact::Hit(outputs) = &facts.cache {
            view.cached = true;
            view.outputs = outputs.clone();
            return self.push(view, TaskState::Succeeded, None);
        }
        let counted = facts.attempts.len().saturating_sub(facts.forgiven);
        let last = facts
            .attempts
            .last()
            .filter(|_| counted > 0 || self.run.terminate);
        // Running and succeeded attempts count even when they were forgiven.
        let last = last.or_else(|| {
            facts
                .attempts
                .last()
                .filter(|a| matches!(a.state, AttemptState::Started | AttemptState::Succeeded(_)))
        });
        let mut retried = None;
        match last.map(|attempt| (&attempt.state, attempt)) {
            None => {}
            Some((AttemptState::Succeeded(outputs), _)) => {
                view.outputs = outputs.clone();
                return self.push(view, TaskState::Succeeded, None);
            }
            Some((AttemptState::Started, attempt)) => {
                if self.run.terminate {
                    let number = number_of(facts.attempts.len() - 1);
                    self.actions.push(Action::Stop {
                        path: view.path.clone(),
                        attempt: number,
                    });
                    return self.push(view, TaskState::Canceling, None);
                }
                return self.push(view, TaskState::Running, attempt.trouble.clone());
            }
            Some((AttemptState::Stopped, _)) => return self.push(view, TaskState::Canceled, None),
            Some((AttemptState::Failed(why), attempt)) => {
                let allowed = unit.retry.map_or(0, |retry| retry.max_retry_count as usize);
                if counted > allowed {
                    return self.push(view, TaskState::Failed, Some(why.clone()));
                }
                if self.run.terminate {
                    return self.push(view, TaskState::Canceled, Some(why.clone()));
                }
                let ended = attempt.ended_at.unwrap_or(self.now);
                let due = ended
                    .checked_add(backoff(unit.retry, counted))
                    .unwrap_or(self.now);
                if self.now < due {
                    self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
                    let message = format!(
                        "attempt {counted} of {} failed: {why}; it is tried again",
                        allowed + 1
                    );
                    return self.push(view, TaskState::Pending, Some(message));
                }
                retried = Some(why.clone());
            }
        }
        if self.run.terminate {
            return self.push(view, TaskState::Canceled, None);
        }
        match self.start(&view, unit, container, label, inputs, facts) {
            Ok(action) => {
                if let Some(action) = action {
                    self.actions.push(action);
                }
                self.push(view, TaskState::Pending, retried)
            }
            Err(why) => self.push(view, TaskState::Failed, Some(why)),
        }
    }

    /// The next attempt, or the question to the cache before the first one; nothing when there is no room.
    fn start(
        &mut self,
        view: &TaskView,
        unit: &Unit<'a, '_>,
        container: &'a Container,
        label: &str,
        inputs: &Inputs,
        facts: &TaskFacts,
    ) -> Result<Option<Action>, String> {
        let package = &self.run.package;
        let platform = package
            .kubernetes_config(label)
            .map(|config| platform(config, unit.sources, inputs))
            .transpose()?;
        let options = &unit.task.caching_options;
        let cache_key = if !options.enable_cache {
            None
        } else if options.cache_key.is_empty() {
            let executor_input = step::executor_input(unit.component, inputs, "");
            let fact = |name: &str| run_fact(self.run, &view.path, name);
            let scope = Scope {
                executor_input: &executor_input,
                run: &fact,
                local_path: &local_path,
            };
            let image = step::image(container, &scope)?;
            Some(cache::fingerprint(
                unit.component,
                container,
                &image,
                inputs,
                platform.as_ref(),
            ))
        } else {
            Some(cache::chosen(&unit.task.component_ref.name, &options.cache_key))
        };
        if let Some(key) = &cache_key
            && facts.cache == CacheFact::Unasked
            && facts.attempts.is_empty()
        {
            return Ok(Some(Action::LookUpCache {
                path: view.path.clone(),
                key: key.clone(),
            }));
        }
        if self.room == 0 {
            self.starved = true;
            return Ok(None);
        }
        let plan = step::build(Parts {
            run: self.run,
            path: &view.path,
            task_name: unit.key,
            attempt: number_of(facts.attempts.len()),
            component: unit.component,
            container,
            inputs,
            kubernetes: platform,
        })?;
        self.room -= 1;
        Ok(Some(Action::Start {
            path: view.path.clone(),
            plan: Box::new(plan),
            cache_key,
        }))
    }
}

/// One use of a component by a task.
struct Unit<'a, 's> {
    key: &'a str,
    task: &'a Task,
    component: &'a Component,
    retry: Option<&'a RetryPolicy>,
    sources: &'s Sources<'s>,
}

fn number_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
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
                .insert(iterator.item_input.clone(), super::values::normalise(item));
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

/// Wait before retry number `retries` (from 1).
fn backoff(policy: Option<&RetryPolicy>, retries: usize) -> SignedDuration {
    let Some(policy) = policy else {
        return SignedDuration::ZERO;
    };
    let first = parse_duration(&policy.backoff_duration).unwrap_or(SignedDuration::ZERO);
    let most = parse_duration(&policy.backoff_max_duration)
        .ok()
        .filter(|d| !d.is_zero())
        .unwrap_or(MAX_BACKOFF);
    let factor = if policy.backoff_factor > 0.0 {
        policy.backoff_factor
    } else {
        2.0
    };
    let power = i32::try_from(retries.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = (first.as_secs_f64() * factor.powi(power)).min(most.as_secs_f64());
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(most)
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
        other => super::values::normalise(other.clone()),
    })
}

/// What the PlatformSpec says about an executor, with every `…Parameter` replaced by its value.
fn platform(config: &Map<String, Value>, sources: &Sources<'_>, inputs: &Inputs) -> Result<Value, String> {
    fn walk(value: &Value, sources: &Sources<'_>, inputs: &Inputs) -> Result<Value, String> {
        match value {
            Value::Array(items) => items
                .iter()
                .map(|item| walk(item, sources, inputs))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Value::Object(fields) => {
                let is_source = ["runtimeValue", "componentInputParameter", "taskOutputParameter"]
                    .iter()
                    .any(|kind| fields.contains_key(*kind));
                if !is_source {
                    return fields
                        .iter()
                        .map(|(key, value)| Ok((key.clone(), walk(value, sources, inputs)?)))
                        .collect::<Result<_, String>>()
                        .map(Value::Object);
                }
                let source: TaskInputParameter = serde_json::from_value(value.clone())
                    .map_err(|error| format!("platform_spec: {error}"))?;
                resolve::platform_value(&source, sources, inputs)
            }
            other => Ok(other.clone()),
        }
    }
    walk(&Value::Object(config.clone()), sources, inputs)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
