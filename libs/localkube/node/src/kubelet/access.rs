//! Who may use the kubelet API: whoever may use `nodes/proxy` of this node, known by a client certificate of the authority that the TLS
//! settings name (a real API server has one), or by a bearer token (TokenReview, then SubjectAccessReview, as the kubelet does with webhook
//! authentication and authorization).

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
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

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Token(String),
    Certified(Certified),
}

/// The subject of a client certificate that was verified: common name and organizations, as Kubernetes reads them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Certified {
    user: String,
    groups: Vec<String>,
}

impl Certified {
    /// The subject of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
        let mut groups: Vec<String> = groups.map(str::to_owned).collect();
        groups.push("system:authenticated".to_owned());
        Some(Self { user, groups })
    }
}

impl Access {
    pub fn new(client: kube::Client, node: &str) -> Self {
        Self {
            client,
            node: node.to_owned(),
            known: Mutex::default(),
        }
    }

    async fn judge(&self, who: &Who, verb: &str, subresource: &str) -> kube::Result<Verdict> {
        let mut hasher = DefaultHasher::new();
        (who, verb, subresource).hash(&mut hasher);
        let key = hasher.finish();
        if let Some((since, verdict)) = self.known.lock().get(&key)
            && since.elapsed() < REMEMBERED
        {
            return Ok(*verdict);
        }
        let verdict = self.ask(who, verb, subresource).await?;
        let mut known = self.known.lock();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(key, (Instant::now(), verdict));
        Ok(verdict)
    }

    async fn user(&self, who: &Who) -> kube::Result<Option<UserInfo>> {
        let token = match who {
            Who::Token(token) => token.clone(),
            Who::Certified(subject) => {
                return Ok(Some(UserInfo {
                    username: Some(subject.user.clone()),
                    groups: Some(subject.groups.clone()),
                    ..UserInfo::default()
                }));
            }
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token),
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
        Ok(status.user.filter(|_| status.authenticated == Some(true)))
    }

    async fn ask(&self, who: &Who, verb: &str, subresource: &str) -> kube::Result<Verdict> {
        let Some(user) = self.user(who).await? else {
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
        .map(|token| Who::Token(token.to_owned()));
    let certified = request
        .extensions()
        .get::<Certified>()
        .cloned()
        .map(Who::Certified);
    let unauthorized = || Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned());
    let who = token.or(certified).ok_or_else(unauthorized)?;
    let (verb, subresource) = (verb(request.method()), subresource(request.uri().path()));
    match kubelet.access.judge(&who, verb, subresource).await {
        Ok(Verdict::Allowed) => Ok(next.run(request).await),
        Ok(Verdict::Forbidden) => {
            let text = format!("Forbidden (verb={verb}, resource=nodes, subresource={subresource})");
            Err(Refusal(StatusCode::FORBIDDEN, text))
        }
        Ok(Verdict::Unknown) => Err(unauthorized()),
        Err(error) => Err(Refusal::internal(format!("cannot review the token: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_user_and_groups() {
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "kube-apiserver-kubelet-client");
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let subject = Certified::of(certificate.der()).unwrap();
        assert_eq!(subject.user, "kube-apiserver-kubelet-client");
        assert_eq!(subject.groups, ["system:masters", "system:authenticated"]);
        assert_eq!(Certified::of(b"nonsense"), None);
    }
}
