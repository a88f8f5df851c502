//! Credentials that carry what they allow, so that none is stored.
//!
//! An access key is `FFA` and the base64url of a [`Grant`] as JSON; its secret is an HMAC of the access key. Only who has
//! the service's key can make a pair, and changing a letter of the access key makes its secret useless. The pair signs S3
//! requests; joined by a dot it is a bearer token for HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ferroflow_auth::{Caller, Principal};
use ferroflow_kernel::{Code, Error};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const MARK: &str = "FFA";

/// HMAC-SHA-256.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length, so there is no error to lose
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Compares without telling by its duration where the difference is.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// A folder of objects: bucket, and key with a slash at its end (or empty).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Folder(pub String, pub String);

impl Folder {
    /// Does the object lie in this folder?
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        self.0 == bucket && key.starts_with(&self.1)
    }

    /// May anything below `prefix` lie in this folder?
    pub fn touches(&self, bucket: &str, prefix: &str) -> bool {
        self.0 == bucket && (prefix.starts_with(&self.1) || self.1.starts_with(prefix))
    }
}

/// What a credential allows, on top of what its principal may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Whom it stands for.
    #[serde(rename = "u")]
    pub user: String,
    /// Groups of a user; those of a service account follow from its name.
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The one namespace whose objects it reaches.
    #[serde(rename = "n")]
    pub namespace: String,
    /// Folders it may read; none named is all of the namespace.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<Folder>,
    /// Folders it may write; none named is all of the namespace.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<Folder>,
    /// May it write at all?
    #[serde(rename = "ro", default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// When it ends, in seconds since 1970.
    #[serde(rename = "e")]
    pub expires: i64,
}

impl Grant {
    /// The caller it stands for.
    pub fn caller(&self) -> Caller {
        let account = self
            .user
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'));
        let principal = match account {
            Some((namespace, name)) => Principal::service_account(namespace, name),
            None => Principal {
                user: self.user.clone(),
                groups: self.groups.clone(),
            },
        };
        Caller {
            principal,
            namespace: self.namespace.clone(),
        }
    }

    /// May it read this object, as far as the grant goes? What it may write it may also read.
    pub fn may_read(&self, bucket: &str, key: &str) -> bool {
        self.read.is_empty()
            || self
                .read
                .iter()
                .chain(&self.write)
                .any(|folder| folder.holds(bucket, key))
    }

    /// May it see something below this prefix?
    pub fn may_list(&self, bucket: &str, prefix: &str) -> bool {
        self.read.is_empty()
            || self
                .read
                .iter()
                .chain(&self.write)
                .any(|folder| folder.touches(bucket, prefix))
    }

    /// May it write this object, as far as the grant goes?
    pub fn may_write(&self, bucket: &str, key: &str) -> bool {
        !self.read_only
            && (self.write.is_empty() || self.write.iter().any(|folder| folder.holds(bucket, key)))
    }
}

/// Makes and reads credentials.
#[derive(Clone)]
pub struct CredentialKey(Vec<u8>);

impl std::fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialKey(..)")
    }
}

impl CredentialKey {
    /// Derives a key of its own from the installation's secret.
    pub fn derive(secret: &[u8]) -> Self {
        Self(hmac(secret, &[b"ferroflow artifacts credentials v1"]))
    }

