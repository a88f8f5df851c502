//! Events of Pods, as `kubectl describe` shows them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tracing::debug;

use super::repeats::Repeats;

/// Events that wait to be written; more are dropped, since no one may be held up by them.
const BACKLOG: usize = 1024;

#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    node: String,
}

impl Recorder {
    /// Writes events in a task of its own until all recorders are gone.
    pub fn start(client: kube::Client, node: String) -> Self {
        let (queue, mut inbox) = mpsc::channel::<Event>(BACKLOG);
        tokio::spawn(async move {
            let mut repeats = Repeats::default();
            while let Some(event) = inbox.recv().await {
                if let Err(error) = write(&client, &mut repeats, &event).await {
                    debug!(%error, "cannot record an event");
                }
            }
        });
        Self { queue, node }
    }

    pub fn record(&self, pod: &Pod, warning: bool, reason: &str, message: String, container: Option<&str>) {
        let now = Timestamp::now();
        let meta = &pod.metadata;
        let init = container.is_some_and(|name| {
            pod.spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten())
                .any(|container| container.name == name)
        });
        let field = container.map(|name| {
            format!(
                "spec.{}{{{name}}}",
                if init { "initContainers" } else { "containers" }
            )
        });
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{}",
                    meta.name.as_deref().unwrap_or_default(),
                    uuid::Uuid::now_v7().simple()
                )),
                namespace: meta.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                field_path: field,
                ..ObjectReference::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            event_time: None::<MicroTime>,
            count: Some(1),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            debug!(reason, "an event was dropped");
        }
    }
}

/// A repetition is counted in the event that is there; when that is gone, it is told anew.
async fn write(client: &kube::Client, repeats: &mut Repeats, event: &Event) -> kube::Result<()> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let now = Timestamp::now();
    if let Some((name, count)) = repeats.again(event, now) {
        let patch = serde_json::json!({"count": count, "lastTimestamp": Time(now)});
        match events
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            outcome => return outcome.map(drop),
        }
    }
    let made = events.create(&PostParams::default(), event).await?;
    repeats.told(&made, now);
    Ok(())
}
