//! How an attempt ended: its outcome, or why there is none.

use std::sync::Arc;

use ferroflow_api::step::{Outcome, OutcomeState};
use ferroflow_kernel::Code;
use jiff::SignedDuration;

use super::{Actor, PodIs};
use crate::domain::run::{Artifact, AttemptState, Outputs};
use crate::domain::values::normalise;
use crate::store::AttemptRow;

/// Outcomes are small; the outputs that are large are artifacts.
const MAX_OUTCOME: usize = 32 * 1024 * 1024;

/// A Pod whose command was ended by a signal has so long to tell why.
const EXPLAINED_WITHIN: SignedDuration = SignedDuration::from_secs(30);

impl Actor {
    /// Takes the outcome of an attempt if there is one.
    pub(super) async fn settle(&mut self, path: &str, number: u32, pod: PodIs<'_>) {
        let Some(live) = self.live.get(&(path.to_owned(), number)) else {
            return;
        };
        let uri = format!("{}/outcome.json", live.row.folder);
        let bytes = match self.shared.artifacts.get(&uri, MAX_OUTCOME).await {
            Ok(bytes) => bytes,
            Err(error) if error.code() == Code::ResourceExhausted => {
                self.fail(path, number, AttemptState::Failed(error.to_string()));
                return;
            }
            Err(error) => {
                tracing::warn!(uri, %error, "an outcome cannot be read; trying again");
                self.again(path, number);
                return;
            }
        };
        let killed = live.killed.clone();
        let state = match (bytes, pod) {
            // Only the Pod knows why; it is over in a moment, unless something else in it goes on.
            (Some(bytes), PodIs::Alive) if was_killed(&bytes) && self.explanation_may_come(path, number) => {
                self.again(path, number);
                return;
            }
            (Some(bytes), _) => match (self.judge(path, number, &bytes), killed) {
                (AttemptState::Failed(_), Some(why)) => AttemptState::Failed(why),
                (state, _) => state,
            },
            (None, PodIs::Over(_)) if self.spec.terminate => AttemptState::Stopped,
            (None, PodIs::Over(why)) => AttemptState::Failed(why.to_owned()),
            (None, PodIs::Alive | PodIs::Absent) => return,
        };
        self.fail(path, number, state);
    }

    /// Whether the Pod of an attempt that a signal ended may still tell who sent it.
    fn explanation_may_come(&mut self, path: &str, number: u32) -> bool {
        let now = self.shared.clock.now();
        self.live
            .get_mut(&(path.to_owned(), number))
            .is_some_and(|live| now.duration_since(*live.unexplained.get_or_insert(now)) < EXPLAINED_WITHIN)
    }

    pub(super) fn judge(&self, path: &str, number: u32, bytes: &[u8]) -> AttemptState {
        let outcome: Outcome = match serde_json::from_slice(bytes) {
            Ok(outcome) => outcome,
            Err(error) => return AttemptState::Failed(format!("its outcome cannot be read: {error}")),
        };
        if (outcome.run_id.as_str(), outcome.task.as_str(), outcome.attempt) != (&self.run.id, path, number) {
            return AttemptState::Failed("its outcome belongs to another attempt".to_owned());
        }
        match outcome.state {
            OutcomeState::Succeeded => AttemptState::Succeeded(Arc::new(outputs(outcome))),
            OutcomeState::Failed if self.spec.terminate => AttemptState::Stopped,
            OutcomeState::Failed => {
                AttemptState::Failed(outcome.message.unwrap_or_else(|| "no reason given".to_owned()))
            }
        }
    }

    /// Records how an attempt ended.
    pub(super) fn fail(&mut self, path: &str, number: u32, state: AttemptState) {
        let Some(live) = self.live.remove(&(path.to_owned(), number)) else {
            return;
        };
        self.shared.release(1);
        self.uncreated
            .retain(|plan| plan.step.task != path || plan.step.attempt != number);
        let now = self.shared.clock.now();
        let took = now.duration_since(live.row.created_at);
        self.shared.figures.attempt_ended(state.ended_as(), took);
        let mut row = AttemptRow {
            state: state.ended_as().to_owned(),
            ended_at: Some(now),
            ..live.row
        };
        match &state {
            AttemptState::Succeeded(outputs) => {
                row.outputs = Some(Outputs::clone(outputs));
                if let Some(key) = live.cache_key {
                    self.pending
                        .remembered
                        .push((key, path.to_owned(), outputs.clone()));
                }
            }
            AttemptState::Failed(why) => {
                row.message = Some(why.clone());
                tracing::info!(
                    run = self.run.id,
                    task = path,
                    attempt = number,
                    error = why,
                    "step failed"
                );
            }
            AttemptState::Stopped | AttemptState::Started => {}
        }
        if let Some(fact) = self.fact_mut(path, number) {
            fact.state = state;
            fact.ended_at = Some(now);
            fact.trouble = None;
        }
        if let Some(trace) = &self.trace {
            trace.attempt_ended(&row);
        }
        self.pending.ended.push(row);
    }
}

fn outputs(outcome: Outcome) -> Outputs {
    let parameters = outcome
        .parameters
        .into_iter()
        .map(|(name, value)| (name, normalise(value)))
        .collect();
    let artifacts = outcome
        .artifacts
        .into_iter()
        .map(|(name, list)| {
            let list = list
                .into_iter()
                .map(|artifact| Artifact {
                    name: artifact.name,
                    uri: artifact.uri,
                    schema_title: artifact.schema_title,
                    schema_version: artifact.schema_version,
                    metadata: artifact.metadata,
                    digest: artifact.digest,
                    size: artifact.size,
                })
                .collect();
            (name, list)
        })
        .collect();
    Outputs {
        parameters,
        artifacts,
    }
}

/// Whether an outcome tells of a command that was ended by SIGKILL or SIGTERM.
fn was_killed(outcome: &[u8]) -> bool {
    serde_json::from_slice::<Outcome>(outcome).is_ok_and(|outcome| {
        outcome.state == OutcomeState::Failed && matches!(outcome.exit_code, Some(137 | 143))
    })
}