    /// Access key and secret for a grant.
    pub fn mint(&self, grant: &Grant) -> Result<(String, String), Error> {
        let json = serde_json::to_vec(grant).map_err(Error::internal)?;
        let access_key = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(json));
        let secret = self.secret(&access_key);
        Ok((access_key, secret))
    }

    /// The secret of an access key, made by us or not.
    pub fn secret(&self, access_key: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac(&self.0, &[b"secret:", access_key.as_bytes()]))
    }

    /// Does it look like an access key of ours?
    pub fn is_ours(access_key: &str) -> bool {
        access_key.starts_with(MARK)
    }

    /// Reads an access key whose secret the caller has proved to know.
    pub fn read(&self, access_key: &str, now: Timestamp) -> Result<Grant, Error> {
        let bad = |text: &str| Error::new(Code::Unauthenticated, text);
        let unreadable = || {
            bad("the access key is not one of this installation; get one from POST /artifacts/v1/credentials")
        };
        let text = access_key.strip_prefix(MARK).ok_or_else(unreadable)?;
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
        let grant: Grant = serde_json::from_slice(&json).map_err(|_| unreadable())?;
        if grant.expires <= now.as_second() {
            return Err(bad(
                "the access key has expired; get a new one from POST /artifacts/v1/credentials",
            ));
        }
        Ok(grant)
    }

    /// Reads a bearer token `<access key>.<secret>`; `None` when it is a token of another kind.
    pub fn bearer(&self, token: &str, now: Timestamp) -> Option<Result<Grant, Error>> {
        let (access_key, secret) = token.split_once('.')?;
        if !Self::is_ours(access_key) {
            return None;
        }
        if !same(self.secret(access_key).as_bytes(), secret.as_bytes()) {
            let text = "the bearer token was not made by this installation, or was changed";
            return Some(Err(Error::new(Code::Unauthenticated, text)));
        }
        Some(self.read(access_key, now))
    }

    /// Signs what a URL allows.
    pub(crate) fn sign(&self, text: &str) -> String {
        hex::encode(hmac(&self.0, &[b"url:", text.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            user: "system:serviceaccount:team:default-editor".to_owned(),
            groups: Vec::new(),
            namespace: "team".to_owned(),
            read: Vec::new(),
            write: vec![Folder(
                "mlpipeline".to_owned(),
                "v2/artifacts/p/r/t/u/".to_owned(),
            )],
            read_only: false,
            expires: 1000,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_credential_comes_back_until_it_expires() {
        let key = CredentialKey::derive(b"secret");
        let (access, secret) = key.mint(&grant()).unwrap();
        let token = format!("{access}.{secret}");
        assert_eq!(key.bearer(&token, at(999)).unwrap().unwrap(), grant());
        let late = key.bearer(&token, at(1000)).unwrap().unwrap_err();
        assert!(late.message().contains("expired"), "{late}");
        assert!(
            !access.contains('/') && !access.contains('.'),
            "{access} must fit into a credential scope"
        );
    }

    #[test]
    fn a_changed_or_foreign_credential_is_refused() {
        let key = CredentialKey::derive(b"secret");
        let (access, secret) = key.mint(&grant()).unwrap();
        let (wider, _) = CredentialKey::derive(b"other")
            .mint(&Grant {
                write: Vec::new(),
                ..grant()
            })
            .unwrap();
        for token in [
            format!("{wider}.{secret}"),
            format!("{access}.{}", "A".repeat(43)),
            format!("{access}."),
        ] {
            assert!(key.bearer(&token, at(0)).unwrap().is_err(), "{token}");
        }
        assert!(
            key.bearer("eyJhbGciOi.J9.x", at(0)).is_none(),
            "a token of another kind is not ours to judge"
        );
    }

    #[test]
    fn a_grant_covers_its_folders_only() {
        let grant = grant();
        assert!(
            grant.may_read("mlpipeline", "v2/artifacts/other/x"),
            "reads the namespace"
        );
        assert!(grant.may_write("mlpipeline", "v2/artifacts/p/r/t/u/outcome.json"));
        assert!(!grant.may_write("mlpipeline", "v2/artifacts/p/r/t/u2/outcome.json"));
        assert!(!grant.may_write("other", "v2/artifacts/p/r/t/u/outcome.json"));
        let reader = Grant {
            read: vec![Folder("b".to_owned(), "in/".to_owned())],
            read_only: true,
            ..grant
        };
        assert!(reader.may_read("b", "in/x") && !reader.may_read("b", "out/x"));
        assert!(
            reader.may_list("b", "") && reader.may_list("b", "in/deeper/") && !reader.may_list("b", "out/")
        );
        assert!(!reader.may_write("mlpipeline", "v2/artifacts/p/r/t/u/x"));
    }
}
