//! Checksums that clients send with a body, in a header or behind it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use http::HeaderMap;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::fault::{Fault, FaultCode};

/// The running state of one checksum.
enum State {
    Crc { crc: Crc, bytes: usize },
    Sha1(Box<Sha1>),
    Sha256(Box<Sha256>),
    Md5(Box<Md5>),
}

/// One checksum over a body, and the value it must have once that is known.
pub(crate) struct Checksum {
    header: &'static str,
    state: State,
    expected: Option<String>,
}

const NAMES: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

fn state(header: &str) -> State {
    let crc = |algorithm, bytes| State::Crc {
        crc: Crc::new(algorithm),
        bytes,
    };
    match header {
        "x-amz-checksum-crc32" => crc(CrcAlgorithm::Crc32IsoHdlc, 4),
        "x-amz-checksum-crc32c" => crc(CrcAlgorithm::Crc32Iscsi, 4),
        "x-amz-checksum-crc64nvme" => crc(CrcAlgorithm::Crc64Nvme, 8),
        "x-amz-checksum-sha1" => State::Sha1(Box::default()),
        "x-amz-checksum-sha256" => State::Sha256(Box::default()),
        _ => State::Md5(Box::default()),
    }
}

impl Checksum {
    /// The checksums that a request announces: in its headers, or (`x-amz-trailer`) behind its body.
    pub(crate) fn announced(headers: &HeaderMap) -> Vec<Self> {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(|v| v.trim().to_owned())
        };
        let trailers = text("x-amz-trailer").unwrap_or_default().to_ascii_lowercase();
        let mut all: Vec<Self> = NAMES
            .into_iter()
            .filter_map(|header| {
                let expected = text(header);
                let trailing = trailers.split(',').any(|name| name.trim() == header);
                (expected.is_some() || trailing).then(|| Self {
                    header,
                    state: state(header),
                    expected,
                })
            })
            .collect();
        if let Some(expected) = text("content-md5") {
            all.push(Self {
                header: "content-md5",
                state: state("content-md5"),
                expected: Some(expected),
            });
        }
        all
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Crc { crc, .. } => crc.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Md5(state) => state.update(bytes),
        }
    }

    /// A trailing header has come.
    pub(crate) fn expect(&mut self, header: &str, value: &str) {
        if self.header == header {
            self.expected = Some(value.to_owned());
        }
    }

    /// Compares at the end of the body.
    pub(crate) fn check(self) -> Result<(), Fault> {
        let bytes = match self.state {
            State::Crc { crc, bytes } => crc.finalize().to_be_bytes()[8 - bytes..].to_vec(),
            State::Sha1(state) => state.finalize().to_vec(),
            State::Sha256(state) => state.finalize().to_vec(),
            State::Md5(state) => state.finalize().to_vec(),
        };
        let actual = STANDARD.encode(bytes);
        match self.expected {
            Some(expected) if expected == actual => Ok(()),
            Some(expected) => Err(Fault::new(
                FaultCode::BadDigest,
                format!(
                    "{} of the body is {actual}, but {expected} was announced; nothing was written",
                    self.header
                ),
            )),
            None => {
                let text = format!("{} was announced but did not follow the body", self.header);
                Err(Fault::new(FaultCode::InvalidRequest, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of "123456789", from the catalogue of CRCs, and of coreutils.
    #[test]
    fn known_values() {
        let known = [
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            ("x-amz-checksum-crc32c", "4waSgw=="),
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            (
                "x-amz-checksum-sha256",
                "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
            ),
            ("content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
        ];
        for (name, value) in known {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let mut all = Checksum::announced(&headers);
            assert_eq!(all.len(), 1, "{name}");
            let mut checksum = all.remove(0);
            checksum.update(b"12345");
            checksum.update(b"6789");
            assert!(checksum.check().is_ok(), "{name}");
        }
    }

    #[test]
    fn an_announced_trailer_must_come() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-trailer", "x-amz-checksum-crc32".parse().unwrap());
        let missing = Checksum::announced(&headers).remove(0);
        assert_eq!(missing.check().unwrap_err().code, FaultCode::InvalidRequest);
        let mut wrong = Checksum::announced(&headers).remove(0);
        wrong.expect("x-amz-checksum-crc32", "AAAAAQ==");
        assert_eq!(wrong.check().unwrap_err().code, FaultCode::BadDigest);
    }
}
