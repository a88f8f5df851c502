//! Names of Services and Pods, as lines of an `/etc/hosts`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Seek, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use crate::view::ClusterView;

impl ClusterView {
    /// The hosts file for Pods of a namespace: every Service and every Pod behind a headless Service under all names that
    /// Kubernetes' DNS gives them there, and the hostnames of the namespace's Pods.
    pub fn hosts(&self, namespace: &str) -> String {
        let mut text = String::from("# written by ferroflow; changes are lost\n127.0.0.1 localhost\n");
        // one line an address, names of every source together
        let mut lines: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
        for ((pod_namespace, _), pod) in &self.pods {
            if pod_namespace == namespace {
                lines.entry(pod.ip).or_default().insert(pod.hostname.clone());
            }
        }
        for (name, ip) in self.names() {
            let names = lines.entry(ip).or_default();
            names.extend(spellings(&name, namespace));
        }
        for (ip, names) in lines {
            // the plain hostname first: it is what a reverse look-up gives
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort_by_key(|n| (n.matches('.').count(), n.clone()));
            let _ = writeln!(text, "{ip} {}", names.join(" "));
        }
        text
    }

    /// Every (name, address) that the cluster's DNS would hold.
    pub(crate) fn names(&self) -> Vec<(Name, Ipv4Addr)> {
        let mut out = Vec::new();
        for ((namespace, service), view) in &self.services {
            let name = |pod: Option<String>| Name {
                pod,
                service: service.clone(),
                namespace: namespace.clone(),
            };
            match view.cluster_ip {
                Some(ip) => out.push((name(None), ip)),
                None => out.extend(view.endpoints.iter().map(|(ip, _)| (name(None), *ip))),
            }
            out.extend(
                view.endpoints
                    .iter()
                    .filter_map(|(ip, host)| Some((name(Some(host.clone()?)), *ip))),
            );
        }
        for ((namespace, _), pod) in &self.pods {
            let Some(subdomain) = &pod.subdomain else { continue };
            let headless = self
                .services
                .get(&(namespace.clone(), subdomain.clone()))
                .is_some_and(|s| s.cluster_ip.is_none());
            if headless {
                let name = Name {
                    pod: Some(pod.hostname.clone()),
                    service: subdomain.clone(),
                    namespace: namespace.clone(),
                };
                out.push((name, pod.ip));
            }
        }
        out
    }
}

/// `[<pod>.]<service>.<namespace>.svc`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub pod: Option<String>,
    pub service: String,
    pub namespace: String,
}

impl Name {
    /// Understands any spelling; short ones are of `namespace`. `pods`: whether `a.b` may mean Pod a of Service b there.
    pub fn candidates(host: &str, namespace: &str) -> Vec<Self> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let host = host.strip_suffix(".cluster.local").unwrap_or(&host);
        let (host, complete) = host.strip_suffix(".svc").map_or((host, false), |h| (h, true));
        let words: Vec<&str> = host.split('.').collect();
        let name = |pod: Option<&str>, service: &str, namespace: &str| Self {
            pod: pod.map(str::to_owned),
            service: service.to_owned(),
            namespace: namespace.to_owned(),
        };
        match (words.as_slice(), complete) {
            ([service], false) => vec![name(None, service, namespace)],
            ([a, b], true) => vec![name(None, a, b)],
            ([a, b], false) => vec![name(None, a, b), name(Some(a), b, namespace)],
            ([pod, service, namespace], _) => vec![name(Some(pod), service, namespace)],
            _ => Vec::new(),
        }
    }
}

fn spellings(name: &Name, from: &str) -> Vec<String> {
    let short = match &name.pod {
        Some(pod) => format!("{pod}.{}", name.service),
        None => name.service.clone(),
    };
    let mut out = Vec::with_capacity(4);
    if name.namespace == from {
        out.push(short.clone());
    }
    let with_namespace = format!("{short}.{}", name.namespace);
    out.extend([
        format!("{with_namespace}.svc"),
        format!("{with_namespace}.svc.cluster.local"),
        with_namespace,
    ]);
    out
}

