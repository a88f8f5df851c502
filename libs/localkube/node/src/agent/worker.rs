//! A Pod's actor: takes up what runs, starts what does not, tells the API, and cleans up.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::pods::{Entry, Seen};
use super::queue::{Demand, Slot};
use super::start::{self, Context, Tell, Told};
use super::status::{self, Hold, View};
use super::writer::{self, Wanted};
use super::{Agent, pods_folder, volumes};
use crate::nursery::{Orders, ShimLink};
use crate::shim;
use crate::state::{Exit, PodState, Status};
use crate::wire::Request;

/// A Pod that gets going at once tells nothing of the steps in between; one that does not says what it waits for.
const QUIET: Duration = Duration::from_millis(40);
/// How long a shim may take to end when its Pod is removed.
const FAREWELL: Duration = Duration::from_secs(10);
const BACKLOG: usize = 64;

struct Actor {
    agent: Arc<Agent>,
    entry: Arc<Entry>,
    pod: Arc<Pod>,
    uid: String,
    tell: Tell,
    preparing: Option<AbortOnDropHandle<()>>,
    reader: Option<AbortOnDropHandle<()>>,
    slot: Option<Slot>,
    address: Option<Ipv4Addr>,
    orders: Option<Orders>,
    /// specifications that came before the shim did
    pending: Vec<Request>,
    state: Option<PodState>,
    holds: HashMap<String, Hold>,
    image_ids: HashMap<String, String>,
    failure: Option<(String, String)>,
    queued: Option<String>,
    told_events: u64,
    asked_grace: Option<i64>,
    status: Option<PodStatus>,
    wanted: watch::Sender<Wanted>,
    /// nothing runs and the API knows
    settled: bool,
    /// there is news that is not worth telling yet
    held_back: bool,
}

