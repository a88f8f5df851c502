//! Events on experiments and trials, for `kubectl describe`.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, PostParams};

/// Writes events; that one cannot be written stops nothing.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    component: &'static str,
}

impl Recorder {
    /// A recorder of events from `component`.
    #[must_use]
    pub fn new(client: Client, component: &'static str) -> Self {
        Self { client, component }
    }

    /// Records an event on an object of this kind.
    pub async fn record(
        &self,
        kind: &str,
        object: &ObjectMeta,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let now = jiff::Timestamp::now();
        let (name, namespace) = (
            object.name.clone().unwrap_or_default(),
            object.namespace.clone().unwrap_or_default(),
        );
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("kubeflow.org/v1beta1".to_owned()),
                kind: Some(kind.to_owned()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: object.uid.clone(),
                resource_version: object.resource_version.clone(),
                field_path: None,
            },
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: None,
            }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            event_time: Some(MicroTime(now)),
            action: Some("Reconcile".to_owned()),
            reporting_instance: Some(self.component.to_owned()),
            count: Some(1),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(object = name, %error, "event is lost");
        }
    }
}
