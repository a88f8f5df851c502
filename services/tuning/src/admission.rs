//! Webhooks: defaults and validation of Experiments, and the metrics collector in the Pods of trials.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use ferroflow_api::crd::tuning::{Experiment, Trial};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::collector::{Injection, inject};
use crate::domain::defaults::set_defaults;
use crate::domain::validation::{Old, validate};
use crate::resources::Resources;
use crate::template_source;
use ferroflow_reconcile::field::aggregate;

/// Owners above a Pod that are looked at: a Pod of a Job of a Workflow of a Trial has three.
const DEPTH: usize = 5;

#[derive(Clone)]
struct Hooks {
    client: Client,
    resources: Resources,
    injection: Injection,
}

/// The webhooks' routes.
pub fn router(client: Client, injection: Injection) -> Router {
    let hooks = Hooks {
        resources: Resources::new(client.clone()),
        client,
        injection,
    };
    Router::new()
        .route("/default-experiments", post(default_experiment))
        .route("/validate-experiments", post(validate_experiment))
        .route("/inject-pods", post(inject_pod))
        .with_state(hooks)
}

type Review = Json<AdmissionReview<DynamicObject>>;

fn request(review: AdmissionReview<DynamicObject>) -> Result<AdmissionRequest<DynamicObject>, Review> {
    review
        .try_into()
        .map_err(|error| Json(AdmissionResponse::invalid(error).into_review()))
}

fn read<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, String> {
    let value = serde_json::to_value(object).map_err(|e| e.to_string())?;
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// `own` with the fields of `other` over it; what `other` does not know stays.
fn overlay(own: &mut Value, other: Value) {
    match (own, other) {
        (Value::Object(own), Value::Object(other)) => {
            for (key, value) in other {
                overlay(own.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(own), Value::Array(other)) if own.len() == other.len() => {
            for (own, other) in own.iter_mut().zip(other) {
                overlay(own, other);
            }
        }
        (own, other) => *own = other,
    }
}

fn patched(response: AdmissionResponse, before: &DynamicObject, after: &impl Serialize) -> AdmissionResponse {
    let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) else {
        return response.deny("the object cannot be written as JSON");
    };
    let mut whole = before.clone();
    overlay(&mut whole, after);
    let patch = json_patch::diff(&before, &whole);
    if patch.0.is_empty() {
        return response;
    }
    let refused = response.clone();
    // kube has its own version of the patch type
    let patch = serde_json::to_value(patch).and_then(serde_json::from_value);
    match patch {
        Ok(patch) => response
            .with_patch(patch)
            .unwrap_or_else(|error| refused.deny(error)),
        Err(error) => refused.deny(error),
    }
}

async fn default_experiment(Json(review): Review) -> Review {
    let request = match request(review) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let response = AdmissionResponse::from(&request);
    let Some(object) = &request.object else {
        return Json(response.into_review());
    };
    let response = match read::<Experiment>(object) {
        Ok(mut experiment) if experiment.metadata.deletion_timestamp.is_none() => {
            set_defaults(&mut experiment.spec);
            patched(response, object, &experiment)
        }
        // the validating webhook says what is wrong
        _ => response,
    };
    Json(response.into_review())
}

async fn validate_experiment(State(hooks): State<Hooks>, Json(review): Review) -> Review {
    let request = match request(review) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let response = AdmissionResponse::from(&request);
    let Some(object) = &request.object else {
        return Json(response.into_review());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Json(response.into_review());
    }
    let mut experiment: Experiment = match read(object) {
        Ok(experiment) => experiment,
        Err(error) => {
            return Json(
                response
                    .deny(format!("experiment cannot be read: {error}"))
                    .into_review(),
            );
        }
    };
    set_defaults(&mut experiment.spec);
    let old = request
        .old_object
        .as_ref()
        .and_then(|old| read::<Experiment>(old).ok())
        .map(|mut old| {
            set_defaults(&mut old.spec);
            (old.spec, old.status.unwrap_or_default())
        });
    let old = old.as_ref().map(|(spec, status)| Old { spec, status });
    let template = template_source::load(&hooks.client, &experiment.spec)
        .await
        .transpose();
    let name = experiment
        .metadata
        .name
        .as_deref()
        .or(experiment.metadata.generate_name.as_deref());
    // a generated name ends like a name once its suffix is there
    let name = name.unwrap_or_default();
    let name = if experiment.metadata.name.is_none() {
        name.trim_end_matches('-')
    } else {
        name
    };
    let errors = validate(name, &experiment.spec, old, template.as_ref());
    let response = match aggregate(&errors) {
        Some(text) => response.deny(text),
        None => response,
    };
    Json(response.into_review())
}

async fn inject_pod(State(hooks): State<Hooks>, Json(review): Review) -> Review {
    let request = match request(review) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let response = AdmissionResponse::from(&request);
    let (Some(object), Some(namespace)) = (&request.object, request.namespace.as_deref()) else {
        return Json(response.into_review());
    };
    let owners = object.metadata.owner_references.clone().unwrap_or_default();
    let response = match trial_of(&hooks, namespace, owners).await {
        Ok(None) => response,
        Ok(Some(trial)) => match read::<Pod>(object).map(|pod| inject(&pod, &trial, &hooks.injection)) {
            Ok(Ok(pod)) => patched(response, object, &pod),
            Ok(Err(error)) => response.deny(error),
            Err(error) => response.deny(format!("pod cannot be read: {error}")),
        },
        Err(error) => response.deny(format!("looking for the trial of this pod: {error}")),
    };
    Json(response.into_review())
}

/// The Trial that owns the object, directly or through others.
async fn trial_of(
    hooks: &Hooks,
    namespace: &str,
    mut owners: Vec<OwnerReference>,
) -> Result<Option<Trial>, kube::Error> {
    for _ in 0..DEPTH {
        let trial = owners
            .iter()
            .find(|o| o.kind == "Trial" && o.api_version.starts_with("kubeflow.org/"));
        if let Some(owner) = trial {
            let trials: Api<Trial> = Api::namespaced(hooks.client.clone(), namespace);
            let trial = trials.get_opt(&owner.name).await?;
            return Ok(trial.filter(|t| t.metadata.uid.as_deref() == Some(owner.uid.as_str())));
        }
        let Some(owner) = owners
            .iter()
            .find(|o| o.controller == Some(true))
            .or(owners.first())
        else {
            return Ok(None);
        };
        // Nodes own static Pods, and are in no namespace
        if owner.kind == "Node" {
            return Ok(None);
        }
        let resource = hooks.resources.of(&owner.api_version, &owner.kind).await?;
        let api: Api<DynamicObject> = Api::namespaced_with(hooks.client.clone(), namespace, &resource);
        let above = match api.get_opt(&owner.name).await {
            Ok(above) => above,
            // a kind that this service may not read is none that a trial runs
            Err(kube::Error::Api(status)) if status.code == 403 => None,
            Err(error) => return Err(error),
        };
        let Some(above) = above.filter(|a| a.metadata.uid.as_deref() == Some(owner.uid.as_str())) else {
            return Ok(None);
        };
        owners = above.metadata.owner_references.unwrap_or_default();
    }
    Ok(None)
}
