//! URLs that let their holder do one thing for a while: one method on one object until a time.

use ferroflow_kernel::{Code, Error};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::grant::{CredentialKey, same};

/// What stays as it is in a path: RFC 3986's unreserved characters and the slash.
pub const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Where objects are in the HTTP interface.
pub const OBJECTS: &str = "/artifacts/v1/objects";

/// What a signed URL allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// `GET` (and `HEAD`), or `PUT`.
    pub method: String,
    /// Bucket of the object.
    pub bucket: String,
    /// Key of the object.
    pub key: String,
    /// Namespace that the object belongs to.
    pub namespace: String,
    /// Seconds since 1970.
    pub expires: i64,
}

impl SignedUrl {
    fn text(&self) -> String {
        // a line each, and no part can hold a line feed: keys with control characters are refused
        format!(
            "{}\n{}\n{}\n{}\n{}",
            self.method, self.bucket, self.key, self.namespace, self.expires
        )
    }

    /// Path and query.
    pub fn path(&self, key: &CredentialKey) -> String {
        format!(
            "{OBJECTS}/{}/{}?expires={}&method={}&namespace={}&signature={}",
            utf8_percent_encode(&self.bucket, PATH),
            utf8_percent_encode(&self.key, PATH),
            self.expires,
            self.method,
            utf8_percent_encode(&self.namespace, NON_ALPHANUMERIC),
            key.sign(&self.text()),
        )
    }

    /// Checks a request against its URL.
    pub fn check(
        &self,
        signature: &str,
        method: &str,
        key: &CredentialKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::new(Code::PermissionDenied, text));
        if !same(key.sign(&self.text()).as_bytes(), signature.as_bytes()) {
            return refuse("the signature does not belong to this url; ask for a new one".to_owned());
        }
        if self.expires <= now.as_second() {
            return refuse("the url has expired; ask for a new one".to_owned());
        }
        let allowed = method == self.method || (method == "HEAD" && self.method == "GET");
        if !allowed {
            return refuse(format!("the url is signed for {}, not {method}", self.method));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_good_for_one_method_one_object_and_a_while() {
        let key = CredentialKey::derive(b"s");
        let url = SignedUrl {
            method: "GET".to_owned(),
            bucket: "b".to_owned(),
            key: "a b/ü".to_owned(),
            namespace: "team".to_owned(),
            expires: 100,
        };
        let path = url.path(&key);
        assert!(path.starts_with(
            "/artifacts/v1/objects/b/a%20b/%C3%BC?expires=100&method=GET&namespace=team&signature="
        ));
        let signature = path.rsplit('=').next().unwrap();
        let now = Timestamp::from_second(99).unwrap();
        assert!(url.check(signature, "GET", &key, now).is_ok());
        assert!(url.check(signature, "HEAD", &key, now).is_ok());
        for other in ["PUT", "DELETE"] {
            assert!(url.check(signature, other, &key, now).is_err(), "{other}");
        }
        assert!(
            url.check(signature, "GET", &key, Timestamp::from_second(100).unwrap())
                .is_err()
        );
        for changed in [
            SignedUrl {
                key: "a b/x".to_owned(),
                ..url.clone()
            },
            SignedUrl {
                bucket: "c".to_owned(),
                ..url.clone()
            },
            SignedUrl {
                expires: 1000,
                ..url.clone()
            },
            SignedUrl {
                namespace: "other".to_owned(),
                ..url.clone()
            },
        ] {
            assert!(changed.check(signature, "GET", &key, now).is_err(), "{changed:?}");
        }
    }
}
