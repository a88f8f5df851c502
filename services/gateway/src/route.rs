//! Where a request goes, decided from its path, Host and kind alone.

use crate::guard::without_port;
use crate::upstream::Upstream;

/// Where requests of one prefix or gRPC service go.
#[derive(Debug, Clone)]
pub struct Route {
    /// Path prefix such as `/apis/v2beta1/`, or full name of a gRPC service.
    pub key: String,
    /// Part of the path that is removed before the request is passed on.
    pub strip: String,
    /// Whether the upstream knows credentials of its own (signed URLs, SigV4), so that callers who are nobody here pass too.
    pub open: bool,
    /// The service.
    pub upstream: Upstream,
}

/// All routes of a gateway.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// By path prefix; the longest that matches wins.
    pub paths: Vec<Route>,
    /// By gRPC service name.
    pub grpc: Vec<Route>,
    /// Domains under which models have a Host of their own, with their dot: `.localhost`.
    pub model_domains: Vec<String>,
}

/// Where one request goes.
#[derive(Debug, Clone)]
pub(crate) enum Target<'a> {
    Route(&'a Route),
    /// `http://<service>.<namespace>` inside the cluster, with the path that it shall see.
    Workload {
        kind: WorkloadKind,
        namespace: String,
        service: String,
        port: u16,
        path: String,
    },
    UnknownGrpc,
    Dashboard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    Model,
    Notebook,
}

impl RouteTable {
    pub(crate) fn decide(&self, host: &str, path: &str, is_grpc: bool) -> Target<'_> {
        if let Some((service, namespace)) = self.model_host(without_port(host)) {
            return Target::Workload {
                kind: WorkloadKind::Model,
                service: predictor(&service),
                namespace,
                port: 80,
                path: path.to_owned(),
            };
        }
        if is_grpc {
            let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            return self
                .grpc
                .iter()
                .find(|route| route.key == name)
                .map_or(Target::UnknownGrpc, Target::Route);
        }
        if let Some(rest) = path.strip_prefix("/serving/")
            && let Some((namespace, service, rest)) = two_segments(rest)
        {
            return Target::Workload {
                kind: WorkloadKind::Model,
                service: predictor(&service),
                namespace,
                port: 80,
                path: format!("/{rest}"),
            };
        }
        if let Some(rest) = path.strip_prefix("/notebook/")
            && let Some((namespace, service, _)) = two_segments(rest)
        {
            return Target::Workload {
                kind: WorkloadKind::Notebook,
                service,
                namespace,
                port: 80,
                path: path.to_owned(),
            };
        }
        let matching = self.paths.iter().filter(|route| prefix_matches(&route.key, path));
        matching
            .max_by_key(|route| route.key.len())
            .map_or(Target::Dashboard, Target::Route)
    }

    fn model_host(&self, name: &str) -> Option<(String, String)> {
        let domain = self
            .model_domains
            .iter()
            .find(|domain| name.ends_with(domain.as_str()))?;
        let (service, namespace) = name[..name.len() - domain.len()].split_once('.')?;
        let plain = !service.is_empty() && !namespace.is_empty() && !namespace.contains('.');
        plain.then(|| (service.to_owned(), namespace.to_owned()))
    }
}

/// KServe's predictor has a Host of its own beside the InferenceService's; both lead to the same Service.
fn predictor(service: &str) -> String {
    format!("{}-predictor", service.trim_end_matches("-predictor"))
}

fn prefix_matches(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']))
}

fn two_segments(rest: &str) -> Option<(String, String, &str)> {
    let (first, rest) = rest.split_once('/')?;
    let (second, rest) = rest.split_once('/').unwrap_or((rest, ""));
    (!first.is_empty() && !second.is_empty()).then(|| (first.to_owned(), second.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let route = |key: &str| Route {
            key: key.to_owned(),
            strip: String::new(),
            open: false,
            upstream: Upstream::InProcess(axum::Router::new()),
        };
        RouteTable {
            paths: vec![
                route("/apis/v2beta1"),
                route("/apis/v2beta1/special"),
                route("/kube"),
            ],
            grpc: vec![route("api.v1.beta1.DBManager")],
            model_domains: vec![".localhost".to_owned()],
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table = table();
        let key = |path: &str| match table.decide("localhost", path, false) {
            Target::Route(route) => route.key.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(key("/apis/v2beta1/runs"), "/apis/v2beta1");
        assert_eq!(key("/apis/v2beta1/special/x"), "/apis/v2beta1/special");
        assert_eq!(key("/kube"), "/kube");
        assert_eq!(key("/kubernetes"), "Dashboard");
        assert_eq!(key("/runs/1"), "Dashboard");
    }

    #[test]
    fn models_are_found_by_host_and_by_path() {
        let table = table();
        for (host, path) in [
            ("digits.team.localhost:8080", "/v2/models/digits/infer"),
            ("digits-predictor.team.localhost:8080", "/v2/models/digits/infer"),
            ("localhost:8080", "/serving/team/digits/v2/models/digits/infer"),
        ] {
            let Target::Workload {
                service,
                namespace,
                path,
                ..
            } = table.decide(host, path, false)
            else {
                panic!("{host} is no model")
            };
            assert_eq!(
                (service.as_str(), namespace.as_str()),
                ("digits-predictor", "team")
            );
            assert_eq!(path, "/v2/models/digits/infer");
        }
        assert!(matches!(
            table.decide("localhost", "/serving/team", false),
            Target::Dashboard
        ));
    }

    #[test]
    fn grpc_goes_by_service_name() {
        let table = table();
        let known = table.decide("x", "/api.v1.beta1.DBManager/ReportObservationLog", true);
        assert!(matches!(known, Target::Route(route) if route.key == "api.v1.beta1.DBManager"));
        assert!(matches!(
            table.decide("x", "/no.Such/Method", true),
            Target::UnknownGrpc
        ));
    }

    #[test]
    fn a_notebook_keeps_its_path() {
        let table = table();
        let Target::Workload {
            kind, service, path, ..
        } = table.decide("localhost", "/notebook/ns/nb/lab?x=1", false)
        else {
            panic!("no notebook")
        };
        assert_eq!(
            (kind, service.as_str(), path.as_str()),
            (WorkloadKind::Notebook, "nb", "/notebook/ns/nb/lab?x=1")
        );
    }
}
