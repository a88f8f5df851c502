//! Which Pods may run: a queue against the node's capacity, so that 500 Pods never start at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::quantity;

/// Pods that request nothing fit any node, as on Kubernetes; so many of them run at once for each core.
const LIGHT_PER_CORE: f64 = 8.0;

/// When no such Pod was let in for this long, one goes in above the bound: the running ones may be waiting for it
/// (a step that waits for the trials it made, say).
const STALL: Duration = Duration::from_secs(5);

/// What a Pod takes: cpu in cores, memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Demand {
    pub cpu: f64,
    pub memory: f64,
}

impl Demand {
    /// The Pod's requests: the sum of its containers, or its largest init container if that is more.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::default();
        };
        let one = |container: &k8s_openapi::api::core::v1::Container, name: &str| {
            let resources = container.resources.as_ref();
            let stated = resources
                .and_then(|resources| resources.requests.as_ref())
                .and_then(|requests| requests.get(name))
                .or_else(|| {
                    resources
                        .and_then(|resources| resources.limits.as_ref())
                        .and_then(|limits| limits.get(name))
                });
            stated.map_or(0.0, quantity::value)
        };
        let total = |name: &str| {
            let main: f64 = spec.containers.iter().map(|container| one(container, name)).sum();
            let (mut sidecars, mut peak) = (0.0, 0.0f64);
            for container in spec.init_containers.iter().flatten() {
                if container.restart_policy.as_deref() == Some("Always") {
                    sidecars += one(container, name);
                } else {
                    peak = peak.max(sidecars + one(container, name));
                }
            }
            peak.max(main + sidecars)
        };
        Self {
            cpu: total("cpu"),
            memory: total("memory"),
        }
    }
}

impl Demand {
    fn light(self) -> bool {
        self.cpu <= 0.0 && self.memory <= 0.0
    }
}

/// The queue's whole state; its decisions are pure.
#[derive(Debug)]
struct Book<T> {
    capacity: Demand,
    most: usize,
    used: Demand,
    running: usize,
    light_running: usize,
    heavy: VecDeque<(Demand, T)>,
    light: VecDeque<(Demand, T)>,
    last_light: Instant,
}

impl<T> Book<T> {
    fn new(capacity: Demand, most: usize) -> Self {
        Self {
            capacity,
            most,
            used: Demand::default(),
            running: 0,
            light_running: 0,
            heavy: VecDeque::new(),
            light: VecDeque::new(),
            last_light: Instant::now(),
        }
    }

    fn push(&mut self, demand: Demand, entry: T) {
        if demand.light() {
            self.light.push_back((demand, entry));
        } else {
            self.heavy.push_back((demand, entry));
        }
    }

    /// A Pod that is larger than the node runs when no other one with requests does.
    fn fits(&self, demand: Demand) -> bool {
        let roomy = self.used.cpu + demand.cpu <= self.capacity.cpu + 1e-9
            && self.used.memory + demand.memory <= self.capacity.memory + 1e-9;
        roomy || self.running == self.light_running
    }

    /// The next Pod that may run at `now`. First come, first served: a large Pod is not starved by smaller ones.
    fn next(&mut self, now: Instant) -> Option<(Demand, T)> {
        if self.running >= self.most {
            return None;
        }
        let next = if self.heavy.front().is_some_and(|(demand, _)| self.fits(*demand)) {
            self.heavy.pop_front()
        } else {
            let bound = (self.capacity.cpu * LIGHT_PER_CORE).max(LIGHT_PER_CORE) as usize;
            let stalled = now.duration_since(self.last_light) >= STALL;
            if self.light_running < bound || stalled {
                self.light.pop_front()
            } else {
                None
            }
        };
        let (demand, entry) = next?;
        self.enter(demand, now);
        Some((demand, entry))
    }

    fn enter(&mut self, demand: Demand, now: Instant) {
        self.used.cpu += demand.cpu;
        self.used.memory += demand.memory;
        self.running += 1;
        if demand.light() {
            self.light_running += 1;
            self.last_light = now;
        }
    }

    fn leave(&mut self, demand: Demand) {
        self.used.cpu -= demand.cpu;
        self.used.memory -= demand.memory;
        self.running -= 1;
        if demand.light() {
            self.light_running -= 1;
        }
    }
}

#[derive(Debug, Clone)]
pub struct Queue {
    book: Arc<Mutex<Book<oneshot::Sender<()>>>>,
}

/// A Pod's right to run; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    demand: Demand,
    queue: Queue,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.queue.book.lock().leave(self.demand);
        self.queue.admit(Instant::now());
    }
}

impl Queue {
    pub fn new(capacity: Demand, most: usize) -> Self {
        Self {
            book: Arc::new(Mutex::new(Book::new(capacity, most))),
        }
    }

