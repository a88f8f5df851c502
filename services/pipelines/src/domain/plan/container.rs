//! Container tasks: cache, attempts, retries.

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::graph::Unit;
use super::{Action, Planner, TaskView};
use crate::domain::cache;
use crate::domain::ir::{Container, RetryPolicy, TaskInputParameter};
use crate::domain::placeholders::Scope;
use crate::domain::resolve::{self, Inputs, Sources, Upstream, local_path};
use crate::domain::run::{AttemptState, CacheFact, TaskFacts, TaskState};
use crate::domain::step::{self, Parts, run_fact};
use crate::domain::values::parse_duration;

/// Longest wait before a retry when the policy names none.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(3600);

impl<'a> Planner<'a> {
    pub(super) fn container(
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
    pub(super) fn start(
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

fn number_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
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
