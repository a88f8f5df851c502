use super::*;
use crate::plan::{ContainerPlan, Identity, LogLimits};
use crate::state::{Exit, Terminating};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn plan(policy: RestartPolicy, containers: &[(&str, Role)]) -> PodPlan {
    PodPlan {
        identity: Identity {
            namespace: "default".into(),
            name: "pod".into(),
            uid: "u".into(),
            boot_id: "b".into(),
        },
        hostname: "pod".into(),
        network: None,
        restart_policy: policy,
        containers: containers
            .iter()
            .map(|(name, role)| ContainerPlan {
                name: (*name).to_owned(),
                role: *role,
                startup: None,
                liveness: None,
                readiness: None,
                lifecycle: None,
                ports: Vec::new(),
                termination_message_from_logs: false,
                resources: Default::default(),
            })
            .collect(),
        active_deadline_seconds: None,
        grace_seconds: 30,
        started_at: at(0),
        isolation: crate::os::Isolation::none(String::new()),
        cgroups: Default::default(),
        logs: LogLimits::default(),
    }
}

fn ready_state(plan: &PodPlan) -> PodState {
    let mut state = PodState::new(plan);
    state
        .containers
        .iter_mut()
        .for_each(|container| container.prepared = true);
    state
}

fn runs(state: &mut PodState, index: usize) {
    state.containers[index].status = Status::Running { at: at(0), pid: 1 };
    state.containers[index].started = true;
}

fn ends(state: &mut PodState, index: usize, code: i32, second: i64) {
    let crashes = state.containers[index].crashes;
    state.containers[index].crashes = crashes_after(crashes, at(second - 1), at(second));
    state.containers[index].status = Status::Exited(Exit {
        container: state.containers[index].name.clone(),
        restart: 0,
        code,
        signal: None,
        reason: String::new(),
        message: String::new(),
        started_at: at(second - 1),
        finished_at: at(second),
        id: String::new(),
    });
}

fn finished(succeeded: bool) -> Action {
    Action::Finish(Finished {
        succeeded,
        reason: None,
        message: None,
    })
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let plan = plan(
        RestartPolicy::Never,
        &[("a", Role::Init), ("b", Role::Init), ("main", Role::Main)],
    );
    let mut state = ready_state(&plan);
    assert_eq!(decide(&plan, &state, at(1)).actions, [Action::Start(0)]);
    runs(&mut state, 0);
    assert_eq!(decide(&plan, &state, at(1)).actions, []);
    ends(&mut state, 0, 0, 2);
    assert_eq!(decide(&plan, &state, at(2)).actions, [Action::Start(1)]);
    ends(&mut state, 1, 0, 3);
    assert_eq!(decide(&plan, &state, at(3)).actions, [Action::Start(2)]);
}

#[test]
fn a_container_waits_for_its_image_and_holds_nobody_else() {
    let plan = plan(RestartPolicy::Never, &[("a", Role::Main), ("b", Role::Main)]);
    let mut state = ready_state(&plan);
    state.containers[0].prepared = false;
    assert_eq!(decide(&plan, &state, at(1)).actions, [Action::Start(1)]);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let plan = plan(RestartPolicy::Never, &[("a", Role::Init), ("main", Role::Main)]);
    let mut state = ready_state(&plan);
    ends(&mut state, 0, 1, 2);
    assert_eq!(
        decide(&plan, &state, at(2)).actions,
        [Action::Terminate(Cause::InitFailed, at(32))]
    );
    state.terminating = Some(Terminating {
        cause: Cause::InitFailed,
        deadline: at(32),
    });
    assert_eq!(decide(&plan, &state, at(2)).actions, [finished(false)]);
}

#[test]
fn a_failed_init_container_is_tried_again_otherwise() {
    let plan = plan(RestartPolicy::Always, &[("a", Role::Init), ("main", Role::Main)]);
    let mut state = ready_state(&plan);
    ends(&mut state, 0, 1, 2);
    assert_eq!(
        decide(&plan, &state, at(2)).actions,
        [Action::Start(0)],
        "the first restart does not wait"
    );
    ends(&mut state, 0, 1, 3);
    let decision = decide(&plan, &state, at(4));
    assert_eq!((decision.actions, decision.wake_at), (vec![], Some(at(13))));
    assert_eq!(decide(&plan, &state, at(13)).actions, [Action::Start(0)]);
}

