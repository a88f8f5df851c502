//! Which container starts, stops or starts again, and when the Pod is over: a pure function of the plan,
//! the state and the time. The shim obeys it, so it works while no agent is there.

use jiff::{SignedDuration, Timestamp};

use crate::plan::{PodPlan, RestartPolicy, Role};
use crate::state::{Cause, ContainerState, Finished, PodState, Status};

/// The back-off's first delay, its ceiling, and the run that forgives earlier crashes (the kubelet's values).
const FIRST_DELAY: i64 = 10;
const LONGEST_DELAY: i64 = 300;
const FORGIVING_RUN: i64 = 600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// start the container with this index
    Start(usize),
    /// stop it politely, and hard at the deadline
    Stop(usize, Timestamp),
    /// the whole Pod must stop
    Terminate(Cause, Timestamp),
    /// nothing runs and nothing will
    Finish(Finished),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    pub actions: Vec<Action>,
    /// when to ask again even if nothing happens
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |old| old.min(at)));
    }
}

/// Seconds to wait after the `crashes`-th consecutive exit: none for the first, then 10 s doubling up to 5 min.
pub fn delay_after(crashes: u32) -> i64 {
    match crashes {
        0 | 1 => 0,
        n => FIRST_DELAY
            .saturating_mul(1 << (n - 2).min(16))
            .min(LONGEST_DELAY),
    }
}

/// The number of consecutive crashes after a run from `started` to `finished`.
pub fn crashes_after(before: u32, started: Timestamp, finished: Timestamp) -> u32 {
    if finished.duration_since(started) >= SignedDuration::from_secs(FORGIVING_RUN) {
        1
    } else {
        before.saturating_add(1)
    }
}

/// When an exited container may start again.
pub fn restart_at(container: &ContainerState) -> Option<Timestamp> {
    let exit = container.exit()?;
    Some(
        exit.finished_at
            .saturating_add(SignedDuration::from_secs(delay_after(container.crashes)))
            .unwrap_or(exit.finished_at),
    )
}

/// Whether a container that ended will be started again by the Pod's policy.
pub fn will_restart(policy: RestartPolicy, role: Role, code: i32) -> bool {
    match role {
        Role::Sidecar => true,
        Role::Init => code != 0 && policy != RestartPolicy::Never,
        Role::Main => match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        },
    }
}

/// What to do now.
pub fn decide(plan: &PodPlan, state: &PodState, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    if state.finished.is_some() {
        return decision;
    }
    if let Some(terminating) = &state.terminating {
        wind_down(
            plan,
            state,
            terminating.cause,
            terminating.deadline,
            &mut decision,
        );
        return decision;
    }
    let grace = SignedDuration::from_secs(plan.grace_seconds.max(0));
    let hard_stop = now.saturating_add(grace).unwrap_or(now);
    if let Some(seconds) = plan.active_deadline_seconds {
        let due = plan
            .started_at
            .saturating_add(SignedDuration::from_secs(seconds))
            .unwrap_or(plan.started_at);
        if now >= due {
            decision
                .actions
                .push(Action::Terminate(Cause::DeadlineExceeded, hard_stop));
            return decision;
        }
        decision.wake(due);
    }

    // Init containers, one after the other; a sidecar lets the next one pass once it has started.
    for (index, (container, current)) in plan.containers.iter().zip(&state.containers).enumerate() {
        match container.role {
            Role::Main => continue,
            Role::Sidecar => {
                step(plan, current, index, container.role, now, &mut decision);
                let up = current.running() && current.started;
                if !up && !later_ran(plan, state, index) {
                    return decision;
                }
            }
            Role::Init => {
                if current.exit().is_some_and(|exit| exit.code == 0) {
                    continue;
                }
                if current.exit().is_some() && plan.restart_policy == RestartPolicy::Never {
                    decision
                        .actions
                        .push(Action::Terminate(Cause::InitFailed, hard_stop));
                    return decision;
                }
                step(plan, current, index, container.role, now, &mut decision);
                return decision;
            }
        }
    }

    let mut busy = false;
    for (index, (container, current)) in plan.containers.iter().zip(&state.containers).enumerate() {
        if container.role != Role::Main {
            continue;
        }
        let over = current
            .exit()
            .is_some_and(|exit| !will_restart(plan.restart_policy, Role::Main, exit.code));
        if !over {
            busy = true;
            step(plan, current, index, Role::Main, now, &mut decision);
        }
    }
    if !busy {
        // Sidecars were perhaps told to start again above; the Pod is over, so they are not.
        decision.actions = vec![Action::Terminate(Cause::Completed, hard_stop)];
    }
    decision
}

/// Starts a container that waits, or one that ended and whose back-off has passed.
fn step(
    plan: &PodPlan,
    current: &ContainerState,
    index: usize,
    role: Role,
    now: Timestamp,
    decision: &mut Decision,
) {
    match &current.status {
        Status::Waiting if current.prepared => decision.actions.push(Action::Start(index)),
        Status::Waiting | Status::Starting | Status::Running { .. } => {}
        Status::Exited(exit) => {
            if !will_restart(plan.restart_policy, role, exit.code) || !current.prepared {
                return;
            }
            match restart_at(current) {
                Some(at) if at > now => decision.wake(at),
                _ => decision.actions.push(Action::Start(index)),
            }
        }
    }
}

/// A sidecar that fails after the Pod went on does not hold the others back.
fn later_ran(plan: &PodPlan, state: &PodState, index: usize) -> bool {
    plan.containers
        .iter()
        .zip(&state.containers)
        .skip(index + 1)
        .any(|(container, current)| {
            container.role != Role::Sidecar && (current.running() || current.exit().is_some())
        })
}

/// Stops the containers, then the sidecars in reverse order, then says how it ended.
fn wind_down(plan: &PodPlan, state: &PodState, cause: Cause, deadline: Timestamp, decision: &mut Decision) {
    let mut mains_running = false;
    for (index, (container, current)) in plan.containers.iter().zip(&state.containers).enumerate() {
        if container.role != Role::Sidecar && current.running() {
            mains_running = true;
            if !current.stopping {
                decision.actions.push(Action::Stop(index, deadline));
            }
        }
    }
    if mains_running {
        return;
    }
    let last_sidecar = plan
        .containers
        .iter()
        .zip(&state.containers)
        .enumerate()
        .rev()
        .find(|(_, (container, current))| container.role == Role::Sidecar && current.running());
    if let Some((index, (_, current))) = last_sidecar {
        if !current.stopping {
            decision.actions.push(Action::Stop(index, deadline));
        }
        return;
    }
    decision.actions.push(Action::Finish(outcome(plan, state, cause)));
}

/// A Pod has succeeded when each container that is not a sidecar ended with 0.
fn outcome(plan: &PodPlan, state: &PodState, cause: Cause) -> Finished {
    let all_ended_well = plan
        .containers
        .iter()
        .zip(&state.containers)
        .filter(|(container, _)| container.role != Role::Sidecar)
        .all(|(_, current)| current.exit().is_some_and(|exit| exit.code == 0));
    match cause {
        Cause::DeadlineExceeded => Finished {
            succeeded: false,
            reason: Some("DeadlineExceeded".to_owned()),
            message: Some("Pod was active on the node longer than the specified deadline".to_owned()),
        },
        Cause::InitFailed => Finished {
            succeeded: false,
            reason: None,
            message: None,
        },
        Cause::Completed | Cause::Deleted => Finished {
            succeeded: all_ended_well,
            reason: None,
            message: None,
        },
    }
}

#[cfg(test)]
mod tests;
