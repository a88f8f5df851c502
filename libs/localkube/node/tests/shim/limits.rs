//! Limits of memory and cpu, on machines that let us make cgroups.

use std::path::PathBuf;
use std::time::Duration;

use localkube_node::nursery::ShimLink;
use localkube_node::os::{self, Cgroups, Resources};
use localkube_node::state::{PodState, Status};
use localkube_node::wire::Request;

use super::support::{PodFolder, fifo_write, wait_for};
use super::{begin, until};

const LIMIT: Duration = Duration::from_secs(30);
/// `tail` keeps its last line, which here has no end.
const EAT: &str = "exec tail /dev/zero";

/// None, with a line that says why, where limits cannot be held.
fn cgroups() -> Option<Cgroups> {
    match os::probe_cgroups() {
        Cgroups::None { why } => {
            eprintln!("SKIPPED: no cgroups can be made here: {why}");
            None
        }
        found => Some(found),
    }
}

fn memory(mib: u64) -> Resources {
    Resources {
        memory_limit: Some(mib << 20),
        ..Resources::default()
    }
}

/// Groups of this Pod that are there.
fn groups(cgroups: &Cgroups, uid: &str) -> Vec<PathBuf> {
    let bases: Vec<&PathBuf> = match cgroups {
        Cgroups::V1 { memory, cpu } => [memory].into_iter().chain(cpu).collect(),
        Cgroups::V2 { base, .. } => vec![base],
        Cgroups::None { .. } => Vec::new(),
    };
    let entries = bases.into_iter().flat_map(|base| {
        std::fs::read_dir(base.join("ferroflow-pods"))
            .into_iter()
            .flatten()
            .flatten()
    });
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(uid))
        .collect()
}

async fn finished(link: &mut ShimLink) -> PodState {
    let state = until(link, "the Pod finishes", |state| state.finished.is_some()).await;
    link.orders.send(&Request::Release).await.unwrap();
    state
}

#[tokio::test]
async fn a_container_over_its_memory_limit_is_oom_killed_and_its_group_is_gone() {
    let Some(cgroups) = cgroups() else { return };
    let pod = PodFolder::limited("Never", cgroups.clone(), memory(48));
    let state = finished(&mut begin(&pod, EAT).await).await;
    let exit = state.containers[0].exit().unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(groups(&cgroups, pod.uid()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_container_below_its_limit_ends_as_it_will() {
    let Some(cgroups) = cgroups() else { return };
    let pod = PodFolder::limited("Never", cgroups, memory(256));
    let state = finished(
        &mut begin(
            &pod,
            "head -c 20000000 /dev/zero | tail -c 10 >/dev/null; kill -KILL $$",
        )
        .await,
    )
    .await;
    let exit = state.containers[0].exit().unwrap();
    assert_eq!(
        (exit.code, exit.reason.as_str()),
        (137, "Error"),
        "a kill that was not for memory"
    );
}

#[tokio::test]
async fn a_restarted_container_remembers_that_it_was_oom_killed() {
    let Some(cgroups) = cgroups() else { return };
    let pod = PodFolder::limited("OnFailure", cgroups, memory(48));
    let script = format!("[ -e /shared/once ] && exit 0; touch /shared/once; {EAT}");
    let state = finished(&mut begin(&pod, &script).await).await;
    let container = &state.containers[0];
    assert_eq!((container.restarts, container.exit().unwrap().code), (1, 0));
    let last = container.last.as_ref().unwrap();
    assert_eq!((last.code, last.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn an_end_for_memory_is_on_record_when_nobody_listens() {
    let Some(cgroups) = cgroups() else { return };
    let pod = PodFolder::limited("Never", cgroups, memory(48));
    let link = begin(&pod, &format!("cat /shared/go; {EAT}")).await;
    // As after `kill -9` of the agent: the nursery is gone already, the connection goes now.
    drop(link);
    fifo_write(&pod.shared().join("go"), b"go\n");
    let record = pod.path().join("exits.jsonl");
    wait_for(LIMIT, "the exit is recorded", || {
        std::fs::read_to_string(&record).is_ok_and(|text| text.contains("OOMKilled"))
    });
}

#[tokio::test]
async fn what_a_killed_shim_leaves_is_removed() {
    let Some(cgroups) = cgroups() else { return };
    let pod = PodFolder::limited("Never", cgroups.clone(), memory(64));
    let mut link = begin(&pod, "exec sleep 600").await;
    let state = until(&mut link, "it runs", |state| {
        matches!(state.containers[0].status, Status::Running { .. })
    })
    .await;
    let Status::Running { pid, .. } = state.containers[0].status else {
        panic!("it ran just now")
    };
    assert!(!groups(&cgroups, pod.uid()).is_empty());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim: i32 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::SIGKILL).unwrap();
    while let Ok(Some(_)) = link.states.next().await {}
    assert!(
        !groups(&cgroups, pod.uid()).is_empty(),
        "nobody was there to remove it"
    );
    os::remove_groups(&cgroups, pod.uid());
    assert_eq!(groups(&cgroups, pod.uid()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_busy_container_gets_no_more_cpu_than_its_limit() {
    let Some(cgroups) = cgroups() else { return };
    if matches!(
        &cgroups,
        Cgroups::V1 { cpu: None, .. } | Cgroups::V2 { cpu: false, .. }
    ) {
        eprintln!("SKIPPED: {cgroups}");
        return;
    }
    let tenth = Resources {
        cpu_limit: Some(100),
        ..Resources::default()
    };
    let pod = PodFolder::limited("Never", cgroups, tenth);
    // The third and fourth number of `times` are of children: 2 s at a tenth are 0.2 s, and a period more at each end.
    let script = "timeout 2 sh -c 'while :; do :; done'; times";
    finished(&mut begin(&pod, script).await).await;
    let log = pod.log("main", 0);
    let children = log.lines().last().unwrap().split_whitespace().rev().take(2);
    let used: f64 = children
        .map(|text| {
            let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
            minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
        })
        .sum();
    assert!(used < 0.6, "{used} s of cpu time: {log}");
}
