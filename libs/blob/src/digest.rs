//! SHA-256 over bytes as they pass.

use sha2::{Digest as _, Sha256};

use crate::{BlobError, PutOptions};

/// Counts and hashes what goes by.
#[derive(Default)]
pub struct Digest {
    hasher: Sha256,
    size: u64,
}

impl Digest {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Number of bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 in lower-case hexadecimal.
    pub fn finish(self) -> String {
        hex::encode(self.hasher.finalize())
    }

    /// Compares with what the writer announced.
    pub(crate) fn check(self, key: &str, options: &PutOptions) -> Result<(u64, String), BlobError> {
        let size = self.size;
        let sha256 = self.finish();
        let mismatch = |what, expected: String, actual: String| BlobError::Mismatch {
            key: key.to_owned(),
            what,
            expected,
            actual,
        };
        if let Some(expected) = options.size.filter(|expected| *expected != size) {
            return Err(mismatch("size", expected.to_string(), size.to_string()));
        }
        if let Some(expected) = options
            .sha256
            .as_ref()
            .filter(|expected| !expected.eq_ignore_ascii_case(&sha256))
        {
            return Err(mismatch("sha256", expected.clone(), sha256));
        }
        Ok((size, sha256))
    }
}
