//! A Pod's life in its shim: asks the policy what to do, does it, and tells whoever watches.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use super::container::{self, Live};
use super::record::Records;
use super::{hooks, serve};
use crate::os::Spawner;
use crate::plan::{ContainerSpec, PodPlan};
use crate::policy::{self, Action};
use crate::state::{Finished, Occurrence, PodState, Status, Terminating};

/// Occurrences kept for an agent that is away.
const EVENTS_KEPT: usize = 64;
/// How long a finished shim waits for its agent to take note; its folder tells the same later.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Shim {
    pub folder: PathBuf,
    pub plan: PodPlan,
    pub spawner: Spawner,
    pub records: RefCell<Records>,
    pub specs: RefCell<HashMap<String, ContainerSpec>>,
    pub live: RefCell<HashMap<usize, Rc<Live>>>,
    pub published: watch::Sender<PodState>,
    pub released: Cell<bool>,
    state: RefCell<PodState>,
    wake: Notify,
    _supervisor_stop: Option<OwnedFd>,
}

impl Shim {
    pub fn state(&self) -> std::cell::Ref<'_, PodState> {
        self.state.borrow()
    }

    /// Changes the state; it is published in the main loop's next round.
    pub fn update(&self, change: impl FnOnce(&mut PodState)) {
        let mut state = self.state.borrow_mut();
        change(&mut state);
        state.seq += 1;
        self.wake.notify_one();
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }

    pub fn occurred(&self, index: usize, warning: bool, reason: &str, message: String) {
        self.update(|state| {
            let number = state.next_event;
            state.next_event += 1;
            let container = state.containers[index].name.clone();
            state.events.push(Occurrence {
                number,
                warning,
                reason: reason.to_owned(),
                message,
                container,
            });
            let extra = state.events.len().saturating_sub(EVENTS_KEPT);
            state.events.drain(..extra);
        });
    }

    pub fn terminate(&self, grace_seconds: i64) {
        let deadline = Timestamp::now()
            .saturating_add(jiff::SignedDuration::from_secs(grace_seconds.max(0)))
            .unwrap_or_else(|_| Timestamp::now());
        let mut sooner = false;
        self.update(|state| match &mut state.terminating {
            Some(old) if old.deadline <= deadline => {}
            Some(old) => {
                old.deadline = deadline;
                sooner = true;
            }
            None => {
                state.terminating = Some(Terminating {
                    cause: crate::state::Cause::Deleted,
                    deadline,
                });
            }
        });
        if sooner {
            for live in self.live.borrow().values() {
                live.stop_by(deadline);
            }
        }
    }
}

pub(super) async fn run(folder: PathBuf, plan: PodPlan, listener: UnixListener) -> io::Result<()> {
    let (spawner, supervisor_stop) = start_spawner(&plan)?;
    let state = PodState::new(&plan);
    let records = Records::open(&folder)?;
    records.state(&state)?;
    let (published, _) = watch::channel(state.clone());
    let shim = Rc::new(Shim {
        folder,
        plan,
        spawner,
        records: RefCell::new(records),
        specs: RefCell::default(),
        live: RefCell::default(),
        published,
        released: Cell::new(false),
        state: RefCell::new(state),
        wake: Notify::new(),
        _supervisor_stop: supervisor_stop,
    });
    let listener = tokio::net::UnixListener::from_std(listener)?;
    tokio::task::spawn_local(serve::accept(shim.clone(), listener));
    tokio::task::spawn_local(terminate_on_signal(shim.clone()));
    main_loop(&shim).await
}

