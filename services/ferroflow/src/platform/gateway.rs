//! The gateway of a cluster: it finds the services by URL and asks everyone for a token.

use std::sync::Arc;

use ferroflow_auth::{Principal, SubjectAccessAuthorizer};
use ferroflow_gateway::{AuthMode, Authenticator, Gateway, GatewayDeps, HostRules, RouteTable, Upstream};
use ferroflow_kernel::PLATFORM_NAMESPACE;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::addresses::ClusterAddresses;
use super::cluster::ClusterAdapters;
use super::routes;
use super::services::{Adapters as _, BEHIND_GATEWAY};
use crate::failure::usage;
use crate::settings::Settings;

/// Builds the gateway; its watches run until `cancel`.
pub(crate) fn build(
    settings: &Settings,
    adapters: &ClusterAdapters,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> anyhow::Result<Gateway> {
    let client = adapters.kube();
    let readiness = adapters.readiness();
    let addresses = Arc::new(ClusterAddresses::start(&client, &readiness, tasks, cancel));
    let authorizer = Arc::new(SubjectAccessAuthorizer::new(client.clone()));
    // nobody is the owner by the way they come
    let nobody = Principal::service_account(PLATFORM_NAMESPACE, "gateway");
    let authenticator = Authenticator::new(AuthMode::Token, nobody, client, addresses.clone(), authorizer);
    let (public, _) = settings.public()?;
    let mut hosts = HostRules::laptop();
    hosts.names.extend([public.clone(), "gateway".to_owned()]);
    hosts.names.extend(settings.host.iter().cloned());
    hosts.suffixes.push(format!(".{public}"));
    Ok(Gateway::new(GatewayDeps {
        routes: table(settings, &public)?,
        hosts,
        authenticator: Arc::new(authenticator),
        addresses,
        key: adapters.key(),
        readiness,
        metrics: adapters.metrics(),
    }))
}

fn table(settings: &Settings, public: &str) -> anyhow::Result<RouteTable> {
    let mut table = RouteTable {
        model_domains: vec![format!(".{public}")],
        ..Default::default()
    };
    for (service, grpc) in BEHIND_GATEWAY {
        let url = settings.url_of(service);
        let uri = url
            .parse()
            .map_err(|error| usage(format!("service {service}: {url:?}: {error}")))?;
        let upstream = Upstream::Url(uri);
        table.paths.extend(routes::of(service, &upstream));
        table.grpc.extend(routes::grpc(grpc, &upstream));
    }
    Ok(table)
}