pub async fn run(agent: Arc<Agent>, entry: Arc<Entry>) {
    let Some(pod) = entry.pod() else { return };
    let mut seen = entry.subscribe();
    let (tell, mut inbox) = mpsc::channel(BACKLOG);
    let (wanted, latest) = watch::channel(Wanted::default());
    let meta = pod.metadata.clone();
    let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
    agent.tasks.spawn(writer::run(
        agent.client.clone(),
        namespace,
        name,
        entry.uid.clone(),
        latest,
    ));
    let mut actor = Actor {
        uid: entry.uid.clone(),
        agent,
        entry,
        pod,
        tell,
        preparing: None,
        reader: None,
        slot: None,
        address: None,
        orders: None,
        pending: Vec::new(),
        state: None,
        holds: HashMap::new(),
        image_ids: HashMap::new(),
        failure: None,
        queued: None,
        told_events: 0,
        asked_grace: None,
        status: None,
        wanted,
        settled: false,
        held_back: false,
    };
    actor.begin().await;
    let mut quiet_until = tokio::time::Instant::now() + QUIET;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(quiet_until), if actor.held_back => {}
            told = inbox.recv() => {
                if let Some(told) = told {
                    actor.hear(told).await;
                }
                while let Ok(told) = inbox.try_recv() {
                    actor.hear(told).await;
                }
            }
            changed = seen.changed() => {
                if changed.is_err() {
                    break;
                }
                let now = seen.borrow_and_update().clone();
                match now {
                    Seen::Present(pod) => actor.pod = pod,
                    Seen::Gone => {
                        actor.remove().await;
                        break;
                    }
                    Seen::Stopped => break,
                }
            }
        }
        actor.obey_deletion().await;
        let now = tokio::time::Instant::now();
        if actor.only_setting_up() && now < quiet_until {
            actor.held_back = true;
        } else {
            actor.held_back = false;
            quiet_until = now;
            actor.publish();
            actor.settle();
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

impl Actor {
    fn context(&self) -> Context {
        Context {
            agent: self.agent.clone(),
            pod: self.pod.clone(),
            uid: self.uid.clone(),
            folder: self.agent.folder(&self.uid),
            tell: self.tell.clone(),
        }
    }

    /// Nothing has happened yet that anyone waits for.
    fn only_setting_up(&self) -> bool {
        let still = |state: &PodState| {
            state
                .containers
                .iter()
                .all(|container| !matches!(container.status, Status::Running { .. } | Status::Exited(_)))
        };
        self.state.as_ref().is_none_or(still)
            && self.holds.is_empty()
            && self.failure.is_none()
            && !self.settled
    }

    /// Finds out what is there already.
    async fn begin(&mut self) {
        let folder = self.agent.folder(&self.uid);
        let known = match shim::recover(&folder) {
            Ok(known) => known.filter(|known| known.plan.identity.uid == self.uid),
            Err(error) => {
                warn!(%error, uid = self.uid, "cannot read a Pod's records");
                None
            }
        };
        if self.is_over() && known.is_none() {
            self.settled = true;
        } else if let Some(known) = known {
            self.adopt(known).await;
        } else if phase(&self.pod) == "Running" {
            let message = "the Pod ran on this node, but its records are gone".to_owned();
            self.failure = Some(("Lost".to_owned(), message));
        } else if self.pod.metadata.deletion_timestamp.is_none() {
            self.preparing = Some(AbortOnDropHandle::new(tokio::spawn(start::fresh(self.context()))));
            return;
        }
        self.obey_deletion().await;
        self.publish();
        self.settle();
    }

    async fn adopt(&mut self, known: shim::Recovered) {
        let folder = self.agent.folder(&self.uid);
        self.address = known.plan.network.as_ref().map(|network| network.address);
        let same_boot = known.plan.identity.boot_id == self.agent.boot_id;
        if known.lost
            && same_boot
            && let Ok((link, state)) = ShimLink::open(&folder).await
        {
            info!(
                pod = known.plan.identity.name,
                uid = self.uid,
                "took up a running Pod"
            );
            self.slot = Some(self.agent.queue.occupy(Demand::of(&self.pod)));
            if let Err(error) = start::keep_names(&self.context(), self.address) {
                warn!(%error, uid = self.uid, "cannot write the Pod's hosts file");
            }
            // Occurrences before now were told by the agent that is gone, or are of no interest any more.
            self.told_events = state.next_event;
            let prepared: Vec<String> = state
                .containers
                .iter()
                .filter(|container| container.prepared)
                .map(|container| container.name.clone())
                .collect();
            let missing = prepared.len() < state.containers.len();
            self.hear(Told::Shim(Box::new((link, state)))).await;
            if missing {
                let rest = start::rest(self.context(), self.address, prepared);
                self.preparing = Some(AbortOnDropHandle::new(tokio::spawn(rest)));
            }
            return;
        }
        let begun = known
            .state
            .containers
            .iter()
            .any(|container| container.status != Status::Waiting);
        if known.lost && !begun && !matches!(phase(&self.pod), "Running" | "Succeeded" | "Failed") {
            // It was only being set up: nothing has run, so it may start again.
            self.address = None;
            remove_groups(&folder);
            if let Err(error) = fs::remove_dir_all(&folder) {
                warn!(%error, uid = self.uid, "cannot clear a Pod's folder");
            }
            if self.pod.metadata.deletion_timestamp.is_none() {
                self.preparing = Some(AbortOnDropHandle::new(tokio::spawn(start::fresh(self.context()))));
            }
            return;
        }
        let mut state = known.state;
        self.told_events = state.next_event;
        if known.lost {
            drop(tokio::task::spawn_blocking(move || remove_groups(&folder)));
            let (reason, message) = lose(&mut state, same_boot);
            self.failure = Some((reason, message));
            self.finish();
        }
        self.hear(Told::State(Box::new(state))).await;
    }

    async fn hear(&mut self, told: Told) {
        tracing::debug!(uid = self.uid, %told, "heard");
        match told {
            Told::Queued(text) => self.queued = Some(text),
            Told::Slot(slot) => {
                self.queued = None;
                self.slot = Some(slot);
            }
            Told::Address(address) => self.address = address,
            Told::Shim(started) => {
                let (link, state) = *started;
                let ShimLink { orders, mut states } = link;
                self.orders = Some(orders);
                for request in std::mem::take(&mut self.pending) {
                    self.order(&request).await;
                }
                let tell = self.tell.clone();
                // Ends with this actor: the shim may go on for long.
                self.reader = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    while let Ok(Some(state)) = states.next().await {
                        if tell.send(Told::State(Box::new(state))).await.is_err() {
                            return;
                        }
                    }
                    drop(tell.send(Told::ShimGone).await);
                })));
                self.learn(state).await;
            }
            Told::State(state) => self.learn(*state).await,
            Told::ShimGone => {
                self.orders = None;
                if let Some(state) = &mut self.state
                    && state.finished.is_none()
                {
                    self.failure = Some(lose(state, true));
                    let folder = self.agent.folder(&self.uid);
                    drop(tokio::task::spawn_blocking(move || remove_groups(&folder)));
                    self.finish();
                }
            }
            Told::Hold { container, hold } => match hold {
                Some(hold) => drop(self.holds.insert(container, hold)),
                None => drop(self.holds.remove(&container)),
            },
            Told::Image { container, id } => drop(self.image_ids.insert(container, id)),
            Told::Prepared(spec) => {
                let name = spec.name.clone();
                let message = format!("Container image \"{}\" is ready", spec.image);
                self.agent
                    .recorder
                    .record(&self.pod, false, "Pulled", message, Some(&name));
                self.agent.recorder.record(
                    &self.pod,
                    false,
                    "Created",
                    format!("Created container: {name}"),
                    Some(&name),
                );
                let request = Request::Prepare(spec);
                if self.orders.is_some() {
                    self.order(&request).await;
                } else {
                    self.pending.push(request);
                }
            }
            Told::Warn(reason, message, container) => {
                self.agent
                    .recorder
                    .record(&self.pod, true, reason, message, container.as_deref());
            }
            Told::Note(reason, message, container) => {
                self.agent
                    .recorder
                    .record(&self.pod, false, reason, message, container.as_deref());
            }
            Told::Failed(reason, message) => {
                self.agent
                    .recorder
                    .record(&self.pod, true, "Failed", message.clone(), None);
                self.failure = Some((reason, message));
                self.finish();
            }
        }
    }

    async fn learn(&mut self, state: PodState) {
        if self.settled && self.is_over() {
            return;
        }
        for event in state
            .events
            .iter()
            .filter(|event| event.number >= self.told_events)
        {
            self.agent.recorder.record(
                &self.pod,
                event.warning,
                &event.reason,
                event.message.clone(),
                Some(&event.container),
            );
        }
        self.told_events = self.told_events.max(state.next_event);
        let finished = state.finished.is_some();
        self.entry.state.send_replace(Some(state.clone()));
        self.state = Some(state);
        if finished {
            self.finish();
            // The status is on its way before the shim is let go.
            self.publish();
            self.order(&Request::Release).await;
        }
    }

    /// Nothing runs any more: others may have the place and the address.
    fn finish(&mut self) {
        self.slot = None;
        self.preparing = None;
        self.agent.network.release(&self.uid);
    }

    async fn order(&mut self, request: &Request) {
        if let Some(orders) = &mut self.orders
            && let Err(error) = orders.send(request).await
        {
            warn!(%error, uid = self.uid, "a shim does not listen");
        }
    }

    async fn obey_deletion(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let ended = self.settled
            || self.failure.is_some()
            || self.state.as_ref().is_some_and(|state| state.finished.is_some());
        if ended {
            return;
        }
        if self.orders.is_some() {
            let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            if self.asked_grace.is_none_or(|asked| grace < asked) {
                self.asked_grace = Some(grace);
                self.order(&Request::Terminate { grace_seconds: grace }).await;
            }
            return;
        }
        // Not started yet: it never will be.
        self.preparing = None;
        self.slot = None;
        self.settled = true;
    }

    /// Whether the API says that the Pod has ended.
    fn is_over(&self) -> bool {
        matches!(phase(&self.pod), "Succeeded" | "Failed")
    }

    /// Once the API tells how the Pod ended, nothing about it is kept here: ended Pods stay there for long, and there are many.
    fn settle(&mut self) {
        let finished = self.state.as_ref().is_some_and(|state| state.finished.is_some());
        let told = |ours: &PodStatus| {
            self.pod.status.as_ref().is_some_and(|theirs| {
                let whole = |status: &PodStatus| {
                    (
                        status.phase.clone(),
                        status.reason.clone(),
                        status.message.clone(),
                    )
                };
                whole(theirs) == whole(ours) && ends(theirs).eq(ends(ours))
            })
        };
        if self.is_over() && finished && self.status.as_ref().is_some_and(told) {
            self.settled = true;
            self.state = None;
            self.status = None;
            self.reader = None;
            self.orders = None;
            self.wanted.send_modify(|wanted| wanted.status = None);
        }
    }

    fn publish(&mut self) {
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if self.settled {
            if deleting {
                self.wanted
                    .send_if_modified(|wanted| !std::mem::replace(&mut wanted.delete, true));
            }
            return;
        }
        let mut pod = Pod::clone(&self.pod);
        remember(&mut pod, self.status.as_ref());
        let sandbox = self.orders.is_some();
        let view = View {
            state: self.state.as_ref(),
            holds: &self.holds,
            image_ids: &self.image_ids,
            pod_ip: self.address.map(|address| address.to_string()).or_else(|| {
                (start::host_network(&self.pod) && sandbox).then(|| self.agent.config.node_ip.to_string())
            }),
            host_ip: self.agent.config.node_ip.to_string(),
            failure: self.failure.clone(),
            sandbox,
            queued: self.queued.clone(),
        };
        let status = status::compute(&pod, &view, Timestamp::now());
        let ended =
            self.failure.is_some() || self.state.as_ref().is_some_and(|state| state.finished.is_some());
        let delete = deleting && ended;
        let changed = self.status.as_ref() != Some(&status);
        if changed || delete {
            let patch = patch(&status).map(Arc::new);
            self.status = Some(status);
            self.wanted.send_if_modified(|wanted| {
                let fresh = Wanted {
                    status: patch.or(wanted.status.take()),
                    delete,
                };
                std::mem::replace(wanted, fresh.clone()) != fresh
            });
        }
    }

    /// The API no longer has the Pod: whatever is left of it ends now.
    async fn remove(&mut self) {
        self.preparing = None;
        let folder = self.agent.folder(&self.uid);
        self.orders = None;
        end_shim(&folder).await;
        self.finish();
        remove_folder(&folder, &self.uid).await;
        self.agent.pods.remove(&self.uid);
    }
}

