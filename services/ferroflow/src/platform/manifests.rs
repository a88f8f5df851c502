//! `ferroflow manifests`: what must exist in the API of a cluster, as YAML for `kubectl apply --server-side -f -`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use clap::Args;
use serde_json::Value;

use super::{bootstrap, endpoints};
use crate::cli::print;
use crate::failure::usage;
use crate::settings::pair;

/// Flags of `manifests`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ManifestFlags {
    /// PEM file with the authority that signed the webhooks' certificates; without it the webhook configurations are left out.
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
    /// Where the webhooks of a service are, instead of behind its Service; may be given more than once.
    #[arg(long, value_name = "SERVICE=URL", value_parser = pair)]
    pub webhook_url: Vec<(String, String)>,
}

/// Prints them.
pub(crate) fn run(flags: &ManifestFlags) -> anyhow::Result<()> {
    let mut all = bootstrap::manifests()?;
    all.extend(endpoints::cluster_services());
    if let Some(file) = &flags.ca_bundle {
        let bundle = read(file)?;
        for mut manifest in ferroflow_api::manifests::webhooks()? {
            lead(&mut manifest, &bundle, &flags.webhook_url);
            all.push(manifest);
        }
    } else if !flags.webhook_url.is_empty() {
        return Err(usage(
            "webhook_url: is given without --ca-bundle; the API server calls webhooks over HTTPS only",
        ));
    }
    let mut text = String::new();
    for manifest in all {
        // JSON is YAML
        writeln!(text, "---\n{manifest:#}")?;
    }
    print(&text)
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| usage(format!("ca_bundle: {}: {error}", file.display())))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(usage(format!(
            "ca_bundle: {} holds no PEM certificate",
            file.display()
        )));
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(text))
}

/// Writes authority and, where there is one, URL into every webhook of a configuration.
fn lead(manifest: &mut Value, bundle: &str, urls: &[(String, String)]) {
    for webhook in manifest["webhooks"].as_array_mut().into_iter().flatten() {
        let client = &mut webhook["clientConfig"];
        client["caBundle"] = Value::from(bundle);
        let service = client["service"]["name"].as_str().unwrap_or_default();
        let Some((_, url)) = urls.iter().find(|(name, _)| name == service) else {
            continue;
        };
        let path = client["service"]["path"].as_str().unwrap_or_default();
        client["url"] = Value::from(format!("{}{path}", url.trim_end_matches('/')));
        if let Some(fields) = client.as_object_mut() {
            fields.remove("service");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_may_be_elsewhere() {
        let urls = [("tuning".to_owned(), "https://127.0.0.1:9443/".to_owned())];
        let mut clients = Vec::new();
        for mut manifest in ferroflow_api::manifests::webhooks().unwrap() {
            lead(&mut manifest, "Q0E=", &urls);
            for webhook in manifest["webhooks"].as_array().unwrap() {
                assert_eq!(webhook["clientConfig"]["caBundle"], "Q0E=");
                clients.push(webhook["clientConfig"].clone());
            }
        }
        let moved: Vec<_> = clients
            .iter()
            .filter_map(|client| client["url"].as_str())
            .collect();
        assert!(moved.contains(&"https://127.0.0.1:9443/inject-pods"), "{moved:?}");
        assert!(
            clients
                .iter()
                .all(|client| client["url"].is_null() != client["service"].is_null())
        );
        assert!(
            clients
                .iter()
                .any(|client| client["service"]["name"] == "serving")
        );
    }

    #[test]
    fn nothing_is_there_twice() {
        let all = [bootstrap::manifests().unwrap(), endpoints::cluster_services()].concat();
        let key = |m: &Value| {
            let meta = &m["metadata"];
            format!("{} {} {}", m["kind"], meta["namespace"], meta["name"])
        };
        let mut names: Vec<String> = all.iter().map(key).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
