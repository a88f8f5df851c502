//! `ferroflow serve <service>`: one service against a cluster.

use crate::cli::Service;
use crate::settings::{Flags, Settings};

/// Runs one service.
pub(crate) fn run(service: Service, flags: &Flags) -> anyhow::Result<()> {
    let _settings = Settings::resolve(flags)?;
    Err(crate::failure::usage(format!(
        "serve {service:?}: running services apart from each other comes with the chart and is not implemented yet; use ferroflow up (see docs/status.md)"
    )))
}
