//! One process at a time: work that goes on only while this process holds a Lease (`coordination.k8s.io/v1`).
//!
//! A holder that dies is known by a record that no longer changes. How long ago it changed is measured by the watcher's own clock from the
//! moment it saw the record, so that clocks of different machines need not agree. A holder that cannot renew gives up before
//! anybody may take the Lease from it: [`hold`] fails then, and the process is meant to end and start again.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a Lease is held.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease: what there is to be one of.
    pub name: String,
    /// Who this process is; no two processes are the same.
    pub identity: String,
    /// How long a record that does not change counts.
    pub duration: Duration,
    /// How often the holder renews and others look.
    pub renew: Duration,
}

impl LeaseConfig {
    /// Held for 15 seconds and renewed every 5.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity(),
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(5),
        }
    }

    /// The last moment at which a holder that could not renew since `renewed` may still work.
    fn give_up_at(&self, renewed: Instant) -> Instant {
        renewed + self.duration.saturating_sub(self.renew)
    }
}

/// Machine, process and moment: a process that is started again is another.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let moment = Timestamp::now().as_microsecond();
    format!("{host}_{}_{moment:x}", std::process::id())
}

/// What a process that wants the Lease does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: make one.
    Create,
    /// Nobody holds it, or its holder does not renew: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

/// A record as this process saw it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
}

impl Seen {
    /// What is seen in `spec` at `now`, after `before`.
    #[must_use]
    pub fn look(before: Option<Self>, spec: &LeaseSpec, now: Instant) -> Self {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        match before {
            Some(before) if before.holder == holder && before.renewed == spec.renew_time => before,
            _ => Self {
                holder,
                renewed: spec.renew_time.clone(),
                since: now,
            },
        }
    }
}

/// Decides what to do about a Lease with `spec`, of which `seen` was made.
#[must_use]
pub fn decide(spec: Option<&LeaseSpec>, seen: Option<&Seen>, identity: &str, now: Instant) -> Step {
    let (Some(spec), Some(seen)) = (spec, seen) else {
        return Step::Create;
    };
    if seen.holder == identity {
        return Step::Renew;
    }
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    if seen.holder.is_empty() || now.duration_since(seen.since) >= lasts {
        Step::Take
    } else {
        Step::Wait
    }
}

/// Waits for the Lease, then does `work` while it is held, and gives it back when `work` has ended. `work` ends by itself
/// when `cancel` is called; where the Lease is lost it is dropped.
///
/// # Errors
/// What `work` answers, or that the Lease was lost.
pub async fn hold(
    client: Client,
    config: LeaseConfig,
    cancel: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let lease = Handle {
        api: Api::namespaced(client, &config.namespace),
        config,
    };
    let Some(held) = lease.acquire(&cancel).await else {
        return Ok(());
    };
    tracing::info!(lease = lease.config.name, "this process leads");
    let result = tokio::select! {
        done = work => done,
        lost = lease.keep(held) => Err(lost),
    };
    lease.release().await;
    result
}

struct Handle {
    api: Api<Lease>,
    config: LeaseConfig,
}

