//! Rights: one question, asked of Kubernetes' SubjectAccessReview.

use std::time::Duration;

use async_trait::async_trait;
use ferroflow_kernel::{Code, Error};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use moka::future::Cache;

use crate::Principal;

/// What somebody wants to do, in the vocabulary of Kubernetes RBAC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AccessReview {
    /// Namespace of the thing; empty for cluster-scoped ones.
    pub namespace: String,
    /// `get`, `list`, `create`, `update`, `delete`, ...
    pub verb: String,
    /// API group, for example `pipelines.kubeflow.org`.
    pub group: String,
    /// Plural resource, for example `runs`.
    pub resource: String,
    /// Name of the thing; empty for all.
    pub name: String,
}

impl AccessReview {
    /// May somebody `verb` the `resource`s of `group` in `namespace`?
    pub fn new(namespace: &str, verb: &str, group: &str, resource: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: String::new(),
        }
    }
}

/// Decides rights.
#[async_trait]
pub trait Authorizer: Send + Sync + std::fmt::Debug {
    /// Ok if `principal` may.
    ///
    /// # Errors
    /// `PermissionDenied` with who, what and where if not; `Unavailable` if the question could not be asked.
    async fn authorize(&self, principal: &Principal, review: &AccessReview) -> Result<(), Error>;
}

/// Asks the Kubernetes API; keeps answers for five seconds.
pub struct SubjectAccessAuthorizer {
    client: kube::Client,
    answers: Cache<(Principal, AccessReview), bool>,
}

impl std::fmt::Debug for SubjectAccessAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectAccessAuthorizer(..)")
    }
}

impl SubjectAccessAuthorizer {
    /// An authorizer that asks through `client`, whose account may create SubjectAccessReviews.
    pub fn new(client: kube::Client) -> Self {
        let answers = Cache::builder()
            .max_capacity(10_000)
            .time_to_live(Duration::from_secs(5))
            .build();
        Self { client, answers }
    }

    async fn ask(&self, principal: &Principal, review: &AccessReview) -> Result<bool, kube::Error> {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let question = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(principal.user.clone()),
                groups: Some(principal.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: some(&review.namespace),
                    verb: some(&review.verb),
                    group: some(&review.group),
                    resource: some(&review.resource),
                    name: some(&review.name),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &question).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[async_trait]
impl Authorizer for SubjectAccessAuthorizer {
    async fn authorize(&self, principal: &Principal, review: &AccessReview) -> Result<(), Error> {
        let allowed = self
            .answers
            .try_get_with((principal.clone(), review.clone()), self.ask(principal, review))
            .await
            .map_err(|error| Error::new(Code::Unavailable, format!("asking for rights: {error}")))?;
        if allowed {
            return Ok(());
        }
        let AccessReview {
            namespace,
            verb,
            group,
            resource,
            ..
        } = review;
        Err(Error::denied(format!(
            "user {:?} cannot {verb} {resource}.{group} in namespace {namespace:?}; ask its owner to add you",
            principal.user
        )))
    }
}
