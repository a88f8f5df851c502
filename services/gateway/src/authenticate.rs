//! Who sends a request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferroflow_auth::{AccessReview, Authorizer, Principal, peer_uid};
use ferroflow_kernel::{Code, Error};
use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{Api, PostParams};
use moka::future::Cache;

use crate::peer::Peer;
use crate::session::Sessions;

/// Whether a connection of the same OS user needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// A connection over loopback whose other end is a process of the same OS user is the owner; any other needs a token.
    SameUser,
    /// Every connection needs a token or a session.
    Token,
}

/// Tells which Pod an address belongs to.
#[async_trait]
pub trait Workload: Send + Sync + std::fmt::Debug {
    /// The service account of the Pod with this address, if it is one.
    async fn service_account_at(&self, address: IpAddr) -> Option<Principal>;
}

/// Finds out who sends a request: by bearer token, session cookie, the Pod it comes from, or the OS user.
#[derive(Debug)]
pub struct Authenticator {
    mode: AuthMode,
    owner: Principal,
    tokens: token_review::Reviewer,
    workloads: Arc<dyn Workload>,
    authorizer: Arc<dyn Authorizer>,
    pub(crate) sessions: Sessions,
}

mod token_review {
    use super::{Api, Cache, Code, Duration, Error, PostParams, Principal, TokenReview, TokenReviewSpec};

    /// Asks TokenReview; keeps answers for ten seconds.
    pub struct Reviewer {
        client: kube::Client,
        known: Cache<String, Option<Principal>>,
    }

    impl std::fmt::Debug for Reviewer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Reviewer(..)")
        }
    }

    impl Reviewer {
        pub fn new(client: kube::Client) -> Self {
            let known = Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_secs(10))
                .build();
            Self { client, known }
        }

        pub async fn review(&self, token: &str) -> Result<Option<Principal>, Error> {
            self.known
                .try_get_with(token.to_owned(), self.ask(token))
                .await
                .map_err(|error| {
                    Error::new(
                        Code::Unavailable,
                        format!("the token cannot be checked now: {error}"),
                    )
                })
        }

        async fn ask(&self, token: &str) -> Result<Option<Principal>, kube::Error> {
            let review = TokenReview {
                spec: TokenReviewSpec {
                    token: Some(token.to_owned()),
                    audiences: None,
                },
                ..Default::default()
            };
            let api: Api<TokenReview> = Api::all(self.client.clone());
            let status = api
                .create(&PostParams::default(), &review)
                .await?
                .status
                .unwrap_or_default();
            let user = status.user.filter(|_| status.authenticated == Some(true));
            Ok(user.map(|user| Principal {
                user: user.username.unwrap_or_default(),
                groups: user.groups.unwrap_or_default(),
            }))
        }
    }
}

impl Authenticator {
    /// `owner` is who the OS user of this process is.
    pub fn new(
        mode: AuthMode,
        owner: Principal,
        client: kube::Client,
        workloads: Arc<dyn Workload>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        let tokens = token_review::Reviewer::new(client);
        Self {
            mode,
            owner,
            tokens,
            workloads,
            authorizer,
            sessions: Sessions::default(),
        }
    }

    pub(crate) async fn authorize(&self, principal: &Principal, review: &AccessReview) -> Result<(), Error> {
        self.authorizer.authorize(principal, review).await
    }

    /// The secret of a link that logs a browser in as the owner, once.
    pub fn login_link(&self) -> String {
        self.sessions.make_link(self.owner.clone())
    }

