//! What a browser may be tricked into is refused here: requests whose Host is not ours (DNS rebinding) and requests that
//! a page of another origin sends (cross-site request forgery).

use http::{HeaderMap, Method, header};

/// Which Host names are ours.
#[derive(Debug, Clone)]
pub struct HostRules {
    /// Exact names without port: `localhost`, `127.0.0.1`, `[::1]`.
    pub names: Vec<String>,
    /// Suffixes with their dot: `.localhost`, `.kubeflow`, `.svc.cluster.local`.
    pub suffixes: Vec<String>,
}

impl HostRules {
    /// The names of a laptop, and those by which Pods call.
    pub fn laptop() -> Self {
        let own = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        Self {
            names: own(&[
                "localhost",
                "127.0.0.1",
                "[::1]",
                "ml-pipeline",
                "minio-service",
                "katib-db-manager",
                "metadata-grpc-service",
            ]),
            suffixes: own(&[
                ".localhost",
                ".kubeflow",
                ".svc",
                ".svc.cluster.local",
                ".example.com",
            ]),
        }
    }

    fn allow(&self, host: &str) -> bool {
        let name = without_port(host);
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
            || self
                .suffixes
                .iter()
                .any(|suffix| name.to_ascii_lowercase().ends_with(suffix.as_str()))
    }
}

pub(crate) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}

/// Says why a request must not pass, or `None`.
pub(crate) fn refuse(
    rules: &HostRules,
    method: &Method,
    host: Option<&str>,
    headers: &HeaderMap,
) -> Option<String> {
    let Some(host) = host else {
        return Some("the request has no Host header".to_owned());
    };
    if !rules.allow(host) {
        return Some(format!(
            "host {host:?} is not a name of this ferroflow; use localhost, or start it with --host {}",
            without_port(host)
        ));
    }
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    if let Some(origin) = text(header::ORIGIN) {
        let authority = origin.split_once("://").map(|(_, rest)| rest);
        if authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Some(format!(
                "origin {origin:?} is another site than host {host:?}; only ferroflow's own pages may call its API"
            ));
        }
    }
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe
        && text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site == "cross-site")
    {
        return Some(
            "a page of another site sent this request; only ferroflow's own pages may change things"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, host: &str, headers: &[(&'static str, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        refuse(&HostRules::laptop(), &method, Some(host), &map)
    }

    #[test]
    fn own_names_pass_with_any_port() {
        for host in [
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "digits.default.localhost:8080",
            "ml-pipeline.kubeflow:8888",
        ] {
            assert_eq!(check(Method::POST, host, &[]), None, "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        assert!(
            check(Method::GET, "evil.example.org:8080", &[])
                .unwrap()
                .contains("evil.example.org")
        );
        assert!(check(Method::GET, "localhost.evil.org", &[]).is_some());
    }

    #[test]
    fn pages_of_another_origin_are_refused() {
        let evil = check(
            Method::POST,
            "localhost:8080",
            &[("origin", "http://evil.example.org")],
        )
        .unwrap();
        assert!(evil.contains("evil.example.org"), "{evil}");
        assert!(
            check(
                Method::GET,
                "localhost:8080",
                &[("origin", "http://localhost:9999")]
            )
            .is_some()
        );
        assert!(check(Method::GET, "localhost:8080", &[("origin", "null")]).is_some());
        assert_eq!(
            check(
                Method::POST,
                "localhost:8080",
                &[("origin", "http://localhost:8080")]
            ),
            None
        );
        assert!(
            check(
                Method::POST,
                "localhost:8080",
                &[("sec-fetch-site", "cross-site")]
            )
            .is_some()
        );
    }
}
