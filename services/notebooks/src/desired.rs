//! The StatefulSet and Service of a notebook: pure functions of it, with the defaults of Kubeflow's notebook controller.

use std::collections::BTreeMap;

use ferroflow_api::crd::notebooks::{Notebook, NotebookStatus};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ContainerPort, EnvVar, Pod, PodSecurityContext, PodTemplateSpec, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

/// The annotation that stops a notebook.
pub(crate) const STOPPED: &str = "kubeflow-resource-stopped";
const HOME: &str = "/home/jovyan";
const PORT: i32 = 8888;
const JOVYAN_GROUP: i64 = 100;

/// The path of a notebook under the gateway, without a final slash.
pub(crate) fn prefix(namespace: &str, name: &str) -> String {
    format!("/notebook/{namespace}/{name}")
}

fn meta(notebook: &Notebook) -> ObjectMeta {
    ObjectMeta {
        name: Some(notebook.name_any()),
        namespace: notebook.namespace(),
        owner_references: notebook.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..Default::default()
    }
}

/// The StatefulSet that runs the notebook's one Pod.
pub(crate) fn stateful_set(notebook: &Notebook) -> StatefulSet {
    let (name, namespace) = (notebook.name_any(), notebook.namespace().unwrap_or_default());
    let mut spec = notebook.spec.template.spec.clone();
    if let Some(main) = spec.containers.first_mut() {
        main.working_dir.get_or_insert_with(|| HOME.to_owned());
        if main.ports.as_ref().is_none_or(Vec::is_empty) {
            let port = ContainerPort {
                container_port: PORT,
                name: Some("notebook-port".to_owned()),
                protocol: Some("TCP".to_owned()),
                ..Default::default()
            };
            main.ports = Some(vec![port]);
        }
        let env = main.env.get_or_insert_default();
        env.retain(|var| var.name != "NB_PREFIX");
        env.push(EnvVar {
            name: "NB_PREFIX".to_owned(),
            value: Some(prefix(&namespace, &name)),
            value_from: None,
        });
    }
    spec.security_context.get_or_insert_with(|| PodSecurityContext {
        fs_group: Some(JOVYAN_GROUP),
        ..Default::default()
    });
    let selector = BTreeMap::from([("statefulset".to_owned(), name.clone())]);
    let mut labels = notebook.labels().clone();
    labels.extend(selector.clone());
    labels.insert("notebook-name".to_owned(), name.clone());
    let foreign = |key: &String| !key.contains("kubectl") && !key.contains("notebook") && key != STOPPED;
    let annotations = notebook.annotations().iter().filter(|(key, _)| foreign(key));
    let annotations: BTreeMap<_, _> = annotations.map(|(k, v)| (k.clone(), v.clone())).collect();
    StatefulSet {
        metadata: meta(notebook),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(!notebook.annotations().contains_key(STOPPED))),
            service_name: Some(name),
            selector: LabelSelector {
                match_labels: Some(selector),
                ..Default::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations),
                    ..Default::default()
                }),
                spec: Some(spec),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The Service through which the gateway reaches the notebook.
pub(crate) fn service(notebook: &Notebook) -> Service {
    let name = notebook.name_any();
    let first = notebook.spec.template.spec.containers.first();
    let port = first
        .and_then(|c| c.ports.as_ref()?.first().map(|p| p.container_port))
        .unwrap_or(PORT);
    Service {
        metadata: meta(notebook),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(BTreeMap::from([("statefulset".to_owned(), name.clone())])),
            ports: Some(vec![ServicePort {
                name: Some(format!("http-{name}")),
                port: 80,
                target_port: Some(IntOrString::Int(port)),
                protocol: Some("TCP".to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The status that StatefulSet and Pod amount to.
pub(crate) fn status(notebook: &Notebook, set: &StatefulSet, pod: Option<&Pod>) -> NotebookStatus {
    let ready_replicas = set
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let pod_status = pod.and_then(|pod| pod.status.as_ref());
    let name = notebook.name_any();
    let containers = pod_status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten();
    let container_state = containers
        .filter(|c| c.name == name)
        .find_map(|c| c.state.clone())
        .unwrap_or_default();
    let conditions = pod_status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    let conditions = conditions
        .map(|c| {
            json!({
                "type": c.type_, "status": c.status, "reason": c.reason, "message": c.message,
                "lastTransitionTime": c.last_transition_time, "lastProbeTime": c.last_probe_time,
            })
        })
        .collect();
    NotebookStatus {
        conditions,
        ready_replicas,
        container_state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferroflow_api::crd::notebooks::{NotebookSpec, NotebookTemplate};
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    fn notebook() -> Notebook {
        let container = Container {
            name: "nb".into(),
            image: Some("jupyter".into()),
            ..Default::default()
        };
        let spec = PodSpec {
            containers: vec![container],
            ..Default::default()
        };
        let mut notebook = Notebook::new(
            "nb",
            NotebookSpec {
                template: NotebookTemplate { spec },
            },
        );
        notebook.metadata.namespace = Some("team".into());
        notebook.metadata.uid = Some("u".into());
        notebook
    }

    #[test]
    fn the_pod_gets_prefix_port_and_home() {
        let set = stateful_set(&notebook()).spec.unwrap();
        let pod = set.template.spec.unwrap();
        let main = &pod.containers[0];
        assert_eq!(
            main.env.as_ref().unwrap()[0].value.as_deref(),
            Some("/notebook/team/nb")
        );
        assert_eq!(main.ports.as_ref().unwrap()[0].container_port, 8888);
        assert_eq!(main.working_dir.as_deref(), Some("/home/jovyan"));
        assert_eq!(set.replicas, Some(1));
    }

    #[test]
    fn the_stop_annotation_scales_to_zero_and_stays_off_the_pod() {
        let mut stopped = notebook();
        stopped.metadata.annotations = Some([(STOPPED.to_owned(), "now".to_owned())].into());
        let set = stateful_set(&stopped).spec.unwrap();
        assert_eq!(set.replicas, Some(0));
        assert!(set.template.metadata.unwrap().annotations.unwrap().is_empty());
    }

    #[test]
    fn the_service_points_at_the_containers_own_port() {
        let mut own = notebook();
        own.spec.template.spec.containers[0].ports = Some(vec![ContainerPort {
            container_port: 9000,
            ..Default::default()
        }]);
        let ports = service(&own).spec.unwrap().ports.unwrap();
        assert_eq!(ports[0].target_port, Some(IntOrString::Int(9000)));
    }
}
