//! This machine as a Node of a cluster that has an API server of its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use localkube_node::NodeConfig;
use localkube_podnet::PodCidr;
use localkube_runtimes::{Runtimes, RuntimesConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_util::sync::CancellationToken;

/// How this machine joins.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// Name of the Node.
    pub node_name: String,
    /// Folder of the node's Pods and volumes.
    pub data_dir: PathBuf,
    /// Folder of Python environments.
    pub cache_dir: PathBuf,
    /// The program that becomes shim, launcher, model server and pip when it is called by these names.
    pub executable: PathBuf,
    /// Where Pods get their addresses.
    pub pod_cidr: PodCidr,
    /// Where the API server finds the kubelet API.
    pub kubelet: SocketAddr,
    /// The authority of the API server's client certificate, in PEM; none: callers of the kubelet API need a token.
    pub client_ca: Option<String>,
    /// The authority of the API server's own certificate, in PEM, for Pods.
    pub api_ca: String,
}

/// Runs the node agent until `cancel`. Pods go on without it.
///
/// # Errors
/// If the Pods' addresses cannot be made local, or the API server does not answer at the start.
pub async fn join(client: Client, config: JoinConfig, cancel: CancellationToken) -> anyhow::Result<()> {
    make_local(config.pod_cidr)?;
    let mut runtimes = RuntimesConfig::new(config.executable.clone());
    runtimes.cache_dir = config.cache_dir.clone();
    let runtimes = Runtimes::open(runtimes, client.clone()).await?;
    let tls = serving(&config)?;
    let mut settings = NodeConfig::new(
        config.node_name,
        config.data_dir,
        config.executable,
        Arc::new(tls),
        api_service(&client).await?,
        config.api_ca,
    );
    settings.listen = config.kubelet;
    settings.node_ip = config.kubelet.ip();
    settings.pod_cidr = Some(config.pod_cidr);
    settings.shared_paths.push(config.cache_dir);
    localkube_node::run(client, runtimes, settings, cancel).await
}

/// The address of the Service `kubernetes`, which Pods reach the API by; the Pod network leads it to the API server.
async fn api_service(client: &Client) -> anyhow::Result<String> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = services
        .get("kubernetes")
        .await
        .context("asking for the service kubernetes in namespace default")?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    if ip.is_empty() {
        bail!("the service kubernetes in namespace default has no address");
    }
    Ok(format!("{ip}:443"))
}

/// Makes the addresses of Pods addresses of this machine. They stay so when the agent ends, since Pods go on.
fn make_local(range: PodCidr) -> anyhow::Result<()> {
    let is_local = || UdpSocket::bind((range.node(), 0)).is_ok();
    if is_local() {
        return Ok(());
    }
    let command = format!("ip route add local {range} dev lo");
    let done = Command::new("ip")
        .args(["route", "add", "local", &range.to_string(), "dev", "lo"])
        .output()
        .with_context(|| {
            format!(
                "pod_cidr: {range} is not local to this machine, and there is no program ip; run {command}"
            )
        })?;
    if !done.status.success() || !is_local() {
        let why = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
        bail!("pod_cidr: {range} cannot be made local to this machine: {why}; run as root: {command}");
    }
    Ok(())
}

/// A certificate of our own, as a kubelet has one; callers with a certificate of the given authority are known by it.
fn serving(config: &JoinConfig) -> anyhow::Result<rustls::ServerConfig> {
    let names = vec![
        config.node_name.clone(),
        config.kubelet.ip().to_string(),
        "localhost".to_owned(),
    ];
    let own = rcgen::generate_simple_self_signed(names).context("making the kubelet's certificate")?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("making the kubelet's certificate: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.context("client_ca: no PEM certificate")?)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .context("client_ca")?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok(builder.with_single_cert(vec![own.cert.der().clone()], key)?)
}

/// The address of this machine from which it calls `host`: where `host` finds it.
#[must_use]
pub fn own_address(host: &str, port: u16) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect((host, port)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
