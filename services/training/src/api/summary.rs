//! A job in one row.

use ferroflow_api::ferroflow::training::v1::{JobSummary, ReplicaSummary};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::domain::job::Job;

/// The row of a job.
pub fn summary(job: &Job) -> JobSummary {
    let last = job.status.conditions.last();
    let replicas = job.replicas.iter().map(|(replica_type, spec)| {
        let counts = job.status.replica_statuses.get(replica_type);
        ReplicaSummary {
            r#type: replica_type.clone(),
            desired: spec.replicas.unwrap_or(1),
            active: counts.map_or(0, |c| c.active),
            succeeded: counts.map_or(0, |c| c.succeeded),
            failed: counts.map_or(0, |c| c.failed),
        }
    });
    JobSummary {
        kind: job.kind.kind.to_owned(),
        namespace: job.namespace().to_owned(),
        name: job.name().to_owned(),
        state: last.map(|c| c.type_.clone()).unwrap_or_default(),
        reason: last.map(|c| c.reason.clone()).unwrap_or_default(),
        message: last.map(|c| c.message.clone()).unwrap_or_default(),
        replicas: replicas.collect(),
        created: job.metadata.creation_timestamp.as_ref().map(timestamp),
        started: job.status.start_time.as_ref().map(timestamp),
        completed: job.status.completion_time.as_ref().map(timestamp),
    }
}

fn timestamp(time: &Time) -> pbjson_types::Timestamp {
    pbjson_types::Timestamp {
        seconds: time.0.as_second(),
        nanos: time.0.subsec_nanosecond(),
    }
}
