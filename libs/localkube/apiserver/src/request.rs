//! What a request asks for: path, verb, query, accepted formats.

use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;

/// A decoded query string; keys may repeat.
#[derive(Debug, Clone, Default)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let decode = |s: &str| {
            percent_decode_str(&s.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        Self(
            query
                .unwrap_or_default()
                .split('&')
                .filter(|p| !p.is_empty())
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    pub fn non_empty(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|v| !v.is_empty())
    }
    /// `true`, `1`, or present without a value.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|v| matches!(v, "" | "true" | "1" | "True"))
    }
    pub fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.parse().ok()
    }
}

/// A request for a resource or for another path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub verb: String,
    /// The path is not that of a resource.
    pub non_resource: bool,
    pub path: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (proxied paths), with its leading slash.
    pub rest: String,
}

impl RequestInfo {
    pub fn parse(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path();
        let mut info = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let parts: Vec<String> = path
            .split('/')
            .filter(|p| !p.is_empty())
            .map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => {
                info.non_resource = true;
                info.verb = method.as_str().to_lowercase();
                return info;
            }
        };
        // The deprecated /watch/ prefix.
        let (legacy_watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let set = |info: &mut Self, parts: &[&str]| {
            let get = |i: usize| parts.get(i).copied().unwrap_or_default().to_owned();
            info.resource = get(0);
            info.name = get(1);
            info.subresource = get(2);
        };
        match rest {
            ["namespaces", ns, sub] if matches!(*sub, "status" | "finalize") => {
                info.namespace = (*ns).to_owned();
                set(&mut info, &["namespaces", ns, sub]);
            }
            ["namespaces", ns, tail @ ..] if !tail.is_empty() => {
                info.namespace = (*ns).to_owned();
                set(&mut info, tail);
            }
            ["namespaces", ns] => {
                info.namespace = (*ns).to_owned();
                set(&mut info, rest);
            }
            other => set(&mut info, other),
        }
        if info.subresource == "proxy" {
            // The rest is kept as it was written.
            let marker = format!("/{}/proxy", info.name);
            let raw = path.find(&marker).map(|i| &path[i + marker.len()..]);
            let raw = raw.or_else(|| path.find("/proxy").map(|i| &path[i + "/proxy".len()..]));
            info.rest = raw.unwrap_or_default().to_owned();
        }
        let watching = legacy_watch || query.flag("watch");
        let selected_name = || {
            query
                .non_empty("fieldSelector")
                .and_then(|s| crate::selectors::FieldSelector::parse(s).ok())
                .and_then(|s| s.name().map(str::to_owned))
        };
        info.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if info.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD
                if info.name.is_empty() || (legacy_watch && info.subresource.is_empty()) =>
            {
                if info.name.is_empty()
                    && let Some(name) = selected_name()
                {
                    info.name = name;
                }
                if watching { "watch" } else { "list" }
            }
            _ => "get",
        }
        .to_owned();
        info
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// What the client accepts, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub form: Form,
    pub yaml: bool,
    /// Aggregated discovery version `v2`.
    pub discovery_v2: bool,
}

impl Accept {
    /// `None` when nothing that is accepted can be served.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let json = Self {
            form: Form::Object,
            yaml: false,
            discovery_v2: false,
        };
        let text = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        if text.is_empty() {
            return Some(json);
        }
        for clause in text.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let params: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let param = |name: &str| params.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
            let yaml = match media {
                "application/json" | "*/*" | "application/*" => false,
                "application/yaml" => true,
                _ => continue,
            };
            let form = match (param("as"), param("g"), param("v")) {
                (None, ..) => Form::Object,
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table,
                (
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1"),
                ) => Form::Metadata,
                (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                    return Some(Self {
                        discovery_v2: true,
                        ..json
                    });
                }
                _ => continue,
            };
            return Some(Self {
                form,
                yaml,
                discovery_v2: false,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        let query = Query::parse(uri.query());
        RequestInfo::parse(&method, &uri, &query)
    }

    #[test]
    fn paths() {
        let i = info(Method::GET, "/api/v1/namespaces/a/pods/p/log?follow=true");
        assert_eq!(
            (
                i.namespace.as_str(),
                i.resource.as_str(),
                i.name.as_str(),
                i.subresource.as_str()
            ),
            ("a", "pods", "p", "log")
        );
        let i = info(Method::GET, "/api/v1/namespaces/a");
        assert_eq!(
            (i.resource.as_str(), i.name.as_str(), i.verb.as_str()),
            ("namespaces", "a", "get")
        );
        let i = info(Method::GET, "/apis/apps/v1/deployments?watch=1");
        assert_eq!(
            (i.group.as_str(), i.resource.as_str(), i.verb.as_str()),
            ("apps", "deployments", "watch")
        );
        let i = info(Method::DELETE, "/apis/apps/v1/namespaces/x/deployments");
        assert_eq!(i.verb, "deletecollection");
        let i = info(
            Method::GET,
            "/api/v1/namespaces/kubeflow/services/http:ml-pipeline:8888/proxy/apis/v2beta1/runs",
        );
        assert_eq!(
            (i.name.as_str(), i.rest.as_str()),
            ("http:ml-pipeline:8888", "/apis/v2beta1/runs")
        );
        assert!(info(Method::GET, "/apis/apps/v1").non_resource);
        assert!(info(Method::GET, "/version").non_resource);
    }

    #[test]
    fn accepts() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
                .parse()
                .unwrap(),
        );
        assert_eq!(Accept::parse(&headers).unwrap().form, Form::Table);
        headers.insert(
            header::ACCEPT,
            "application/vnd.kubernetes.protobuf".parse().unwrap(),
        );
        assert!(Accept::parse(&headers).is_none());
    }
}
