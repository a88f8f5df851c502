//! What every cluster has from the start: namespaces, roles, priority classes.

use serde_json::{Value, json};

use crate::auth::rbac;
use crate::definitions;
use crate::objects::text;
use crate::server::ApiServer;
use crate::store::{Expect, Key, WriteError};
use crate::times;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

fn with_identity(mut obj: Value) -> Value {
    if let Some(map) = obj.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    let meta = &mut obj["metadata"];
    meta["uid"] = uuid::Uuid::new_v4().to_string().into();
    meta["creationTimestamp"] = times::now().into();
    obj
}

impl ApiServer {
    /// Puts an object that the server itself owns, unless it exists.
    pub(crate) async fn put_if_absent(&self, resource: &str, obj: Value) -> Result<(), WriteError> {
        let meta = &obj["metadata"];
        let key = Key {
            resource: resource.into(),
            namespace: text(meta, "namespace").to_owned(),
            name: text(meta, "name").to_owned(),
        };
        if self
            .inner
            .store
            .get(resource, &key.namespace, &key.name)
            .is_some()
        {
            return Ok(());
        }
        match self
            .inner
            .store
            .put(key, Expect::Absent, with_identity(obj))
            .await
        {
            Ok(_) | Err(WriteError::Exists) => {
                self.inner.wrote(resource);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    pub(crate) async fn bootstrap(&self) -> Result<(), WriteError> {
        let mut writes = Vec::new();
        for name in NAMESPACES {
            writes.push((
                "/namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
                    "labels": {"kubernetes.io/metadata.name": name}},
                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
            ));
        }
        for (name, value) in [
            ("system-cluster-critical", 2_000_000_000),
            ("system-node-critical", 2_000_001_000),
        ] {
            writes.push((
                "scheduling.k8s.io/priorityclasses",
                json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name, "generation": 1},
                    "value": value, "preemptionPolicy": "PreemptLowerPriority"}),
            ));
        }
        for mut item in definitions::bootstrap_rbac() {
            let resource = match text(&item, "kind") {
                "ClusterRole" => rbac::CLUSTER_ROLES,
                "ClusterRoleBinding" => rbac::CLUSTER_ROLE_BINDINGS,
                "Role" => rbac::ROLES,
                _ => rbac::ROLE_BINDINGS,
            };
            // The node authorizer is not rebuilt here: node agents have the role of nodes.
            if resource == rbac::CLUSTER_ROLE_BINDINGS && item["metadata"]["name"] == "system:node" {
                item["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]);
            }
            writes.push((resource, item));
        }
        // All at once, so that the writer commits them as one group.
        let all = writes
            .into_iter()
            .map(|(resource, obj)| self.put_if_absent(resource, obj));
        for result in futures::future::join_all(all).await {
            result?;
        }
        if crate::background::aggregate_cluster_roles(self).await {
            return Ok(());
        }
        Err(WriteError::Broken(
            "roles that are made of others cannot be written".to_owned(),
        ))
    }

    /// Makes the Service `default/kubernetes` with the address at which Pods reach this server over HTTPS.
    pub async fn publish_endpoint(&self, address: std::net::SocketAddr) -> Result<(), WriteError> {
        let service_ip = self.inner.config.service_cidr.address(1).to_string();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        self.put_if_absent(
            "/services",
            json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
                "spec": {"clusterIP": service_ip, "clusterIPs": [service_ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": address.port()}]},
                "status": {"loadBalancer": {}}}),
        )
        .await?;
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": address.ip().to_string()}], "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]}]});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]});
        for (resource, obj) in [
            ("/endpoints", endpoints),
            ("discovery.k8s.io/endpointslices", slice),
        ] {
            let key = Key {
                resource: resource.into(),
                namespace: "default".into(),
                name: "kubernetes".into(),
            };
            match self.inner.store.get(resource, "default", "kubernetes") {
                None => self.put_if_absent(resource, obj).await?,
                Some(old) => {
                    let mut new = with_identity(obj);
                    new["metadata"] = old.value()["metadata"].clone();
                    self.inner.store.put(key, Expect::Version(old.rv), new).await?;
                }
            }
        }
        Ok(())
    }
}