/// Every process of the Pod inherits the network filter from the spawner's thread.
fn start_spawner(plan: &PodPlan) -> io::Result<(Spawner, Option<OwnedFd>)> {
    let Some(network) = plan.network.clone() else {
        return Ok((Spawner::start(|| Ok(()))?.0, None));
    };
    let (spawner, listener) = Spawner::start(|| Ok(localkube_podnet::install_filter()))?;
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "shim: the Pod shares the machine's ports, because no filter could be installed: {error}"
            );
            return Ok((spawner, None));
        }
    };
    let (stop, keep) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    std::thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(move || {
            let supervisor =
                localkube_podnet::Supervisor::new(listener, network.address, network.service_table);
            if let Err(error) = supervisor.run(stop.as_fd()) {
                eprintln!("shim: the network supervisor ended: {error}");
            }
        })?;
    Ok((spawner, Some(keep)))
}

async fn terminate_on_signal(shim: Rc<Shim>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut asked) = signal(SignalKind::terminate()) else {
        return;
    };
    while asked.recv().await.is_some() {
        let grace = shim.plan.grace_seconds;
        shim.terminate(grace);
    }
}

async fn main_loop(shim: &Rc<Shim>) -> io::Result<()> {
    let mut stored = 0;
    let mut told = shim.state().clone();
    loop {
        // Each decision may call for the next; watchers see only where it comes to rest.
        let decision = loop {
            let decision = policy::decide(&shim.plan, &shim.state(), Timestamp::now());
            if decision.actions.is_empty() {
                break decision;
            }
            for action in decision.actions {
                act(shim, action);
            }
        };
        let state = shim.state().clone();
        let changed = state.seq != stored && tells(&state) != tells(&told);
        if state.seq != stored {
            stored = state.seq;
        }
        if changed {
            told.clone_from(&state);
            if let Err(error) = shim.records.borrow().state(&state) {
                eprintln!("shim: cannot store the state: {error}");
            }
            let finished = state.finished.is_some();
            shim.published.send_replace(state);
            if finished {
                return farewell(shim).await;
            }
        }
        let nap = decision
            .wake_at
            .map(|at| at.duration_since(Timestamp::now()).unsigned_abs());
        tokio::select! {
            () = shim.wake.notified() => {}
            () = tokio::time::sleep(nap.unwrap_or(Duration::from_secs(3600))) => {}
        }
    }
}

/// What a watcher would see; that a container is about to start is not worth a message of its own.
fn tells(state: &PodState) -> PodState {
    let mut state = state.clone();
    state.seq = 0;
    for container in &mut state.containers {
        container.prepared = false;
        if container.status == Status::Starting {
            container.status = Status::Waiting;
        }
    }
    state
}

/// The end is on disk before a watcher reads of it, and watchers get time to read.
async fn farewell(shim: &Rc<Shim>) -> io::Result<()> {
    File::open(shim.folder.join("state.json"))?.sync_data()?;
    let released = async {
        while !shim.released.get() {
            shim.wake.notified().await;
        }
    };
    drop(tokio::time::timeout(FAREWELL, released).await);
    Ok(())
}

fn act(shim: &Rc<Shim>, action: Action) {
    match action {
        Action::Start(index) => {
            shim.update(|state| {
                let container = &mut state.containers[index];
                if let Status::Exited(exit) = &container.status {
                    container.last = Some(exit.clone());
                    container.restarts += 1;
                }
                container.status = Status::Starting;
                container.started = false;
                container.ready = false;
                container.stopping = false;
            });
            tokio::task::spawn_local(container::run(shim.clone(), index));
        }
        Action::Stop(index, deadline) => {
            shim.update(|state| state.containers[index].stopping = true);
            let live = shim.live.borrow().get(&index).cloned();
            // A container that is only being started learns of it when it runs.
            if let Some(live) = live {
                let message = format!("Stopping container {}", shim.plan.containers[index].name);
                shim.occurred(index, false, "Killing", message);
                tokio::task::spawn_local(hooks::stop(shim.clone(), index, live, deadline));
            }
        }
        Action::Terminate(cause, deadline) => {
            shim.update(|state| state.terminating = Some(Terminating { cause, deadline }));
        }
        Action::Finish(finished) => finish(shim, finished),
    }
}

fn finish(shim: &Rc<Shim>, finished: Finished) {
    shim.update(|state| state.finished = Some(finished));
}
