//! One run: observes, plans, records, acts; again and again until the run is over.
//!
//! What is decided is recorded before it is done, and doing it again is harmless: a Pod's name belongs to its attempt,
//! and an outcome is created once. So a crash at any point loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ferroflow_api::step::{Outcome, OutcomeState};
use ferroflow_kernel::{Code, Error, Event, Result};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use super::pod::{self, Verdict};
use super::{Message, Shared};
use crate::domain::package::Package;
use crate::domain::plan::{self, Action, Plan, TaskView};
use crate::domain::run::{
    Artifact, AttemptFacts, AttemptState, CacheFact, Observed, Outputs, RunSpec, TaskKind, TaskState,
};
use crate::domain::step::{StepPlan, task_id};
use crate::domain::values::normalise;
use crate::store::{AttemptRow, Changes, RunRow, RunUpdate, StateChange, TaskRow};

/// Pods are created so many at a time.
const SIDE_BY_SIDE: usize = 16;
/// Outcomes are small; the outputs that are large are artifacts.
const MAX_OUTCOME: usize = 32 * 1024 * 1024;
/// How long to wait before something that failed for no fault of the run is tried again.
const AGAIN: SignedDuration = SignedDuration::from_millis(500);
/// How long a run without room waits before it looks for some again, told or not.
const STARVED: Duration = Duration::from_secs(1);