/// How the containers ended. Times are left out: the API keeps whole seconds.
fn ends(status: &PodStatus) -> impl Iterator<Item = impl PartialEq> {
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    all.map(|one| {
        let ended = one.state.as_ref().and_then(|state| state.terminated.as_ref());
        let how = ended.map(|ended| {
            (
                ended.exit_code,
                &ended.reason,
                &ended.message,
                &ended.container_id,
            )
        });
        (&one.name, one.restart_count, how)
    })
}

/// The last status of ours stands in for the one that the API has not echoed yet; conditions of others are kept.
fn remember(pod: &mut Pod, ours: Option<&PodStatus>) {
    let Some(ours) = ours else { return };
    let mut status = ours.clone();
    let foreign = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let conditions = status.conditions.get_or_insert_default();
    for condition in foreign {
        if !conditions.iter().any(|known| known.type_ == condition.type_) {
            conditions.push(condition.clone());
        }
    }
    pod.status = Some(status);
}

/// A merge patch keeps what it does not name, so what is absent is named as null.
fn patch(status: &PodStatus) -> Option<Value> {
    let mut value = serde_json::to_value(status).ok()?;
    let fields = value.as_object_mut()?;
    for name in ["reason", "message", "podIP", "podIPs"] {
        fields.entry(name).or_insert(Value::Null);
    }
    Some(json!(value))
}

