//! `ferroflow status`: what runs in a data folder and how to reach it.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use crate::cli::print;
use crate::failure::usage;
use crate::settings::default_data_dir;

pub(crate) fn run(data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let root = data_dir.unwrap_or_else(default_data_dir);
    let file = root.join("run/endpoint.json");
    let text = std::fs::read_to_string(&file).map_err(|_| {
        usage(format!(
            "no ferroflow runs in {}; start one with ferroflow up --data-dir {}",
            root.display(),
            root.display()
        ))
    })?;
    let endpoint: Value =
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let url = endpoint["url"].as_str().unwrap_or_default().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let state = runtime.block_on(ready(&url));
    print(&format!(
        "{state}\ndashboard   {url}\nkubectl     kubectl --kubeconfig {}\ndata        {}\nprocess     {}\n",
        root.join("kubeconfig").display(),
        root.display(),
        endpoint["pid"]
    ))?;
    if state.starts_with("not running") {
        Err(usage(format!(
            "start it with ferroflow up --data-dir {}",
            root.display()
        )))
    } else {
        Ok(())
    }
}

async fn ready(url: &str) -> String {
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(5))
        .build();
    let Ok(client) = client else {
        return "not running".to_owned();
    };
    match client.get(format!("{url}/readyz")).send().await {
        Ok(answer) if answer.status().is_success() => "running".to_owned(),
        Ok(answer) => {
            let missing: Value = answer.json().await.unwrap_or_default();
            format!("starting; waits for {}", missing["missing"])
        }
        Err(_) => "not running (it was stopped or killed)".to_owned(),
    }
}
