//! What the status says, from what is seen.

use super::{Failure, FailureReason, Selected, ServingConfig};
use ferroflow_api::crd::serving::{
    Address, ComponentStatus, FailureInfo, InferenceService, InferenceServiceStatus, ModelCopies,
    ModelStates, ModelStatus, ServingCondition,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What the controller sees besides the InferenceService.
#[derive(Debug, Default)]
pub struct Observed<'a> {
    /// The runtime in use; `None` for a custom predictor.
    pub runtime: Option<&'a Selected>,
    /// Why there is no runtime or no Deployment.
    pub failure: Option<&'a Failure>,
    /// The Deployment, as the API has it now.
    pub deployment: Option<&'a Deployment>,
    /// Pods of the predictor.
    pub pods: &'a [Pod],
}

/// What a Pod says about its model.
#[derive(Debug, PartialEq)]
enum Copy {
    Pending,
    Loading,
    Loaded,
    Failed(FailureInfo),
}

/// Computes the status. Times of conditions that do not change are kept from the old status.
pub fn status(
    service: &InferenceService,
    observed: &Observed<'_>,
    now: Timestamp,
    config: &ServingConfig,
) -> InferenceServiceStatus {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let predictor = format!("{name}-predictor");
    let old = service.status.clone().unwrap_or_default();
    let rollout = rollout(observed.deployment);
    let copies: Vec<Copy> = observed.pods.iter().filter(|pod| alive(pod)).map(copy).collect();
    let ready = observed.failure.is_none() && rollout == Rollout::Done;
    let available = observed.failure.is_none() && rollout != Rollout::Unavailable;

    let predictor_ready = predictor_condition(observed, &rollout, &copies);
    let ingress_ready = if available {
        condition("IngressReady", "True", None, None)
    } else {
        condition(
            "IngressReady",
            "False",
            Some("PredictorNotReady"),
            Some("the predictor is not ready".into()),
        )
    };
    // As KServe: the first condition that is not true speaks for all.
    let whole = [&predictor_ready, &ingress_ready]
        .into_iter()
        .find(|condition| condition.status != "True");
    let whole = match whole {
        None => condition("Ready", "True", None, None),
        Some(worst) => ServingCondition {
            type_: "Ready".into(),
            ..worst.clone()
        },
    };
    let mut conditions = vec![ingress_ready, predictor_ready, whole];
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    for condition in &mut conditions {
        let before = old
            .conditions
            .iter()
            .find(|before| before.type_ == condition.type_);
        let since = before.filter(|before| before.status == condition.status);
        let since = since.and_then(|before| before.last_transition_time.clone());
        condition.last_transition_time = Some(since.unwrap_or_else(|| seconds(now)));
    }
    let url = config.url(&name, &namespace);
    let component = ComponentStatus {
        url: Some(config.url(&predictor, &namespace)),
        address: Some(Address {
            url: Some(config.address(&predictor, &namespace)),
        }),
        ..ComponentStatus::default()
    };
    InferenceServiceStatus {
        observed_generation: service.metadata.generation,
        conditions,
        url: Some(url),
        address: Some(Address {
            url: Some(config.address(&predictor, &namespace)),
        }),
        components: BTreeMap::from([("predictor".to_owned(), component)]),
        model_status: model_status(observed, &old.model_status, ready, available, &copies, now),
        deployment_mode: Some("Standard".into()),
        serving_runtime_name: observed
            .runtime
            .filter(|runtime| !runtime.cluster)
            .map(|runtime| runtime.name.clone()),
        cluster_serving_runtime_name: observed
            .runtime
            .filter(|runtime| runtime.cluster)
            .map(|runtime| runtime.name.clone()),
    }
}

/// How far the Deployment is.
#[derive(Debug, PartialEq)]
enum Rollout {
    /// Nothing answers.
    Unavailable,
    /// Something answers, but not yet (only) what the spec asks for.
    Partly,
    /// Everything that the spec asks for answers.
    Done,
}

fn rollout(deployment: Option<&Deployment>) -> Rollout {
    let Some((deployment, status)) = deployment.and_then(|found| Some((found, found.status.as_ref()?)))
    else {
        return Rollout::Unavailable;
    };
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let available = status.available_replicas.unwrap_or(0);
    if available < 1 {
        return Rollout::Unavailable;
    }
    let current = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0) >= wanted && status.replicas.unwrap_or(0) <= wanted;
    if current && updated && available >= wanted {
        Rollout::Done
    } else {
        Rollout::Partly
    }
}

fn condition(kind: &str, status: &str, reason: Option<&str>, message: Option<String>) -> ServingCondition {
    ServingCondition {
        last_transition_time: None,
        reason: reason.map(str::to_owned),
        message,
        status: status.into(),
        type_: kind.into(),
    }
}

fn predictor_condition(observed: &Observed<'_>, rollout: &Rollout, copies: &[Copy]) -> ServingCondition {
    let kind = "PredictorReady";
    if let Some(failure) = observed.failure {
        return condition(
            kind,
            "False",
            Some(&failure.reason.to_string()),
            Some(failure.message.clone()),
        );
    }
    if *rollout != Rollout::Unavailable {
        return condition(kind, "True", None, None);
    }
    let failed = copies.iter().find_map(|copy| match copy {
        Copy::Failed(info) => Some(info),
        _ => None,
    });
    if let Some(info) = failed {
        return condition(kind, "False", info.reason.as_deref(), info.message.clone());
    }
    let conditions = observed
        .deployment
        .and_then(|found| found.status.as_ref()?.conditions.as_ref());
    let find = |kind: &str| conditions.and_then(|all| all.iter().find(|condition| condition.type_ == kind));
    if let Some(stuck) = find("Progressing").filter(|condition| condition.status == "False") {
        return condition(kind, "False", stuck.reason.as_deref(), stuck.message.clone());
    }
    match find("Available") {
        Some(available) => condition(
            kind,
            "False",
            available.reason.as_deref(),
            available.message.clone(),
        ),
        None => condition(
            kind,
            "Unknown",
            Some("DeploymentProgressing"),
            Some("the deployment has not started yet".into()),
        ),
    }
}

