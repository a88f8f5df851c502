//! What can be set, from defaults, file, environment and flags.

use std::path::PathBuf;

use clap::Args;
use ferroflow_config::layered;
use serde::{Deserialize, Serialize};

use crate::failure::usage;

/// Flags of `up` and `serve`. Each is also a variable `FERROFLOW_...` and a key of the configuration file.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub(crate) struct Flags {
    /// Folder that holds all state [default: ~/.ferroflow] [env: FERROFLOW_DATA_DIR].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
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
    /// Configuration file in TOML with keys named as the flags (with _ for -).
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Who needs a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Auth {
    SameUser,
    Token,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogForm {
    Text,
    Json,
}

/// The settings after all layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub data_dir: PathBuf,
    pub port: u16,
    pub bind: String,
    pub host: Vec<String>,
    pub auth: Auth,
    pub log: String,
    pub log_format: LogForm,
    pub otlp_endpoint: String,
    pub database: String,
    pub events: String,
    pub cache_dir: PathBuf,
}

/// The data folder that is used when none is given.
pub(crate) fn default_data_dir() -> PathBuf {
    home().join(".ferroflow")
}

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

impl Settings {
    fn defaults() -> Self {
        Self {
            data_dir: default_data_dir(),
            port: 8080,
            bind: "127.0.0.1".to_owned(),
            host: Vec::new(),
            auth: Auth::SameUser,
            log: "warn,ferroflow=info".to_owned(),
            log_format: LogForm::Text,
            otlp_endpoint: String::new(),
            database: String::new(),
            events: String::new(),
            cache_dir: home().join(".cache/ferroflow"),
        }
    }

    /// Puts the layers together.
    ///
    /// # Errors
    /// If a layer has a key or value that cannot be used.
    pub(crate) fn resolve(flags: &Flags) -> anyhow::Result<Self> {
        let settings: Self = layered(&Self::defaults(), flags.config.as_deref(), "FERROFLOW_", flags)
            .map_err(|error| usage(error.to_string()))?;
        settings.checked()
    }

    fn checked(mut self) -> anyhow::Result<Self> {
        self.data_dir = std::path::absolute(&self.data_dir)?;
        self.cache_dir = std::path::absolute(&self.cache_dir)?;
        if self.bind.parse::<std::net::IpAddr>().is_err() {
            return Err(usage(format!(
                "bind: {:?} is no IP address; use 127.0.0.1 or 0.0.0.0",
                self.bind
            )));
        }
        let database = self.database.as_str();
        if !database.is_empty()
            && !database.starts_with("postgres://")
            && !database.starts_with("postgresql://")
        {
            return Err(usage(
                "database: is no PostgreSQL URL; write postgres://user:password@host/name, or leave it empty for SQLite",
            ));
        }
        if !self.events.is_empty() && !self.events.starts_with("nats://") {
            return Err(usage(format!(
                "events: {:?} is no NATS URL; write nats://host:4222, or leave it empty",
                self.events
            )));
        }
        Ok(self)
    }
}
