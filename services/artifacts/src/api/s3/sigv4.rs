//! AWS Signature Version 4, as S3 servers check it (see "Authenticating Requests (AWS Signature Version 4)" of the S3 API
//! reference): in the `Authorization` header, or in the query of a presigned URL.

use ferroflow_kernel::Error;
use http::request::Parts;
use http::{HeaderMap, header};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::fault::{Fault, FaultCode};
use crate::domain::grant::{hmac, same};

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
const SKEW: SignedDuration = SignedDuration::from_mins(15);
const LONGEST_PRESIGNED: i64 = 7 * 24 * 3600;

/// The parts of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub access_key: String,
    /// `<date>/<region>/<service>/aws4_request`.
    pub scope: String,
    /// `20260101T000000Z`.
    pub time: String,
    signed_headers: Vec<String>,
    pub signature: String,
    /// Seconds that a presigned URL lives.
    presigned: Option<i64>,
}

/// How the body is covered by the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Its SHA-256 in hexadecimal.
    Sha256(String),
    /// Not at all.
    Unsigned,
    /// In chunks, each signed or not, perhaps with trailing headers.
    Chunked {
        /// Is each chunk signed?
        signed: bool,
        /// Do headers follow the last chunk?
        trailer: bool,
    },
}

impl Payload {
    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(match text {
            "UNSIGNED-PAYLOAD" => Self::Unsigned,
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Self::Chunked {
                signed: false,
                trailer: true,
            },
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Self::Chunked {
                signed: true,
                trailer: false,
            },
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Self::Chunked {
                signed: true,
                trailer: true,
            },
            hash if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Self::Sha256(hash.to_ascii_lowercase())
            }
            other => {
                let text = format!("x-amz-content-sha256 {other:?} is not supported");
                return Err(Fault::new(FaultCode::InvalidArgument, text));
            }
        })
    }
}

/// What the body's header says.
pub(crate) fn payload_of(headers: &HeaderMap) -> Result<Payload, Fault> {
    match headers
        .get("x-amz-content-sha256")
        .and_then(|value| value.to_str().ok())
    {
        Some(text) => Payload::parse(text),
        None => Ok(Payload::Unsigned),
    }
}

fn malformed(text: &str) -> Fault {
    Fault::new(FaultCode::AuthorizationHeaderMalformed, text)
}

