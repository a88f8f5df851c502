//! What an experiment means where it says nothing.

use std::collections::BTreeMap;

use ferroflow_api::crd::tuning::{CollectorSpec, ExperimentSpec, FileSystemPath, MetricStrategy};
use serde_json::Value;

const JOB_SUCCEEDED: &str = "status.conditions.#(type==\"Complete\")#|#(status==\"True\")#";
const JOB_FAILED: &str = "status.conditions.#(type==\"Failed\")#|#(status==\"True\")#";
const KUBEFLOW_SUCCEEDED: &str = "status.conditions.#(type==\"Succeeded\")#|#(status==\"True\")#";
const KUBEFLOW_FAILED: &str = JOB_FAILED;
const KUBEFLOW_JOBS: [&str; 6] = [
    "TFJob",
    "PyTorchJob",
    "MPIJob",
    "XGBoostJob",
    "JAXJob",
    "PaddleJob",
];

const NODE_LABELS: [(&str, &str); 2] = [
    ("jobset.sigs.k8s.io/replicatedjob-name", "node"),
    ("batch.kubernetes.io/job-completion-index", "0"),
];

/// Where the File collector looks without a path.
pub const DEFAULT_FILE: &str = "/var/log/katib/metrics.log";
/// Where the TensorFlowEvent collector looks without a path.
pub const DEFAULT_EVENTS: &str = "/var/log/katib/tfevent/";

/// Fills in Katib's defaults.
pub fn set_defaults(spec: &mut ExperimentSpec) {
    spec.parallel_trial_count.get_or_insert(3);
    if spec.resume_policy.as_deref().unwrap_or_default().is_empty() {
        spec.resume_policy = Some("Never".to_owned());
    }
    strategies(spec);
    for parameter in spec.parameters.iter_mut().flatten() {
        if parameter.feasible_space.distribution.is_empty()
            && matches!(parameter.parameter_type.as_str(), "double" | "int")
        {
            "uniform".clone_into(&mut parameter.feasible_space.distribution);
        }
    }
    template(spec);
    collector(spec);
}

fn strategies(spec: &mut ExperimentSpec) {
    let Some(objective) = &mut spec.objective else {
        return;
    };
    let strategy = match objective.type_.as_str() {
        "minimize" => "min",
        "maximize" => "max",
        _ => return,
    };
    let mut names = vec![objective.objective_metric_name.clone()];
    names.extend(objective.additional_metric_names.iter().flatten().cloned());
    let strategies = objective.metric_strategies.get_or_insert_default();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        if !strategies.iter().any(|s| s.name == name) {
            strategies.push(MetricStrategy {
                name,
                value: strategy.to_owned(),
            });
        }
    }
}

fn template(spec: &mut ExperimentSpec) {
    let Some(template) = &mut spec.trial_template else {
        return;
    };
    let kind = template
        .trial_spec
        .as_ref()
        .and_then(|s| s.get("kind"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let group = template
        .trial_spec
        .as_ref()
        .and_then(|s| s.get("apiVersion"))
        .and_then(Value::as_str);
    let group = group.unwrap_or_default().split('/').next().unwrap_or_default();
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let (success, failure, labels): (_, _, &[(&str, &str)]) = if kind == "Job" && group == "batch" {
        (JOB_SUCCEEDED, JOB_FAILED, &[])
    } else if KUBEFLOW_JOBS.contains(&kind) {
        (
            KUBEFLOW_SUCCEEDED,
            KUBEFLOW_FAILED,
            &[("training.kubeflow.org/job-role", "master")],
        )
    } else if kind == "TrainJob" {
        (JOB_SUCCEEDED, JOB_FAILED, &NODE_LABELS)
    } else {
        return;
    };
    if empty(&template.success_condition) {
        template.success_condition = Some(success.to_owned());
    }
    if empty(&template.failure_condition) {
        template.failure_condition = Some(failure.to_owned());
    }
    if !labels.is_empty()
        && template
            .primary_pod_labels
            .as_ref()
            .is_none_or(BTreeMap::is_empty)
    {
        template.primary_pod_labels = Some(
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        );
    }
}

fn collector(spec: &mut ExperimentSpec) {
    let metrics = spec.metrics_collector_spec.get_or_insert_default();
    let collector = metrics.collector.get_or_insert_with(CollectorSpec::default);
    if collector.kind.as_deref().unwrap_or_default().is_empty() {
        collector.kind = Some("StdOut".to_owned());
    }
    let (path, kind, format) = match collector.kind.as_deref() {
        Some("File") => (DEFAULT_FILE, "File", Some("TEXT")),
        Some("TensorFlowEvent") => (DEFAULT_EVENTS, "Directory", None),
        _ => return,
    };
    let source = metrics.source.get_or_insert_default();
    let file = source
        .file_system_path
        .get_or_insert_with(FileSystemPath::default);
    let fill = |field: &mut Option<String>, value: &str| {
        if field.as_deref().unwrap_or_default().is_empty() {
            *field = Some(value.to_owned());
        }
    };
    fill(&mut file.path, path);
    fill(&mut file.kind, kind);
    if let Some(format) = format {
        fill(&mut file.format, format);
    }
}
