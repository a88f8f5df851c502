//! Who may use the kubelet API: the bearer of a token whose user may use `nodes/proxy` of this node (TokenReview, then
//! SubjectAccessReview, as the kubelet does with webhook authentication and authorization).

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use super::{Kubelet, Refusal};

/// How long an answer holds.
const REMEMBERED: Duration = Duration::from_secs(30);
const MOST_REMEMBERED: usize = 1024;

pub(crate) struct Access {
    client: kube::Client,
    node: String,
    known: Mutex<HashMap<u64, (Instant, Verdict)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Forbidden,
    Unknown,
}

impl Access {
    pub fn new(client: kube::Client, node: &str) -> Self {
        Self {
            client,
            node: node.to_owned(),
            known: Mutex::default(),
        }
    }

    async fn judge(&self, token: &str, verb: &str, subresource: &str) -> kube::Result<Verdict> {
        let mut hasher = DefaultHasher::new();
        (token, verb, subresource).hash(&mut hasher);
        let key = hasher.finish();
        if let Some((since, verdict)) = self.known.lock().get(&key)
            && since.elapsed() < REMEMBERED
        {
            return Ok(*verdict);
        }
        let verdict = self.ask(token, verb, subresource).await?;
        let mut known = self.known.lock();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(key, (Instant::now(), verdict));
        Ok(verdict)
    }

    async fn ask(&self, token: &str, verb: &str, subresource: &str) -> kube::Result<Verdict> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews
            .create(&PostParams::default(), &review)
            .await?
            .status
            .unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let Some(user) = user else {
            return Ok(Verdict::Unknown);
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                groups: user.groups,
                uid: user.uid,
                extra: user.extra,
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(String::new()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let allowed = reviews
            .create(&PostParams::default(), &review)
            .await?
            .status
            .is_some_and(|status| status.allowed);
        Ok(if allowed {
            Verdict::Allowed
        } else {
            Verdict::Forbidden
        })
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

fn subresource(path: &str) -> &'static str {
    if path.starts_with("/stats") {
        "stats"
    } else if path.starts_with("/metrics") {
        "metrics"
    } else {
        "proxy"
    }
}

pub(crate) async fn check(
    State(kubelet): State<Arc<Kubelet>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = value
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let unauthorized = || Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
    let token = token.ok_or_else(unauthorized)?;
    let (verb, subresource) = (verb(request.method()), subresource(request.uri().path()));
    match kubelet.access.judge(&token, verb, subresource).await {
        Ok(Verdict::Allowed) => Ok(next.run(request).await),
        Ok(Verdict::Forbidden) => {
            let text = format!("Forbidden (verb={verb}, resource=nodes, subresource={subresource})");
            Err(Refusal(StatusCode::FORBIDDEN, text))
        }
        Ok(Verdict::Unknown) => Err(unauthorized()),
        Err(error) => Err(Refusal::internal(format!("cannot review the token: {error}"))),
    }
}