/// Writes a hosts file in place, so that a bind mount of it shows the change. Leaves a file alone that says the same already.
pub fn write_hosts(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    if io::read_to_string(&file)? == text {
        return Ok(());
    }
    file.rewind()?;
    // one write, and only then a shorter length: a reader in between sees old lines at the end, never an empty file
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use k8s_openapi::serde_json::{from_value, json};
    use std::os::unix::fs::MetadataExt;

    pub(crate) fn cluster() -> ClusterView {
        let service = |ns: &str, name: &str, ip: &str| {
            from_value::<Service>(json!({"metadata": {"name": name, "namespace": ns}, "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}})).unwrap()
        };
        let slice = |ns: &str, svc: &str, endpoints: k8s_openapi::serde_json::Value| {
            from_value::<EndpointSlice>(json!({"metadata": {"namespace": ns, "labels": {"kubernetes.io/service-name": svc}}, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
            .unwrap()
        };
        let pod = |ns: &str, name: &str, ip: &str, sub: Option<&str>, phase: &str| {
            from_value::<Pod>(json!({"metadata": {"name": name, "namespace": ns}, "spec": {"containers": [], "subdomain": sub}, "status": {"podIP": ip, "phase": phase}})).unwrap()
        };
        ClusterView::new(
            &[
                service("kubeflow", "ml-pipeline", "127.96.0.5"),
                service("team", "workers", "None"),
                service("team", "web", "127.96.0.6"),
            ],
            &[
                slice("kubeflow", "ml-pipeline", json!([{"addresses": ["127.0.0.1"]}])),
                slice(
                    "team",
                    "workers",
                    json!([{"addresses": ["127.20.0.1"], "hostname": "w-0"}, {"addresses": ["127.20.0.2"], "conditions": {"ready": false}}]),
                ),
                slice(
                    "team",
                    "web",
                    json!([{"addresses": ["127.20.0.3"]}, {"addresses": ["127.20.0.4"], "conditions": {"ready": false}}]),
                ),
            ],
            &[
                pod("team", "w-0", "127.20.0.1", Some("workers"), "Running"),
                pod("team", "w-1", "127.20.0.2", Some("workers"), "Running"),
                pod("team", "old", "127.20.0.9", None, "Succeeded"),
                pod("other", "x", "127.20.0.8", None, "Running"),
            ],
        )
    }

    #[test]
    fn names_are_those_of_cluster_dns() {
        let text = cluster().hosts("team");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "127.0.0.1 localhost",
                "127.20.0.1 w-0 workers w-0.workers workers.team w-0.workers.team workers.team.svc w-0.workers.team.svc workers.team.svc.cluster.local w-0.workers.team.svc.cluster.local",
                "127.20.0.2 w-1 w-1.workers w-1.workers.team w-1.workers.team.svc w-1.workers.team.svc.cluster.local",
                "127.96.0.5 ml-pipeline.kubeflow ml-pipeline.kubeflow.svc ml-pipeline.kubeflow.svc.cluster.local",
                "127.96.0.6 web web.team web.team.svc web.team.svc.cluster.local",
            ]
        );
        assert!(
            cluster()
                .hosts("kubeflow")
                .contains("127.96.0.5 ml-pipeline ml-pipeline.kubeflow ")
        );
    }

    #[test]
    fn a_hosts_file_keeps_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        write_hosts(&path, "long long\n").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        write_hosts(&path, "short\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn the_table_has_ready_endpoints_only() {
        let table = cluster().table().to_string();
        assert!(table.contains("tcp 127.96.0.6:80 127.20.0.3:8080\n"), "{table}");
        assert!(table.contains("tcp 127.96.0.5:80 127.0.0.1:8080\n"), "{table}");
        assert_eq!(table.lines().count(), 3);
    }
}
