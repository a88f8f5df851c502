//! The shim alone: what it keeps through the death of whoever started it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a failed test"
)]

#[path = "shim/limits.rs"]
mod limits;
mod support;

use std::time::{Duration, Instant};

use localkube_node::nursery::{Nursery, ShimLink};
use localkube_node::state::{PodState, Status};
use localkube_node::wire::Request;
use support::{PodFolder, executable};

const LIMIT: Duration = Duration::from_secs(20);

async fn until(link: &mut ShimLink, what: &str, condition: impl Fn(&PodState) -> bool) -> PodState {
    tokio::time::timeout(LIMIT, async {
        loop {
            match link.states.next().await.unwrap() {
                Some(state) if condition(&state) => return state,
                Some(_) => {}
                None => panic!("the shim ended before: {what}"),
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

async fn begin(pod: &PodFolder, script: &str) -> ShimLink {
    let nursery = Nursery::start(&executable()).unwrap();
    nursery.start_pod(pod.path()).await.unwrap();
    let (mut link, _) = ShimLink::open(pod.path()).await.unwrap();
    link.orders
        .send(&Request::Prepare(Box::new(pod.spec(script))))
        .await
        .unwrap();
    link
}

async fn run(pod: &PodFolder, script: &str) -> (ShimLink, PodState) {
    let mut link = begin(pod, script).await;
    let state = until(&mut link, "the Pod finishes", |state| state.finished.is_some()).await;
    link.orders.send(&Request::Release).await.unwrap();
    (link, state)
}

#[tokio::test]
async fn a_step_runs_and_its_output_and_exit_code_are_kept() {
    let pod = PodFolder::new("Never");
    let (_, state) = run(&pod, "echo out; echo err >&2; exit 3").await;
    let exit = state.containers[0].exit().unwrap();
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (3, None, "Error"));
    assert!(!state.finished.unwrap().succeeded);
    let log = pod.log("main", 0);
    assert!(
        log.contains(" stdout F out\n") && log.contains(" stderr F err\n"),
        "{log}"
    );
}

#[tokio::test]
async fn an_end_by_a_signal_is_128_and_its_number() {
    let pod = PodFolder::new("Never");
    let (_, state) = run(&pod, "kill -TERM $$").await;
    let exit = state.containers[0].exit().unwrap();
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_a_start_error() {
    let pod = PodFolder::new("Never");
    let nursery = Nursery::start(&executable()).unwrap();
    nursery.start_pod(pod.path()).await.unwrap();
    let (mut link, _) = ShimLink::open(pod.path()).await.unwrap();
    let mut spec = pod.spec("");
    spec.argv = vec!["no-such-command".into()];
    link.orders.send(&Request::Prepare(Box::new(spec))).await.unwrap();
    let state = until(&mut link, "the Pod finishes", |state| state.finished.is_some()).await;
    let exit = state.containers[0].exit().unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (127, "StartError"));
    assert!(exit.message.contains("no-such-command"), "{}", exit.message);
}

#[tokio::test]
async fn a_child_that_a_step_leaves_behind_ends_with_it() {
    let pod = PodFolder::new("Never");
    let started = Instant::now();
    // The orphan is in a session of its own, and would write its mark if it were still there.
    let (_, state) = run(
        &pod,
        "setsid sh -c 'trap \"\" TERM HUP; sleep 30; touch /shared/mark' >/dev/null 2>&1 & sleep 0.1; exit 0",
    )
    .await;
    assert_eq!(state.containers[0].exit().unwrap().code, 0);
    assert!(started.elapsed() < Duration::from_secs(10));
    let marker = format!("sleep 30; touch {}", "/shared/mark");
    assert_eq!(support::processes_with(&marker, pod.uid()), 0, "the orphan lives");
}

#[tokio::test]
async fn the_shim_keeps_a_step_and_its_exit_code_through_kill_9_of_its_parent() {
    let pod = PodFolder::new("Never");
    // The parent is a process of its own: this test binary again would share our fate.
    let nursery = Nursery::start(&executable()).unwrap();
    nursery.start_pod(pod.path()).await.unwrap();
    {
        let (mut link, _) = ShimLink::open(pod.path()).await.unwrap();
        link.orders
            .send(&Request::Prepare(Box::new(
                pod.spec("echo begun; cat /shared/go; exit 42"),
            )))
            .await
            .unwrap();
        until(&mut link, "the step runs", |state| {
            matches!(state.containers[0].status, Status::Running { .. })
        })
        .await;
    }
    // Dropping the nursery kills it with SIGKILL; the link above is gone as well.
    drop(nursery);
    support::fifo_write(&pod.shared().join("go"), b"go\n");
    let (mut link, first) = ShimLink::open(pod.path()).await.unwrap();
    let state = if first.finished.is_some() {
        first
    } else {
        until(&mut link, "the Pod finishes", |state| state.finished.is_some()).await
    };
    assert_eq!(state.containers[0].exit().unwrap().code, 42);
    assert!(pod.log("main", 0).contains("stdout F go\n"));
}

#[tokio::test]
async fn volumes_appear_at_their_paths_and_the_machine_is_untouched() {
    see_volumes(PodFolder::new("Never")).await;
}

/// What an ordinary user gets, on a machine where an overlay over `/` is not allowed.
#[tokio::test]
async fn volumes_appear_in_a_user_namespace_without_layers() {
    let isolation = localkube_node::os::Isolation {
        user_namespace: true,
        mounts: true,
        layers: false,
        pids: true,
        hostname: true,
        notes: Vec::new(),
    };
    see_volumes(PodFolder::with_isolation(isolation)).await;
}

/// Where even process namespaces are refused, the first process ends what its command leaves behind.
#[tokio::test]
async fn an_orphan_ends_without_a_process_namespace() {
    let folder = PodFolder::new("Never");
    let mut isolation = folder.isolation();
    isolation.pids = false;
    let pod = PodFolder::with_isolation(isolation);
    let (_, state) = run(
        &pod,
        "setsid sh -c 'trap \"\" TERM HUP; sleep 29; true' >/dev/null 2>&1 & sleep 0.1; exit 4",
    )
    .await;
    assert_eq!(state.containers[0].exit().unwrap().code, 4);
    assert_eq!(
        support::processes_with("sleep 29", pod.uid()),
        0,
        "the orphan lives"
    );
}

async fn see_volumes(pod: PodFolder) {
    std::fs::write(pod.shared().join("weights"), "w\n").unwrap();
    let mut nowhere = pod.spec("cat /mnt/ferroflow-test/models/weights; touch /ferroflow-test-root; hostname; pwd; echo bye > /dev/termination-log; echo x > /tmp/x; ls /tmp");
    nowhere.mounts.push(localkube_node::plan::Mount {
        source: pod.shared(),
        target: "/mnt/ferroflow-test/models".into(),
        read_only: true,
    });
    nowhere.working_dir = "/home/ferroflow-test/work".into();
    let nursery = Nursery::start(&executable()).unwrap();
    nursery.start_pod(pod.path()).await.unwrap();
    let (mut link, _) = ShimLink::open(pod.path()).await.unwrap();
    link.orders
        .send(&Request::Prepare(Box::new(nowhere)))
        .await
        .unwrap();
    let state = until(&mut link, "the Pod finishes", |state| state.finished.is_some()).await;
    let log = pod.log("main", 0);
    assert_eq!(state.containers[0].exit().unwrap().code, 0, "{log}");
    assert_eq!(state.containers[0].exit().unwrap().message, "bye\n");
    for wanted in [
        "stdout F w\n",
        "stdout F test-pod\n",
        "stdout F /home/ferroflow-test/work\n",
    ] {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
    for path in [
        "/mnt/ferroflow-test",
        "/ferroflow-test-root",
        "/home/ferroflow-test",
    ] {
        assert!(
            !std::path::Path::new(path).exists(),
            "{path} was made on the machine"
        );
    }
}

#[tokio::test]
async fn a_pod_that_ignores_the_polite_signal_is_killed_at_its_deadline() {
    let pod = PodFolder::new("Never");
    let nursery = Nursery::start(&executable()).unwrap();
    nursery.start_pod(pod.path()).await.unwrap();
    let (mut link, _) = ShimLink::open(pod.path()).await.unwrap();
    let script = "trap 'echo no' TERM; echo ready; while true; do sleep 0.05; done";
    link.orders
        .send(&Request::Prepare(Box::new(pod.spec(script))))
        .await
        .unwrap();
    until(&mut link, "the step runs", |state| {
        matches!(state.containers[0].status, Status::Running { .. })
    })
    .await;
    support::wait_for(LIMIT, "the trap is set", || pod.log("main", 0).contains("ready"));
    link.orders
        .send(&Request::Terminate { grace_seconds: 1 })
        .await
        .unwrap();
    let state = until(&mut link, "the Pod finishes", |state| state.finished.is_some()).await;
    assert_eq!(state.containers[0].exit().unwrap().code, 137);
    assert!(
        pod.log("main", 0).contains("stdout F no"),
        "the polite signal came first"
    );
}

#[tokio::test]
async fn a_step_that_prints_300_mb_neither_blocks_nor_fills_the_disk() {
    let pod = PodFolder::new("Never");
    let (_, state) = run(
        &pod,
        "yes 'a line of a training log that goes on and on' | head -c 300000000; echo end",
    )
    .await;
    assert_eq!(state.containers[0].exit().unwrap().code, 0);
    let folder = pod.path().join("logs/main");
    let kept: u64 = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept < 60 << 20, "{kept} bytes are kept");
    assert!(pod.log("main", 0).ends_with("end\n"));
}

#[tokio::test]
async fn a_failing_container_is_started_again_by_the_shim_alone() {
    let pod = PodFolder::new("OnFailure");
    let (_, state) = run(&pod, "echo x >> /shared/runs; [ $(wc -l < /shared/runs) -ge 2 ]").await;
    assert_eq!(state.containers[0].restarts, 1);
    assert_eq!(state.containers[0].last.as_ref().unwrap().code, 1);
    assert!(state.finished.unwrap().succeeded);
}
