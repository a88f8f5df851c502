//! Credentials with which a storage initializer reads a model from the artifacts service.

use ferroflow_api::crd::serving::InferenceService;
use ferroflow_api::ferroflow::artifacts::v1::MintCredentialsRequest;
use ferroflow_api::ferroflow::artifacts::v1::artifact_service_client::ArtifactServiceClient;
use ferroflow_auth::{Caller, Principal};
use ferroflow_rpc::Transport;
use jiff::{SignedDuration, Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use std::collections::BTreeMap;
use tonic::Code;

/// Annotation that tells for which URI the Secret was made.
const URI: &str = "serving.ferroflow.dev/storage-uri";
/// Annotation that tells until when its credentials hold.
const EXPIRES: &str = "serving.ferroflow.dev/expires-at";
/// Life of credentials, and what must be left of it: a Pod that is restarted later fetches again.
const LIFE_DAYS: i64 = 30;
const RENEW: SignedDuration = SignedDuration::from_hours(15 * 24);

/// Makes sure that the Secret of this service's storage is there and current. Gives its name, or nothing where the model
/// is not in an S3 bucket of ours or may not be read (which the fetch then says).
pub async fn ensure(
    client: &Client,
    artifacts: Option<&Transport>,
    service: &InferenceService,
    now: Timestamp,
) -> anyhow::Result<Option<String>> {
    let uri = service
        .spec
        .predictor
        .model
        .as_ref()
        .and_then(|model| model.storage_uri.as_deref());
    let (Some(artifacts), Some(uri)) = (artifacts, uri) else {
        return Ok(None);
    };
    if !uri.starts_with("s3://") && !uri.starts_with("minio://") {
        return Ok(None);
    }
    let namespace = service.namespace().unwrap_or_default();
    let name = format!("{}-storage", service.name_any());
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let old = api.get_opt(&name).await?;
    if old.as_ref().is_some_and(|old| current(old, uri, now, RENEW)) {
        return Ok(Some(name));
    }
    // The folder around the model: a file has no folder of its own.
    let folder = uri
        .trim_end_matches('/')
        .rsplit_once('/')
        .map_or(uri, |(folder, _)| folder);
    // The account that reads and writes a namespace's artifacts; the Pod itself gets no token of it.
    let principal = Principal::service_account(&namespace, "default-editor");
    let mut client = ArtifactServiceClient::new(
        artifacts.call_as(&Caller::new(Principal::service_account("kubeflow", "serving"))),
    );
    let request = MintCredentialsRequest {
        namespace: namespace.clone(),
        principal: principal.user,
        read_prefixes: vec![format!("{folder}/")],
        write_prefixes: Vec::new(),
        read_only: true,
        ttl: Some(pbjson_types::Duration {
            seconds: LIFE_DAYS * 86_400,
            nanos: 0,
        }),
    };
    let minted = match client.mint_credentials(request).await {
        Ok(minted) => minted.into_inner(),
        Err(status)
            if matches!(
                status.code(),
                Code::PermissionDenied | Code::NotFound | Code::InvalidArgument
            ) =>
        {
            tracing::warn!(service = service.name_any(), uri, %status, "no credentials for the model");
            return Ok(None);
        }
        // What is there holds for a while yet.
        Err(status)
            if old
                .as_ref()
                .is_some_and(|old| current(old, uri, now, SignedDuration::ZERO)) =>
        {
            tracing::warn!(service = service.name_any(), uri, %status, "cannot renew the model's credentials yet");
            return Ok(Some(name));
        }
        Err(status) => {
            anyhow::bail!("cannot get credentials for {uri}: {}", status.message());
        }
    };
    let expires = minted
        .expires_at
        .and_then(|at| Timestamp::from_second(at.seconds).ok());
    let expires = expires.unwrap_or_else(|| now + (LIFE_DAYS * 24).hours());
    let mut secret = Secret {
        type_: Some("Opaque".into()),
        string_data: Some(BTreeMap::from([
            ("AWS_ACCESS_KEY_ID".into(), minted.access_key_id),
            ("AWS_SECRET_ACCESS_KEY".into(), minted.secret_access_key),
            ("AWS_ENDPOINT_URL".into(), minted.endpoint_url),
            ("AWS_REGION".into(), "us-east-1".into()),
        ])),
        ..Secret::default()
    };
    secret.metadata.name = Some(name.clone());
    secret.metadata.namespace = Some(namespace);
    secret.metadata.owner_references = service.controller_owner_ref(&()).map(|owner| vec![owner]);
    secret.annotations_mut().insert(URI.into(), uri.into());
    secret
        .annotations_mut()
        .insert(EXPIRES.into(), expires.to_string());
    match old {
        None => {
            api.create(&PostParams::default(), &secret).await?;
        }
        Some(old) => {
            secret.metadata.resource_version = old.resource_version();
            api.replace(&name, &PostParams::default(), &secret).await?;
        }
    }
    Ok(Some(name))
}

/// Whether a Secret is for this URI and lasts longer than `left`.
fn current(secret: &Secret, uri: &str, now: Timestamp, left: SignedDuration) -> bool {
    let annotations = secret.annotations();
    let expires = annotations
        .get(EXPIRES)
        .and_then(|text| text.parse::<Timestamp>().ok());
    expires.is_some_and(|expires| expires.duration_since(now) > left)
        && annotations.get(URI).is_some_and(|of| of == uri)
}
