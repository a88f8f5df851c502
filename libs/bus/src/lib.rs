//! Events between services: one [`EventBus`], in process or NATS JetStream.
//!
//! Delivery is at least once. A durable consumer gets every event of its subjects that was published after it first
//! subscribed, in order, one at a time until it acknowledges; an event that is dropped unacknowledged comes again. The in-process bus keeps
//! what is not yet acknowledged in memory only: publishers keep their outbox rows until `publish` answers, and consumers that must survive a
//! crash of the process derive their state again at start (see `docs/architecture.md`).

mod memory;
mod nats;
mod subject;

use async_trait::async_trait;
use ferroflow_kernel::Event;

pub use memory::MemoryBus;
pub use nats::NatsBus;
pub use subject::matches;

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The queue of a consumer is full; the publisher keeps its row and tries again.
    #[error("consumer {0} has a full queue; it must catch up before more is published")]
    Full(String),
    /// The server does not answer or refuses.
    #[error("bus: {0}")]
    Server(String),
    /// An event cannot be written as JSON or read from it.
    #[error("event: {0}")]
    Event(#[from] serde_json::Error),
}

/// A place to publish events and to take them from.
#[async_trait]
pub trait EventBus: Send + Sync + std::fmt::Debug {
    /// Publishes; returns once the event is accepted. A second publish of the same id within the window is dropped.
    ///
    /// # Errors
    /// If a consumer's queue is full or the server does not answer.
    async fn publish(&self, event: Event) -> Result<(), BusError>;

    /// Subscribes the durable consumer `name` to subjects such as `ferroflow.pipelines.run.*` (`*` one word, `>` the rest).
    /// Two subscriptions of one name share its events.
    ///
    /// # Errors
    /// If the server does not answer.
    async fn subscribe(&self, name: &str, subject: &str) -> Result<Box<dyn Subscription>, BusError>;
}

/// The stream of a consumer's events.
#[async_trait]
pub trait Subscription: Send {
    /// The next event; `None` when the bus is gone.
    async fn next(&mut self) -> Option<Delivery>;
}

/// One event with its acknowledgement. Dropped without [`Delivery::ack`] it is delivered again.
pub struct Delivery {
    /// The event.
    pub event: Event,
    pub(crate) ack: Box<dyn Ack>,
}

impl Delivery {
    /// The effect of the event is durable: do not deliver it again.
    ///
    /// # Errors
    /// If the server does not answer; the event comes again then.
    pub async fn ack(self) -> Result<(), BusError> {
        self.ack.ack().await
    }
}

#[async_trait]
pub(crate) trait Ack: Send {
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
}
