//! One run: observes, plans, records, acts; again and again until the run is over.
//!
//! What is decided is recorded before it is done, and doing it again is harmless: a Pod's name belongs to its attempt,
//! and an outcome is created once. So a crash at any point loses nothing.

mod describe;
mod observe;
mod pods;
mod settle;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferroflow_kernel::{Error, Result};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::trace::RunTrace;
use super::{Message, Shared, pod};
use crate::domain::package::Package;
use crate::domain::plan::{self, Action, Plan};
use crate::domain::run::{AttemptFacts, AttemptState, CacheFact, Observed, Outputs, RunSpec};
use crate::domain::step::StepPlan;
use crate::store::{AttemptRow, Changes, RunRow, TaskRow};

/// An attempt that is under way.
struct Live {
    row: AttemptRow,
    cache_key: Option<String>,
    /// Since when its Pod has trouble.
    troubled: Option<Timestamp>,
    /// Its Pod was ended from outside: what to tell instead of the launcher's own words.
    killed: Option<String>,
    /// Since when its outcome tells of a signal, and its Pod not why.
    unexplained: Option<Timestamp>,
}

impl Live {
    fn new(row: AttemptRow, cache_key: Option<String>) -> Self {
        Self {
            row,
            cache_key,
            troubled: None,
            killed: None,
            unexplained: None,
        }
    }
}

/// What is known of the Pod of an attempt whose outcome is looked for.
#[derive(Clone, Copy)]
enum PodIs<'a> {
    Alive,
    /// It is not there, and may never have been.
    Absent,
    /// It is over; the text says why there may be no outcome.
    Over(&'a str),
}

/// One run under way.
pub struct Actor {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Message>,
    run: RunRow,
    trace: Option<RunTrace>,
    spec: RunSpec,
    observed: Observed,
    live: BTreeMap<(String, u32), Live>,
    views: HashMap<String, TaskRow>,
    /// What was learned since the last tick.
    pending: Changes,
    /// Pods to be created.
    uncreated: Vec<StepPlan>,
    /// Attempts to be looked at again.
    recheck: Vec<(Timestamp, String, u32)>,
    /// Whether the row was changed by somebody else.
    stale: bool,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.shared.release(self.live.len());
    }
}

impl Actor {
    /// Reads a run.
    ///
    /// # Errors
    /// If the database fails, or the run is none.
    pub async fn load(
        shared: Arc<Shared>,
        run_id: &str,
        inbox: mpsc::Receiver<Message>,
    ) -> Result<Self, (Error, mpsc::Receiver<Message>)> {
        match Self::read(&shared, run_id).await {
            Ok((run, spec)) => Ok(Self {
                shared,
                inbox,
                trace: RunTrace::of(&run),
                run,
                spec,
                observed: Observed::new(),
                live: BTreeMap::new(),
                views: HashMap::new(),
                pending: Changes::default(),
                uncreated: Vec::new(),
                recheck: Vec::new(),
                stale: false,
            }),
            Err(error) => Err((error, inbox)),
        }
    }

    async fn read(shared: &Shared, run_id: &str) -> Result<(RunRow, RunSpec)> {
        let run = shared.store.run(run_id).await?;
        let package = Package::from_json(&run.spec)?;
        let spec = RunSpec {
            run_id: run.id.clone(),
            display_name: run.display_name.clone(),
            namespace: run.namespace.clone(),
            resource_name: run.resource_name.clone(),
            pipeline_root: run.pipeline_root.clone(),
            parameters: run.parameters.clone(),
            package,
            created_at: run.created_at,
            scheduled_at: run.scheduled_at,
            terminate: run.terminate,
        };
        Ok((run, spec))
    }

    /// Gives up, with everything that was not recorded; what waits in the inbox is kept.
    pub fn into_inbox(mut self) -> mpsc::Receiver<Message> {
        std::mem::replace(&mut self.inbox, mpsc::channel(1).1)
    }

    /// Works on the run until it is over.
    ///
    /// # Errors
    /// If the database fails; the run can be loaded and worked on again.
    pub async fn work(&mut self) -> Result<()> {
        self.refresh().await?;
        loop {
            let plan = self.tick().await?;
            // Unless somebody has something to say still, such as: try again.
            if plan.state.is_final() && self.live.is_empty() && self.shared.retire(&self.run.id, &self.inbox)
            {
                self.shared.figures.run_ended(plan.state.name());
                return Ok(());
            }
            self.wait(&plan).await?;
            if std::mem::take(&mut self.stale) {
                // What was learned is recorded before everything is read again.
                let learned = std::mem::take(&mut self.pending);
                self.record(&learned).await?;
                self.refresh().await?;
            }
        }
    }

    /// Records changes.
    async fn record(&self, changes: &Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let (id, namespace, pipeline) = (&self.run.id, &self.run.namespace, &self.run.pipeline_name);
        self.shared
            .store
            .apply(id, namespace, pipeline, now, changes)
            .await
    }