    pub(crate) async fn principal(&self, headers: &HeaderMap, peer: Peer) -> Result<Principal, Error> {
        // credentials that are wrong are refused, whoever sends them: none of what follows makes them good
        match Credentials::of(headers) {
            Credentials::None => {}
            Credentials::Bearer(token) => {
                return self.tokens.review(token).await?.ok_or_else(|| {
                    Error::new(
                        Code::Unauthenticated,
                        "the bearer token is not valid or has expired; get a new one",
                    )
                });
            }
            Credentials::Other(scheme) => {
                let text =
                    format!("authorization {scheme:?} is not known here; send Bearer with a token, or none");
                return Err(Error::new(Code::Unauthenticated, text));
            }
        }
        // a browser sends cookies of an earlier start by itself, so an unknown session is none
        if let Some(principal) = self.sessions.principal(headers) {
            return Ok(principal);
        }
        // on loopback anybody may bind the address of a Pod, so the OS user counts too
        let ours = same_os_user(peer);
        if (ours || !is_loopback(peer))
            && let Some(principal) = self.workloads.service_account_at(peer.client.ip()).await
        {
            return Ok(principal);
        }
        if self.mode == AuthMode::SameUser && ours {
            return Ok(self.owner.clone());
        }
        let why = match self.mode {
            AuthMode::SameUser => "this connection is of another user",
            AuthMode::Token => "everybody needs a token here",
        };
        Err(Error::new(
            Code::Unauthenticated,
            format!("{why}; send Authorization: Bearer with a token from the owner's kubeconfig"),
        ))
    }
}

/// What the `Authorization` header holds.
#[derive(Debug, PartialEq, Eq)]
enum Credentials<'a> {
    None,
    Bearer(&'a str),
    /// By the name of the scheme, never the secret.
    Other(&'a str),
}

impl<'a> Credentials<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Self::None;
        };
        let text = value.to_str().unwrap_or_default().trim();
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer(token.trim()),
            Some((scheme, _)) => Self::Other(scheme),
            None if text.eq_ignore_ascii_case("bearer") => Self::Other("bearer without a token"),
            None => Self::Other("without a scheme"),
        }
    }
}

fn is_loopback(peer: Peer) -> bool {
    peer.client.ip().to_canonical().is_loopback()
}

fn same_os_user(peer: Peer) -> bool {
    let Some(server) = peer.server else { return false };
    is_loopback(peer) && peer_uid(peer.client, server).is_some_and(|uid| uid == own_uid())
}

fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or(u32::MAX, |meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::post};
    use serde_json::{Value, json};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl Workload for Nobody {
        async fn service_account_at(&self, _: IpAddr) -> Option<Principal> {
            None
        }
    }

    #[async_trait]
    impl Authorizer for Nobody {
        async fn authorize(&self, _: &Principal, _: &AccessReview) -> Result<(), Error> {
            Ok(())
        }
    }

    /// Knows the token `good`, of ann.
    fn authenticator() -> Authenticator {
        let review = |Json(review): Json<Value>| async move {
            let known = review["spec"]["token"] == "good";
            let status = json!({"authenticated": known, "user": {"username": "ann"}});
            Json(json!({"metadata": {}, "spec": review["spec"], "status": status}))
        };
        let router = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
        Authenticator::new(
            AuthMode::SameUser,
            Principal::user("owner"),
            kube::Client::new(router, "default"),
            Arc::new(Nobody),
            Arc::new(Nobody),
        )
    }

    /// The user of a request of this very process, with these headers.
    async fn user(headers: &[(&'static str, &str)]) -> Result<String, Code> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).await.unwrap();
        let peer = Peer {
            client: client.local_addr().unwrap(),
            server: Some(server),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let found = authenticator().principal(&map, peer).await;
        found
            .map(|principal| principal.user)
            .map_err(|error| error.code())
    }

    #[tokio::test]
    async fn the_same_user_needs_no_credentials() {
        assert_eq!(user(&[]).await, Ok("owner".to_owned()));
        let stale = [("cookie", "ferroflow_session=of-an-earlier-start")];
        assert_eq!(user(&stale).await, Ok("owner".to_owned()));
    }

    #[tokio::test]
    async fn credentials_count_before_the_same_user() {
        assert_eq!(
            user(&[("authorization", "Bearer good")]).await,
            Ok("ann".to_owned())
        );
        for wrong in [
            "Bearer bad",
            "bearer bad",
            "Bearer ",
            "Bearer",
            "Basic YTpi",
            "AWS4-HMAC-SHA256 Credential=minio/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
            "good",
        ] {
            let found = user(&[("authorization", wrong)]).await;
            assert_eq!(found, Err(Code::Unauthenticated), "{wrong}");
        }
    }
}
