//! Who a caller is and what it may do.

pub mod escalation;
pub mod keys;
pub mod rbac;
pub mod tokens;

use k8s_openapi::api::authentication::v1::UserInfo;

pub const ANONYMOUS: &str = "system:anonymous";
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

pub fn username(user: &UserInfo) -> &str {
    user.username.as_deref().unwrap_or_default()
}
pub fn groups(user: &UserInfo) -> &[String] {
    user.groups.as_deref().unwrap_or_default()
}

/// A user of the given name and groups, authenticated.
pub fn user(name: &str, groups: &[&str]) -> UserInfo {
    let mut groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    UserInfo {
        username: Some(name.to_owned()),
        groups: Some(groups),
        ..UserInfo::default()
    }
}

/// The identity of a ServiceAccount.
pub fn service_account(namespace: &str, name: &str) -> UserInfo {
    user(
        &format!("system:serviceaccount:{namespace}:{name}"),
        &[
            "system:serviceaccounts",
            &format!("system:serviceaccounts:{namespace}"),
        ],
    )
}

pub fn anonymous() -> UserInfo {
    UserInfo {
        username: Some(ANONYMOUS.to_owned()),
        groups: Some(vec![UNAUTHENTICATED.to_owned()]),
        ..UserInfo::default()
    }
}