/// What ran without a shim cannot be known; exit records that exist are kept.
fn lose(state: &mut PodState, same_boot: bool) -> (String, String) {
    let now = Timestamp::now();
    for container in &mut state.containers {
        if let Status::Running { .. } | Status::Starting = container.status {
            let started_at = match container.status {
                Status::Running { at, .. } => at,
                _ => now,
            };
            container.ready = false;
            container.status = Status::Exited(Exit {
                container: container.name.clone(),
                restart: container.restarts,
                code: 137,
                signal: None,
                reason: "ContainerStatusUnknown".to_owned(),
                message: "the container could not be located when the Pod was looked for".to_owned(),
                started_at,
                finished_at: now,
                id: container.id.clone(),
            });
        }
    }
    if same_boot {
        (
            "ShimLost".to_owned(),
            "the Pod's shim ended before its containers did, and they ended with it".to_owned(),
        )
    } else {
        (
            "NodeRestarted".to_owned(),
            "the machine was restarted while the Pod ran".to_owned(),
        )
    }
}

/// Ends a Pod's shim, if there is one, and all its processes.
async fn end_shim(folder: &Path) {
    let farewell = async {
        let Ok((mut link, _)) = ShimLink::open(folder).await else {
            return;
        };
        for request in [Request::Terminate { grace_seconds: 0 }, Request::Release] {
            drop(link.orders.send(&request).await);
        }
        while let Ok(Some(_)) = link.states.next().await {}
    };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        warn!(folder = %folder.display(), "a shim did not end in time");
    }
}

async fn remove_folder(folder: &Path, uid: &str) {
    volumes::remove_outside(uid);
    let path = folder.to_owned();
    let outcome = tokio::task::spawn_blocking(move || {
        remove_groups(&path);
        for entry in fs::read_dir(path.join("roots")).into_iter().flatten().flatten() {
            drop(crate::os::remove_scratch(&entry.path()));
        }
        fs::remove_dir_all(path)
    })
    .await;
    match outcome {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(%error, folder = %folder.display(), "cannot remove a Pod's folder");
        }
        _ => {}
    }
}

/// Removes the cgroups that a killed shim left, wherever the agent of that time had them made.
fn remove_groups(folder: &Path) {
    match shim::read_plan(folder) {
        Ok(Some(plan)) => crate::os::remove_groups(&plan.cgroups, &plan.identity.uid),
        Ok(None) => {}
        Err(error) => warn!(%error, folder = %folder.display(), "cannot read a Pod's plan"),
    }
}

/// Removes what is left of Pods that were deleted while no agent was there.
pub async fn sweep(agent: Arc<Agent>, listed: HashSet<String>) {
    let entries = fs::read_dir(pods_folder(&agent.config.root_dir))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if listed.contains(&uid) || agent.pods.all().iter().any(|known| known.uid == uid) {
            continue;
        }
        info!(uid, "removing a Pod that no longer exists");
        end_shim(&entry.path()).await;
        agent.network.release(&uid);
        remove_folder(&entry.path(), &uid).await;
    }
}
