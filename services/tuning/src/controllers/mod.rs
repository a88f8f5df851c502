//! The controllers: read what exists, ask [`crate::domain`], do what it says.
//!
//! Experiments ask Suggestions for points, Suggestions ask the algorithm, Experiments create Trials, Trials create the
//! resources that run them; each step follows from a watch event of the one before, and all state is in the resources. Reads
//! go to the API server and not to a cache, and every status is written with the version that was read, so a decision that
//! rests on something old is refused and made again.

pub mod experiment;
pub mod suggestion;
pub mod trial;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::runtime::controller::Action;

use crate::domain::gjson::PathError;
use crate::domain::template::TemplateError;

/// API version of the resources.
pub const API_VERSION: &str = "kubeflow.org/v1beta1";

/// Why something could not be reconciled; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ferroflow_db::DbError),
    /// The algorithm refused.
    #[error("suggestion service: {0}")]
    Suggestion(tonic::Status),
    /// The trial template cannot be used.
    #[error("trial template: {0}")]
    Template(#[from] TemplateError),
    /// A condition cannot be read.
    #[error(transparent)]
    Condition(#[from] PathError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A lost race is run again at once, everything else soon.
fn retry(kind: &str, object: &ObjectMeta, error: &ReconcileError) -> Action {
    if matches!(error, ReconcileError::Api(kube::Error::Api(status)) if status.code == 409) {
        return Action::requeue(Duration::from_millis(10));
    }
    let (namespace, name) = (object.namespace.as_deref(), object.name.as_deref());
    tracing::warn!(kind, namespace, name, %error, "is tried again");
    Action::requeue(Duration::from_secs(2))
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn owner(kind: &str, object: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: API_VERSION.to_owned(),
        kind: kind.to_owned(),
        name: object.name.clone().unwrap_or_default(),
        uid: object.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn controlled_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}
