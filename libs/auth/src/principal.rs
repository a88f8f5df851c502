use axum::extract::FromRequestParts;
use ferroflow_kernel::{Code, DEFAULT_NAMESPACE, Error};
use serde::{Deserialize, Serialize};

/// A user, or a service account in Kubernetes' spelling `system:serviceaccount:<namespace>:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Name of the user.
    pub user: String,
    /// Groups the user is in.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Principal {
    /// A user in the groups every authenticated user is in.
    pub fn user(name: impl Into<String>) -> Self {
        Self {
            user: name.into(),
            groups: vec!["system:authenticated".to_owned()],
        }
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    /// Namespace and name, if this is a service account.
    pub fn as_service_account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

/// Who makes a request, and the namespace meant by requests that name none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The caller's own namespace: for protocols that carry none (MLMD, Katib's DBManager, MLflow, S3).
    pub namespace: String,
}

impl Caller {
    /// A caller; a service account's namespace is its own, anyone else's is the default one.
    pub fn new(principal: Principal) -> Self {
        let namespace = principal
            .as_service_account()
            .map_or(DEFAULT_NAMESPACE, |(namespace, _)| namespace)
            .to_owned();
        Self { principal, namespace }
    }

    /// The caller of a gRPC request, put there by [`crate::VerifyLayer`].
    ///
    /// # Errors
    /// `Unauthenticated` if there is none.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Error> {
        request.extensions().get::<Self>().cloned().ok_or_else(missing)
    }

    /// The namespace a request means: the one it names, or the caller's own where it names none.
    pub fn namespace_or_own<'a>(&'a self, named: &'a str) -> &'a str {
        if named.is_empty() { &self.namespace } else { named }
    }
}

fn missing() -> Error {
    Error::new(
        Code::Unauthenticated,
        "the request carries no caller token; send it through the gateway",
    )
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = (http::StatusCode, String);

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| (http::StatusCode::UNAUTHORIZED, missing().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_means_its_own_namespace() {
        let caller = Caller::new(Principal::service_account("team", "default-editor"));
        assert_eq!(caller.namespace, "team");
        assert_eq!(caller.namespace_or_own(""), "team");
        assert_eq!(caller.namespace_or_own("other"), "other");
        assert_eq!(Caller::new(Principal::user("ann")).namespace, "default");
    }
}
