//! A work queue of keys: a key waits at most once, and is never handled twice at the same time.
//!
//! Its size is bounded by the number of distinct keys, that is by the number of objects.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::informer::is_passing;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Failures in a row of one key before they are told as a warning.
const QUIET: u32 = 4;

/// What a queue can carry.
pub trait QueueKey: Clone + Eq + Hash + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Debug + Send + Sync + 'static> QueueKey for T {}

struct State<T> {
    ready: VecDeque<T>,
    waiting: HashSet<T>,
    running: HashSet<T>,
    again: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_at: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
}

/// A deduplicating queue with delays and per-key exponential back-off.
pub struct Queue<T> {
    state: Arc<Mutex<State<T>>>,
    notify: Arc<Notify>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            notify: Arc::clone(&self.notify),
        }
    }
}

impl<T: QueueKey> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: QueueKey> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                running: HashSet::new(),
                again: HashSet::new(),
                delayed: BTreeMap::new(),
                delayed_at: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
            })),
            notify: Arc::new(Notify::new()),
        }
    }

    /// Puts a key in the queue unless it already waits there.
    pub fn add(&self, key: T) {
        let mut state = self.state.lock();
        Self::push(&mut state, key);
        drop(state);
        self.notify.notify_one();
    }

    fn push(state: &mut State<T>, key: T) {
        if state.running.contains(&key) {
            state.again.insert(key);
        } else if state.waiting.insert(key.clone()) {
            state.ready.push_back(key);
        }
    }

    /// Puts a key in the queue once `delay` is over; an earlier time already planned stays.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if let Some(old) = state.delayed_at.get(&key).copied() {
            if old.0 <= at {
                return;
            }
            state.delayed.remove(&old);
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.delayed.insert(slot, key.clone());
        state.delayed_at.insert(key, slot);
        drop(state);
        self.notify.notify_one();
    }

    fn next_ready(&self) -> (Option<T>, Option<Instant>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        while let Some((&slot, _)) = state.delayed.first_key_value() {
            if slot.0 > now {
                break;
            }
            if let Some(key) = state.delayed.remove(&slot) {
                state.delayed_at.remove(&key);
                Self::push(&mut state, key);
            }
        }
        let key = state.ready.pop_front();
        if let Some(key) = &key {
            state.waiting.remove(key);
            state.running.insert(key.clone());
        }
        let next = state.delayed.first_key_value().map(|(slot, _)| slot.0);
        (key, next)
    }

    async fn next(&self) -> T {
        loop {
            let notified = self.notify.notified();
            match self.next_ready() {
                (Some(key), _) => return key,
                (None, Some(at)) => {
                    tokio::select! {
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                (None, None) => notified.await,
            }
        }
    }

    /// How often in a row a key failed.
    fn failures(&self, key: &T) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    fn done(&self, key: &T, failed: bool) {
        let mut state = self.state.lock();
        state.running.remove(key);
        let retry = if failed {
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            Some((FIRST_RETRY * 2u32.saturating_pow((*count - 1).min(13))).min(LAST_RETRY))
        } else {
            state.failures.remove(key);
            None
        };
        if state.again.remove(key) {
            Self::push(&mut state, key.clone());
        }
        drop(state);
        self.notify.notify_one();
        if let Some(delay) = retry {
            self.add_after(key.clone(), delay);
        }
    }

    /// Takes keys and hands them to `reconcile`, at most `workers` at the same time, until cancelled.
    /// A failed key comes back after an exponential back-off.
    pub async fn drive<F, Fut>(
        self,
        name: &'static str,
        workers: usize,
        cancel: CancellationToken,
        reconcile: F,
    ) where
        F: Fn(T) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(_) = running.join_next(), if !running.is_empty() => {}
                key = self.next(), if running.len() < workers => {
                    let work = reconcile(key.clone());
                    let guard = Finish { queue: self.clone(), key, failed: true };
                    running.spawn(async move {
                        let mut guard = guard;
                        match work.await {
                            Ok(()) => guard.failed = false,
                            // Lost races and what is on its way come right by themselves.
                            Err(error) if is_passing(&error) || guard.queue.failures(&guard.key) < QUIET => {
                                tracing::debug!(controller = name, key = ?guard.key, error = %format!("{error:#}"), "trying again");
                            }
                            Err(error) => {
                                tracing::warn!(controller = name, key = ?guard.key, error = %format!("{error:#}"), "reconcile failed, trying again");
                            }
                        }
                    });
                }
            }
        }
        running.abort_all();
    }
}

/// Returns the key to the queue however the work ends, a panic included.
struct Finish<T: QueueKey> {
    queue: Queue<T>,
    key: T,
    failed: bool,
}

impl<T: QueueKey> Drop for Finish<T> {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once() {
        let queue = Queue::new();
        queue.add(1);
        queue.add(1);
        queue.add(2);
        assert_eq!(queue.next_ready().0, Some(1));
        assert_eq!(queue.next_ready().0, Some(2));
        assert_eq!(queue.next_ready().0, None);
    }

    #[test]
    fn a_running_key_comes_back_only_when_done() {
        let queue = Queue::new();
        queue.add(1);
        assert_eq!(queue.next_ready().0, Some(1));
        queue.add(1);
        assert_eq!(queue.next_ready().0, None);
        queue.done(&1, false);
        assert_eq!(queue.next_ready().0, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_delay_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after(1, Duration::from_secs(9));
        queue.add_after(1, Duration::from_secs(3));
        queue.add_after(1, Duration::from_secs(6));
        assert_eq!(queue.next().await, 1);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        queue.done(&1, false);
        assert_eq!(queue.next_ready(), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_exponentially() {
        let queue = Queue::new();
        queue.add(1);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            let key = queue.next().await;
            waits.push(start.elapsed());
            queue.done(&key, true);
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1] < waits[2] && waits[2] < waits[3], "{waits:?}");
    }
}
