//! What happens next in a run: a pure function of what it is meant to do, what is known and the time.
//!
//! Only facts about container tasks are observed ([`Observed`]). States of graphs and loops, inputs, outputs and
//! skipped tasks all follow from those, so nothing derived can disagree with what happened, and planning again
//! after a crash gives the same plan.

mod container;
mod graph;
mod importer;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::resolve::{Inputs, Upstream};
use super::run::{CacheFact, Observed, Outputs, RunSpec, TaskKind, TaskState};
use super::step::StepPlan;

/// Path of the run itself.
pub const ROOT: &str = "root";

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

impl Planner<'_> {
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

    fn push(&mut self, view: TaskView, state: TaskState, message: Option<String>) -> Upstream {
        let index = self.tasks.len();
        let outputs = view.outputs.clone();
        self.tasks.push(view);
        self.settle(index, state, outputs, message)
    }
}

#[cfg(test)]
mod tests;
