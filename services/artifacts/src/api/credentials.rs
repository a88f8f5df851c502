//! Who sends a request, and the making of credentials and signed URLs.

use std::sync::Arc;

use ferroflow_auth::{CALLER_HEADER, Caller, CallerKey, Principal};
use ferroflow_blob::Location;
use ferroflow_kernel::{Code, Error};
use http::request::Parts;
use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};

use crate::domain::grant::{CredentialKey, Folder, Grant};
use crate::domain::signed_url::SignedUrl;
use crate::error::Failure;
use crate::objects::{Actor, Limit, Objects};

const LONGEST_CREDENTIAL: SignedDuration = SignedDuration::from_hours(30 * 24);
const USUAL_CREDENTIAL: SignedDuration = SignedDuration::from_hours(12);
const LONGEST_URL: SignedDuration = SignedDuration::from_hours(7 * 24);
const USUAL_URL: SignedDuration = SignedDuration::from_mins(15);

/// What all faces share.
#[derive(Clone)]
pub(crate) struct Service {
    pub objects: Objects,
    pub callers: CallerKey,
    pub credentials: CredentialKey,
    /// Where S3 clients in Pods reach the service.
    pub s3_endpoint: Arc<str>,
}

/// Credentials as they are given out.
#[derive(Debug, Clone)]
pub(crate) struct Minted {
    pub access_key: String,
    pub secret: String,
    pub expires: Timestamp,
}

/// What somebody wants credentials for.
#[derive(Debug, Clone, Default)]
pub(crate) struct MintRequest {
    pub namespace: String,
    pub principal: String,
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub read_only: bool,
    pub ttl: Option<SignedDuration>,
}

impl Service {
    pub(crate) fn now(&self) -> Timestamp {
        self.objects.clock.now()
    }

    /// The caller that the gateway, or code of this process, vouches for.
    pub(crate) fn caller(&self, parts: &Parts) -> Result<Option<Caller>, Error> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(Some(caller.clone()));
        }
        let token = parts
            .headers
            .get(CALLER_HEADER)
            .and_then(|value| value.to_str().ok());
        token.map(|token| self.callers.verify(token)).transpose()
    }

    /// Who sends a request of the HTTP interface. A credential of ours counts before the gateway's word, because it is
    /// narrower: a step's launcher must not reach what its Pod's account could.
    pub(crate) fn actor(&self, parts: &Parts) -> Result<Actor, Error> {
        if let Some(token) = bearer(&parts.headers)
            && let Some(grant) = self.credentials.bearer(token, self.now())
        {
            let grant = grant?;
            return Ok(Actor {
                caller: grant.caller(),
                limit: Limit::Grant(grant),
            });
        }
        let caller = self.caller(parts)?;
        caller.map(Actor::from).ok_or_else(|| {
            Error::new(
                Code::Unauthenticated,
                "the request names no caller; send a bearer token, or a signed url",
            )
        })
    }

    /// Makes credentials.
    pub(crate) async fn mint(&self, actor: &Actor, request: MintRequest) -> Result<Minted, Failure> {
        let namespace = actor.caller.namespace_or_own(&request.namespace).to_owned();
        let ttl = request.ttl.unwrap_or(USUAL_CREDENTIAL);
        if ttl <= SignedDuration::ZERO || ttl > LONGEST_CREDENTIAL {
            return Err(Error::field("ttl", format!("{ttl:#} is not between 1 second and 30 days")).into());
        }
        if !matches!(actor.limit, Limit::None) {
            return Err(
                Error::denied("credentials cannot be made by credentials; use your own token").into(),
            );
        }
        self.objects.right(actor, &namespace, "get", "objects").await?;
        let own = request.principal.is_empty() || request.principal == actor.caller.principal.user;
        let principal = if own {
            actor.caller.principal.clone()
        } else {
            self.objects
                .right(actor, &namespace, "mint", "artifactcredentials")
                .await?;
            let account = request
                .principal
                .strip_prefix("system:serviceaccount:")
                .and_then(|p| p.split_once(':'));
            account.map_or_else(
                || Principal::user(&request.principal),
                |(namespace, name)| Principal::service_account(namespace, name),
            )
        };
        let expires = self.now() + ttl;
        let write = request
            .write
            .iter()
            .map(|uri| folder("write_prefixes", uri))
            .collect::<Result<Vec<_>, _>>()?;
        let read = request
            .read
            .iter()
            .map(|uri| folder("read_prefixes", uri))
            .collect::<Result<Vec<_>, _>>()?;
        if !request.read_only {
            for Folder(bucket, prefix) in &write {
                self.objects
                    .claim(bucket, &claimable(&self.objects, bucket, prefix), &namespace)
                    .await?;
                self.objects.store.make_bucket(bucket, self.now()).await?;
            }
        }
        let groups = if principal.as_service_account().is_some() {
            Vec::new()
        } else {
            principal.groups
        };
        let grant = Grant {
            user: principal.user,
            groups,
            namespace,
            read,
            write,
            read_only: request.read_only,
            expires: expires.as_second(),
        };
        let (access_key, secret) = self.credentials.mint(&grant)?;
        Ok(Minted {
            access_key,
            secret,
            expires,
        })
    }

    /// Makes a URL that carries the right to one method on one object.
    pub(crate) async fn sign(
        &self,
        actor: &Actor,
        uri: &str,
        method: &str,
        ttl: Option<SignedDuration>,
    ) -> Result<(String, Timestamp), Failure> {
        let ttl = ttl.unwrap_or(USUAL_URL);
        if ttl <= SignedDuration::ZERO || ttl > LONGEST_URL {
            return Err(Error::field("ttl", format!("{ttl:#} is not between 1 second and 7 days")).into());
        }
        let (bucket, key) = super::uri::object(uri)?;
        let (method, namespace) = match method {
            "" | "GET" | "HEAD" => ("GET", self.objects.head(actor, &bucket, &key).await?.namespace),
            "PUT" => ("PUT", self.objects.reserve(actor, &bucket, &key, None).await?),
            other => return Err(Error::field("method", format!("{other:?} is not GET, HEAD or PUT")).into()),
        };
        let expires = self.now() + ttl;
        let url = SignedUrl {
            method: method.to_owned(),
            bucket,
            key,
            namespace,
            expires: expires.as_second(),
        };
        Ok((url.path(&self.credentials), expires))
    }
}

/// A run's folder is claimed as a whole, so that its attempts do not need a row each.
fn claimable(objects: &Objects, bucket: &str, prefix: &str) -> String {
    let unit = crate::domain::claims::unit(objects.shared(bucket), &format!("{prefix}x"));
    if prefix.starts_with(&unit) {
        unit
    } else {
        prefix.to_owned()
    }
}

fn folder(field: &str, uri: &str) -> Result<Folder, Error> {
    let location = Location::parse(uri).map_err(|error| Error::field(field, error.to_string()))?;
    let mut key = location.key;
    if !key.is_empty() && !key.ends_with('/') {
        key.push('/');
    }
    ferroflow_blob::check_prefix(&key).map_err(|error| Error::field(field, error.to_string()))?;
    crate::objects::check_bucket(&location.bucket)?;
    Ok(Folder(location.bucket, key))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