fn model_status(
    observed: &Observed<'_>,
    old: &ModelStatus,
    ready: bool,
    available: bool,
    copies: &[Copy],
    now: Timestamp,
) -> ModelStatus {
    let failed = copies
        .iter()
        .filter(|copy| matches!(copy, Copy::Failed(_)))
        .count();
    let counted = ModelCopies {
        failed_copies: i32::try_from(failed).unwrap_or(i32::MAX),
        total_copies: i32::try_from(copies.len()).unwrap_or(i32::MAX),
    };
    let states = |active: &str, target: &str| {
        Some(ModelStates {
            active_model_state: active.into(),
            target_model_state: target.into(),
        })
    };
    if let Some(failure) = observed.failure {
        let info = FailureInfo {
            reason: Some(failure.reason.to_string()),
            message: Some(failure.message.clone()),
            ..FailureInfo::default()
        };
        let load = failure.reason == FailureReason::ModelLoadFailed;
        return ModelStatus {
            transition_status: if load {
                "BlockedByFailedLoad"
            } else {
                "InvalidSpec"
            }
            .into(),
            states: states(
                if available { "Loaded" } else { "" },
                if load { "FailedToLoad" } else { "Pending" },
            ),
            copies: None,
            last_failure_info: Some(since(info, old, now)),
        };
    }
    if ready {
        return ModelStatus {
            transition_status: "UpToDate".into(),
            states: states("Loaded", "Loaded"),
            copies: Some(counted),
            last_failure_info: None,
        };
    }
    let active = if available { "Loaded" } else { "" };
    let info = copies.iter().find_map(|copy| match copy {
        Copy::Failed(info) => Some(info.clone()),
        _ => None,
    });
    if let Some(info) = info {
        return ModelStatus {
            transition_status: "BlockedByFailedLoad".into(),
            states: states(active, "FailedToLoad"),
            copies: Some(counted),
            last_failure_info: Some(since(info, old, now)),
        };
    }
    let target = if copies
        .iter()
        .any(|copy| matches!(copy, Copy::Loading | Copy::Loaded))
    {
        "Loading"
    } else {
        "Pending"
    };
    ModelStatus {
        transition_status: "InProgress".into(),
        states: states(active, target),
        copies: Some(counted),
        last_failure_info: None,
    }
}

/// Keeps the time of a failure that was there before.
fn since(mut info: FailureInfo, old: &ModelStatus, now: Timestamp) -> FailureInfo {
    let before = old.last_failure_info.as_ref().filter(|before| {
        (&before.reason, &before.message, &before.location) == (&info.reason, &info.message, &info.location)
    });
    info.time = before
        .and_then(|before| before.time.clone())
        .or_else(|| Some(seconds(now)));
    info
}

fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A Pod that counts: not on its way out, and not one that the node had to give up.
fn alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase != Some("Failed") && phase != Some("Succeeded")
}

fn copy(pod: &Pod) -> Copy {
    let Some(status) = &pod.status else {
        return Copy::Pending;
    };
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let main = status.container_statuses.as_deref().unwrap_or_default();
    for container in init.iter().chain(main) {
        if let Some(mut info) = failed(container) {
            // A fetch or a server that ends could not load its model; what cannot start has no fault of the model.
            let ended = info.exit_code.is_some();
            info.reason = Some(
                if ended {
                    "ModelLoadFailed"
                } else {
                    "RuntimeUnhealthy"
                }
                .into(),
            );
            info.location = Some(pod.name_any());
            return Copy::Failed(info);
        }
    }
    if !main.is_empty() && main.iter().all(|container| container.ready) {
        return Copy::Loaded;
    }
    let initialized = init.iter().all(|container| {
        container
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .is_some_and(|ended| ended.exit_code == 0)
    });
    let running = main.iter().any(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    });
    if initialized && running {
        Copy::Loading
    } else {
        Copy::Pending
    }
}

/// Whether a container has failed and not recovered: how it ended, or why it cannot start.
fn failed(container: &ContainerStatus) -> Option<FailureInfo> {
    if container.ready {
        return None;
    }
    let state = container.state.as_ref();
    let last = container.last_state.as_ref();
    let ended = [state, last]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated.as_ref());
    if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
        // While it runs again after a failure, nothing is known yet of this attempt; the old failure stands.
        let text = ended
            .message
            .as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty());
        let text = text.map_or_else(
            || {
                format!(
                    "container {:?} exited with code {}",
                    container.name, ended.exit_code
                )
            },
            tail,
        );
        return Some(FailureInfo {
            message: Some(text),
            exit_code: Some(ended.exit_code),
            ..FailureInfo::default()
        });
    }
    let waiting = state.and_then(|state| state.waiting.as_ref())?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let stuck = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ];
    stuck.contains(&reason).then(|| FailureInfo {
        message: Some(format!(
            "{reason}: {}",
            waiting.message.as_deref().unwrap_or_default()
        )),
        ..FailureInfo::default()
    })
}

/// The last line of what a container printed, which is its error.
fn tail(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