    /// Waits for a slot. `queued` is called once if there is none right now.
    pub async fn enter(&self, demand: Demand, queued: impl FnOnce()) -> Slot {
        let (told, mut admitted) = oneshot::channel();
        self.book.lock().push(demand, told);
        self.admit(Instant::now());
        let slot = Slot {
            demand,
            queue: self.clone(),
        };
        if admitted.try_recv().is_ok() {
            return slot;
        }
        let mut waiting = Waiting {
            slot: Some(slot),
            admitted,
        };
        queued();
        loop {
            tokio::select! {
                outcome = &mut waiting.admitted => {
                    if outcome.is_ok() && let Some(slot) = waiting.slot.take() {
                        return slot;
                    }
                    // The queue never drops a sender; wait for a slot that will not come.
                    std::future::pending::<()>().await;
                }
                () = tokio::time::sleep(STALL) => self.admit(Instant::now()),
            }
        }
    }

    /// A Pod that already runs (adopted) takes its place without waiting.
    pub fn occupy(&self, demand: Demand) -> Slot {
        self.book.lock().enter(demand, Instant::now());
        Slot {
            demand,
            queue: self.clone(),
        }
    }

    fn admit(&self, now: Instant) {
        loop {
            let next = self.book.lock().next(now);
            let Some((demand, told)) = next else { return };
            if told.send(()).is_err() {
                // Deleted while it waited.
                self.book.lock().leave(demand);
            }
        }
    }
}

/// A wait that is given up leaves no trace: the slot is not held yet, unless the word had just been given.
struct Waiting {
    slot: Option<Slot>,
    admitted: oneshot::Receiver<()>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.admitted.close();
        if let Some(slot) = self.slot.take()
            && self.admitted.try_recv().is_err()
        {
            std::mem::forget(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(cpu: f64, most: usize) -> Book<u32> {
        Book::new(Demand { cpu, memory: 1e12 }, most)
    }

    fn wait(book: &mut Book<u32>, cpu: f64, entry: u32) {
        book.push(Demand { cpu, memory: 0.0 }, entry);
    }

    #[test]
    fn five_hundred_pods_are_let_in_as_far_as_the_node_carries() {
        let now = Instant::now();
        let mut book = book(2.0, 110);
        (0..500).for_each(|entry| wait(&mut book, 0.0, entry));
        assert_eq!(std::iter::from_fn(|| book.next(now)).count(), 16);
        book.leave(Demand::default());
        assert_eq!(book.next(now).map(|(_, entry)| entry), Some(16), "in their order");
        assert!(book.next(now).is_none());
    }

    #[test]
    fn the_number_of_pods_is_bounded_whatever_they_ask() {
        let now = Instant::now();
        let mut book = book(1000.0, 3);
        (0..5).for_each(|entry| wait(&mut book, 0.0, entry));
        assert_eq!(std::iter::from_fn(|| book.next(now)).count(), 3);
    }

    #[test]
    fn requests_are_never_exceeded_and_hold_no_small_pod_back() {
        let now = Instant::now();
        let mut book = book(2.0, 10);
        wait(&mut book, 1.5, 1);
        wait(&mut book, 1.0, 2);
        wait(&mut book, 0.0, 3);
        let admitted: Vec<u32> = std::iter::from_fn(|| book.next(now + STALL))
            .map(|(_, entry)| entry)
            .collect();
        assert_eq!(admitted, [1, 3]);
    }

    #[test]
    fn a_pod_larger_than_the_node_has_it_for_itself() {
        let now = Instant::now();
        let mut book = book(2.0, 10);
        wait(&mut book, 8.0, 1);
        wait(&mut book, 0.1, 2);
        assert_eq!(book.next(now).map(|(_, entry)| entry), Some(1));
        assert!(book.next(now).is_none());
    }

    #[test]
    fn a_stalled_queue_lets_one_in() {
        let now = Instant::now();
        let mut book = book(1.0, 100);
        (0..10).for_each(|entry| wait(&mut book, 0.0, entry));
        assert_eq!(std::iter::from_fn(|| book.next(now)).count(), 8);
        let later = now + STALL + Duration::from_secs(1);
        assert_eq!(book.next(later).map(|(_, entry)| entry), Some(8));
        assert!(book.next(later).is_none(), "only one");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_frees_its_place() {
        let queue = Queue::new(
            Demand {
                cpu: 1.0,
                memory: 1e12,
            },
            10,
        );
        let one = Demand {
            cpu: 1.0,
            memory: 0.0,
        };
        let first = queue.enter(one, || {}).await;
        {
            let waiting = queue.enter(one, || {});
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        drop(first);
        let mut queued = false;
        drop(queue.enter(one, || queued = true).await);
        assert!(!queued);
        assert_eq!(queue.book.lock().running, 0);
    }
}
