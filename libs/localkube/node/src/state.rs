//! What a shim reports: the whole state of its Pod, each time that something changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::{Identity, PodPlan};

/// A snapshot of a Pod's processes. `seq` grows with each change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodState {
    pub identity: Identity,
    pub seq: u64,
    /// in the plan's order
    pub containers: Vec<ContainerState>,
    /// set once the Pod must stop
    pub terminating: Option<Terminating>,
    /// set once nothing runs any more and nothing will
    pub finished: Option<Finished>,
    /// the latest occurrences, oldest first, numbered without gaps
    pub events: Vec<Occurrence>,
    pub next_event: u64,
}

impl PodState {
    pub fn new(plan: &PodPlan) -> Self {
        Self {
            identity: plan.identity.clone(),
            seq: 0,
            containers: plan
                .containers
                .iter()
                .map(|c| ContainerState::new(&c.name))
                .collect(),
            terminating: None,
            finished: None,
            events: Vec::new(),
            next_event: 0,
        }
    }

    pub fn container(&self, name: &str) -> Option<&ContainerState> {
        self.containers.iter().find(|c| c.name == name)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    pub name: String,
    /// starts after the first
    pub restarts: u32,
    pub status: Status,
    /// how the run before this one ended
    pub last: Option<Exit>,
    /// the startup probe passed and the postStart hook returned
    pub started: bool,
    pub ready: bool,
    /// the agent has sent what is needed to start it
    pub prepared: bool,
    /// consecutive quick exits; decides the back-off
    pub crashes: u32,
    /// a stop is under way
    pub stopping: bool,
    /// this run's own id, `shim://<hex>`
    pub id: String,
}

impl ContainerState {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            restarts: 0,
            status: Status::Waiting,
            last: None,
            started: false,
            ready: false,
            prepared: false,
            crashes: 0,
            stopping: false,
            id: String::new(),
        }
    }

    pub fn exit(&self) -> Option<&Exit> {
        match &self.status {
            Status::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    pub fn running(&self) -> bool {
        matches!(self.status, Status::Starting | Status::Running { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Status {
    /// never started
    Waiting,
    /// being started
    Starting,
    Running {
        at: Timestamp,
        pid: i32,
    },
    Exited(Exit),
}

/// How a run of a container ended. It is on disk before anyone hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub container: String,
    pub restart: u32,
    /// 128 + n for an end by signal n
    pub code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`
    pub reason: String,
    pub message: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminating {
    pub cause: Cause,
    /// when the hard signal is due
    pub deadline: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// the Pod is being deleted
    Deleted,
    /// activeDeadlineSeconds has passed
    DeadlineExceeded,
    /// an init container failed for good
    InitFailed,
    /// the containers are done and the sidecars are being stopped
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    pub succeeded: bool,
    /// the Pod's `status.reason`, such as `DeadlineExceeded`
    pub reason: Option<String>,
    pub message: Option<String>,
}

/// Something worth a Kubernetes Event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    pub number: u64,
    pub warning: bool,
    pub reason: String,
    pub message: String,
    pub container: String,
}
