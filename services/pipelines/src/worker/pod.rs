//! The Pod of an attempt, and what a Pod's status says.

use std::collections::BTreeMap;

use ferroflow_api::step::{ENV_ARTIFACTS_URL, ENV_HINT_URL, ENV_TOKEN, StepTrace};
use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, ConfigMapKeySelector, ConfigMapVolumeSource, Container, ContainerState,
    EmptyDirVolumeSource, EnvFromSource, EnvVar, EnvVarSource, ImageVolumeSource, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod, PodSpec,
    ResourceRequirements, SecretKeySelector, SecretVolumeSource, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::artifacts::Credentials;
use crate::domain::run::{RunSpec, derived_id};
use crate::domain::step::{StepPlan, task_id};
use crate::options::Options;

/// Label with the run's id, as upstream names it.
pub const RUN_LABEL: &str = "pipeline/runid";
/// Label with the task's id.
pub const TASK_LABEL: &str = "ferroflow.dev/task-id";
/// Label with the number of the attempt.
pub const ATTEMPT_LABEL: &str = "ferroflow.dev/attempt";
/// Annotation with the task's path.
pub const TASK_ANNOTATION: &str = "ferroflow.dev/task";
/// The kernel takes no argument longer than 128 KiB.
const PIECE: usize = 100_000;

/// Name of an attempt's Pod: always the same for the same attempt.
pub fn name(resource_name: &str, run_id: &str, path: &str, attempt: u32) -> String {
    let task = slug(path.rsplit('/').next().unwrap_or(path));
    let digest = derived_id(&["pod", run_id, path, &attempt.to_string()]);
    let head: String = resource_name.chars().take(28).collect();
    let task: String = task.chars().take(24).collect();
    let digest: String = digest.chars().take(8).collect();
    format!(
        "{}-{}-{digest}",
        head.trim_end_matches('-'),
        task.trim_matches('-')
    )
}

/// A text made fit for a Kubernetes name.
pub fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let clean: String = lower
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let clean = clean.trim_matches('-');
    if clean.is_empty() {
        "x".to_owned()
    } else {
        clean.to_owned()
    }
}

/// What a Pod is made of.
pub struct Parts<'a> {
    /// The run.
    pub run: &'a RunSpec,
    /// As whom it runs.
    pub service_account: &'a str,
    /// The attempt.
    pub plan: &'a StepPlan,
    /// Credentials of the attempt.
    pub credentials: &'a Credentials,
    /// Path of the hint.
    pub hint: &'a str,
    /// Options of the service.
    pub options: &'a Options,
}

