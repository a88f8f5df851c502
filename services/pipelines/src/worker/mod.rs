//! The scheduler: one task per run under way, fed by a watch of the Pods of steps and by the launchers' hints.

mod actor;
pub mod artifacts;
mod figures;
pub mod hints;
pub mod lineage;
pub mod pod;
mod trace;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferroflow_kernel::{Clock, Result};
use ferroflow_telemetry::{Metrics, Probe};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::Actor;
use self::artifacts::Artifacts;
use self::figures::Figures;
use self::hints::Hints;
use crate::options::Options;
use crate::store::Store;

/// How many messages may wait for one run.
const INBOX: usize = 4096;
/// How often runs that another process of the service made or changed are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// One run takes at most so much room at a time, so that others get some.
const SHARE: usize = 64;

/// Something that a run should know.
#[derive(Debug)]
pub enum Message {
    /// A launcher says that an outcome exists.
    Hint {
        /// Id of the task.
        task_id: String,
        /// Number of the attempt.
        attempt: u32,
    },
    /// A Pod was created or changed.
    Pod(Box<Pod>),
    /// A Pod is gone.
    Gone(Box<Pod>),
    /// Pods may have come or gone unseen.
    Resync,
    /// The run's row was changed by somebody else.
    Changed,
}

/// What all runs share.
pub struct Shared {
    pub(crate) store: Store,
    pub(crate) client: kube::Client,
    pub(crate) artifacts: Arc<dyn Artifacts>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hints: Hints,
    figures: Figures,
    pub(crate) cancel: CancellationToken,
    /// Cancelled when the scheduler's future is dropped: then its runs are dropped too, wherever they are.
    dropped: CancellationToken,
    /// Told when there is something for the metadata service.
    pub(crate) lineage: Notify,
    /// Told when schedules changed.
    schedules: Notify,
    /// Told when an attempt ended.
    room: Notify,
    occupied: AtomicUsize,
    /// Whether this process is the one that works on runs; the others only write rows, which it finds.
    leads: AtomicBool,
    runs: Mutex<HashMap<String, mpsc::Sender<Message>>>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("runs", &self.runs().len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Message>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes as much room as one run may have now.
    fn reserve(&self) -> usize {
        let mut taken = 0;
        let most = self.options.max_pods;
        let _full = self
            .occupied
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |occupied| {
                taken = most.saturating_sub(occupied).min(SHARE);
                Some(occupied + taken)
            });
        taken
    }

    /// Runs at work, attempts at work, and how many may be.
    fn at_work(&self) -> (usize, usize, usize) {
        let occupied = self.occupied.load(Ordering::Acquire);
        (self.runs().len(), occupied, self.options.max_pods)
    }

    fn occupy(&self, count: usize) {
        self.occupied.fetch_add(count, Ordering::AcqRel);
    }

    fn release(&self, count: usize) {
        if count > 0 {
            self.occupied.fetch_sub(count, Ordering::AcqRel);
            self.room.notify_waiters();
        }
    }

    /// Takes a run off the list, unless something waits for it.
    fn retire(&self, run_id: &str, inbox: &mpsc::Receiver<Message>) -> bool {
        let mut runs = self.runs();
        if !inbox.is_empty() {
            return false;
        }
        runs.remove(run_id);
        true
    }
}

/// The scheduler. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

/// What a scheduler is made of.
pub struct Parts {
    /// Its rows.
    pub store: Store,
    /// Its way to Kubernetes.
    pub client: kube::Client,
    /// The artifacts service.
    pub artifacts: Arc<dyn Artifacts>,
    /// Options of the service.
    pub options: Options,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Checks launchers' messages.
    pub hints: Hints,
    /// Where figures are told.
    pub metrics: Metrics,
}

