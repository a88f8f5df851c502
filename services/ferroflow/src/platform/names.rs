//! Names that the parts of an installation agree on.

use k8s_openapi::api::authentication::v1::UserInfo;

/// Ferroflow's services, which are also their ServiceAccounts in the platform namespace.
pub(crate) const SERVICES: &[&str] = &[
    "gateway",
    "pipelines",
    "metadata",
    "artifacts",
    "tuning",
    "training",
    "serving",
    "notebooks",
    "profiles",
];

/// Who a service is to the Kubernetes API.
pub(crate) fn service_user(service: &str) -> UserInfo {
    let principal = ferroflow_auth::Principal::service_account(ferroflow_kernel::PLATFORM_NAMESPACE, service);
    UserInfo {
        username: Some(principal.user),
        groups: Some(principal.groups),
        ..Default::default()
    }
}

/// A user with every right.
pub(crate) fn admin_user(name: &str) -> UserInfo {
    let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
    UserInfo {
        username: Some(name.to_owned()),
        groups: Some(groups),
        ..Default::default()
    }
}

/// The OS user of this process.
pub(crate) fn os_user() -> String {
    let uid = nix::unistd::getuid();
    let found = nix::unistd::User::from_uid(uid).ok().flatten();
    found.map_or_else(|| format!("uid-{uid}"), |user| user.name)
}

/// The name of this machine as a Node has it, or `otherwise` where it is none.
pub(crate) fn host_name(otherwise: &str) -> String {
    let name = nix::unistd::gethostname().map_or_else(
        |_| String::new(),
        |host| host.to_string_lossy().to_ascii_lowercase(),
    );
    if ferroflow_kernel::is_dns_subdomain(&name) {
        name
    } else {
        otherwise.to_owned()
    }
}
