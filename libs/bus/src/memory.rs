//! The in-process bus: one bounded queue per durable consumer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use ferroflow_kernel::Event;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Ack, BusError, Delivery, EventBus, Subscription, matches};

const QUEUE: usize = 16_384;
const DEDUPLICATION_WINDOW: usize = 16_384;

/// An [`EventBus`] inside one process.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    consumers: HashMap<String, Arc<Consumer>>,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
}

#[derive(Debug)]
struct Consumer {
    name: String,
    subject: String,
    queue: Mutex<VecDeque<Event>>,
    arrived: Notify,
}

impl Consumer {
    fn put_back(&self, event: Event) {
        self.queue.lock().push_front(event);
        self.arrived.notify_one();
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let mut state = self.state.lock();
        if state.seen.contains(&event.id) {
            return Ok(());
        }
        let interested: Vec<_> = state
            .consumers
            .values()
            .filter(|c| matches(&c.subject, &event.kind))
            .cloned()
            .collect();
        if let Some(full) = interested.iter().find(|c| c.queue.lock().len() >= QUEUE) {
            return Err(BusError::Full(full.name.clone()));
        }
        for consumer in interested {
            consumer.queue.lock().push_back(event.clone());
            consumer.arrived.notify_one();
        }
        state.seen_order.push_back(event.id.clone());
        state.seen.insert(event.id);
        if state.seen_order.len() > DEDUPLICATION_WINDOW
            && let Some(oldest) = state.seen_order.pop_front()
        {
            state.seen.remove(&oldest);
        }
        Ok(())
    }

    async fn subscribe(&self, name: &str, subject: &str) -> Result<Box<dyn Subscription>, BusError> {
        let mut state = self.state.lock();
        let consumer = state.consumers.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Consumer {
                name: name.to_owned(),
                subject: subject.to_owned(),
                queue: Mutex::default(),
                arrived: Notify::new(),
            })
        });
        Ok(Box::new(MemorySubscription(consumer.clone())))
    }
}

struct MemorySubscription(Arc<Consumer>);

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let event = self.0.queue.lock().pop_front();
            match event {
                Some(event) => {
                    let ack = MemoryAck {
                        consumer: self.0.clone(),
                        event: Some(event.clone()),
                    };
                    return Some(Delivery {
                        event,
                        ack: Box::new(ack),
                    });
                }
                None => self.0.arrived.notified().await,
            }
        }
    }
}

struct MemoryAck {
    consumer: Arc<Consumer>,
    event: Option<Event>,
}

#[async_trait]
impl Ack for MemoryAck {
    async fn ack(mut self: Box<Self>) -> Result<(), BusError> {
        self.event = None;
        Ok(())
    }
}

impl Drop for MemoryAck {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.consumer.put_back(event);
        }
    }
}
