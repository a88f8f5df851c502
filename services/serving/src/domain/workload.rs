//! The Deployment and the Services of a predictor.

use super::{
    MAIN_CONTAINER, MODEL_DIR, SERVICE_LABEL, STORAGE_INITIALIZER, Selected, ServingConfig, Source, source,
};
use ferroflow_api::crd::serving::{InferenceService, ModelSpec, PredictorSpec};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value, json};

/// Fields of a predictor that are not fields of a Pod.
const NOT_POD: [&str; 10] = [
    "autoScaling",
    "batcher",
    "canaryTrafficPercent",
    "deploymentStrategy",
    "logger",
    "name",
    "scaleMetric",
    "scaleMetricType",
    "scaleTarget",
    "storageUris",
];

/// Builds the Deployment. `runtime` is there when the predictor is a model.
pub fn deployment(
    service: &InferenceService,
    runtime: Option<&Selected>,
    storage_secret: Option<&str>,
    config: &ServingConfig,
) -> Result<Deployment, String> {
    let predictor = &service.spec.predictor;
    let name = format!("{}-predictor", service.name_any());
    let mut pod = pod(service, runtime, storage_secret, config)?;
    let labels = labels(service, runtime);
    let mut annotations: Map<String, Value> = Map::new();
    if let Some(runtime) = runtime {
        annotations.extend(
            runtime
                .spec
                .annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into())),
        );
    }
    annotations.extend(
        predictor
            .annotations
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into())),
    );
    fill(&mut pod, service);
    let replicas = predictor.min_replicas.unwrap_or(1).max(1);
    let strategy = predictor.rest.get("deploymentStrategy").cloned();
    let strategy = strategy.unwrap_or_else(
        || json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
    );
    let value = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, &name, &labels),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector(service)},
            "strategy": strategy,
            "revisionHistoryLimit": 3,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    });
    serde_json::from_value(value).map_err(|error| format!("the predictor does not make a valid Pod: {error}"))
}

/// Builds the Services `<name>-predictor` and `<name>`, which lead to the same Pods.
pub fn services(service: &InferenceService) -> Result<Vec<Service>, String> {
    let name = service.name_any();
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "grpc", "port": 8081, "targetPort": 8081, "protocol": "TCP"},
    ]);
    let labels = labels(service, None);
    let service_of = |name: &str| {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(service, name, &labels),
            "spec": {"type": "ClusterIP", "selector": selector(service), "ports": ports},
        });
        serde_json::from_value(value).map_err(|error| error.to_string())
    };
    Ok(vec![
        service_of(&format!("{name}-predictor"))?,
        service_of(&name)?,
    ])
}

fn selector(service: &InferenceService) -> Value {
    json!({"app": format!("isvc.{}-predictor", service.name_any())})
}

fn labels(service: &InferenceService, runtime: Option<&Selected>) -> Map<String, Value> {
    let mut labels = Map::new();
    if let Some(runtime) = runtime {
        labels.extend(
            runtime
                .spec
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into())),
        );
    }
    let own = service.spec.predictor.labels.iter();
    labels.extend(own.map(|(key, value)| (key.clone(), value.as_str().into())));
    labels.insert(
        "app".into(),
        format!("isvc.{}-predictor", service.name_any()).into(),
    );
    labels.insert("component".into(), "predictor".into());
    labels.insert(SERVICE_LABEL.into(), service.name_any().into());
    labels
}

fn metadata(service: &InferenceService, name: &str, labels: &Map<String, Value>) -> Value {
    json!({
        "name": name,
        "namespace": service.namespace(),
        "labels": labels,
        "ownerReferences": service.controller_owner_ref(&()).map(|owner| vec![owner]),
    })
}

