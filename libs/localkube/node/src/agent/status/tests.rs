use super::*;
use crate::plan::Identity;
use crate::state::Finished;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"name": "init", "image": "i"}],
            "containers": [{"name": "main", "image": "m"}]
        }
    }))
    .unwrap()
}

fn state(init: Status, main: Status) -> PodState {
    let container = |name: &str, status: Status| state::ContainerState {
        started: matches!(status, Status::Running { .. }),
        ready: matches!(status, Status::Running { .. }),
        status,
        ..state::ContainerState::new(name)
    };
    PodState {
        identity: Identity {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            boot_id: "b".into(),
        },
        seq: 1,
        containers: vec![container("init", init), container("main", main)],
        terminating: None,
        finished: None,
        events: Vec::new(),
        next_event: 0,
    }
}

fn exited(code: i32) -> Status {
    Status::Exited(Exit {
        container: "main".into(),
        restart: 0,
        code,
        signal: None,
        reason: if code == 0 {
            "Completed".into()
        } else {
            "Error".into()
        },
        message: String::new(),
        started_at: at(1),
        finished_at: at(2),
        id: "shim://x".into(),
    })
}

fn running() -> Status {
    Status::Running { at: at(1), pid: 7 }
}

fn status(pod: &Pod, state: Option<&PodState>) -> PodStatus {
    let (holds, images) = (HashMap::new(), HashMap::new());
    let view = View {
        state,
        holds: &holds,
        image_ids: &images,
        pod_ip: Some("127.1.2.3".into()),
        host_ip: "127.0.0.1".into(),
        failure: None,
        sandbox: true,
        queued: None,
    };
    compute(pod, &view, at(5))
}

fn condition(status: &PodStatus, name: &str) -> String {
    status
        .conditions
        .as_ref()
        .unwrap()
        .iter()
        .find(|condition| condition.type_ == name)
        .unwrap()
        .status
        .clone()
}

fn waiting(status: &ContainerStatus) -> String {
    status
        .state
        .as_ref()
        .unwrap()
        .waiting
        .as_ref()
        .unwrap()
        .reason
        .clone()
        .unwrap()
}

#[test]
fn a_pod_without_processes_is_pending() {
    let status = status(&pod("Never"), None);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&status.container_statuses.unwrap()[0]), "PodInitializing");
    assert_eq!(
        waiting(&status.init_container_statuses.unwrap()[0]),
        "ContainerCreating"
    );
}

#[test]
fn a_running_pod_is_ready() {
    let status = status(&pod("Always"), Some(&state(exited(0), running())));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    for name in [
        "PodScheduled",
        "Initialized",
        "ContainersReady",
        "Ready",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition(&status, name), "True", "{name}");
    }
    assert!(status.init_container_statuses.unwrap()[0].ready);
    assert_eq!(status.pod_ip.as_deref(), Some("127.1.2.3"));
}

#[test]
fn the_phase_follows_the_exits_before_the_shim_has_closed() {
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
        ("Always", 0, "Running"),
    ] {
        let status = status(&pod(policy), Some(&state(exited(0), exited(code))));
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_waits_and_keeps_the_last_exit() {
    let mut state = state(exited(0), exited(1));
    state.containers[1].crashes = 3;
    let status = status(&pod("Always"), Some(&state));
    let main = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(waiting(main), "CrashLoopBackOff");
    assert_eq!(
        main.last_state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        1
    );
    assert_eq!(condition(&status, "Ready"), "False");
}

#[test]
fn a_deadline_is_told_as_the_reason() {
    let mut state = state(exited(0), exited(143));
    state.finished = Some(Finished {
        succeeded: false,
        reason: Some("DeadlineExceeded".into()),
        message: None,
    });
    let status = status(&pod("Never"), Some(&state));
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn a_condition_keeps_its_time_while_it_does_not_change() {
    let mut pod = pod("Always");
    let state = state(exited(0), running());
    pod.status = Some(status(&pod, Some(&state)));
    let (holds, images) = (HashMap::new(), HashMap::new());
    let view_later = View {
        state: Some(&state),
        holds: &holds,
        image_ids: &images,
        pod_ip: None,
        host_ip: String::new(),
        failure: None,
        sandbox: true,
        queued: None,
    };
    let later = compute(&pod, &view_later, at(100));
    let times: Vec<_> = later
        .conditions
        .unwrap()
        .into_iter()
        .map(|condition| condition.last_transition_time.unwrap().0)
        .collect();
    assert!(times.iter().all(|time| *time == at(5)), "{times:?}");
}

#[test]
fn quality_of_service_classes() {
    let class = |resources: serde_json::Value| {
        let pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": resources}]}}),
        );
        qos_class(&pod.unwrap())
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        "Guaranteed"
    );
}