/// An attempt that is under way.
struct Live {
    row: AttemptRow,
    cache_key: Option<String>,
    /// Since when its Pod has trouble.
    troubled: Option<Timestamp>,
    /// Its Pod was killed for memory: what to tell instead of the launcher's own words.
    out_of_memory: Option<String>,
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
                return Ok(());
            }
            self.wait(&plan).await?;
            if std::mem::take(&mut self.stale) {
                // What was learned is recorded before everything is read again.
                self.record(&Changes::default()).await?;
                self.refresh().await?;
            }
        }
    }

    /// Records changes, after those that were learned since the last tick.
    async fn record(&mut self, changes: &Changes) -> Result<()> {
        let now = self.shared.clock.now();
        let (id, namespace, pipeline) = (&self.run.id, &self.run.namespace, &self.run.pipeline_name);
        for changes in [&std::mem::take(&mut self.pending), changes] {
            if !changes.is_empty() {
                self.shared
                    .store
                    .apply(id, namespace, pipeline, now, changes)
                    .await?;
            }
        }
        Ok(())
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
                self.live.insert(
                    key.clone(),
                    Live {
                        row,
                        cache_key,
                        troubled: None,
                        out_of_memory: None,
                    },
                );
                self.shared.occupy(1);
                started.push(key);
            }
        }
        for (path, number) in started {
            self.look(&path, number).await;
        }
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.run.namespace)
    }

    /// Looks at the Pod of an attempt.
    async fn look(&mut self, path: &str, number: u32) {
        let Some(live) = self.live.get(&(path.to_owned(), number)) else {
            return;
        };
        let (name, known) = (live.row.pod_name.clone(), live.row.pod_uid.clone());
        match self.pods().get_opt(&name).await {
            Ok(Some(pod)) => self.saw(&pod).await,
            // It was there once.
            Ok(None) if known.is_some() => {
                self.settle(path, number, PodIs::Over("its Pod vanished without an outcome"))
                    .await;
            }
            Ok(None) => {
                // It may have been created, ended and removed just before a crash.
                self.settle(path, number, PodIs::Absent).await;
                if self.live.contains_key(&(path.to_owned(), number)) {
                    self.recreate(path, number).await;
                }
            }
            Err(error) => {
                tracing::warn!(run = self.run.id, pod = name, %error, "the Pod cannot be read; trying again");
                self.again(path, number);
            }
        }
    }

    async fn recreate(&mut self, path: &str, number: u32) {
        if self.spec.terminate {
            self.settle(path, number, PodIs::Over("ended before its Pod was created"))
                .await;
            return;
        }
        match plan::rebuild(&self.spec, &self.observed, self.shared.clock.now(), path) {
            Some(plan) if plan.step.attempt == number => self.uncreated.push(plan),
            _ => {
                self.settle(
                    path,
                    number,
                    PodIs::Over("it cannot be planned again after a restart"),
                )
                .await;
            }
        }
    }

    fn again(&mut self, path: &str, number: u32) {
        let at = self
            .shared
            .clock
            .now()
            .checked_add(AGAIN)
            .unwrap_or(Timestamp::MAX);
        self.recheck.push((at, path.to_owned(), number));
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
        self.record(&changes).await?;
        if !changes.lineage.is_empty() {
            self.shared.lineage.notify_one();
        }
        self.create_pods().await?;
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
        let live = Live {
            row: row.clone(),
            cache_key: cache_key.clone(),
            troubled: None,
            out_of_memory: None,
        };
        self.live.insert((path, number), live);
        self.uncreated.push(plan);
        (row, cache_key)
    }

    /// What people see: differences to what is recorded.
    fn describe(&mut self, plan: &Plan, changes: &mut Changes) {
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

    async fn create_pods(&mut self) -> Result<()> {
        let plans = std::mem::take(&mut self.uncreated);
        if plans.is_empty() {
            return Ok(());
        }
        let this = &*self;
        let created: Vec<(StepPlan, Result<String, Failure>)> = futures::stream::iter(plans)
            .map(|plan| async move {
                let result = this.create_pod(&plan).await;
                (plan, result)
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect()
            .await;
        let mut uids = Vec::new();
        for (plan, result) in created {
            let (path, number) = (plan.step.task.clone(), plan.step.attempt);
            match result {
                Ok(uid) => {
                    if let Some(live) = self.live.get_mut(&(path.clone(), number)) {
                        live.row.pod_uid = Some(uid.clone());
                    }
                    uids.push((path, number, uid));
                }
                Err(Failure::Final(why)) => self.fail(&path, number, AttemptState::Failed(why)),
                Err(Failure::Passing(why)) => {
                    tracing::warn!(
                        run = self.run.id,
                        task = path,
                        error = why,
                        "its Pod cannot be created; trying again"
                    );
                    self.trouble(&path, number, Some(why));
                    self.again(&path, number);
                }
            }
        }
        if !uids.is_empty() {
            self.shared.store.pods_created(&self.run.id, &uids).await?;
        }
        Ok(())
    }

    /// Creates the Pod of an attempt, or finds it; gives its UID.
    async fn create_pod(&self, plan: &StepPlan) -> Result<String, Failure> {
        let shared = &self.shared;
        let account = match self.run.service_account.as_str() {
            "" => shared.options.step_service_account.as_str(),
            account => account,
        };
        let credentials = shared
            .artifacts
            .credentials(&self.run.namespace, account, &plan.folder)
            .await
            .map_err(|error| Failure::of(&error, "credentials"))?;
        let step = &plan.step;
        let hint = shared
            .hints
            .path(&self.run.id, &task_id(&self.run.id, &step.task), step.attempt);
        let pod = pod::build(&pod::Parts {
            run: &self.spec,
            service_account: account,
            plan,
            credentials: &credentials,
            hint: &hint,
            options: &shared.options,
            traceparent: None,
        })
        .map_err(Failure::Final)?;
        let pods = self.pods();
        match pods.create(&PostParams::default(), &pod).await {
            Ok(created) => Ok(created.uid().unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let name = pod.name_any();
                let found = pods
                    .get(&name)
                    .await
                    .map_err(|error| Failure::Passing(error.to_string()))?;
                let label = |pod: &Pod, key: &str| pod.labels().get(key).cloned();
                let ours = [pod::RUN_LABEL, pod::TASK_LABEL, pod::ATTEMPT_LABEL]
                    .iter()
                    .all(|key| label(&found, key) == label(&pod, key));
                if ours {
                    return Ok(found.uid().unwrap_or_default());
                }
                Err(Failure::Final(format!(
                    "Pod {name} exists already and belongs to something else; delete it and retry the run"
                )))
            }
            Err(kube::Error::Api(status))
                if status.code < 500 && status.code != 429 && status.code != 409 =>
            {
                Err(Failure::Final(format!("its Pod was refused: {}", status.message)))
            }
            Err(error) => Err(Failure::Passing(error.to_string())),
        }
    }

    /// Ends a running attempt; it is over once its Pod is.
    async fn stop(&mut self, path: &str, number: u32) {
        let Some(live) = self.live.get(&(path.to_owned(), number)) else {
            return;
        };
        let name = live.row.pod_name.clone();
        let mut options = DeleteParams::default();
        if let Some(uid) = &live.row.pod_uid {
            options = options.preconditions(kube::api::Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            });
        }
        match self.pods().delete(&name, &options).await {
            Ok(either) => {
                if either.is_right() {
                    self.settle(path, number, PodIs::Over("ended on request")).await;
                }
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                self.settle(path, number, PodIs::Over("ended on request")).await;
            }
            Err(error) => {
                tracing::warn!(pod = name, %error, "a Pod cannot be deleted; trying again");
                self.again(path, number);
            }
        }
    }

    /// Waits for something to happen, and learns from it.
    async fn wait(&mut self, plan: &Plan) -> Result<()> {
        if !self.pending.is_empty() || !self.uncreated.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let grace = SignedDuration::try_from(self.shared.options.image_grace).unwrap_or(AGAIN);
        let troubles = self
            .live
            .values()
            .filter_map(|live| live.troubled?.checked_add(grace).ok());
        let wake = plan
            .wake
            .into_iter()
            .chain(self.recheck.iter().map(|(at, ..)| *at))
            .chain(troubles)
            .min();
        let mut pause = wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        if plan.starved {
            // Room may have become free just before this one began to wait for it.
            pause = Some(pause.map_or(STARVED, |pause| pause.min(STARVED)));
        }
        let shared = self.shared.clone();
        let message = tokio::select! {
            message = self.inbox.recv() => message,
            () = sleep(pause) => None,
            () = shared.room.notified(), if plan.starved => None,
            () = shared.cancel.cancelled() => return Err(Error::new(Code::Unavailable, "shutting down")),
        };
        if let Some(message) = message {
            self.learn(message).await;
        }
        // Whatever else came in meanwhile is learned before the next plan.
        for _ in 0..256 {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.learn(message).await;
        }
        self.check_times(grace).await;
        Ok(())
    }

    async fn check_times(&mut self, grace: SignedDuration) {
        let now = self.shared.clock.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.recheck)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.recheck = later;
        for (_, path, number) in due {
            self.look(&path, number).await;
        }
        let hopeless: Vec<(String, u32, String)> = self
            .live
            .iter()
            .filter(|(_, live)| {
                live.troubled
                    .is_some_and(|since| now.duration_since(since) >= grace)
            })
            .filter_map(|((path, number), _)| {
                let trouble = self
                    .observed
                    .get(path)?
                    .attempts
                    .get(*number as usize)?
                    .trouble
                    .clone()?;
                pod::is_hopeless(&trouble).then(|| (path.clone(), *number, trouble))
            })
            .collect();
        for (path, number, trouble) in hopeless {
            if let Some(live) = self.live.get(&(path.clone(), number)) {
                let name = live.row.pod_name.clone();
                if let Err(error) = self.pods().delete(&name, &DeleteParams::default()).await {
                    tracing::warn!(pod = name, %error, "a Pod that cannot start is left");
                }
            }
            self.fail(&path, number, AttemptState::Failed(trouble));
        }
    }

    async fn learn(&mut self, message: Message) {
        match message {
            Message::Hint { task_id: id, attempt } => {
                let found = self
                    .live
                    .keys()
                    .find(|(path, n)| *n == attempt && task_id(&self.run.id, path) == id)
                    .cloned();
                if let Some((path, number)) = found {
                    self.settle(&path, number, PodIs::Alive).await;
                }
            }
            Message::Pod(pod) => self.saw(&pod).await,
            Message::Gone(pod) => {
                if let Some((path, number)) = attempt_of(&pod).filter(|key| self.live.contains_key(key)) {
                    let why = if self.spec.terminate {
                        "ended on request"
                    } else {
                        "its Pod vanished without an outcome"
                    };
                    self.settle(&path, number, PodIs::Over(why)).await;
                }
            }
            Message::Resync => {
                for (path, number) in self.live.keys().cloned().collect::<Vec<_>>() {
                    self.look(&path, number).await;
                }
            }
            Message::Changed => self.stale = true,
        }
    }

    /// Learns from the state of a Pod.
    async fn saw(&mut self, pod: &Pod) {
        let Some((path, number)) = attempt_of(pod) else {
            return;
        };
        let Some(live) = self.live.get_mut(&(path.clone(), number)) else {
            return;
        };
        if live.row.pod_name != pod.name_any() {
            return;
        }
        let uid = pod.uid().unwrap_or_default();
        match &live.row.pod_uid {
            None => live.row.pod_uid = Some(uid),
            // Another Pod of that name is none of ours.
            Some(known) if *known != uid => return,
            Some(_) => {}
        }
        match pod::verdict(pod) {
            Verdict::Alive => self.trouble(&path, number, None),
            Verdict::Troubled(why) => self.trouble(&path, number, Some(why)),
            Verdict::Over(why) => self.settle(&path, number, PodIs::Over(&why)).await,
            Verdict::OutOfMemory(why) => {
                live.out_of_memory = Some(why.clone());
                self.settle(&path, number, PodIs::Over(&why)).await;
            }
        }
    }

    fn trouble(&mut self, path: &str, number: u32, why: Option<String>) {
        let now = self.shared.clock.now();
        if let Some(live) = self.live.get_mut(&(path.to_owned(), number)) {
            live.troubled = match (&why, live.troubled) {
                (Some(_), None) => Some(now),
                (Some(_), since) => since,
                (None, _) => None,
            };
        }
        if let Some(fact) = self
            .observed
            .get_mut(path)
            .and_then(|f| f.attempts.get_mut(number as usize))
        {
            fact.trouble = why;
        }
    }

    /// Takes the outcome of an attempt if there is one.
    async fn settle(&mut self, path: &str, number: u32, pod: PodIs<'_>) {
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
        let out_of_memory = live.out_of_memory.clone();
        let state = match (bytes, pod) {
            // Only the Pod knows whether that was for memory; it is over in a moment.
            (Some(bytes), PodIs::Alive) if was_killed(&bytes) => return,
            (Some(bytes), _) => match (self.judge(path, number, &bytes), out_of_memory) {
                (AttemptState::Failed(_), Some(why)) => AttemptState::Failed(why),
                (state, _) => state,
            },
            (None, PodIs::Over(_)) if self.spec.terminate => AttemptState::Stopped,
            (None, PodIs::Over(why)) => AttemptState::Failed(why.to_owned()),
            (None, PodIs::Alive | PodIs::Absent) => return,
        };
        self.fail(path, number, state);
    }

    fn judge(&self, path: &str, number: u32, bytes: &[u8]) -> AttemptState {
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
    fn fail(&mut self, path: &str, number: u32, state: AttemptState) {
        let Some(live) = self.live.remove(&(path.to_owned(), number)) else {
            return;
        };
        self.shared.release(1);
        self.uncreated
            .retain(|plan| plan.step.task != path || plan.step.attempt != number);
        let now = self.shared.clock.now();
        let mut row = AttemptRow {
            ended_at: Some(now),
            ..live.row
        };
        match &state {
            AttemptState::Succeeded(outputs) => {
                "SUCCEEDED".clone_into(&mut row.state);
                row.outputs = Some(Outputs::clone(outputs));
                if let Some(key) = live.cache_key {
                    self.pending
                        .remembered
                        .push((key, path.to_owned(), outputs.clone()));
                }
            }
            AttemptState::Failed(why) => {
                "FAILED".clone_into(&mut row.state);
                row.message = Some(why.clone());
                tracing::info!(
                    run = self.run.id,
                    task = path,
                    attempt = number,
                    error = why,
                    "step failed"
                );
            }
            AttemptState::Stopped | AttemptState::Started => "STOPPED".clone_into(&mut row.state),
        }
        if let Some(fact) = self
            .observed
            .get_mut(path)
            .and_then(|f| f.attempts.get_mut(number as usize))
        {
            fact.state = state;
            fact.ended_at = Some(now);
            fact.trouble = None;
        }
        self.pending.ended.push(row);
    }
}

/// Whether an outcome tells of a command that was ended by SIGKILL.
fn was_killed(outcome: &[u8]) -> bool {
    serde_json::from_slice::<Outcome>(outcome)
        .is_ok_and(|outcome| outcome.state == OutcomeState::Failed && outcome.exit_code == Some(137))
}

/// Why a Pod could not be created.
enum Failure {
    /// Trying again is no use.
    Final(String),
    /// It may work later.
    Passing(String),
}

impl Failure {
    fn of(error: &Error, what: &str) -> Self {
        let text = format!("{what}: {error}");
        match error.code() {
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::FailedPrecondition => Self::Final(text),
            _ => Self::Passing(text),
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Path and number of the attempt that a Pod belongs to.
fn attempt_of(pod: &Pod) -> Option<(String, u32)> {
    let path = pod.annotations().get(pod::TASK_ANNOTATION)?.clone();
    let number = pod.labels().get(pod::ATTEMPT_LABEL)?.parse().ok()?;
    Some((path, number))
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
