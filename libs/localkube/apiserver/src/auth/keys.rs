//! Ferroflow's own CA and the key of service account tokens, kept in the data folder.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// Why keys or certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot access {path}: {source}; check that the data folder is writable")]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "the certificate material in {path} is damaged: {source}; remove the folder to have it made anew"
    )]
    Damaged { path: PathBuf, source: rcgen::Error },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot use a certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The CA and the token key.
pub struct Keys {
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pub token_private_pem: String,
    pub token_public_pem: String,
    /// The public key as one JWK.
    pub jwk: serde_json::Value,
}

fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<String, rcgen::Error>,
) -> Result<String, KeyError> {
    let wrap = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            // Written whole or not at all, so that a crash leaves no half key.
            let temporary = path.with_extension("new");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)
                .map_err(wrap)?;
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(wrap)?;
            std::fs::rename(&temporary, path).map_err(wrap)?;
            Ok(text)
        }
        Err(e) => Err(wrap(e)),
    }
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ferroflow-ca");
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
    Ok(params)
}

impl Keys {
    /// Reads the keys of a folder; makes those that are missing.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        std::fs::create_dir_all(dir).map_err(|source| KeyError::File {
            path: dir.to_owned(),
            source,
        })?;
        let damaged = |source| KeyError::Damaged {
            path: dir.to_owned(),
            source,
        };
        let ca_key = read_or_make(&dir.join("ca.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let ca_key = KeyPair::from_pem(&ca_key).map_err(damaged)?;
        let ca_pem = read_or_make(&dir.join("ca.crt"), || {
            Ok(ca_params()?.self_signed(&ca_key)?.pem())
        })?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(damaged)?;
        let ca_der = pem_to_der(&ca_pem);
        let token_private_pem =
            read_or_make(&dir.join("sa.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let token = KeyPair::from_pem(&token_private_pem).map_err(damaged)?;
        let point = token.public_key_raw();
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let (x, y) = (
            point.get(1..33).unwrap_or_default(),
            point.get(33..65).unwrap_or_default(),
        );
        let jwk = serde_json::json!({"use": "sig", "kty": "EC", "kid": key_id(point), "crv": "P-256", "alg": "ES256",
            "x": url.encode(x), "y": url.encode(y)});
        Ok(Self {
            ca_pem,
            ca_der,
            issuer,
            token_public_pem: token.public_key_pem(),
            token_private_pem,
            jwk,
        })
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca_der
    }

    /// A TLS configuration with a fresh certificate of this CA for the DNS names and addresses.
    pub fn serving_config(&self, names: &[String]) -> Result<rustls::ServerConfig, KeyError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(
            DnType::CommonName,
            names.first().map_or("ferroflow", String::as_str),
        );
        params.use_authority_key_identifier_extension = true;
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(397);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        let chain = vec![cert.der().clone(), self.ca_der.clone()];
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A TLS client configuration that trusts this CA only.
    pub fn client_config(&self) -> Result<rustls::ClientConfig, KeyError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca_der.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

fn pem_to_der(pem: &str) -> CertificateDer<'static> {
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    CertificateDer::from(
        base64::engine::general_purpose::STANDARD
            .decode(body)
            .unwrap_or_default(),
    )
}

fn key_id(point: &[u8]) -> String {
    use sha2::Digest as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(point))
}
