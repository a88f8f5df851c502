//! What can be set, from defaults, file, environment and flags. One file may hold the keys of every command.

mod flags;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferroflow_config::layered;
use serde::{Deserialize, Serialize};

pub(crate) use flags::{NodeFlags, ServeFlags, UpFlags, pair};

use crate::failure::usage;
use crate::platform::SERVICES;

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
    pub caller_key: PathBuf,
    pub artifacts: String,
    pub services: String,
    pub service: BTreeMap<String, String>,
    pub public_url: String,
    pub webhook_port: u16,
    pub webhook_cert: PathBuf,
    pub webhook_key: PathBuf,
    pub node_name: String,
    pub pod_cidr: String,
    pub node_ip: String,
    pub kubelet_port: u16,
    pub client_ca: PathBuf,
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
            caller_key: PathBuf::new(),
            artifacts: String::new(),
            services: "http://{service}.kubeflow:8080".to_owned(),
            service: BTreeMap::new(),
            public_url: "http://localhost:8080".to_owned(),
            webhook_port: 9443,
            webhook_cert: PathBuf::new(),
            webhook_key: PathBuf::new(),
            node_name: String::new(),
            pod_cidr: "10.244.240.0/24".to_owned(),
            node_ip: String::new(),
            kubelet_port: 10250,
            client_ca: PathBuf::new(),
        }
    }

    /// Puts the layers together for `up`.
    ///
    /// # Errors
    /// If a layer has a key or value that cannot be used.
    pub(crate) fn up(flags: &UpFlags) -> anyhow::Result<Self> {
        Self::resolve(&Self::defaults(), flags.common.config.as_deref(), flags)
    }

    /// Puts the layers together for `serve`, which listens on every address and asks everyone for a token.
    ///
    /// # Errors
    /// If a layer has a key or value that cannot be used.
    pub(crate) fn serve(flags: &ServeFlags) -> anyhow::Result<Self> {
        let defaults = Self {
            bind: "0.0.0.0".to_owned(),
            ..Self::defaults()
        };
        Self::resolve(&defaults, flags.common.config.as_deref(), flags)
    }

    /// Puts the layers together for `node`.
    ///
    /// # Errors
    /// If a layer has a key or value that cannot be used.
    pub(crate) fn node(flags: &NodeFlags) -> anyhow::Result<Self> {
        Self::resolve(&Self::defaults(), flags.common.config.as_deref(), flags)
    }

    fn resolve(defaults: &Self, file: Option<&Path>, flags: &impl Serialize) -> anyhow::Result<Self> {
        let settings: Self =
            layered(defaults, file, "FERROFLOW_", flags).map_err(|error| usage(error.to_string()))?;
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
        for (name, url) in &self.service {
            if !SERVICES.contains(&name.as_str()) {
                return Err(usage(format!(
                    "service: {name:?} is no service; known are {}",
                    SERVICES.join(", ")
                )));
            }
            authority(&format!("service {name}"), url, &["http"])?;
        }
        if !self.services.contains("{service}") {
            return Err(usage(format!(
                "services: {:?} lacks {{service}}; write http://{{service}}.kubeflow:8080",
                self.services
            )));
        }
        authority("services", &self.services.replace("{service}", "x"), &["http"])?;
        if !self.otlp_endpoint.is_empty() {
            authority("otlp_endpoint", &self.otlp_endpoint, &["http", "https"])?;
        }
        self.public()?;
        Ok(self)
    }

    /// The URL of another service.
    pub(crate) fn url_of(&self, service: &str) -> String {
        match self.service.get(service) {
            Some(url) => url.clone(),
            None => self.services.replace("{service}", service),
        }
    }

    /// Host and port of the public URL.
    pub(crate) fn public(&self) -> anyhow::Result<(String, u16)> {
        let authority = authority("public_url", &self.public_url, &["http", "https"])?;
        Ok((authority.host().to_owned(), authority.port_u16().unwrap_or(80)))
    }
}

/// The `host:port` of a URL that has nothing after it.
fn authority(field: &str, url: &str, schemes: &[&str]) -> anyhow::Result<http::uri::Authority> {
    let parsed = url.parse::<http::Uri>().ok();
    let plain = parsed.filter(|uri| {
        let known = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
        known && matches!(uri.path(), "" | "/") && uri.query().is_none()
    });
    plain.and_then(|uri| uri.authority().cloned()).ok_or_else(|| {
        usage(format!(
            "{field}: {url:?} is no URL of a host; write http://host:port"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(service: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let pairs = service.iter().map(|(n, u)| ((*n).to_owned(), (*u).to_owned()));
        Settings::serve(&ServeFlags {
            service: pairs.collect(),
            ..ServeFlags::default()
        })
    }

    #[test]
    fn one_service_may_be_elsewhere() {
        let settings = serve(&[("pipelines", "http://127.0.0.1:9001")]).unwrap();
        assert_eq!(settings.url_of("pipelines"), "http://127.0.0.1:9001");
        assert_eq!(settings.url_of("metadata"), "http://metadata.kubeflow:8080");
        assert_eq!(settings.bind, "0.0.0.0");
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        for (service, part) in [
            (
                ("nothing", "http://a:1"),
                "\"nothing\" is no service; known are gateway",
            ),
            (
                ("metadata", "127.0.0.1:1"),
                "service metadata: \"127.0.0.1:1\" is no URL of a host",
            ),
            (("metadata", "http://a:1/x"), "write http://host:port"),
        ] {
            let error = serve(&[service]).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
