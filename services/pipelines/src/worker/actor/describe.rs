//! What people see of a run: differences to what is recorded.

use ferroflow_kernel::Event;
use jiff::Timestamp;
use serde_json::json;

use super::Actor;
use crate::domain::plan::{Plan, TaskView};
use crate::domain::run::{Outputs, TaskKind, TaskState};
use crate::domain::step::task_id;
use crate::store::{Changes, RunUpdate, StateChange, TaskRow};

impl Actor {
    /// What people see: differences to what is recorded.
    pub(super) fn describe(&mut self, plan: &Plan, changes: &mut Changes) {
        let now = self.shared.clock.now();
        for (position, view) in plan.tasks.iter().enumerate() {
            let position = i64::try_from(position).unwrap_or(i64::MAX);
            let old = self.views.get(&view.path);
            let Some(row) = task_row(&self.run.id, view, old, position, now) else {
                continue;
            };
            let ended = row.state.is_final() && old.is_none_or(|old| !old.state.is_final());
            let recorded = matches!(
                row.kind,
                TaskKind::Container | TaskKind::Importer | TaskKind::Root | TaskKind::Dag
            );
            if ended && recorded && row.state != TaskState::Skipped {
                changes.lineage.push((row.path.clone(), row.state));
            }
            // Graphs are told when they begin too, so that their tasks can name them.
            let is_graph = matches!(row.kind, TaskKind::Root | TaskKind::Dag);
            if is_graph && row.state == TaskState::Running && old.is_none_or(|old| old.started_at.is_none()) {
                changes.lineage.push((row.path.clone(), row.state));
            }
            changes.tasks.push(row.clone());
            self.views.insert(view.path.clone(), row);
        }
        let error = plan.error.clone().filter(|_| plan.state.is_final());
        // A run that began stays begun, also while all of its tasks wait.
        let state = match plan.state {
            TaskState::Pending if self.run.state == TaskState::Running => TaskState::Running,
            state => state,
        };
        if state == self.run.state && error == self.run.error {
            return;
        }
        self.run.state = state;
        self.run.error.clone_from(&error);
        self.run.finished_at = if state.is_final() {
            now
        } else {
            Timestamp::UNIX_EPOCH
        };
        self.run.history.push(StateChange {
            update_time: now,
            state,
            error: error.clone(),
        });
        self.run.revision += 1;
        if state.is_final() {
            if let Some(trace) = &self.trace {
                trace.run_ended(&self.run, now);
            }
            tracing::info!(
                run = self.run.id,
                state = state.name(),
                error = error.as_deref(),
                "run finished"
            );
            let subject = format!("namespaces/{}/runs/{}", self.run.namespace, self.run.id);
            let data = json!({"run_id": self.run.id, "state": state.name(), "error": error});
            changes.events.push(Event::new(
                "pipelines",
                "ferroflow.pipelines.run.finished",
                subject,
                self.run.revision,
                now,
                data,
            ));
        }
        changes.run = Some(RunUpdate {
            state,
            error,
            finished_at: self.run.finished_at,
            history: self.run.history.clone(),
        });
    }
}

/// The row of a view, if it differs from what is recorded.
fn task_row(
    run_id: &str,
    view: &TaskView,
    old: Option<&TaskRow>,
    position: i64,
    now: Timestamp,
) -> Option<TaskRow> {
    if let Some(old) = old
        && old.state == view.state
        && old.message == view.message
        && old.cached == view.cached
        && old.outputs == *view.outputs
        && old.inputs.parameters == view.inputs.parameters
        && old.inputs.artifacts == view.inputs.artifacts
    {
        return None;
    }
    let mut row = match old {
        Some(old) => old.clone(),
        None => TaskRow {
            path: view.path.clone(),
            task_id: task_id(run_id, &view.path),
            parent: view.parent.clone(),
            name: view.name.clone(),
            display_name: view.display_name.clone(),
            kind: view.kind,
            state: view.state,
            cached: false,
            message: None,
            inputs: Outputs::default(),
            outputs: Outputs::default(),
            after: view.after.clone(),
            iteration: view.iteration.and_then(|i| i64::try_from(i).ok()),
            position,
            created_at: now,
            started_at: None,
            ended_at: None,
            history: Vec::new(),
            execution_id: None,
        },
    };
    if row.state != view.state || row.history.is_empty() {
        let error = view.message.clone().filter(|_| view.state == TaskState::Failed);
        row.history.push(StateChange {
            update_time: now,
            state: view.state,
            error,
        });
        let began = !matches!(view.state, TaskState::Pending | TaskState::Skipped);
        if began && row.started_at.is_none() {
            row.started_at = Some(now);
        }
        row.ended_at = view.state.is_final().then_some(now);
    }
    row.state = view.state;
    row.cached = view.cached;
    row.message.clone_from(&view.message);
    row.inputs = Outputs {
        parameters: view.inputs.parameters.clone(),
        artifacts: view.inputs.artifacts.clone(),
    };
    row.outputs = Outputs::clone(&view.outputs);
    row.position = position;
    Some(row)
}
