//! NATS JetStream: one stream, one durable pull consumer per name; the event id is the `Nats-Msg-Id`.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, AckKind, consumer, stream};
use async_trait::async_trait;
use ferroflow_kernel::Event;
use futures::StreamExt as _;

use crate::{Ack, BusError, Delivery, EventBus, Subscription};

const STREAM: &str = "FERROFLOW";

/// An [`EventBus`] over NATS JetStream.
#[derive(Debug, Clone)]
pub struct NatsBus {
    context: jetstream::Context,
    stream: stream::Stream,
}

fn server(error: impl std::fmt::Display) -> BusError {
    BusError::Server(error.to_string())
}

impl NatsBus {
    /// Connects and creates the stream where it does not exist.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn connect(url: &str) -> Result<Self, BusError> {
        let client = async_nats::connect(url).await.map_err(server)?;
        let context = jetstream::new(client);
        let stream = context
            .get_or_create_stream(stream::Config {
                name: STREAM.to_owned(),
                subjects: vec!["ferroflow.>".to_owned()],
                max_age: Duration::from_secs(7 * 24 * 3600),
                duplicate_window: Duration::from_secs(600),
                ..Default::default()
            })
            .await
            .map_err(server)?;
        Ok(Self { context, stream })
    }
}

#[async_trait]
impl EventBus for NatsBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", event.id.as_str());
        let body = serde_json::to_vec(&event)?;
        let accepted = self
            .context
            .publish_with_headers(event.kind.clone(), headers, body.into())
            .await
            .map_err(server)?;
        accepted.await.map_err(server)?;
        Ok(())
    }

    async fn subscribe(&self, name: &str, subject: &str) -> Result<Box<dyn Subscription>, BusError> {
        let config = consumer::pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: subject.to_owned(),
            deliver_policy: consumer::DeliverPolicy::New,
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 1,
            ..Default::default()
        };
        let consumer = self
            .stream
            .get_or_create_consumer(name, config)
            .await
            .map_err(server)?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(1)
            .messages()
            .await
            .map_err(server)?;
        Ok(Box::new(NatsSubscription { messages }))
    }
}

struct NatsSubscription {
    messages: consumer::pull::Stream,
}

#[async_trait]
impl Subscription for NatsSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            match self.messages.next().await? {
                Ok(message) => match serde_json::from_slice(&message.payload) {
                    Ok(event) => {
                        let ack = NatsAck {
                            message: Some(message),
                            runtime: tokio::runtime::Handle::current(),
                        };
                        return Some(Delivery {
                            event,
                            ack: Box::new(ack),
                        });
                    }
                    Err(error) => {
                        tracing::error!(%error, subject = %message.subject, "message is no event; it is dropped");
                        let _terminated = message.ack_with(AckKind::Term).await;
                    }
                },
                Err(error) => tracing::warn!(%error, "nats delivery"),
            }
        }
    }
}

struct NatsAck {
    message: Option<jetstream::Message>,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl Ack for NatsAck {
    async fn ack(mut self: Box<Self>) -> Result<(), BusError> {
        match self.message.take() {
            Some(message) => message.double_ack().await.map_err(server),
            None => Ok(()),
        }
    }
}

impl Drop for NatsAck {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.runtime.spawn(async move {
                let _redelivered = message.ack_with(AckKind::Nak(None)).await;
            });
        }
    }
}
