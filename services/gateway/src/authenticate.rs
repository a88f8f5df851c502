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
        if let Some(token) = bearer(headers) {
            return self.tokens.review(token).await?.ok_or_else(|| {
                Error::new(
                    Code::Unauthenticated,
                    "the bearer token is not valid or has expired; get a new one",
                )
            });
        }
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
        Err(Error::new(
            Code::Unauthenticated,
            "this connection is of another user; send Authorization: Bearer with a token from the owner's kubeconfig",
        ))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
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
