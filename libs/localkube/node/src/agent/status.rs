//! The Pod's `status`, computed from its spec and what is known about its processes. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{RestartPolicy, Role};
use crate::policy;
use crate::state::{self, Exit, PodState, Status};

/// Why a container is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub reason: String,
    pub message: String,
}

/// All that the status is made of, beside the Pod itself.
#[derive(Debug)]
pub struct View<'a> {
    pub state: Option<&'a PodState>,
    /// by container
    pub holds: &'a HashMap<String, Hold>,
    pub image_ids: &'a HashMap<String, String>,
    pub pod_ip: Option<String>,
    pub host_ip: String,
    /// the Pod failed as a whole: reason and message
    pub failure: Option<(String, String)>,
    /// volumes, network and shim are there
    pub sandbox: bool,
    /// it waits for its turn
    pub queued: Option<String>,
}

/// The role of a container of this Pod.
pub fn role(container: &Container, init: bool) -> Role {
    match (init, container.restart_policy.as_deref()) {
        (true, Some("Always")) => Role::Sidecar,
        (true, _) => Role::Init,
        (false, _) => Role::Main,
    }
}

pub fn compute(pod: &Pod, view: &View<'_>, now: Timestamp) -> PodStatus {
    let Some(spec) = &pod.spec else {
        return PodStatus::default();
    };
    let policy = RestartPolicy::parse(spec.restart_policy.as_deref());
    let old = pod.status.clone().unwrap_or_default();
    let inits: Vec<(&Container, Role)> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| (container, role(container, true)))
        .collect();
    let mains: Vec<(&Container, Role)> = spec
        .containers
        .iter()
        .map(|container| (container, Role::Main))
        .collect();
    let statuses = |containers: &[(&Container, Role)], initialized: bool| -> Vec<ContainerStatus> {
        containers
            .iter()
            .map(|(container, role)| container_status(container, *role, policy, view, initialized))
            .collect()
    };
    let current = |name: &str| view.state.and_then(|state| state.container(name));
    let initialized = inits
        .iter()
        .all(|(container, role)| match (role, current(&container.name)) {
            (Role::Sidecar, Some(current)) => {
                current.started || current.exit().is_some() || current.restarts > 0
            }
            (_, Some(current)) => current.exit().is_some_and(|exit| exit.code == 0),
            (_, None) => false,
        });
    let init_statuses = statuses(&inits, true);
    let container_statuses = statuses(&mains, initialized);

    let phase = phase(policy, &mains, &inits, view);
    let over = phase == "Succeeded" || phase == "Failed";
    let all_ready = !over
        && initialized
        && container_statuses
            .iter()
            .chain(
                init_statuses
                    .iter()
                    .zip(&inits)
                    .filter(|(_, (_, role))| *role == Role::Sidecar)
                    .map(|(status, _)| status),
            )
            .all(|status| status.ready);
    let gates_ready = spec.readiness_gates.iter().flatten().all(|gate| {
        old.conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    });

    let mut conditions = Conditions {
        old: old.conditions.clone().unwrap_or_default(),
        new: Vec::new(),
        now,
    };
    conditions.set("PodReadyToStartContainers", view.sandbox && !over, None, None);
    let waiting_init: Vec<&str> = inits
        .iter()
        .filter(|(container, _)| {
            current(&container.name).is_none_or(|current| current.exit().is_none_or(|exit| exit.code != 0))
        })
        .map(|(container, _)| container.name.as_str())
        .collect();
    let completed = phase == "Succeeded";
    if initialized || completed {
        conditions.set("Initialized", true, completed.then_some("PodCompleted"), None);
    } else {
        let message = format!("containers with incomplete status: [{}]", waiting_init.join(" "));
        conditions.set(
            "Initialized",
            false,
            Some("ContainersNotInitialized"),
            Some(message),
        );
    }
    let unready: Vec<&str> = container_statuses
        .iter()
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    let (reason, message) = if completed {
        (Some("PodCompleted"), None)
    } else if phase == "Failed" {
        (Some("PodFailed"), None)
    } else {
        (Some("ContainersNotReady"), Some(message))
    };
    if all_ready {
        conditions.set("ContainersReady", true, None, None);
        conditions.set(
            "Ready",
            gates_ready,
            (!gates_ready).then_some("ReadinessGatesNotReady"),
            None,
        );
    } else {
        conditions.set("ContainersReady", false, reason, message.clone());
        conditions.set("Ready", false, reason, message);
    }
    conditions.set("PodScheduled", true, None, None);

    let finished = view.state.and_then(|state| state.finished.as_ref());
    let (reason, message) = match (&view.failure, finished, &view.queued) {
        (Some((reason, message)), ..) => (Some(reason.clone()), Some(message.clone())),
        (None, Some(finished), _) => (finished.reason.clone(), finished.message.clone()),
        (None, None, Some(queued)) => (Some("Queued".to_owned()), Some(queued.clone())),
        (None, None, None) => (None, None),
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions.finish()),
        reason,
        message,
        host_ip: Some(view.host_ip.clone()),
        host_ips: Some(vec![HostIP {
            ip: view.host_ip.clone(),
        }]),
        pod_ip: view.pod_ip.clone(),
        pod_ips: view.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        start_time: old.start_time.or(Some(Time(now))),
        init_container_statuses: (!init_statuses.is_empty()).then_some(init_statuses),
        container_statuses: Some(container_statuses),
        qos_class: Some(old.qos_class.unwrap_or_else(|| qos_class(pod).to_owned())),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn phase(
    policy: RestartPolicy,
    mains: &[(&Container, Role)],
    inits: &[(&Container, Role)],
    view: &View<'_>,
) -> &'static str {
    if view.failure.is_some() {
        return "Failed";
    }
    let Some(state) = view.state else { return "Pending" };
    if let Some(finished) = &state.finished {
        return if finished.succeeded { "Succeeded" } else { "Failed" };
    }
    let begun = mains.iter().any(|(container, _)| {
        state.container(&container.name).is_some_and(|current| {
            matches!(current.status, Status::Running { .. } | Status::Exited(_)) || current.restarts > 0
        })
    });
    if !begun {
        return "Pending";
    }
    // The Pod is over only when its sidecars are too; until then it is Running, as on Kubernetes.
    let sidecars_run = inits.iter().any(|(container, role)| {
        *role == Role::Sidecar
            && state
                .container(&container.name)
                .is_some_and(state::ContainerState::running)
    });
    let exits: Option<Vec<&Exit>> = mains
        .iter()
        .map(|(container, _)| {
            state
                .container(&container.name)
                .and_then(state::ContainerState::exit)
        })
        .collect();
    match exits {
        Some(exits)
            if !sidecars_run
                && state.terminating.is_none()
                && exits
                    .iter()
                    .all(|exit| !policy::will_restart(policy, Role::Main, exit.code)) =>
        {
            if exits.iter().all(|exit| exit.code == 0) {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        _ => "Running",
    }
}

fn container_status(
    container: &Container,
    role: Role,
    policy: RestartPolicy,
    view: &View<'_>,
    initialized: bool,
) -> ContainerStatus {
    let current = view.state.and_then(|state| state.container(&container.name));
    let over = view.failure.is_some()
        || view
            .state
            .is_some_and(|state| state.finished.is_some() || state.terminating.is_some());
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    };
    let not_yet = || match view.holds.get(&container.name) {
        Some(hold) => waiting(
            &hold.reason,
            Some(hold.message.clone()).filter(|message| !message.is_empty()),
        ),
        None if initialized => waiting("ContainerCreating", None),
        None => waiting("PodInitializing", None),
    };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: view.image_ids.get(&container.name).cloned().unwrap_or_default(),
        ready: false,
        restart_count: 0,
        started: Some(false),
        ..ContainerStatus::default()
    };
    let mut last = None;
    let state = match current {
        None => not_yet(),
        Some(current) => {
            status.restart_count = i32::try_from(current.restarts).unwrap_or(i32::MAX);
            status.container_id = Some(current.id.clone()).filter(|id| !id.is_empty());
            last.clone_from(&current.last);
            match &current.status {
                Status::Waiting | Status::Starting if current.last.is_none() => not_yet(),
                Status::Waiting | Status::Starting => waiting("ContainerCreating", None),
                Status::Running { at, .. } => {
                    status.ready = current.ready && role != Role::Init;
                    status.started = Some(current.started);
                    ContainerState {
                        running: Some(ContainerStateRunning {
                            started_at: Some(Time(*at)),
                        }),
                        ..ContainerState::default()
                    }
                }
                Status::Exited(exit) => {
                    status.ready = role == Role::Init && exit.code == 0;
                    status.container_id = Some(exit.id.clone());
                    let again = !over && policy::will_restart(policy, role, exit.code);
                    if again && policy::delay_after(current.crashes) > 0 {
                        last = Some(exit.clone());
                        let seconds = policy::delay_after(current.crashes);
                        let message = format!(
                            "back-off {seconds}s restarting failed container={}",
                            container.name
                        );
                        waiting("CrashLoopBackOff", Some(message))
                    } else {
                        terminated(exit)
                    }
                }
            }
        }
    };
    status.state = Some(state);
    status.last_state = Some(last.as_ref().map(terminated).unwrap_or_default());
    status
}

