//! Bearer tokens: of ServiceAccounts, and lasting ones for kubeconfigs.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::{groups, username};

/// The issuer of ServiceAccount tokens, and their default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const STATIC_ISSUER: &str = "ferroflow";

/// What to issue a token for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    pub namespace: String,
    pub service_account: String,
    /// Empty for the API server's own.
    pub audiences: Vec<String>,
    pub ttl: Duration,
    /// Name and uid of the Pod that the token is bound to.
    pub pod: Option<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("serviceaccount {namespace}/{name} not found")]
    NoAccount { namespace: String, name: String },
    #[error("the token cannot be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

#[derive(Debug, Serialize, Deserialize, Clone)]
pub struct NamedUid {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

#[derive(Debug, Serialize, Deserialize, Clone)]
pub struct KubernetesClaims {
    pub namespace: String,
    pub serviceaccount: NamedUid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<NamedUid>,
}

#[derive(Debug, Serialize, Deserialize, Clone)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    #[serde(default)]
    pub aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    pub iat: i64,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io", default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesClaims>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Signs and verifies tokens.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
}

/// A verified token.
#[derive(Debug, Clone)]
pub enum Verified {
    Static(UserInfo),
    /// The account, and the Pod, must still exist.
    Account {
        claims: KubernetesClaims,
        audiences: Vec<String>,
        jti: String,
    },
}

impl Tokens {
    pub fn new(keys: &Keys) -> Result<Self, jsonwebtoken::errors::Error> {
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(keys.token_private_pem.as_bytes())?,
            decoding: DecodingKey::from_ec_pem(keys.token_public_pem.as_bytes())?,
            key_id: keys.jwk["kid"].as_str().unwrap_or_default().to_owned(),
        })
    }

    fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.encoding)
    }

    /// A token of a ServiceAccount with this uid, and when it ends.
    pub fn issue(&self, req: &TokenRequest, uid: &str) -> Result<(String, Timestamp), TokenError> {
        let now = Timestamp::now();
        let ttl = i64::try_from(req.ttl.as_secs()).unwrap_or(3600);
        let until = now.as_second() + ttl;
        let audiences = if req.audiences.is_empty() {
            vec![ISSUER.to_owned()]
        } else {
            req.audiences.clone()
        };
        let token = self.sign(&Claims {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", req.namespace, req.service_account),
            aud: audiences,
            exp: Some(until),
            iat: now.as_second(),
            nbf: now.as_second(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Some(KubernetesClaims {
                namespace: req.namespace.clone(),
                serviceaccount: NamedUid {
                    name: req.service_account.clone(),
                    uid: uid.to_owned(),
                },
                pod: req.pod.clone().map(|(name, uid)| NamedUid { name, uid }),
            }),
            groups: Vec::new(),
        })?;
        Ok((token, Timestamp::from_second(until).unwrap_or(now)))
    }

    /// A token without an end for a user; it holds as long as the data folder's key.
    pub fn issue_static(&self, user: &UserInfo) -> Result<String, TokenError> {
        Ok(self.sign(&Claims {
            iss: STATIC_ISSUER.to_owned(),
            sub: username(user).to_owned(),
            aud: vec![ISSUER.to_owned()],
            exp: None,
            iat: Timestamp::now().as_second(),
            nbf: 0,
            jti: String::new(),
            kubernetes: None,
            groups: groups(user).to_vec(),
        })?)
    }

    /// Checks signature and times; `None` for a token that is not ours or has ended.
    pub fn verify(&self, token: &str) -> Option<Verified> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        validation.leeway = 5;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .ok()?
            .claims;
        match (claims.iss.as_str(), claims.kubernetes) {
            (ISSUER, Some(account)) => {
                claims.exp?;
                Some(Verified::Account {
                    claims: account,
                    audiences: claims.aud,
                    jti: claims.jti,
                })
            }
            (STATIC_ISSUER, None) => {
                let groups: Vec<&str> = claims.groups.iter().map(String::as_str).collect();
                Some(Verified::Static(super::user(&claims.sub, &groups)))
            }
            _ => None,
        }
    }
}
