//! A run as one trace: the request that made it, a span for the run, one for each attempt below it, and what launchers add.
//!
//! The ids of spans follow from the run and the attempt, so a process that takes over tells the same ones, and a Pod can name its
//! span before that is over.

use ferroflow_api::step::StepTrace;
use ferroflow_telemetry::{FinishedSpan, KeyValue, TraceContext, record};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::domain::run::TaskState;
use crate::store::{AttemptRow, RunRow};

/// Where the spans of a run are, if somebody wants to see them.
#[derive(Debug)]
pub struct RunTrace {
    request: TraceContext,
    run: TraceContext,
    run_id: String,
}

impl RunTrace {
    /// The trace of the request that made a run.
    pub fn of(run: &RunRow) -> Option<Self> {
        let request = run.trace.clone().filter(TraceContext::is_sampled)?;
        Some(Self {
            run: request.with_span_id(span_id(&[&run.id])),
            run_id: run.id.clone(),
            request,
        })
    }

    fn attempt(&self, path: &str, number: u32) -> TraceContext {
        self.run
            .with_span_id(span_id(&[&self.run_id, path, &number.to_string()]))
    }

    /// What a Pod is told.
    pub fn step(&self, path: &str, number: u32, endpoint: &str) -> StepTrace {
        let context = self.attempt(path, number);
        StepTrace {
            traceparent: context.traceparent,
            tracestate: context.tracestate,
            endpoint: endpoint.to_owned(),
        }
    }

    /// Tells that an attempt is over.
    pub fn attempt_ended(&self, row: &AttemptRow) {
        record(FinishedSpan {
            name: format!("step {}", row.path.trim_start_matches("root/")),
            context: &self.attempt(&row.path, row.number),
            parent: &self.run,
            start: row.created_at.into(),
            end: row.ended_at.unwrap_or(row.created_at).into(),
            attributes: vec![
                KeyValue::new("ferroflow.run.id", self.run_id.clone()),
                KeyValue::new("ferroflow.task", row.path.clone()),
                KeyValue::new("ferroflow.attempt", i64::from(row.number)),
                KeyValue::new("k8s.pod.name", row.pod_name.clone()),
            ],
            error: row.message.clone(),
        });
    }

    /// Tells that the run is over.
    pub fn run_ended(&self, run: &RunRow, now: Timestamp) {
        record(FinishedSpan {
            name: format!("run {}", run.pipeline_name),
            context: &self.run,
            parent: &self.request,
            start: run.created_at.into(),
            end: now.into(),
            attributes: vec![
                KeyValue::new("ferroflow.run.id", run.id.clone()),
                KeyValue::new("ferroflow.run.state", run.state.name()),
                KeyValue::new("k8s.namespace.name", run.namespace.clone()),
            ],
            error: run.error.clone().filter(|_| run.state == TaskState::Failed),
        });
    }
}

/// Eight bytes that belong to these texts.
fn span_id(texts: &[&str]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let mut id = [0; 8];
    for (byte, hashed) in id.iter_mut().zip(hash.finalize()) {
        *byte = hashed;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_ids_of_their_own_that_stay() {
        let ids = [
            span_id(&["r"]),
            span_id(&["r", "root/a", "0"]),
            span_id(&["r", "root/a", "1"]),
            span_id(&["r", "root/a0", ""]),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(ids.iter().position(|other| other == id), Some(index));
        }
        assert_eq!(span_id(&["r"]), ids[0]);
    }
}