impl Handle {
    /// Answers when the Lease was taken; nothing when `cancel` came first.
    async fn acquire(&self, cancel: &CancellationToken) -> Option<Instant> {
        let mut seen = None;
        let mut told = false;
        loop {
            let at = Instant::now();
            match self.attempt(&mut seen).await {
                Ok(true) => return Some(at),
                Ok(false) => {
                    if !std::mem::replace(&mut told, true) {
                        let holder = seen.as_ref().map(|seen: &Seen| seen.holder.clone());
                        tracing::info!(lease = self.config.name, holder, "another process leads; waiting");
                    }
                }
                Err(error) => tracing::warn!(lease = self.config.name, %error, "cannot ask for the lease"),
            }
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = tokio::time::sleep(self.config.renew) => {}
            }
        }
    }

    /// Looks once, and takes or renews the Lease where it may; answers whether it is ours now.
    async fn attempt(&self, seen: &mut Option<Seen>) -> kube::Result<bool> {
        let found = self.api.get_opt(&self.config.name).await?;
        let now = Instant::now();
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        *seen = spec.as_ref().map(|spec| Seen::look(seen.take(), spec, now));
        let step = decide(spec.as_ref(), seen.as_ref(), &self.config.identity, now);
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (Step::Renew | Step::Take, Some(lease)) => {
                let lease = self.record(lease, step);
                self.api
                    .replace(&self.config.name, &PostParams::default(), &lease)
                    .await
            }
            _ => {
                let lease = self.record(Lease::default(), Step::Create);
                self.api.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // somebody else was faster
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Lease as it is when it is ours; its resource version is kept, so that one of two wins.
    fn record(&self, mut lease: Lease, step: Step) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.spec.take().unwrap_or_default();
        let renewed = step == Step::Renew;
        let transitions = old.lease_transitions.unwrap_or_default();
        lease.metadata = ObjectMeta {
            name: Some(self.config.name.clone()),
            namespace: Some(self.config.namespace.clone()),
            ..lease.metadata
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.duration.as_secs()).ok(),
            acquire_time: if renewed {
                old.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(step == Step::Take)),
            ..old
        });
        lease
    }

    /// Renews the Lease; answers only when it is lost.
    async fn keep(&self, mut renewed: Instant) -> anyhow::Error {
        let name = &self.config.name;
        let mut seen = None;
        loop {
            tokio::time::sleep(self.config.renew.min(self.config.duration / 3)).await;
            let (at, until) = (Instant::now(), self.config.give_up_at(renewed));
            match tokio::time::timeout_at(until, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => renewed = at,
                Ok(Ok(false)) => {
                    if seen
                        .as_ref()
                        .is_some_and(|seen: &Seen| seen.holder != self.config.identity)
                    {
                        return anyhow::anyhow!(
                            "lease {name} was taken by another process; starting again is safe"
                        );
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = name, %error, "cannot renew the lease; trying again");
                }
                Err(_) => {
                    return anyhow::anyhow!(
                        "lease {name} could not be renewed in time; starting again is safe"
                    );
                }
            }
            if Instant::now() >= self.config.give_up_at(renewed) {
                return anyhow::anyhow!("lease {name} could not be renewed in time; starting again is safe");
            }
        }
    }

    /// Gives the Lease back if it is still ours, so that nobody waits for it.
    async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.config.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.config.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api
                .replace(&self.config.name, &PostParams::default(), &lease)
                .await
                .map(|_| ())
        };
        match tokio::time::timeout(self.config.renew, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error: kube::Error = error;
                tracing::warn!(lease = self.config.name, %error, "the lease was not given back; it runs out by itself");
            }
            Err(_) => tracing::warn!(lease = self.config.name, "the lease was not given back in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_its_record_rests() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let first = spec("other", 1);
        let seen = Seen::look(None, &first, start);
        let step = |spec: &LeaseSpec, seen: &Seen, now| decide(Some(spec), Some(seen), "me", now);
        assert_eq!(step(&first, &seen, after(14)), Step::Wait);
        assert_eq!(step(&first, &seen, after(15)), Step::Take);
        // renewed: the wait begins again, whatever the holder's clock says
        let renewed = spec("other", 0);
        let seen = Seen::look(Some(seen), &renewed, after(14));
        assert_eq!(step(&renewed, &seen, after(28)), Step::Wait);
        assert_eq!(step(&renewed, &seen, after(29)), Step::Take);
        // unchanged: it does not
        assert_eq!(Seen::look(Some(seen.clone()), &renewed, after(20)), seen);
    }

    #[test]
    fn a_lease_that_is_free_or_ours_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(decide(None, None, "me", now), Step::Create);
        for (holder, step) in [("", Step::Take), ("me", Step::Renew), ("other", Step::Wait)] {
            let spec = spec(holder, 1);
            let seen = Seen::look(None, &spec, now);
            assert_eq!(decide(Some(&spec), Some(&seen), "me", now), step, "{holder}");
        }
    }

    #[test]
    fn a_holder_gives_up_before_others_may_take_over() {
        let config = LeaseConfig::new("kubeflow", "x");
        let renewed = Instant::now();
        assert!(config.give_up_at(renewed) + config.renew <= renewed + config.duration);
    }
}
