//! AdmissionReview handlers for InferenceServices.

use crate::controller::runtimes;
use crate::domain;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use ferroflow_api::crd::serving::InferenceService;
use ferroflow_kernel::Clock;
use kube::Client;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone)]
struct Webhooks {
    client: Client,
    clock: Arc<dyn Clock>,
}

/// Routes at the paths that `libs/api/webhooks/serving.yaml` names.
pub fn router(client: Client, clock: Arc<dyn Clock>) -> Router {
    Router::new()
        .route("/mutate-serving-kserve-io-v1beta1-inferenceservice", post(mutate))
        .route(
            "/validate-serving-kserve-io-v1beta1-inferenceservice",
            post(validate),
        )
        .with_state(Webhooks { client, clock })
}

type Review = Json<AdmissionReview<DynamicObject>>;

/// The request with its object as JSON; deletions have none.
fn request(
    review: AdmissionReview<DynamicObject>,
) -> Result<(AdmissionRequest<DynamicObject>, Option<Value>), AdmissionResponse> {
    let request: AdmissionRequest<DynamicObject> = review.try_into().map_err(AdmissionResponse::invalid)?;
    let object = request
        .object
        .as_ref()
        .map(serde_json::to_value)
        .transpose()
        .map_err(AdmissionResponse::invalid)?;
    Ok((request, object))
}

async fn mutate(Json(review): Review) -> Review {
    let (request, object) = match request(review) {
        Ok(read) => read,
        Err(refused) => return Json(refused.into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let Some(object) = object else {
        return Json(response.into_review());
    };
    let patch = json_patch::diff(&object, &domain::with_defaults(object.clone()));
    if patch.0.is_empty() {
        return Json(response.into_review());
    }
    // By way of JSON, since kube has a json-patch of its own version.
    let patch = serde_json::to_value(&patch).and_then(serde_json::from_value);
    let response = match patch {
        Ok(patch) => response
            .with_patch(patch)
            .unwrap_or_else(AdmissionResponse::invalid),
        Err(error) => AdmissionResponse::invalid(error),
    };
    Json(response.into_review())
}

async fn validate(State(state): State<Webhooks>, Json(review): Review) -> Review {
    let (request, object) = match request(review) {
        Ok(read) => read,
        Err(refused) => return Json(refused.into_review()),
    };
    let response = AdmissionResponse::from(&request);
    let Some(object) = object.filter(|_| request.operation != Operation::Delete) else {
        return Json(response.into_review());
    };
    let service: InferenceService = match serde_json::from_value(object) {
        Ok(service) => service,
        Err(error) => {
            let text = format!(
                "InferenceService.serving.kserve.io {:?} is invalid: {error}",
                request.name
            );
            return Json(response.deny(text).into_review());
        }
    };
    // One that is on its way out may change only to let go of its finalizers.
    if service.metadata.deletion_timestamp.is_some() {
        return Json(response.into_review());
    }
    let namespace = request.namespace.clone().unwrap_or_default();
    let formats = match runtimes(&state.client, &namespace, state.clock.now()).await {
        Ok((own, cluster)) => Some(domain::known_formats(
            own.iter().chain(&cluster).map(|(_, _, spec)| spec),
        )),
        Err(error) => {
            // The status will tell what could not be checked here.
            tracing::warn!(%error, "cannot list serving runtimes for validation");
            None
        }
    };
    let response = match domain::validate(&service, formats.as_deref()) {
        Ok(()) => response,
        Err(text) => response.deny(text),
    };
    Json(response.into_review())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use ferroflow_kernel::SystemClock;
    use http::{Request, Response};
    use http_body_util::BodyExt;
    use serde_json::json;
    use tower::ServiceExt;

    /// A client whose API server has one cluster runtime for xgboost.
    fn client() -> Client {
        let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
            let items = if request.uri().path().ends_with("clusterservingruntimes") {
                json!([{"metadata": {"name": "x"}, "spec": {"containers": [], "supportedModelFormats": [{"name": "xgboost"}]}}])
            } else {
                json!([])
            };
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
            Ok::<_, std::convert::Infallible>(Response::new(kube::client::Body::from(
                list.to_string().into_bytes(),
            )))
        });
        Client::new(service, "default")
    }

    async fn ask(path: &str, spec: Value) -> Value {
        let object = json!({"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": {"name": "m", "namespace": "team"}, "spec": spec});
        let kind = json!({"group": "serving.kserve.io", "version": "v1beta1", "kind": "InferenceService"});
        let resource =
            json!({"group": "serving.kserve.io", "version": "v1beta1", "resource": "inferenceservices"});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u1", "kind": kind, "resource": resource, "name": "m", "namespace": "team", "operation": "CREATE",
            "userInfo": {}, "object": object, "dryRun": false}});
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(review.to_string()))
            .unwrap();
        let answer = router(client(), Arc::new(SystemClock))
            .oneshot(request)
            .await
            .unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn legacy_formats_are_rewritten() {
        let review = ask(
            "/mutate-serving-kserve-io-v1beta1-inferenceservice",
            json!({"predictor": {"xgboost": {"storageUri": "s3://b/m"}}}),
        )
        .await;
        assert_eq!(
            (&review["response"]["allowed"], &review["response"]["uid"]),
            (&json!(true), &json!("u1"))
        );
        assert_eq!(review["response"]["patchType"], "JSONPatch");
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused_with_those_known() {
        let path = "/validate-serving-kserve-io-v1beta1-inferenceservice";
        let review = ask(
            path,
            json!({"predictor": {"model": {"modelFormat": {"name": "foo"}}}}),
        )
        .await;
        assert_eq!(review["response"]["allowed"], false);
        assert_eq!(
            review["response"]["status"]["message"],
            "spec.predictor.model.modelFormat.name: Unsupported value: \"foo\": no serving runtime takes it; known formats: xgboost; or add a ServingRuntime"
        );
        let review = ask(
            path,
            json!({"predictor": {"model": {"modelFormat": {"name": "xgboost"}}}}),
        )
        .await;
        assert_eq!(review["response"]["allowed"], true);
    }
}
