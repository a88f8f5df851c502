//! The HTTPS port of a service's admission webhooks. Its certificate is read again when the files change, since they are
//! renewed while the process runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::usage;
use crate::settings::Settings;

/// Listens, with the certificate of the settings.
///
/// # Errors
/// If the files are not set or hold no certificate, or the port cannot be had.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<(TcpListener, rustls::ServerConfig)> {
    let (cert, key) = (&settings.webhook_cert, &settings.webhook_key);
    for (field, file) in [("webhook_cert", cert), ("webhook_key", key)] {
        if file.as_os_str().is_empty() {
            let flag = field.replace('_', "-");
            return Err(usage(format!(
                "{field}: is not set; write --{flag} FILE, a PEM file whose issuer the webhook configurations name"
            )));
        }
    }
    let certificate = Certificate::open(cert, key).map_err(usage)?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = crate::up::bind(&settings.bind, settings.webhook_port, "--webhook-port").await?;
    Ok((listener, tls))
}

/// Serves the webhooks until `cancel`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    webhooks: Router,
    cancel: CancellationToken,
) {
    localkube_apiserver::serve_https(listener, tls, webhooks, cancel).await;
}

/// Inode and time of change of both files.
type Stamp = [(u64, i64, i64); 2];

/// A certificate in files.
#[derive(Debug)]
struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Stamp, Arc<CertifiedKey>)>,
}

impl Certificate {
    fn open(cert: &Path, key: &Path) -> Result<Self, String> {
        let loaded = (stamp(cert, key)?, load(cert, key)?);
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            loaded: Mutex::new(loaded),
        })
    }

    /// The certificate as the files hold it now; the last good one while they cannot be read.
    fn current(&self) -> Arc<CertifiedKey> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(now) = stamp(&self.cert, &self.key) else {
            return loaded.1.clone();
        };
        if now != loaded.0 {
            match load(&self.cert, &self.key) {
                Ok(certificate) => *loaded = (now, certificate),
                // one of the two may be written already and the other not yet
                Err(error) => tracing::warn!(error, "the webhooks keep their old certificate"),
            }
        }
        loaded.1.clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn stamp(cert: &Path, key: &Path) -> Result<Stamp, String> {
    let one = |file: &Path| {
        std::fs::metadata(file)
            .map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec()))
            .map_err(|error| format!("{}: {error}", file.display()))
    };
    Ok([one(cert)?, one(key)?])
}

fn load(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: no PEM certificate: {error}", cert.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{}: no PEM private key: {error}", key.display()))?;
    CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(cert: &Path, key: &Path) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (file, text) in [(cert, made.cert.pem()), (key, made.signing_key.serialize_pem())] {
            let draft = file.with_extension("new");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(draft, file).unwrap();
        }
        made.cert.der().to_vec()
    }

    #[test]
    fn a_renewed_certificate_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        let missing = Certificate::open(&cert, &key).unwrap_err();
        assert!(missing.contains("cert: No such file"), "{missing}");
        let first = write(&cert, &key);
        let certificate = Certificate::open(&cert, &key).unwrap();
        assert_eq!(certificate.current().cert[0].to_vec(), first);
        let second = write(&cert, &key);
        assert_eq!(certificate.current().cert[0].to_vec(), second);
        std::fs::write(&cert, "broken").unwrap();
        assert_eq!(certificate.current().cert[0].to_vec(), second);
    }
}
