//! Waits for something to happen, and learns from it.

use std::time::Duration;

use ferroflow_kernel::{Code, Error, Result};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use super::pods::AGAIN;
use super::{Actor, PodIs};
use crate::domain::plan::Plan;
use crate::domain::run::AttemptState;
use crate::domain::step::task_id;
use crate::worker::Message;
use crate::worker::pod::{self, Verdict};

/// How long a run without room waits before it looks for some again, told or not.
const STARVED: Duration = Duration::from_secs(1);

impl Actor {
    /// Waits for something to happen, and learns from it.
    pub(super) async fn wait(&mut self, plan: &Plan) -> Result<()> {
        if !self.pending.is_empty() || !self.uncreated.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let grace = SignedDuration::try_from(self.shared.options.image_grace).unwrap_or(AGAIN);
        let troubles = self
            .live
            .values()
            .filter_map(|live| live.troubled?.checked_add(grace).ok());
        let wake = plan
            .wake
            .into_iter()
            .chain(self.recheck.iter().map(|(at, ..)| *at))
            .chain(troubles)
            .min();
        let mut pause = wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        if plan.starved {
            // Room may have become free just before this one began to wait for it.
            pause = Some(pause.map_or(STARVED, |pause| pause.min(STARVED)));
        }
        let shared = self.shared.clone();
        let message = tokio::select! {
            message = self.inbox.recv() => message,
            () = sleep(pause) => None,
            () = shared.room.notified(), if plan.starved => None,
            () = shared.cancel.cancelled() => return Err(Error::new(Code::Unavailable, "shutting down")),
        };
        if let Some(message) = message {
            self.learn(message).await;
        }
        // Whatever else came in meanwhile is learned before the next plan.
        for _ in 0..256 {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.learn(message).await;
        }
        self.check_times(grace).await;
        Ok(())
    }

    pub(super) async fn check_times(&mut self, grace: SignedDuration) {
        let now = self.shared.clock.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.recheck)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.recheck = later;
        for (_, path, number) in due {
            self.look(&path, number).await;
        }
        let hopeless: Vec<(String, u32, String)> = self
            .live
            .iter()
            .filter(|(_, live)| {
                live.troubled
                    .is_some_and(|since| now.duration_since(since) >= grace)
            })
            .filter_map(|((path, number), _)| {
                let trouble = self
                    .observed
                    .get(path)?
                    .attempts
                    .get(*number as usize)?
                    .trouble
                    .clone()?;
                pod::is_hopeless(&trouble).then(|| (path.clone(), *number, trouble))
            })
            .collect();
        for (path, number, trouble) in hopeless {
            if let Some(live) = self.live.get(&(path.clone(), number)) {
                let name = live.row.pod_name.clone();
                if let Err(error) = self.pods().delete(&name, &DeleteParams::default()).await {
                    tracing::warn!(pod = name, %error, "a Pod that cannot start is left");
                }
            }
            self.fail(&path, number, AttemptState::Failed(trouble));
        }
    }

    pub(super) async fn learn(&mut self, message: Message) {
        match message {
            Message::Hint { task_id: id, attempt } => {
                let found = self
                    .live
                    .keys()
                    .find(|(path, n)| *n == attempt && task_id(&self.run.id, path) == id)
                    .cloned();
                if let Some((path, number)) = found {
                    self.settle(&path, number, PodIs::Alive).await;
                }
            }
            Message::Pod(pod) => self.saw(&pod).await,
            Message::Gone(pod) => {
                let Some((path, number)) = attempt_of(&pod) else {
                    return;
                };
                if let Some(live) = self.live.get_mut(&(path.clone(), number)) {
                    live.killed.get_or_insert_with(|| pod::DELETED.to_owned());
                    self.settle(&path, number, PodIs::Over(pod::DELETED)).await;
                }
            }
            Message::Resync => {
                for (path, number) in self.live.keys().cloned().collect::<Vec<_>>() {
                    self.look(&path, number).await;
                }
            }
            Message::Changed => self.stale = true,
        }
    }

    /// Learns from the state of a Pod.
    pub(super) async fn saw(&mut self, pod: &Pod) {
        let Some((path, number)) = attempt_of(pod) else {
            return;
        };
        let Some(live) = self.live.get_mut(&(path.clone(), number)) else {
            return;
        };
        if live.row.pod_name != pod.name_any() {
            return;
        }
        let uid = pod.uid().unwrap_or_default();
        match &live.row.pod_uid {
            None => live.row.pod_uid = Some(uid),
            // Another Pod of that name is none of ours.
            Some(known) if *known != uid => return,
            Some(_) => {}
        }
        match pod::verdict(pod) {
            Verdict::Alive if live.unexplained.is_some() => self.settle(&path, number, PodIs::Alive).await,
            Verdict::Alive => self.trouble(&path, number, None),
            Verdict::Troubled(why) => self.trouble(&path, number, Some(why)),
            Verdict::Over(why) => self.settle(&path, number, PodIs::Over(&why)).await,
            Verdict::Killed(why) => {
                live.killed = Some(why.clone());
                self.settle(&path, number, PodIs::Over(&why)).await;
            }
        }
    }

    pub(super) fn trouble(&mut self, path: &str, number: u32, why: Option<String>) {
        let now = self.shared.clock.now();
        if let Some(live) = self.live.get_mut(&(path.to_owned(), number)) {
            live.troubled = match (&why, live.troubled) {
                (Some(_), None) => Some(now),
                (Some(_), since) => since,
                (None, _) => None,
            };
        }
        if let Some(fact) = self.fact_mut(path, number) {
            fact.trouble = why;
        }
    }
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Path and number of the attempt that a Pod belongs to.
fn attempt_of(pod: &Pod) -> Option<(String, u32)> {
    let path = pod.annotations().get(pod::TASK_ANNOTATION)?.clone();
    let number = pod.labels().get(pod::ATTEMPT_LABEL)?.parse().ok()?;
    Some((path, number))
}