    /// Reads everything that is known about the run, and looks at the Pods of attempts that are under way.
    async fn refresh(&mut self) -> Result<()> {
        let store = self.shared.store.clone();
        (self.run, self.spec) = Self::read(&self.shared, &self.run.id).await?;
        let troubles: Vec<_> = self
            .observed
            .iter()
            .map(|(path, facts)| (path.clone(), facts.clone()))
            .collect();
        self.observed = store.observed(&self.run.id).await?;
        for (path, old) in troubles {
            let Some(facts) = self.observed.get_mut(&path) else {
                continue;
            };
            for (new, old) in facts.attempts.iter_mut().zip(old.attempts) {
                new.trouble = old.trouble;
            }
        }
        self.views = store
            .tasks(&self.run.id)
            .await?
            .into_iter()
            .map(|row| (row.path.clone(), row))
            .collect();
        let keys = store.cache_keys(&self.run.id).await?;
        let mut started = Vec::new();
        for row in store.attempts(&self.run.id).await? {
            let key = (row.path.clone(), row.number);
            // Rows may have changed since the facts were read, if another scheduler is still at work.
            let facts = self
                .observed
                .get(&row.path)
                .and_then(|f| f.attempts.get(row.number as usize));
            let is_started = facts.is_some_and(|fact| fact.state == AttemptState::Started);
            if row.state == "STARTED" && is_started && !self.live.contains_key(&key) {
                let cache_key = keys.get(&row.path).cloned();
                self.live.insert(key.clone(), Live::new(row, cache_key));
                self.shared.occupy(1);
                started.push(key);
            }
        }
        for (path, number) in started {
            self.look(&path, number).await;
        }
        Ok(())
    }

    /// Plans, records and acts until there is nothing to do but wait.
    async fn tick(&mut self) -> Result<Plan> {
        let mut changes = std::mem::take(&mut self.pending);
        let mut stops = Vec::new();
        let plan = loop {
            let now = self.shared.clock.now();
            let room = self.shared.reserve();
            let plan = plan::plan(&self.spec, &self.observed, now, room);
            let mut used = 0;
            let mut changed = false;
            for action in plan.actions.iter().cloned() {
                match action {
                    Action::LookUpCache { path, key } => {
                        let found = self.look_up(&key).await?;
                        self.observed.entry(path.clone()).or_default().cache = match &found {
                            Some(outputs) => CacheFact::Hit(outputs.clone()),
                            None => CacheFact::Miss,
                        };
                        changes.cache.push((path, key, found));
                        changed = true;
                    }
                    Action::Start {
                        path,
                        plan,
                        cache_key,
                    } => {
                        used += 1;
                        changed = true;
                        changes.started.push(self.start(path, *plan, cache_key, now));
                    }
                    Action::Stop { path, attempt } => stops.push((path, attempt)),
                }
            }
            self.shared.release(room - used);
            if !changed {
                break plan;
            }
            stops.clear();
        };
        self.describe(&plan, &mut changes);
        // Credentials are made meanwhile, and used only for what is recorded.
        let plans = std::mem::take(&mut self.uncreated);
        let (recorded, minted) = tokio::join!(self.record(&changes), self.mint(plans));
        recorded?;
        if !changes.lineage.is_empty() {
            self.shared.lineage.notify_one();
        }
        self.create_pods(minted).await?;
        for (path, attempt) in stops {
            self.stop(&path, attempt).await;
        }
        Ok(plan)
    }

    async fn look_up(&self, key: &str) -> Result<Option<Arc<Outputs>>> {
        let (namespace, pipeline) = (&self.run.namespace, &self.run.pipeline_name);
        let Some(entry) = self.shared.store.cached(namespace, pipeline, key).await? else {
            return Ok(None);
        };
        // A result whose bytes are gone is none.
        for artifact in entry.artifacts().filter(|artifact| artifact.digest.is_some()) {
            match self.shared.artifacts.exists(&artifact.uri).await {
                Ok(true) => {}
                Ok(false) => {
                    self.shared.store.forget_cached(namespace, pipeline, key).await?;
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!(uri = artifact.uri, %error, "a cached artifact cannot be checked; the step runs");
                    return Ok(None);
                }
            }
        }
        Ok(Some(Arc::new(entry.outputs)))
    }

    fn start(
        &mut self,
        path: String,
        plan: StepPlan,
        cache_key: Option<String>,
        now: Timestamp,
    ) -> (AttemptRow, Option<String>) {
        let number = plan.step.attempt;
        let row = AttemptRow {
            path: path.clone(),
            number,
            pod_name: pod::name(&self.run.resource_name, &self.run.id, &path, number),
            pod_uid: None,
            state: "STARTED".to_owned(),
            message: None,
            outputs: None,
            folder: plan.folder.clone(),
            created_at: now,
            ended_at: None,
        };
        let fact = AttemptFacts {
            state: AttemptState::Started,
            ended_at: None,
            trouble: None,
        };
        self.observed.entry(path.clone()).or_default().attempts.push(fact);
        let live = Live::new(row.clone(), cache_key.clone());
        self.live.insert((path, number), live);
        self.prepare(plan);
        (row, cache_key)
    }

    /// What is known of an attempt.
    fn fact_mut(&mut self, path: &str, number: u32) -> Option<&mut AttemptFacts> {
        self.observed.get_mut(path)?.attempts.get_mut(number as usize)
    }

    /// Its Pod is to be created.
    fn prepare(&mut self, mut plan: StepPlan) {
        plan.step.trace = self
            .trace
            .as_ref()
            .zip(self.shared.options.collector.as_deref())
            .map(|(trace, endpoint)| trace.step(&plan.step.task, plan.step.attempt, endpoint));
        self.uncreated.push(plan);
    }
}
