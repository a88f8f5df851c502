//! The validating webhook: a bad job is refused when it is created, not when it fails.

use axum::routing::post;
use axum::{Json, Router};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};

use crate::domain::job::Job;
use crate::domain::kind::Kind;
use crate::domain::validation::validate;
use ferroflow_reconcile::field::aggregate;

/// Where the API server posts reviews.
pub const PATH: &str = "/validate-kubeflow-org-v1-jobs";

/// The webhook's route.
pub fn router() -> Router {
    Router::new().route(PATH, post(review))
}

async fn review(Json(review): Json<AdmissionReview<DynamicObject>>) -> Json<AdmissionReview<DynamicObject>> {
    let request: Result<AdmissionRequest<DynamicObject>, _> = review.try_into();
    let response = match request {
        Ok(request) => decide(&request),
        Err(error) => AdmissionResponse::invalid(error),
    };
    Json(response.into_review())
}

fn decide(request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
    let response = AdmissionResponse::from(request);
    let Some(object) = &request.object else {
        return response;
    };
    let Some(kind) = Kind::named(&request.kind.kind) else {
        return response.deny(format!("kind {:?} is none of this webhook's", request.kind.kind));
    };
    // what is being deleted may always lose its finalizers
    if object.metadata.deletion_timestamp.is_some() {
        return response;
    }
    let job = match Job::read(kind, object) {
        Ok(job) => job,
        Err(error) => return response.deny(error),
    };
    let old = request
        .old_object
        .as_ref()
        .and_then(|old| Job::read(kind, old).ok());
    match aggregate(&validate(old.as_ref(), &job)) {
        Some(text) => response.deny(text),
        None => response,
    }
}
