//! Kubernetes Events about what the controllers did, written in the background.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; more are dropped, since events are best effort.
const WAITING: usize = 1024;
/// Distinct events whose repetitions are counted in one object.
const REMEMBERED: usize = 4096;

struct Record {
    about: ObjectReference,
    component: &'static str,
    kind: &'static str,
    reason: String,
    message: String,
}

/// Where controllers put their events.
#[derive(Clone)]
pub struct Events {
    sender: mpsc::Sender<Record>,
}

/// The writer behind [`Events`].
pub struct Writer {
    client: Client,
    receiver: mpsc::Receiver<Record>,
}

impl Events {
    /// A sink and its writer, which must be run.
    #[must_use]
    pub fn new(client: Client) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender }, Writer { client, receiver })
    }

    /// A `Normal` event.
    pub fn normal<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(component, about, "Normal", reason, message.into());
    }

    /// A `Warning` event.
    pub fn warning<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(component, about, "Warning", reason, message.into());
    }

    fn send<K: Resource<DynamicType = ()>>(
        &self,
        component: &'static str,
        about: &K,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let record = Record {
            about: about.object_ref(&()),
            component,
            kind,
            reason: reason.to_owned(),
            message,
        };
        if self.sender.try_send(record).is_err() {
            tracing::debug!(reason, "too many events, one is dropped");
        }
    }
}

impl Writer {
    /// Writes events until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut seen: HashMap<(Option<String>, String, String), (String, i32)> = HashMap::new();
        loop {
            let record = tokio::select! {
                () = cancel.cancelled() => return,
                record = self.receiver.recv() => match record { Some(record) => record, None => return },
            };
            let namespace = record
                .about
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned());
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            let identity = (
                record.about.uid.clone(),
                record.reason.clone(),
                record.message.clone(),
            );
            if let Some((name, count)) = seen.get_mut(&identity) {
                *count += 1;
                let patch = json!({"count": count, "lastTimestamp": Time(Timestamp::now())});
                if api
                    .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .is_ok()
                {
                    continue;
                }
                seen.remove(&identity);
            }
            let now = Time(Timestamp::now());
            let name = format!(
                "{}.{:016x}",
                record.about.name.clone().unwrap_or_default(),
                rand::random::<u64>()
            );
            let event = Event {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(namespace),
                    ..ObjectMeta::default()
                },
                involved_object: record.about,
                reason: Some(record.reason),
                message: Some(record.message),
                type_: Some(record.kind.to_owned()),
                count: Some(1),
                first_timestamp: Some(now.clone()),
                last_timestamp: Some(now),
                source: Some(EventSource {
                    component: Some(record.component.to_owned()),
                    host: None,
                }),
                reporting_component: Some(record.component.to_owned()),
                reporting_instance: Some(String::new()),
                ..Event::default()
            };
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {
                    if seen.len() >= REMEMBERED {
                        seen.clear();
                    }
                    seen.insert(identity, (name, 1));
                }
                Err(error) => tracing::debug!(%error, "event not written"),
            }
        }
    }
}
