//! Which Pods report the metrics of a trial, and how they are made to.
//!
//! Katib puts a second container beside the one that trains. Ferroflow puts its launcher in front of the command: it copies
//! what the command prints, reports metrics while the command runs and waits for the last report before it ends. There is no
//! second process to outlive, no shared process namespace, and a trial may start as many processes as it likes.

use std::collections::BTreeMap;

use ferroflow_api::crd::tuning::Trial;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ImageVolumeSource, ObjectFieldSelector, Pod,
    Volume, VolumeMount,
};

/// Label with the trial's name, on every Pod of a trial.
pub const TRIAL_LABEL: &str = "katib.kubeflow.org/trial";
/// Label with the experiment's name, on every trial.
pub const EXPERIMENT_LABEL: &str = "katib.kubeflow.org/experiment";
/// Name of the volume that holds the launcher.
const VOLUME: &str = "ferroflow-launcher";
/// Name of the volume that holds a file of metrics.
const METRICS_VOLUME: &str = "metrics-volume";
/// Where it is mounted.
const MOUNT: &str = "/ferroflow";

/// Settings of the injection.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Image that holds the launcher.
    pub launcher_image: String,
    /// `host:port` of Katib's DBManager.
    pub db_manager: String,
}

/// A Pod that cannot report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The container that should report does not exist.
    #[error("unable to find primary container {0:?} in mutated pod containers {1:?}")]
    NoContainer(String, Vec<String>),
    /// The command is in the image.
    #[error(
        "container {0:?} of trial {1:?} has no command: the metrics collector {2} wraps the command; \
         set spec.containers[].command in the trial template, or use the Push collector"
    )]
    NoCommand(String, String, String),
    /// This collector is not built yet.
    #[error("metrics collector kind {0:?} is not implemented yet; use StdOut, File or Push")]
    Unsupported(String),
}

/// Whether a Pod of a trial is the one that reports.
#[must_use]
pub fn is_primary(pod: &Pod, trial: &Trial) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let wanted = trial.spec.primary_pod_labels.iter().flatten();
    wanted
        .into_iter()
        .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// The Pod as it will be created: labelled, and the primary one with its command wrapped.
///
/// # Errors
/// If the primary Pod cannot report.
pub fn inject(pod: &Pod, trial: &Trial, injection: &Injection) -> Result<Pod, InjectError> {
    let mut pod = pod.clone();
    let name = trial.metadata.name.clone().unwrap_or_default();
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(TRIAL_LABEL.to_owned(), name.clone());
    if !is_primary(&pod, trial) {
        return Ok(pod);
    }
    let collector = trial.spec.metrics_collector.as_ref();
    let kind = collector
        .and_then(|m| m.collector.as_ref())
        .and_then(|c| c.kind.as_deref())
        .unwrap_or("StdOut");
    let primary = trial.spec.primary_container_name.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return Ok(pod) };
    let names: Vec<String> = spec.containers.iter().map(|c| c.name.clone()).collect();
    let Some(container) = spec.containers.iter_mut().find(|c| c.name == primary) else {
        return Err(InjectError::NoContainer(primary, names));
    };
    name_the_trial(container);
    match kind {
        // the process reports for itself, or nobody does
        "Push" | "None" => return Ok(pod),
        "StdOut" | "File" => {}
        other => return Err(InjectError::Unsupported(other.to_owned())),
    }
    let Some(command) = container.command.take().filter(|command| !command.is_empty()) else {
        return Err(InjectError::NoCommand(primary, name, kind.to_owned()));
    };
    let mut wrapped = vec![format!("{MOUNT}/launcher"), "collect-metrics".to_owned()];
    wrapped.extend(flags(trial, &name, kind, injection));
    wrapped.push("--".to_owned());
    let arguments = container.args.take().unwrap_or_default();
    container.command = Some(wrapped);
    container.args = Some(command.into_iter().chain(arguments).collect());
    let mut added = vec![(VOLUME, MOUNT.to_owned(), true)];
    if kind == "File"
        && let Some(folder) = metrics_folder(trial)
    {
        // as in Katib: the folder exists, and is the Pod's own
        added.push((METRICS_VOLUME, folder, false));
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    added.retain(|(_, path, _)| {
        !mounts
            .iter()
            .any(|mount| mount.mount_path.trim_end_matches('/') == path)
    });
    mounts.extend(added.iter().map(|(name, path, read_only)| VolumeMount {
        name: (*name).to_owned(),
        mount_path: path.clone(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }));
    let volumes = spec.volumes.get_or_insert_default();
    for (name, ..) in added {
        if volumes.iter().any(|volume| volume.name == name) {
            continue;
        }
        let launcher = ImageVolumeSource {
            reference: Some(injection.launcher_image.clone()),
            pull_policy: Some("IfNotPresent".to_owned()),
        };
        volumes.push(Volume {
            name: name.to_owned(),
            image: (name == VOLUME).then_some(launcher),
            empty_dir: (name == METRICS_VOLUME).then(EmptyDirVolumeSource::default),
            ..Volume::default()
        });
    }
    Ok(pod)
}

/// The folder of the file that holds metrics; none where that is the root.
fn metrics_folder(trial: &Trial) -> Option<String> {
    let source = trial.spec.metrics_collector.as_ref()?.source.as_ref()?;
    let path = source.file_system_path.as_ref()?.path.as_deref()?;
    let (folder, _) = path.rsplit_once('/')?;
    Some(folder.to_owned()).filter(|folder| !folder.is_empty())
}

fn flags(trial: &Trial, name: &str, kind: &str, injection: &Injection) -> Vec<String> {
    let objective = trial.spec.objective.clone().unwrap_or_default();
    let mut metrics = vec![objective.objective_metric_name.clone()];
    metrics.extend(objective.additional_metric_names.into_iter().flatten());
    let mut flags = Vec::new();
    let mut flag = |name: &str, value: &str| flags.extend([format!("--{name}"), value.to_owned()]);
    flag("trial", name);
    flag("metrics", &metrics.join(";"));
    flag("type", kind);
    flag("objective-type", &objective.type_);
    flag("db-manager", &injection.db_manager);
    let source = trial
        .spec
        .metrics_collector
        .as_ref()
        .and_then(|m| m.source.as_ref());
    if kind == "File" {
        let file = source.and_then(|s| s.file_system_path.as_ref());
        flag(
            "path",
            file.and_then(|f| f.path.as_deref())
                .unwrap_or(super::defaults::DEFAULT_FILE),
        );
        flag("format", file.and_then(|f| f.format.as_deref()).unwrap_or("TEXT"));
    }
    for filter in source
        .and_then(|s| s.filter.as_ref())
        .and_then(|f| f.metrics_format.as_ref())
        .into_iter()
        .flatten()
    {
        // `$(` is the kubelet's to expand unless it is doubled
        flag("filter", &filter.replace("$(", "$$("));
    }
    flags
}

/// `KATIB_TRIAL_NAME`, by which `katib_client.report_metrics` knows its trial.
fn name_the_trial(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == "KATIB_TRIAL_NAME") {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{TRIAL_LABEL}']"),
        api_version: None,
    };
    env.push(EnvVar {
        name: "KATIB_TRIAL_NAME".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
    });
}

/// Labels of a trial.
#[must_use]
pub fn trial_labels(
    experiment: &str,
    own: Option<&BTreeMap<String, String>>,
    assigned: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = own.cloned().unwrap_or_default();
    labels.extend(assigned.clone());
    labels.insert(EXPERIMENT_LABEL.to_owned(), experiment.to_owned());
    labels
}
