use super::*;
use crate::runtimes::shipped;

fn service(predictor: Value) -> InferenceService {
    serde_json::from_value(json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "digits", "namespace": "team", "uid": "u1", "labels": {"tier": "gold"}},
        "spec": {"predictor": predictor},
    }))
    .unwrap()
}

fn runtime(name: &str) -> Selected {
    let config = ServingConfig::default();
    let found = shipped(&config)
        .unwrap()
        .into_iter()
        .find(|runtime| runtime.name_any() == name)
        .unwrap();
    Selected {
        name: name.into(),
        cluster: true,
        spec: found.spec.runtime,
    }
}

fn built(predictor: Value, runtime: Option<&Selected>) -> Value {
    let deployment = deployment(
        &service(predictor),
        runtime,
        Some("digits-storage"),
        &ServingConfig::default(),
    )
    .unwrap();
    serde_json::to_value(deployment).unwrap()
}

#[test]
fn a_model_gets_a_fetching_and_a_serving_container() {
    let runtime = runtime("kserve-xgbserver");
    let model = json!({"modelFormat": {"name": "xgboost"}, "storageUri": "s3://b/m", "runtimeVersion": "v9",
        "args": ["--workers=1"], "env": [{"name": "AWS_REGION", "value": "eu"}], "resources": {"requests": {"cpu": "2"}}});
    let built = built(
        json!({"model": model, "serviceAccountName": "robot", "minReplicas": 2, "labels": {"a": "b"}}),
        Some(&runtime),
    );
    assert_eq!(built["metadata"]["name"], "digits-predictor");
    assert_eq!(built["metadata"]["ownerReferences"][0]["uid"], "u1");
    assert_eq!(built["spec"]["replicas"], 2);
    assert_eq!(
        built["spec"]["selector"]["matchLabels"],
        json!({"app": "isvc.digits-predictor"})
    );
    let template = &built["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["a"], "b");
    assert_eq!(
        template["metadata"]["labels"]["serving.kserve.io/inferenceservice"],
        "digits"
    );
    let pod = &template["spec"];
    assert_eq!(pod["serviceAccountName"], "robot");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let init = &pod["initContainers"][0];
    assert_eq!(init["args"], json!(["fetch", "s3://b/m", "/mnt/models"]));
    assert_eq!(
        init["envFrom"],
        json!([{"secretRef": {"name": "digits-storage"}}])
    );
    assert_eq!(init["env"], json!([{"name": "AWS_REGION", "value": "eu"}]));
    let main = &pod["containers"][0];
    assert_eq!(
        (main["name"].as_str(), main["image"].as_str()),
        (Some("kserve-container"), Some("ghcr.io/ferroflow/modelserver:v9"))
    );
    let args = main["args"].as_array().unwrap();
    assert!(
        args.contains(&json!("--model_name=digits")) && args.last() == Some(&json!("--workers=1")),
        "{args:?}"
    );
    assert_eq!(main["resources"]["requests"]["cpu"], "2");
    assert!(
        main["resources"]["requests"]["memory"].is_string(),
        "what the model does not say stays"
    );
    assert_eq!(
        main["volumeMounts"][0],
        json!({"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": true})
    );
    assert_eq!(
        pod["volumes"][0],
        json!({"name": "kserve-provision-location", "emptyDir": {}})
    );
}

#[test]
fn a_claim_is_mounted_and_nothing_fetched() {
    let runtime = runtime("kserve-xgbserver");
    let built = built(
        json!({"model": {"modelFormat": {"name": "xgboost"}, "storageUri": "pvc://models/a/b"}}),
        Some(&runtime),
    );
    let pod = &built["spec"]["template"]["spec"];
    assert!(pod["initContainers"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(
        pod["containers"][0]["volumeMounts"][0],
        json!({"name": "kserve-pvc-source", "mountPath": "/mnt/models", "subPath": "a/b", "readOnly": true})
    );
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "models");
}

#[test]
fn a_custom_predictor_is_the_users_pod() {
    let built = built(
        json!({"containers": [{"name": "mine", "image": "python:3.11", "ports": [{"containerPort": 9000}]}], "nodeName": "n1", "timeout": 5}),
        None,
    );
    let pod = &built["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["readinessProbe"]["tcpSocket"]["port"], 9000);
    assert_eq!(pod["nodeName"], "n1");
    assert!(pod.get("timeout").is_none());
}

#[test]
fn placeholders_are_filled() {
    let service = service(json!({}));
    assert_eq!(
        filled(
            "{{.Name}}-{{ .Labels.tier }}-{{.Annotations.none}}.{{.Other}} {{",
            &service
        ),
        "digits-gold-.{{.Other}} {{"
    );
}

#[test]
fn two_services_lead_to_the_predictor() {
    let services = services(&service(json!({}))).unwrap();
    let names: Vec<String> = services.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["digits-predictor", "digits"]);
    let ports = services[0].spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 8081]);
}