/// Builds the Pod.
///
/// # Errors
/// What in the PlatformSpec cannot be used.
pub fn build(parts: &Parts<'_>) -> Result<Pod, String> {
    let Parts {
        run,
        service_account,
        plan,
        credentials,
        hint,
        options,
    } = parts;
    let step = &plan.step;
    // `$` starts a variable reference in a container's arguments; inside JSON text it has another spelling.
    let text = serde_json::to_string(step)
        .map_err(|error| error.to_string())?
        .replace('$', "\\u0024");
    let mut args = vec!["run-step".to_owned()];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let mut cut = rest.len().min(PIECE);
        while !rest.is_char_boundary(cut) {
            cut -= 1;
        }
        args.extend(["--step".to_owned(), rest[..cut].to_owned()]);
        rest = &rest[cut..];
    }
    let plain = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    };
    let mut env = vec![
        plain(ENV_ARTIFACTS_URL, &options.artifacts_url),
        plain(ENV_HINT_URL, &format!("{}{hint}", options.pipelines_url)),
        plain(ENV_TOKEN, &credentials.token),
        plain("KFP_RUN_ID", &run.run_id),
        field("KFP_POD_NAME", "metadata.name"),
        field("KFP_POD_UID", "metadata.uid"),
        field("NAMESPACE", "metadata.namespace"),
    ];
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", credentials.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &credentials.secret_key),
        ("AWS_ENDPOINT_URL", &credentials.endpoint),
        ("AWS_ENDPOINT_URL_S3", &credentials.endpoint),
        ("AWS_REGION", "us-east-1"),
    ] {
        if !value.is_empty() {
            env.push(plain(name, value));
        }
    }
    for (name, value) in step.trace.iter().flat_map(StepTrace::environment) {
        env.push(plain(name, value));
    }
    for (name, value) in options.step_env.iter().chain(&plan.env) {
        env.retain(|variable| variable.name != *name);
        // A value is the user's text, not a reference to other variables.
        env.push(plain(name, &value.replace("$(", "$$(")));
    }
    let mut volumes = vec![Volume {
        name: "ferroflow-launcher".to_owned(),
        image: Some(ImageVolumeSource {
            reference: Some(options.launcher_image.clone()),
            pull_policy: Some("IfNotPresent".to_owned()),
        }),
        ..Volume::default()
    }];
    let mut mounts = vec![VolumeMount {
        name: "ferroflow-launcher".to_owned(),
        mount_path: "/ferroflow".to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }];
    for root in &plan.roots {
        let name = format!("ferroflow{}", root.replace('/', "-"));
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: (*root).to_owned(),
            ..VolumeMount::default()
        });
        volumes.push(Volume {
            name,
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    let quantities = |all: &BTreeMap<String, String>| {
        Some(
            all.iter()
                .map(|(k, v)| (k.clone(), Quantity(v.clone())))
                .collect::<BTreeMap<_, _>>(),
        )
        .filter(|all| !all.is_empty())
    };
    let resources = ResourceRequirements {
        limits: quantities(&plan.limits),
        requests: quantities(&plan.requests),
        ..ResourceRequirements::default()
    };
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(name(&run.resource_name, &run.run_id, &step.task, step.attempt)),
            namespace: Some(run.namespace.clone()),
            labels: Some(BTreeMap::from([
                (RUN_LABEL.to_owned(), run.run_id.clone()),
                ("ferroflow.dev/run".to_owned(), run.run_id.clone()),
                (TASK_LABEL.to_owned(), task_id(&run.run_id, &step.task)),
                (ATTEMPT_LABEL.to_owned(), step.attempt.to_string()),
                (
                    "app.kubernetes.io/managed-by".to_owned(),
                    "ferroflow-pipelines".to_owned(),
                ),
            ])),
            annotations: Some(BTreeMap::from([(TASK_ANNOTATION.to_owned(), step.task.clone())])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: Some((*service_account).to_owned()),
            enable_service_links: Some(false),
            containers: vec![Container {
                name: "main".to_owned(),
                image: Some(plan.image.clone()),
                command: Some(vec!["/ferroflow/launcher".to_owned()]),
                args: Some(args),
                env: Some(env),
                resources: Some(resources),
                volume_mounts: Some(mounts),
                ..Container::default()
            }],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        status: None,
    };
    if let Some(platform) = &plan.kubernetes {
        apply_platform(&mut pod, platform)?;
    }
    Ok(pod)
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// `KubernetesExecutorConfig` of the PlatformSpec, with its parameters resolved.
fn apply_platform(pod: &mut Pod, platform: &Value) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "secretAsEnv",
        "secretAsVolume",
        "configMapAsEnv",
        "configMapAsVolume",
        "pvcMount",
        "emptyDirMounts",
        "podMetadata",
        "nodeSelector",
        "tolerations",
        "imagePullSecret",
        "imagePullPolicy",
        "fieldPathAsEnv",
        "activeDeadlineSeconds",
        "enabledSharedMemory",
    ];
    let fields = platform.as_object();
    if let Some((unknown, _)) = fields
        .into_iter()
        .flatten()
        .find(|(key, value)| !KNOWN.contains(&key.as_str()) && !is_empty(value))
    {
        return Err(format!(
            "platform_spec: {unknown} is not implemented yet; see docs/status.md for what kfp-kubernetes can use"
        ));
    }
    let Pod {
        metadata,
        spec: Some(spec),
        ..
    } = pod
    else {
        return Ok(());
    };
    let Some(container) = spec.containers.first_mut() else {
        return Ok(());
    };
    let env = container.env.get_or_insert_default();
    let mounts = container.volume_mounts.get_or_insert_default();
    let volumes = spec.volumes.get_or_insert_default();
    let each = |name: &str| platform[name].as_array().cloned().unwrap_or_default();
    for secret in each("secretAsEnv") {
        let name = named(&secret, "secretName")?;
        for pair in secret["keyToEnv"].as_array().into_iter().flatten() {
            env.push(EnvVar {
                name: text(&pair["envVar"]),
                value_from: Some(EnvVarSource {
                    secret_key_ref: Some(SecretKeySelector {
                        name: name.clone(),
                        key: text(&pair["secretKey"]),
                        optional: secret["optional"].as_bool(),
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
    }
    for map in each("configMapAsEnv") {
        let name = named(&map, "configMapName")?;
        let pairs = map["keyToEnv"].as_array().cloned().unwrap_or_default();
        if pairs.is_empty() {
            container.env_from.get_or_insert_default().push(EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource {
                    name: name.clone(),
                    optional: map["optional"].as_bool(),
                }),
                ..EnvFromSource::default()
            });
        }
        for pair in pairs {
            env.push(EnvVar {
                name: text(&pair["envVar"]),
                value_from: Some(EnvVarSource {
                    config_map_key_ref: Some(ConfigMapKeySelector {
                        name: name.clone(),
                        key: text(&pair["configMapKey"]),
                        optional: map["optional"].as_bool(),
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
    }
    for item in each("fieldPathAsEnv") {
        env.push(field(&text(&item["name"]), &text(&item["fieldPath"])));
    }
    let mut mount = |volume: Volume, path: String, sub_path: Option<String>| {
        mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path,
            sub_path,
            ..VolumeMount::default()
        });
        if !volumes.iter().any(|v| v.name == volume.name) {
            volumes.push(volume);
        }
    };
    for secret in each("secretAsVolume") {
        let name = named(&secret, "secretName")?;
        let source = SecretVolumeSource {
            secret_name: Some(name.clone()),
            optional: secret["optional"].as_bool(),
            items: None::<Vec<KeyToPath>>,
            ..SecretVolumeSource::default()
        };
        let volume = Volume {
            name: slug(&name),
            secret: Some(source),
            ..Volume::default()
        };
        mount(volume, text(&secret["mountPath"]), None);
    }
    for map in each("configMapAsVolume") {
        let name = named(&map, "configMapName")?;
        let source = ConfigMapVolumeSource {
            name: name.clone(),
            optional: map["optional"].as_bool(),
            ..ConfigMapVolumeSource::default()
        };
        let volume = Volume {
            name: slug(&name),
            config_map: Some(source),
            ..Volume::default()
        };
        mount(volume, text(&map["mountPath"]), None);
    }
    for claim in each("pvcMount") {
        let name = match &claim["pvcNameParameter"] {
            Value::String(name) => name.clone(),
            _ => text(&claim["constant"]),
        };
        if name.is_empty() {
            return Err("platform_spec.pvcMount: a claim made by the same pipeline is not implemented yet; name an existing one".to_owned());
        }
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: name.clone(),
            ..Default::default()
        };
        let volume = Volume {
            name: slug(&name),
            persistent_volume_claim: Some(source),
            ..Volume::default()
        };
        let sub_path = Some(text(&claim["subPath"])).filter(|path| !path.is_empty());
        mount(volume, text(&claim["mountPath"]), sub_path);
    }
    for folder in each("emptyDirMounts") {
        let source = EmptyDirVolumeSource {
            medium: folder["medium"].as_str().map(str::to_owned),
            size_limit: folder["sizeLimit"].as_str().map(|size| Quantity(size.to_owned())),
        };
        let volume = Volume {
            name: text(&folder["volumeName"]),
            empty_dir: Some(source),
            ..Volume::default()
        };
        mount(volume, text(&folder["mountPath"]), None);
    }
    if platform["enabledSharedMemory"].is_object() {
        let size = platform["enabledSharedMemory"]["size"]
            .as_str()
            .filter(|s| !s.is_empty());
        let source = EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: size.map(|s| Quantity(s.to_owned())),
        };
        let volume = Volume {
            name: "shm".to_owned(),
            empty_dir: Some(source),
            ..Volume::default()
        };
        mount(volume, "/dev/shm".to_owned(), None);
    }
    let texts = |value: &Value| -> BTreeMap<String, String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect()
    };
    // What the scheduler itself wrote stays: it finds its Pods by it.
    for (ours, theirs) in [
        (
            metadata.labels.get_or_insert_default(),
            texts(&platform["podMetadata"]["labels"]),
        ),
        (
            metadata.annotations.get_or_insert_default(),
            texts(&platform["podMetadata"]["annotations"]),
        ),
    ] {
        for (key, value) in theirs {
            ours.entry(key).or_insert(value);
        }
    }
    let selector = match &platform["nodeSelector"] {
        Value::Object(selector) if selector.contains_key("nodeSelectorJson") => {
            texts(&selector["nodeSelectorJson"])
        }
        selector => texts(&selector["labels"]),
    };
    if !selector.is_empty() {
        spec.node_selector = Some(selector);
    }
    for item in each("tolerations") {
        let item = if item["tolerationJson"].is_object() {
            item["tolerationJson"].clone()
        } else {
            item
        };
        let toleration: Toleration =
            serde_json::from_value(item).map_err(|error| format!("platform_spec.tolerations: {error}"))?;
        spec.tolerations.get_or_insert_default().push(toleration);
    }
    for secret in each("imagePullSecret") {
        let name = named(&secret, "secretName")?;
        spec.image_pull_secrets
            .get_or_insert_default()
            .push(LocalObjectReference { name });
    }
    if let Some(policy) = platform["imagePullPolicy"].as_str() {
        container.image_pull_policy = Some(policy.to_owned());
    }
    let seconds = &platform["activeDeadlineSeconds"];
    spec.active_deadline_seconds = seconds
        .as_i64()
        .or_else(|| seconds.as_str()?.parse().ok())
        .filter(|s| *s > 0);
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(
        || {
            if value.is_null() {
                String::new()
            } else {
                value.to_string()
            }
        },
        str::to_owned,
    )
}

/// `<field>Parameter` where there is one, else `<field>`.
fn named(item: &Value, field: &str) -> Result<String, String> {
    let resolved = item[format!("{field}Parameter")]
        .as_str()
        .or_else(|| item[field].as_str());
    resolved
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| format!("platform_spec: {field} has no value"))
}

/// What a Pod's status says about its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It waits or runs.
    Alive,
    /// It cannot start; it may yet.
    Troubled(String),
    /// It is over; the text says why there may be no outcome.
    Over(String),
    /// It was ended from outside, whatever its outcome says.
    Killed(String),
}

/// Of an attempt whose Pod somebody removed.
pub const DELETED: &str = "its Pod was deleted while it ran";

/// Reads a Pod's status.
pub fn verdict(pod: &Pod) -> Verdict {
    let Some(status) = &pod.status else {
        return Verdict::Alive;
    };
    let containers = status.container_statuses.iter().flatten();
    let all = status.init_container_statuses.iter().flatten().chain(containers);
    match status.phase.as_deref() {
        Some("Succeeded") => return Verdict::Over("the step ended without an outcome".to_owned()),
        Some("Failed") => {
            // of the Pod as a whole: its node or its deadline ended it
            if let Some(reason) = status.reason.as_deref() {
                return Verdict::Killed(ended_as_a_whole(pod, reason, status.message.as_deref()));
            }
            let mut why = status.message.clone();
            for container in all {
                if let Some(ended) = container
                    .state
                    .as_ref()
                    .and_then(|state| state.terminated.as_ref())
                    && ended.exit_code != 0
                {
                    if ended.reason.as_deref() == Some("OOMKilled") {
                        let why = out_of_memory(pod, &container.name);
                        return Verdict::Killed(format!("exit code {}: {why}", ended.exit_code));
                    }
                    let reason = ended.reason.as_deref().filter(|r| *r != "Error");
                    let detail = ended
                        .message
                        .as_deref()
                        .or(reason)
                        .unwrap_or("the launcher could not finish");
                    why = Some(format!("exit code {}: {}", ended.exit_code, detail.trim()));
                }
            }
            if pod.metadata.deletion_timestamp.is_some() {
                return Verdict::Killed(DELETED.to_owned());
            }
            return Verdict::Over(why.unwrap_or_else(|| "the Pod failed".to_owned()));
        }
        _ => {}
    }
    for container in all {
        let Some(ContainerState {
            waiting: Some(waiting),
            ..
        }) = &container.state
        else {
            continue;
        };
        let reason = waiting.reason.as_deref().unwrap_or_default();
        if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            let detail = waiting.message.as_deref().unwrap_or("no message");
            return Verdict::Troubled(format!("{reason}: {detail}"));
        }
    }
    let unscheduled = status.conditions.iter().flatten().find(|c| {
        c.type_ == "PodScheduled" && c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
    });
    match unscheduled {
        Some(condition) => Verdict::Troubled(format!(
            "Unschedulable: {}",
            condition.message.as_deref().unwrap_or("no node fits")
        )),
        None => Verdict::Alive,
    }
}

fn ended_as_a_whole(pod: &Pod, reason: &str, message: Option<&str>) -> String {
    let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    match (reason, deadline) {
        ("DeadlineExceeded", Some(seconds)) => {
            format!(
                "DeadlineExceeded: it ran longer than {seconds} s; allow it more with set_timeout() on the task"
            )
        }
        _ => format!("{reason}: {}", message.unwrap_or("no message")),
    }
}

/// What happened to a container that was killed for memory, and what to do about it.
fn out_of_memory(pod: &Pod, container: &str) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limit = containers
        .filter(|known| known.name == container)
        .find_map(|known| known.resources.as_ref()?.limits.as_ref()?.get("memory"));
    match limit {
        Some(Quantity(limit)) => format!(
            "OOMKilled: it used more than its memory limit of {limit}; raise the limit with set_memory_limit() on the task"
        ),
        None => "OOMKilled: the machine had no memory left, and it has no memory limit of its own; run fewer steps at a time, \
                 or state what it needs with set_memory_request() on the task"
            .to_owned(),
    }
}

/// Whether a trouble will not pass by itself.
pub fn is_hopeless(trouble: &str) -> bool {
    const HOPELESS: &[&str] = &[
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ];
    HOPELESS.iter().any(|reason| trouble.starts_with(reason))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
    }

    #[test]
    fn names_are_labels_and_always_the_same() {
        let long = "x".repeat(80);
        let name = name(&long, "run", "root/A_very_long_task_name_that_goes_on_and_on", 3);
        assert!(ferroflow_kernel::is_dns_label(&name), "{name}");
        assert_eq!(
            name,
            super::name(&long, "run", "root/A_very_long_task_name_that_goes_on_and_on", 3)
        );
        assert_ne!(
            name,
            super::name(&long, "run", "root/A_very_long_task_name_that_goes_on_and_on", 4)
        );
        assert_eq!(slug("__"), "x");
    }

    #[test]
    fn statuses_are_judged() {
        assert_eq!(verdict(&pod(&json!({"phase": "Running"}))), Verdict::Alive);
        let image = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "nothing maps image i"}}}]});
        let trouble = "ErrImagePull: nothing maps image i".to_owned();
        assert!(is_hopeless(&trouble));
        assert_eq!(verdict(&pod(&image)), Verdict::Troubled(trouble));
        let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no"}}}]});
        assert_eq!(verdict(&pod(&ended)), Verdict::Over("exit code 3: no".to_owned()));
        let creating = json!({"phase": "Pending", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}}}]});
        assert_eq!(verdict(&pod(&creating)), Verdict::Alive);
    }

    #[test]
    fn an_end_for_memory_tells_the_limit_and_how_to_raise_it() {
        let status = json!({"phase": "Failed", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let mut killed = pod(&status);
        let told = |pod: &Pod| match verdict(pod) {
            Verdict::Killed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(told(&killed).starts_with("exit code 137: OOMKilled: the machine had no memory left"));
        let spec = json!({"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi"}}}]});
        killed.spec = serde_json::from_value(spec).unwrap();
        let wanted = "exit code 137: OOMKilled: it used more than its memory limit of 64Mi; raise the limit with set_memory_limit() on the task";
        assert_eq!(told(&killed), wanted);
    }

    #[test]
    fn an_end_from_outside_tells_who_ended_it() {
        let container = json!({"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 143, "reason": "Error"}}});
        let mut late = pod(
            &json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active too long", "containerStatuses": [container]}),
        );
        late.spec = serde_json::from_value(json!({"containers": [], "activeDeadlineSeconds": 20})).unwrap();
        let wanted =
            "DeadlineExceeded: it ran longer than 20 s; allow it more with set_timeout() on the task";
        assert_eq!(verdict(&late), Verdict::Killed(wanted.to_owned()));
        let evicted = pod(
            &json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
        );
        let wanted = "Evicted: The node was low on resource: memory.";
        assert_eq!(verdict(&evicted), Verdict::Killed(wanted.to_owned()));
        let mut deleted = pod(&json!({"phase": "Failed", "containerStatuses": [container]}));
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(verdict(&deleted), Verdict::Killed(DELETED.to_owned()));
    }
}
