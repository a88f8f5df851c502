//! Flags of the commands. Each is also a variable `FERROFLOW_...` and a key of the configuration file.

use std::path::PathBuf;

use clap::Args;
use serde::{Serialize, Serializer};

use super::{Auth, LogForm};

/// Flags of every command that runs.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct CommonFlags {
    /// Folder that holds all state [default: ~/.ferroflow] [env: FERROFLOW_DATA_DIR].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Which log lines to print, as in RUST_LOG [default: warn,ferroflow=info] [env: FERROFLOW_LOG].
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Form of log lines: `text` or `json` [default: text] [env: FERROFLOW_LOG_FORMAT].
    #[arg(long, value_name = "FORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogForm>,
    /// `http://host:4317` of an OTLP collector for traces [env: FERROFLOW_OTLP_ENDPOINT].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Configuration file in TOML with keys named as the flags (with _ for -).
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Flags of `up`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct UpFlags {
    /// Port of the gateway; 0 picks a free one [default: 8080] [env: FERROFLOW_PORT].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Address to listen on [default: 127.0.0.1] [env: FERROFLOW_BIND].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// Another name under which this machine is reached; may be given more than once [env: FERROFLOW_HOST].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// Who needs a token: `same-user` (all but this OS user) or `token` (everyone) [default: same-user] [env: FERROFLOW_AUTH].
    #[arg(long, value_name = "MODE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Where rows are: empty for SQLite files in the data folder, or `postgres://...` [env: FERROFLOW_DATABASE].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where events go: empty for this process, or `nats://...` [env: FERROFLOW_EVENTS].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
    /// Where Python environments are built and kept [default: ~/.cache/ferroflow] [env: FERROFLOW_CACHE_DIR].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct ServeFlags {
    /// Port of gRPC, REST, /healthz, /readyz and /metrics; 0 picks a free one [default: 8080] [env: FERROFLOW_PORT].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Address to listen on [default: 0.0.0.0] [env: FERROFLOW_BIND].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// File with the key that signs calls between services, at least 32 random bytes, the same for all of them [env: FERROFLOW_CALLER_KEY].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_key: Option<PathBuf>,
    /// Where rows are: empty for a SQLite file in the data folder (then with one replica only), or `postgres://...` [env: FERROFLOW_DATABASE].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where events go: empty for nowhere but this process, or `nats://...` [env: FERROFLOW_EVENTS].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
    /// Where artifacts are: `s3://`, `gs://`, `az://` or `file://` with a path; for the artifacts service [env: FERROFLOW_ARTIFACTS].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
    /// Where the other services are [default: http://{service}.kubeflow:8080] [env: FERROFLOW_SERVICES].
    #[arg(long, value_name = "TEMPLATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<String>,
    /// Where one other service is, instead; may be given more than once [env: FERROFLOW_SERVICE__<NAME>].
    #[arg(long, value_name = "NAME=URL", value_parser = pair)]
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub service: Vec<(String, String)>,
    /// Where users reach the gateway; models are `<name>.<namespace>.` before its host [default: http://localhost:8080] [env: FERROFLOW_PUBLIC_URL].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Another name under which the gateway is reached; may be given more than once [env: FERROFLOW_HOST].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// Port of the admission webhooks over HTTPS; 0 picks a free one [default: 9443] [env: FERROFLOW_WEBHOOK_PORT].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_port: Option<u16>,
    /// PEM file with the certificate of the webhooks; read again when it changes [env: FERROFLOW_WEBHOOK_CERT].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate [env: FERROFLOW_WEBHOOK_KEY].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_key: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// Flags of `node`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct NodeFlags {
    /// Name of the Node [default: this machine's] [env: FERROFLOW_NODE_NAME].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Range of the Pods' addresses, which no other Node has [default: 10.244.240.0/24] [env: FERROFLOW_POD_CIDR].
    #[arg(long, value_name = "CIDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Address at which the API server reaches this machine [default: the one it is called from] [env: FERROFLOW_NODE_IP].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<String>,
    /// Port of the kubelet API; 0 picks a free one [default: 10250] [env: FERROFLOW_KUBELET_PORT].
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_port: Option<u16>,
    /// PEM file with the authority of the certificate by which the API server calls the kubelet API, for logs and exec [env: FERROFLOW_CLIENT_CA].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Where Python environments are built and kept [default: ~/.cache/ferroflow] [env: FERROFLOW_CACHE_DIR].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonFlags,
}

/// Reads `name=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=URL, for example pipelines=http://127.0.0.1:9001".to_owned()),
    }
}

fn as_map<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