fn terminated(exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: exit.code,
            reason: Some(exit.reason.clone()),
            message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
            signal: None,
            started_at: Some(Time(exit.started_at)),
            finished_at: Some(Time(exit.finished_at)),
            container_id: Some(exit.id.clone()),
        }),
        ..ContainerState::default()
    }
}

/// Our own conditions replace their former selves; those of others stay.
struct Conditions {
    old: Vec<PodCondition>,
    new: Vec<PodCondition>,
    now: Timestamp,
}

impl Conditions {
    fn set(&mut self, name: &str, value: bool, reason: Option<&str>, message: Option<String>) {
        let status = if value { "True" } else { "False" };
        let before = self.old.iter().find(|condition| condition.type_ == name);
        // The scheduler's own word stays.
        if name == "PodScheduled"
            && let Some(before) = before.filter(|before| before.status == "True")
        {
            self.new.push(before.clone());
            return;
        }
        let since = before
            .filter(|before| before.status == status)
            .and_then(|before| before.last_transition_time.clone())
            .unwrap_or(Time(self.now));
        self.new.push(PodCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since),
            reason: reason.map(str::to_owned),
            message,
            ..PodCondition::default()
        });
    }

    fn finish(mut self) -> Vec<PodCondition> {
        for condition in self.old {
            if !self.new.iter().any(|new| new.type_ == condition.type_) {
                self.new.push(condition);
            }
        }
        self.new
    }
}

/// Guaranteed when each container's requests equal its limits for cpu and memory, BestEffort when none says anything.
pub fn qos_class(pod: &Pod) -> &'static str {
    let spec = pod.spec.iter();
    let containers: Vec<&Container> = spec
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
        .collect();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (requests, limits) = (
            resources.requests.unwrap_or_default(),
            resources.limits.unwrap_or_default(),
        );
        for name in ["cpu", "memory"] {
            let (request, limit) = (requests.get(name), limits.get(name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