impl Scheduler {
    /// A scheduler that does nothing until it runs.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            client,
            artifacts,
            options,
            clock,
            hints,
            metrics,
        } = parts;
        let own = Self {
            shared: Arc::new(Shared {
                store,
                client,
                artifacts,
                options,
                clock,
                hints,
                figures: Figures::new(&metrics),
                cancel: CancellationToken::new(),
                dropped: CancellationToken::new(),
                lineage: Notify::new(),
                schedules: Notify::new(),
                room: Notify::new(),
                occupied: AtomicUsize::new(0),
                leads: AtomicBool::new(false),
                runs: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        };
        Figures::observe(&metrics, &own.shared);
        own
    }

    /// Checks launchers' messages.
    pub fn hints(&self) -> &Hints {
        &self.shared.hints
    }

    /// Works on a run that is new, or tells the one at work that its row changed.
    pub fn wake(&self, run_id: &str) {
        if !self.shared.leads.load(Ordering::Acquire) {
            return;
        }
        let mut runs = self.shared.runs();
        if let Some(sender) = runs.get(run_id) {
            if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(Message::Changed) {
                tracing::warn!(run = run_id, "a run's inbox is full");
            }
            return;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        runs.insert(run_id.to_owned(), sender);
        drop(runs);
        let shared = self.shared.clone();
        let run_id = run_id.to_owned();
        self.shared.tasks.spawn(async move {
            let dropped = shared.dropped.clone();
            tokio::select! {
                () = work(shared, &run_id, inbox) => {}
                () = dropped.cancelled() => {}
            }
        });
    }

    /// Removes the Pods of a run.
    pub async fn delete_pods(&self, namespace: &str, run_id: &str) {
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        let label = format!("{}={run_id}", pod::RUN_LABEL);
        let deleted = pods
            .delete_collection(&DeleteParams::default(), &ListParams::default().labels(&label))
            .await;
        if let Err(error) = deleted {
            tracing::warn!(run = run_id, %error, "the Pods of a deleted run are left");
        }
    }

    /// Looks at the schedules again, since they changed.
    pub fn reschedule(&self) {
        self.shared.schedules.notify_one();
    }

    /// Told when schedules changed.
    pub(crate) async fn rescheduled(&self) {
        self.shared.schedules.notified().await;
    }

    /// Told when there is something for the metadata service.
    pub(crate) async fn lineage_changed(&self) {
        self.shared.lineage.notified().await;
    }

    /// Hands a launcher's message on.
    pub async fn hint(&self, run_id: &str, task_id: &str, attempt: u32) {
        let message = Message::Hint {
            task_id: task_id.to_owned(),
            attempt,
        };
        self.tell(run_id, message).await;
    }

    async fn tell(&self, run_id: &str, message: Message) {
        let sender = self.shared.runs().get(run_id).cloned();
        if let Some(sender) = sender {
            // A run that is over needs no messages.
            let _over = sender.send(message).await;
        }
    }

    /// Works until it is cancelled. Pods go on without it, and are found again by the next one.
    ///
    /// # Errors
    /// If the runs that are under way cannot be read.
    pub async fn run(&self, cancel: CancellationToken, probe: Probe) -> Result<()> {
        let _dropped = self.shared.dropped.clone().drop_guard();
        self.shared.leads.store(true, Ordering::Release);
        let mut known = HashMap::new();
        self.look(&mut known).await?;
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let pods: Api<Pod> = Api::all(self.shared.client.clone());
        let mut events = Box::pin(watcher(pods, watcher::Config::default().labels(pod::RUN_LABEL)));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = looks.tick() => {
                    if let Err(error) = self.look(&mut known).await {
                        tracing::warn!(%error, "runs of other processes cannot be looked for; trying again");
                    }
                    continue;
                }
                () = cancel.cancelled() => break,
            };
            match event {
                Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => self.dispatch(pod, false).await,
                Some(Ok(Event::Delete(pod))) => self.dispatch(pod, true).await,
                Some(Ok(Event::Init)) => {}
                Some(Ok(Event::InitDone)) => {
                    probe.ready();
                    let ids: Vec<String> = self.shared.runs().keys().cloned().collect();
                    for id in ids {
                        self.tell(&id, Message::Resync).await;
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of Pods broke; starting it again");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        () = cancel.cancelled() => break,
                    }
                }
                None => break,
            }
        }
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        Ok(())
    }

    /// Wakes the runs whose rows are new, changed or gone since the last look.
    async fn look(&self, known: &mut HashMap<String, i64>) -> Result<()> {
        let active: HashMap<String, i64> = self.shared.store.active_runs().await?.into_iter().collect();
        for (run_id, revision) in &active {
            if known.get(run_id) != Some(revision) {
                self.wake(run_id);
            }
        }
        for run_id in known.keys().filter(|run_id| !active.contains_key(*run_id)) {
            if self.shared.runs().contains_key(run_id) {
                self.wake(run_id);
            }
        }
        *known = active;
        Ok(())
    }

    async fn dispatch(&self, pod: Pod, gone: bool) {
        let Some(run_id) = pod.labels().get(pod::RUN_LABEL).cloned() else {
            return;
        };
        let pod = Box::new(pod);
        self.tell(
            &run_id,
            if gone {
                Message::Gone(pod)
            } else {
                Message::Pod(pod)
            },
        )
        .await;
    }
}

async fn work(shared: Arc<Shared>, run_id: &str, mut inbox: mpsc::Receiver<Message>) {
    let mut pause = Duration::from_millis(50);
    loop {
        match Actor::load(shared.clone(), run_id, inbox).await {
            Ok(mut actor) => match actor.work().await {
                Ok(()) => return,
                Err(_) if shared.cancel.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(run = run_id, %error, "work on a run failed; starting it again");
                    inbox = actor.into_inbox();
                }
            },
            Err((error, _)) if error.code() == ferroflow_kernel::Code::NotFound => {
                shared.runs().remove(run_id);
                return;
            }
            Err((error, back)) => {
                tracing::error!(run = run_id, %error, "a run cannot be read; trying again");
                inbox = back;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.cancel.cancelled() => return,
        }
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
