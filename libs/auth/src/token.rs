//! Caller tokens: JWT, HMAC-SHA-256, one minute.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ferroflow_kernel::{Code, Error};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::Caller;

const AUDIENCE: &str = "ferroflow";
const LIFETIME: Duration = Duration::from_secs(60);

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("caller key {file}: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key is too short to be safe.
    #[error("caller key {file}: {bytes} bytes; it needs at least 32 random bytes")]
    Short {
        /// Path of the file.
        file: String,
        /// Length found.
        bytes: usize,
    },
}

/// The key that signs and verifies caller tokens; the same in every service of one installation.
#[derive(Clone)]
pub struct CallerKey {
    encode: EncodingKey,
    decode: DecodingKey,
    secret: Vec<u8>,
}

impl fmt::Debug for CallerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerKey(..)")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    /// The service that signed.
    iss: String,
    exp: i64,
    #[serde(flatten)]
    caller: Caller,
}

impl CallerKey {
    /// A key of these bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self {
            encode: EncodingKey::from_secret(secret),
            decode: DecodingKey::from_secret(secret),
            secret: secret.to_vec(),
        }
    }

    /// A random key.
    pub fn random() -> Self {
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        Self::new(&secret)
    }

    /// Reads the key from a file.
    ///
    /// # Errors
    /// If the file cannot be read, or its key is shorter than 32 bytes.
    pub fn load(file: &Path) -> Result<Self, KeyError> {
        let name = || file.display().to_string();
        match std::fs::read(file) {
            Ok(secret) if secret.len() >= 32 => Ok(Self::new(&secret)),
            Ok(secret) => Err(KeyError::Short {
                file: name(),
                bytes: secret.len(),
            }),
            Err(source) => Err(KeyError::Io { file: name(), source }),
        }
    }

    /// Reads the key from a file, and makes file and key (readable by the owner alone) where there is none.
    ///
    /// # Errors
    /// If the file cannot be read or written, or its key is shorter than 32 bytes.
    pub fn load_or_create(file: &Path) -> Result<Self, KeyError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let io = |source| KeyError::Io {
            file: file.display().to_string(),
            source,
        };
        match Self::load(file) {
            Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let key = Self::random();
                let draft = file.with_extension(format!("new-{}", std::process::id()));
                let mut out = std::fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&draft)
                    .map_err(io)?;
                out.write_all(&key.secret)
                    .and_then(|()| out.sync_all())
                    .map_err(io)?;
                std::fs::rename(&draft, file).map_err(io)?;
                Ok(key)
            }
            loaded => loaded,
        }
    }

    /// The secret bytes, for deriving keys of other purposes with a label.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Signs a token for `caller` that lives for a minute. `service` is who signs.
    ///
    /// # Errors
    /// If the token cannot be encoded.
    pub fn sign(&self, caller: &Caller, service: &str) -> Result<String, Error> {
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            iss: service.to_owned(),
            exp: Timestamp::now().as_second() + i64::try_from(LIFETIME.as_secs()).unwrap_or(60),
            caller: caller.clone(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encode).map_err(Error::internal)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// `Unauthenticated` if it is not signed by this key or has expired.
    pub fn verify(&self, token: &str) -> Result<Caller, Error> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        jsonwebtoken::decode::<Claims>(token, &self.decode, &validation)
            .map(|data| data.claims.caller)
            .map_err(|error| Error::new(Code::Unauthenticated, format!("caller token: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Principal;

    #[test]
    fn only_the_same_key_verifies() {
        let caller = Caller::new(Principal::user("ann"));
        let key = CallerKey::random();
        let token = key.sign(&caller, "gateway").unwrap();
        assert_eq!(key.verify(&token).unwrap(), caller);
        assert_eq!(
            CallerKey::random().verify(&token).unwrap_err().code(),
            Code::Unauthenticated
        );
        assert!(key.verify(&token[..token.len() - 2]).is_err());
    }

    #[test]
    fn a_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(ferroflow_kernel::new_id());
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("key");
        let first = CallerKey::load_or_create(&file).unwrap();
        let again = CallerKey::load_or_create(&file).unwrap();
        assert_eq!(first.secret(), again.secret());
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&file, b"short").unwrap();
        assert!(CallerKey::load_or_create(&file).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
