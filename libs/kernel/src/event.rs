//! The event envelope: CloudEvents 1.0.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An event in CloudEvents 1.0 JSON form. Its `type` doubles as the subject on the bus:
/// `ferroflow.<service>.<kind>.<past-tense-verb>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique with `source`; consumers drop an id they have seen.
    pub id: String,
    /// The service that speaks, for example `/ferroflow/pipelines`.
    pub source: String,
    /// For example `ferroflow.pipelines.run.finished`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always `1.0`.
    pub specversion: String,
    /// What the event is about, for example `namespaces/default/runs/<id>`.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
    /// Version of the aggregate; consumers ignore what is older than what they have.
    pub aggregateversion: i64,
    /// W3C trace context of the change, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The payload.
    pub data: serde_json::Value,
}

impl Event {
    /// A new event with a fresh id.
    pub fn new(
        service: &str,
        kind: &str,
        subject: impl Into<String>,
        version: i64,
        time: Timestamp,
        data: serde_json::Value,
    ) -> Self {
        Self {
            id: crate::new_id(),
            source: format!("/ferroflow/{service}"),
            kind: kind.to_owned(),
            specversion: "1.0".to_owned(),
            subject: subject.into(),
            time,
            aggregateversion: version,
            traceparent: None,
            data,
        }
    }
}