/// The Pod before placeholders are filled in.
fn pod(
    service: &InferenceService,
    runtime: Option<&Selected>,
    storage_secret: Option<&str>,
    config: &ServingConfig,
) -> Result<Value, String> {
    let predictor = &service.spec.predictor;
    let (Some(model), Some(runtime)) = (&predictor.model, runtime) else {
        return custom_pod(predictor);
    };
    let runtime_pod = serde_json::to_value(&runtime.spec.pod).map_err(|error| error.to_string())?;
    let Value::Object(mut pod) = runtime_pod else {
        return Err("the runtime has no Pod".into());
    };
    let mut containers: Vec<Value> = take_list(&mut pod, "containers");
    let at = containers
        .iter()
        .position(|container| container["name"] == MAIN_CONTAINER)
        .unwrap_or(0);
    let Some(main) = containers.get_mut(at) else {
        return Err(format!("runtime {:?} has no containers", runtime.name));
    };
    overlay(main, model);
    mount_model(main, model)?;
    pod.insert("containers".into(), containers.into());
    let mut volumes = take_list(&mut pod, "volumes");
    for volume in &predictor.volumes {
        volumes.push(serde_json::to_value(volume).map_err(|error| error.to_string())?);
    }
    let mut init = take_list(&mut pod, "initContainers");
    if let Some(uri) = &model.storage_uri {
        match source(uri)? {
            Source::Claim(claim, _) => {
                volumes.push(json!({"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}));
            }
            Source::Fetch(uri) => {
                volumes.push(json!({"name": "kserve-provision-location", "emptyDir": {}}));
                init.insert(0, initializer(&uri, model, storage_secret, config));
            }
        }
    }
    pod.insert("volumes".into(), volumes.into());
    pod.insert("initContainers".into(), init.into());
    pod.entry("automountServiceAccountToken")
        .or_insert(Value::Bool(false));
    pod.extend(pod_fields(predictor));
    Ok(Value::Object(pod))
}

fn custom_pod(predictor: &PredictorSpec) -> Result<Value, String> {
    let mut pod = pod_fields(predictor);
    let mut containers = Vec::new();
    for (at, container) in predictor.containers.iter().enumerate() {
        let mut value = serde_json::to_value(container).map_err(|error| error.to_string())?;
        if at == 0 && value["name"].as_str().is_none_or(str::is_empty) {
            value["name"] = MAIN_CONTAINER.into();
        }
        if at == 0 && value["readinessProbe"].is_null() {
            let port = value
                .pointer("/ports/0/containerPort")
                .and_then(Value::as_i64)
                .unwrap_or(8080);
            value["readinessProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
        }
        containers.push(value);
    }
    pod.insert("containers".into(), containers.into());
    let volumes = serde_json::to_value(&predictor.volumes).map_err(|error| error.to_string())?;
    pod.insert("volumes".into(), volumes);
    Ok(Value::Object(pod))
}

/// Fields of the predictor that go to the Pod as they are.
fn pod_fields(predictor: &PredictorSpec) -> Map<String, Value> {
    let fields = predictor.rest.iter().filter(|(key, value)| {
        !NOT_POD.contains(&key.as_str()) && !super::LEGACY_FORMATS.contains(&key.as_str()) && !value.is_null()
    });
    fields.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn take_list(pod: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match pod.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Lays the model's own container fields over the runtime's: lists of named things join by name, arguments are appended.
fn overlay(container: &mut Value, model: &ModelSpec) {
    if let (Some(version), Some(image)) = (&model.runtime_version, container["image"].as_str()) {
        // A colon before the last slash is a port.
        let name_at = image.rfind('/').map_or(0, |at| at + 1);
        let end = image[name_at..]
            .find([':', '@'])
            .map_or(image.len(), |at| name_at + at);
        container["image"] = format!("{}:{version}", &image[..end]).into();
    }
    for (field, value) in &model.container {
        match (field.as_str(), value) {
            (_, Value::Null) | ("name", _) => {}
            ("args", Value::Array(more)) => {
                let mut args = container["args"].as_array().cloned().unwrap_or_default();
                args.extend(more.iter().cloned());
                container["args"] = args.into();
            }
            ("env" | "ports" | "volumeMounts", Value::Array(more)) => {
                let key = if field == "volumeMounts" {
                    "mountPath"
                } else {
                    "name"
                };
                let mut list = container[field.as_str()].as_array().cloned().unwrap_or_default();
                for item in more {
                    list.retain(|old| item[key].is_null() || old[key] != item[key]);
                    list.push(item.clone());
                }
                container[field.as_str()] = list.into();
            }
            ("resources", Value::Object(more)) => {
                for (kind, amounts) in more {
                    match (amounts, container["resources"][kind].as_object_mut()) {
                        (Value::Object(amounts), Some(old)) => old.extend(amounts.clone()),
                        _ => container["resources"][kind] = amounts.clone(),
                    }
                }
            }
            (_, value) => container[field.as_str()] = value.clone(),
        }
    }
    container["name"] = MAIN_CONTAINER.into();
}

fn mount_model(container: &mut Value, model: &ModelSpec) -> Result<(), String> {
    let Some(uri) = &model.storage_uri else {
        return Ok(());
    };
    let mount = match source(uri)? {
        Source::Claim(_, path) if path.is_empty() => {
            json!({"name": "kserve-pvc-source", "mountPath": MODEL_DIR, "readOnly": true})
        }
        Source::Claim(_, path) => {
            json!({"name": "kserve-pvc-source", "mountPath": MODEL_DIR, "subPath": path, "readOnly": true})
        }
        Source::Fetch(_) => {
            json!({"name": "kserve-provision-location", "mountPath": MODEL_DIR, "readOnly": true})
        }
    };
    let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
    mounts.push(mount);
    container["volumeMounts"] = mounts.into();
    Ok(())
}

fn initializer(uri: &str, model: &ModelSpec, secret: Option<&str>, config: &ServingConfig) -> Value {
    let mut env: Vec<Value> = config
        .storage_env
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    // Credentials that the user gives the model's container are for its storage.
    for item in model
        .container
        .get("env")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = item["name"].as_str().unwrap_or_default();
        if ["AWS_", "GOOGLE_", "AZURE_", "S3_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            env.retain(|old| old["name"] != item["name"]);
            env.push(item.clone());
        }
    }
    let secrets: Vec<Value> = secret
        .map(|name| json!({"secretRef": {"name": name}}))
        .into_iter()
        .collect();
    json!({
        "name": STORAGE_INITIALIZER,
        "image": config.modelserver_image,
        "args": ["fetch", uri, MODEL_DIR],
        "env": env,
        "envFrom": secrets,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "kserve-provision-location", "mountPath": MODEL_DIR}],
    })
}

/// Fills `{{.Name}}`, `{{.Labels.x}}` and `{{.Annotations.x}}` in every text.
fn fill(value: &mut Value, service: &InferenceService) {
    match value {
        Value::String(text) if text.contains("{{") => *text = filled(text, service),
        Value::Array(list) => list.iter_mut().for_each(|item| fill(item, service)),
        Value::Object(fields) => fields.values_mut().for_each(|item| fill(item, service)),
        _ => {}
    }
}

fn filled(text: &str, service: &InferenceService) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((inside, tail)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            break;
        };
        let path = inside.trim();
        let value = match path
            .split_once('.')
            .map(|(_, path)| path.split_once('.').unwrap_or((path, "")))
        {
            Some(("Name", "")) => Some(service.name_any()),
            Some(("Namespace", "")) => service.namespace(),
            Some(("Labels", key)) => Some(service.labels().get(key).cloned().unwrap_or_default()),
            Some(("Annotations", key)) => Some(service.annotations().get(key).cloned().unwrap_or_default()),
            _ => None,
        };
        match value {
            Some(value) => out.push_str(&value),
            None => {
                out.push_str("{{");
                out.push_str(inside);
                out.push_str("}}");
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