#[test]
fn a_sidecar_starts_first_and_is_stopped_last() {
    let plan = plan(
        RestartPolicy::Never,
        &[("proxy", Role::Sidecar), ("main", Role::Main)],
    );
    let mut state = ready_state(&plan);
    assert_eq!(decide(&plan, &state, at(1)).actions, [Action::Start(0)]);
    state.containers[0].status = Status::Running { at: at(1), pid: 1 };
    assert_eq!(
        decide(&plan, &state, at(1)).actions,
        [],
        "not before its startup probe has passed"
    );
    runs(&mut state, 0);
    assert_eq!(decide(&plan, &state, at(1)).actions, [Action::Start(1)]);
    ends(&mut state, 1, 0, 5);
    assert_eq!(
        decide(&plan, &state, at(5)).actions,
        [Action::Terminate(Cause::Completed, at(35))]
    );
    state.terminating = Some(Terminating {
        cause: Cause::Completed,
        deadline: at(35),
    });
    assert_eq!(decide(&plan, &state, at(5)).actions, [Action::Stop(0, at(35))]);
    ends(&mut state, 0, 143, 6);
    assert_eq!(
        decide(&plan, &state, at(6)).actions,
        [finished(true)],
        "a sidecar's exit code does not count"
    );
}

#[test]
fn restart_policies_are_obeyed() {
    for (policy, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::Always, 1, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::Never, 0, false),
        (RestartPolicy::Never, 1, false),
    ] {
        assert_eq!(will_restart(policy, Role::Main, code), again, "{policy:?} {code}");
    }
}

#[test]
fn the_pod_ends_when_each_container_has_ended() {
    let plan = plan(RestartPolicy::Never, &[("a", Role::Main), ("b", Role::Main)]);
    let mut state = ready_state(&plan);
    ends(&mut state, 0, 0, 2);
    runs(&mut state, 1);
    assert_eq!(decide(&plan, &state, at(2)).actions, []);
    ends(&mut state, 1, 3, 4);
    state.terminating = Some(Terminating {
        cause: Cause::Completed,
        deadline: at(34),
    });
    assert_eq!(decide(&plan, &state, at(4)).actions, [finished(false)]);
}

#[test]
fn the_deadline_stops_the_pod_and_says_so() {
    let mut plan = plan(RestartPolicy::Never, &[("a", Role::Main)]);
    plan.active_deadline_seconds = Some(10);
    let mut state = ready_state(&plan);
    runs(&mut state, 0);
    assert_eq!(decide(&plan, &state, at(9)).wake_at, Some(at(10)));
    assert_eq!(
        decide(&plan, &state, at(10)).actions,
        [Action::Terminate(Cause::DeadlineExceeded, at(40))]
    );
    state.terminating = Some(Terminating {
        cause: Cause::DeadlineExceeded,
        deadline: at(40),
    });
    assert_eq!(decide(&plan, &state, at(10)).actions, [Action::Stop(0, at(40))]);
    state.containers[0].stopping = true;
    assert_eq!(decide(&plan, &state, at(11)).actions, []);
    ends(&mut state, 0, 143, 12);
    let actions = decide(&plan, &state, at(12)).actions;
    let [Action::Finish(end)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(end.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn nothing_starts_in_a_pod_that_is_being_deleted() {
    let plan = plan(RestartPolicy::Always, &[("a", Role::Main), ("b", Role::Main)]);
    let mut state = ready_state(&plan);
    ends(&mut state, 0, 1, 2);
    runs(&mut state, 1);
    state.terminating = Some(Terminating {
        cause: Cause::Deleted,
        deadline: at(30),
    });
    assert_eq!(decide(&plan, &state, at(3)).actions, [Action::Stop(1, at(30))]);
}

#[test]
fn delays_double_up_to_five_minutes_and_a_long_run_forgives() {
    let delays: Vec<i64> = (1..=8).map(delay_after).collect();
    assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(delay_after(u32::MAX), 300);
    assert_eq!(crashes_after(7, at(0), at(599)), 8);
    assert_eq!(crashes_after(7, at(0), at(600)), 1);
}