impl Signature {
    /// The signature of a request; `None` when it has none.
    pub(crate) fn of(parts: &Parts) -> Result<Option<Self>, Fault> {
        if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
            let value = value
                .to_str()
                .map_err(|_| malformed("the authorization header is not text"))?;
            return match value.split_once(' ') {
                Some(("AWS4-HMAC-SHA256", rest)) => Self::of_header(rest, &parts.headers).map(Some),
                Some(("AWS", _)) => Err(malformed("signature version 2 is not supported; use version 4")),
                _ => Ok(None),
            };
        }
        let pairs = query_pairs(parts.uri.query().unwrap_or_default());
        if !pairs.iter().any(|(name, _)| name == "X-Amz-Signature") {
            return Ok(None);
        }
        let value = |name: &str| {
            let found = pairs
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.clone());
            found.ok_or_else(|| {
                Fault::new(
                    FaultCode::AuthorizationQueryParametersError,
                    format!("{name} is missing"),
                )
            })
        };
        if value("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256" {
            return Err(Fault::new(
                FaultCode::AuthorizationQueryParametersError,
                "X-Amz-Algorithm must be AWS4-HMAC-SHA256",
            ));
        }
        let credential = value("X-Amz-Credential")?;
        let (access_key, scope) = credential
            .split_once('/')
            .ok_or_else(|| malformed("X-Amz-Credential has no scope"))?;
        let expires = value("X-Amz-Expires")?;
        let expires = expires
            .parse()
            .ok()
            .filter(|seconds| (1..=LONGEST_PRESIGNED).contains(seconds));
        Ok(Some(Self {
            access_key: access_key.to_owned(),
            scope: scope.to_owned(),
            time: value("X-Amz-Date")?,
            signed_headers: value("X-Amz-SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            signature: value("X-Amz-Signature")?,
            presigned: Some(expires.ok_or_else(|| {
                Fault::new(
                    FaultCode::AuthorizationQueryParametersError,
                    "X-Amz-Expires must be 1 to 604800 seconds",
                )
            })?),
        }))
    }

    fn of_header(text: &str, headers: &HeaderMap) -> Result<Self, Fault> {
        let field = |name: &str| {
            let found = text
                .split(',')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| malformed(&format!("the authorization header has no {name}")))
        };
        let (access_key, scope) = field("Credential")?
            .split_once('/')
            .ok_or_else(|| malformed("Credential has no scope"))?;
        let time = headers.get("x-amz-date").and_then(|value| value.to_str().ok());
        Ok(Self {
            access_key: access_key.to_owned(),
            scope: scope.to_owned(),
            time: time
                .ok_or_else(|| malformed("the x-amz-date header is missing"))?
                .to_owned(),
            signed_headers: field("SignedHeaders")?.split(';').map(str::to_owned).collect(),
            signature: field("Signature")?.to_owned(),
            presigned: None,
        })
    }

    /// Checks the signature against the request as it was sent, and its age.
    pub(crate) fn verify(
        &self,
        parts: &Parts,
        path: &str,
        secret: &str,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let date = self.check_scope()?;
        self.check_time(&date, now)?;
        if self.presigned.is_none() && !self.signed_headers.iter().any(|name| name == "host") {
            return Err(malformed("the host header is not among the signed ones"));
        }
        let query = parts.uri.query().unwrap_or_default();
        let payload = match self.presigned {
            Some(_) => "UNSIGNED-PAYLOAD",
            None => parts
                .headers
                .get("x-amz-content-sha256")
                .and_then(|v| v.to_str().ok())
                .unwrap_or("UNSIGNED-PAYLOAD"),
        };
        let canonical = self.canonical_request(parts, path, query, payload);
        let expected = self.sign(secret, &canonical);
        if same(expected.as_bytes(), self.signature.as_bytes()) {
            return Ok(());
        }
        let text = "the signature does not match; check the secret key, and that nothing on the way changes the request";
        Err(Fault::new(FaultCode::SignatureDoesNotMatch, text))
    }

    fn check_scope(&self) -> Result<String, Fault> {
        let parts: Vec<&str> = self.scope.split('/').collect();
        match parts.as_slice() {
            [date, _region, "s3", "aws4_request"] if self.time.starts_with(date) && date.len() == 8 => {
                Ok((*date).to_owned())
            }
            _ => Err(malformed(&format!(
                "scope {:?} is not <date>/<region>/s3/aws4_request",
                self.scope
            ))),
        }
    }

    fn check_time(&self, _date: &str, now: Timestamp) -> Result<(), Fault> {
        let bad = || malformed(&format!("date {:?} is not like 20260101T000000Z", self.time));
        let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", &self.time).map_err(|_| bad())?;
        let time = civil.to_zoned(TimeZone::UTC).map_err(|_| bad())?.timestamp();
        let age = now.duration_since(time);
        match self.presigned {
            Some(seconds) if age > SignedDuration::from_secs(seconds) => Err(Fault::new(
                FaultCode::AccessDenied,
                "the url has expired; sign a new one",
            )),
            Some(_) if age < -SKEW => Err(Fault::new(FaultCode::AccessDenied, "the url is not valid yet")),
            None if age.abs() > SKEW => {
                let text = "the clocks differ by more than 15 minutes; set the client's";
                Err(Fault::new(FaultCode::RequestTimeTooSkewed, text))
            }
            _ => Ok(()),
        }
    }

    fn canonical_request(&self, parts: &Parts, path: &str, query: &str, payload: &str) -> String {
        let decoded: Vec<u8> = percent_decode_str(path).collect();
        let path = percent_encoding::percent_encode(&decoded, PATH).to_string();
        let mut pairs: Vec<(String, String)> = query_pairs(query)
            .into_iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| {
                (
                    utf8_percent_encode(&name, UNRESERVED).to_string(),
                    utf8_percent_encode(&value, UNRESERVED).to_string(),
                )
            })
            .collect();
        pairs.sort();
        let query: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut headers = String::new();
        for name in &self.signed_headers {
            let values: Vec<String> = parts
                .headers
                .get_all(name.as_str())
                .iter()
                .map(|v| {
                    String::from_utf8_lossy(v.as_bytes())
                        .split_whitespace()
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            let mut value = values.join(",");
            if name == "host" && values.is_empty() {
                // HTTP/2 carries it in the request target
                value = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
            }
            headers.push_str(&format!("{name}:{value}\n"));
        }
        let signed = self.signed_headers.join(";");
        format!(
            "{}\n{path}\n{}\n{headers}\n{signed}\n{payload}",
            parts.method,
            query.join("&")
        )
    }

    fn sign(&self, secret: &str, canonical: &str) -> String {
        let hash = hex::encode(Sha256::digest(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{hash}", self.time, self.scope);
        hex::encode(hmac(&self.signing_key(secret), &[text.as_bytes()]))
    }

    /// The key that also signs the chunks.
    pub(crate) fn signing_key(&self, secret: &str) -> Vec<u8> {
        let first = format!("AWS4{secret}").into_bytes();
        self.scope
            .split('/')
            .fold(first, |key, part| hmac(&key, &[part.as_bytes()]))
    }
}

/// Pairs of a query, percent-decoded; `+` stays a plus, as signers see it.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        crate::error::Failure::Service(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn noon() -> Timestamp {
        "2013-05-24T00:00:30Z".parse().unwrap()
    }

    /// The worked examples of the S3 API reference.
    #[test]
    fn the_documented_get_object_example_verifies() {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
            Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        let parts = request(
            "GET",
            "/test.txt",
            &[
                ("host", "examplebucket.s3.amazonaws.com"),
                ("range", "bytes=0-9"),
                (
                    "x-amz-content-sha256",
                    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                ),
                ("x-amz-date", "20130524T000000Z"),
                ("authorization", authorization),
            ],
        );
        let signature = Signature::of(&parts).unwrap().unwrap();
        assert_eq!(signature.access_key, "AKIAIOSFODNN7EXAMPLE");
        signature.verify(&parts, "/test.txt", SECRET, noon()).unwrap();
        let wrong = signature
            .verify(&parts, "/other.txt", SECRET, noon())
            .unwrap_err();
        assert_eq!(wrong.code, FaultCode::SignatureDoesNotMatch);
        assert!(signature.verify(&parts, "/test.txt", "x", noon()).is_err());
        let late = signature
            .verify(
                &parts,
                "/test.txt",
                SECRET,
                "2013-05-24T00:16:00Z".parse().unwrap(),
            )
            .unwrap_err();
        assert_eq!(late.code, FaultCode::RequestTimeTooSkewed);
    }

    #[test]
    fn the_documented_presigned_example_verifies_until_it_expires() {
        let uri = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524\
            %2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
            &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        let parts = request("GET", uri, &[("host", "examplebucket.s3.amazonaws.com")]);
        let signature = Signature::of(&parts).unwrap().unwrap();
        signature.verify(&parts, "/test.txt", SECRET, noon()).unwrap();
        let late = signature.verify(
            &parts,
            "/test.txt",
            SECRET,
            "2013-05-25T00:00:01Z".parse().unwrap(),
        );
        assert_eq!(late.unwrap_err().code, FaultCode::AccessDenied);
    }

    #[test]
    fn the_documented_list_example_sorts_its_query() {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
            SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
            Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        let parts = request(
            "GET",
            "/?max-keys=2&prefix=J",
            &[
                ("host", "examplebucket.s3.amazonaws.com"),
                (
                    "x-amz-content-sha256",
                    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                ),
                ("x-amz-date", "20130524T000000Z"),
                ("authorization", authorization),
            ],
        );
        Signature::of(&parts)
            .unwrap()
            .unwrap()
            .verify(&parts, "/", SECRET, noon())
            .unwrap();
    }
}
