//! Startup, liveness and readiness probes of one run of a container.

use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Probe;

use super::container::Live;
use super::hooks;
use super::pod::Shim;

/// Between two counted tries a probe that has not passed yet is tried this often, so that a server that
/// starts in 300 ms is not seen as late as the next period.
const EAGER: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A probe's numbers with their defaults.
#[derive(Debug, Clone, Copy)]
struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: i32,
    failures: i32,
}

impl Timing {
    fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: i32, least: i32| {
            Duration::from_secs(u64::try_from(value.unwrap_or(default).max(least)).unwrap_or(0))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            successes: probe.success_threshold.unwrap_or(1).max(1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }
}

/// postStart, then the startup probe, then the other two side by side, as long as the container lives.
pub(super) async fn watch(shim: Rc<Shim>, index: usize, live: Rc<Live>) {
    if let Err(error) = hooks::post_start(&shim, index, &live).await {
        if live.ended() {
            return;
        }
        shim.occurred(
            index,
            true,
            "FailedPostStartHook",
            format!("PostStartHook failed: {error}"),
        );
        kill(&shim, index, &live, "FailedPostStartHook", None);
        return;
    }
    let plan = shim.plan.containers[index].clone();
    if let Some(probe) = &plan.startup
        && !until_started(&shim, index, &live, probe).await
    {
        return;
    }
    if live.ended() {
        return;
    }
    shim.update(|state| {
        state.containers[index].started = true;
        state.containers[index].ready = plan.readiness.is_none();
    });
    let readiness = async {
        if let Some(probe) = &plan.readiness {
            keep_readiness(&shim, index, &live, probe).await;
        }
    };
    let liveness = async {
        if let Some(probe) = &plan.liveness {
            keep_alive(&shim, index, &live, probe).await;
        }
    };
    tokio::join!(readiness, liveness);
}

async fn attempt(
    shim: &Shim,
    index: usize,
    live: &Live,
    probe: &Probe,
    timeout: Duration,
) -> Result<(), String> {
    let plan = &shim.plan.containers[index];
    let check = async {
        if let Some(exec) = &probe.exec {
            hooks::exec_check(shim, live, exec.command.clone().unwrap_or_default()).await
        } else if let Some(get) = &probe.http_get {
            hooks::http_check(shim, plan, get).await
        } else if let Some(tcp) = &probe.tcp_socket {
            hooks::tcp_check(shim, plan, tcp.host.as_deref(), &tcp.port).await
        } else if let Some(grpc) = &probe.grpc {
            // Only that the port answers: the health protocol is not spoken here yet.
            let port = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(grpc.port);
            hooks::tcp_check(shim, plan, None, &port).await
        } else {
            Ok(())
        }
    };
    tokio::time::timeout(timeout, check)
        .await
        .unwrap_or_else(|_| Err(format!("timed out after {} s", timeout.as_secs())))
}

fn report(shim: &Shim, index: usize, kind: Kind, error: &str) {
    shim.occurred(
        index,
        true,
        "Unhealthy",
        format!("{} probe failed: {error}", kind.title()),
    );
}

/// Waits until the next counted try; cheap probes are tried in between. True when one of those passed.
async fn eager_wait(shim: &Shim, index: usize, live: &Live, probe: &Probe, timing: Timing) -> bool {
    let until = tokio::time::Instant::now() + timing.period;
    if probe.exec.is_some() {
        tokio::time::sleep_until(until).await;
        return false;
    }
    let mut nap = EAGER;
    loop {
        let now = tokio::time::Instant::now();
        if now >= until || live.ended() {
            return false;
        }
        tokio::time::sleep(nap.min(until - now)).await;
        if attempt(shim, index, live, probe, timing.timeout).await.is_ok() {
            return true;
        }
        nap = (nap * 2).min(Duration::from_secs(1));
    }
}

async fn until_started(shim: &Rc<Shim>, index: usize, live: &Rc<Live>, probe: &Probe) -> bool {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let mut failures = 0;
    while !live.ended() {
        match attempt(shim, index, live, probe, timing.timeout).await {
            Ok(()) => return true,
            Err(_) if live.ended() => return false,
            Err(error) => {
                failures += 1;
                if failures > 1 {
                    report(shim, index, Kind::Startup, &error);
                }
            }
        }
        if failures >= timing.failures {
            kill(
                shim,
                index,
                live,
                "failed startup probe",
                probe.termination_grace_period_seconds,
            );
            return false;
        }
        if eager_wait(shim, index, live, probe, timing).await {
            return true;
        }
    }
    false
}

async fn keep_readiness(shim: &Rc<Shim>, index: usize, live: &Rc<Live>, probe: &Probe) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let (mut ready, mut successes, mut failures) = (false, 0, 0);
    while !live.ended() {
        match attempt(shim, index, live, probe, timing.timeout).await {
            Ok(()) => (successes, failures) = (successes + 1, 0),
            Err(_) if live.ended() => return,
            Err(error) => {
                (successes, failures) = (0, failures + 1);
                // The first failure of a server that is still starting is no news.
                if ready || failures > 1 {
                    report(shim, index, Kind::Readiness, &error);
                }
            }
        }
        let now_ready = if ready {
            failures < timing.failures
        } else {
            successes >= timing.successes
        };
        if now_ready != ready {
            ready = now_ready;
            shim.update(|state| state.containers[index].ready = ready);
        }
        if ready || timing.successes > 1 {
            tokio::time::sleep(timing.period).await;
        } else if eager_wait(shim, index, live, probe, timing).await && !live.ended() {
            (ready, failures) = (true, 0);
            shim.update(|state| state.containers[index].ready = true);
            tokio::time::sleep(timing.period).await;
        }
    }
}

async fn keep_alive(shim: &Rc<Shim>, index: usize, live: &Rc<Live>, probe: &Probe) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let mut failures = 0;
    while !live.ended() {
        match attempt(shim, index, live, probe, timing.timeout).await {
            Ok(()) => failures = 0,
            Err(_) if live.ended() => return,
            Err(error) => {
                failures += 1;
                report(shim, index, Kind::Liveness, &error);
                if failures >= timing.failures {
                    kill(
                        shim,
                        index,
                        live,
                        "failed liveness probe",
                        probe.termination_grace_period_seconds,
                    );
                    return;
                }
            }
        }
        tokio::time::sleep(timing.period).await;
    }
}

fn kill(shim: &Rc<Shim>, index: usize, live: &Rc<Live>, why: &str, grace: Option<i64>) {
    let seconds = grace.unwrap_or(shim.plan.grace_seconds).max(0);
    let now = Timestamp::now();
    let deadline = now
        .saturating_add(SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    shim.update(|state| state.containers[index].stopping = true);
    let name = &shim.plan.containers[index].name;
    shim.occurred(
        index,
        false,
        "Killing",
        format!("Container {name} {why}, will be restarted"),
    );
    tokio::task::spawn_local(hooks::stop(shim.clone(), index, live.clone(), deadline));
}
