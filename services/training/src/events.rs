//! Events on jobs, for `kubectl describe`.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::domain::job::Job;
use crate::domain::kind::API_VERSION;
use crate::domain::status::JobEvent;

/// Writes events; that one cannot be written stops nothing.
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

    /// Records an event on a job.
    pub async fn record(&self, job: &Job, event: JobEvent) {
        let now = jiff::Timestamp::now();
        let name = format!("{}.{:x}", job.name(), now.as_nanosecond());
        let object = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(job.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(API_VERSION.to_owned()),
                kind: Some(job.kind.kind.to_owned()),
                name: Some(job.name().to_owned()),
                namespace: Some(job.namespace().to_owned()),
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
                field_path: None,
            },
            type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(event.reason),
            message: Some(event.message),
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
        let events: Api<Event> = Api::namespaced(self.client.clone(), job.namespace());
        if let Err(error) = events.create(&PostParams::default(), &object).await {
            tracing::debug!(job = job.name(), %error, "event is lost");
        }
    }
}
