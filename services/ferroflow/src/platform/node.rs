//! `ferroflow node`: this machine as a Node of a cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use base64::Engine as _;
use kube::Config;
use localkube::{JoinConfig, PodCidr};
use tokio_util::sync::CancellationToken;

use super::{cluster, names};
use crate::cli::print;
use crate::data_dir::{self, DataDir};
use crate::failure::usage;
use crate::settings::{NodeFlags, Settings};
use crate::up;

/// Joins, and runs Pods until it is told to stop.
pub(crate) fn run(flags: &NodeFlags) -> anyhow::Result<()> {
    let settings = Settings::node(flags)?;
    let range: PodCidr = settings
        .pod_cidr
        .parse()
        .map_err(|error| usage(format!("pod_cidr: {error}")))?;
    let data = DataDir::open(&settings.data_dir)?;
    data_dir::cache(&settings.cache_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(join(&settings, range, &data));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn join(settings: &Settings, range: PodCidr, data: &DataDir) -> anyhow::Result<()> {
    let _telemetry = up::telemetry(settings, "node")?;
    let _other = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = cluster::config().await?;
    let ip = node_ip(settings, &config, range)?;
    let client_ca = match settings.client_ca.as_os_str().is_empty() {
        true => None,
        false => {
            let file = settings.client_ca.display();
            let text = std::fs::read_to_string(&settings.client_ca);
            Some(text.map_err(|error| usage(format!("client_ca: {file}: {error}")))?)
        }
    };
    let node_name = match settings.node_name.as_str() {
        "" => names::host_name("node"),
        name => name.to_owned(),
    };
    let join = JoinConfig {
        node_name: node_name.clone(),
        data_dir: data.folder("node")?,
        cache_dir: settings.cache_dir.clone(),
        executable: std::env::current_exe().context("finding the path of this program")?,
        pod_cidr: range,
        kubelet: SocketAddr::new(ip, settings.kubelet_port),
        client_ca,
        api_ca: pem(config.root_cert.as_deref().unwrap_or_default()),
    };
    let client = kube::Client::try_from(config).context("using the kubeconfig")?;
    let cancel = CancellationToken::new();
    up::stop_on_signal(cancel.clone())?;
    crate::memory::give_back_now_and_then();
    print(&format!(
        "ferroflow node {node_name} joins with Pods at {range}\n"
    ))?;
    localkube::join(client, join, cancel).await
}

/// Where the API server finds this machine: as stated, or where the machine calls it from; where both are one machine, the
/// address that Pods know it by, since an API server takes no loopback address.
fn node_ip(settings: &Settings, config: &Config, range: PodCidr) -> anyhow::Result<IpAddr> {
    if !settings.node_ip.is_empty() {
        let text = &settings.node_ip;
        return text
            .parse()
            .map_err(|_| usage(format!("node_ip: {text:?} is no IP address; write the one by which the API server reaches this machine")));
    }
    let host = config
        .cluster_url
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']']);
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let found = localkube::own_address(host, port).filter(|ip| !ip.is_loopback());
    Ok(found.unwrap_or_else(|| range.node().into()))
}

/// Certificates in DER as PEM.
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        for line in body.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn pem_reads_back() {
        let all = vec![vec![7; 100], vec![9; 10]];
        let text = super::pem(&all);
        let back: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|der| der.unwrap().to_vec())
            .collect();
        assert_eq!(back, all);
    }
}
