//! Which jobs are refused, and with what text: the Training Operator's, and more where it would fail later.

use super::job::Job;
use super::kind::Framework;
use ferroflow_reconcile::field::FieldError;

const NAME_RULE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const MANAGERS: [&str; 2] = ["kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"];
const POLICIES: [&str; 4] = ["Always", "OnFailure", "Never", "ExitCode"];

/// Checks a job, and its predecessor when it replaces one.
#[must_use]
pub fn validate(old: Option<&Job>, job: &Job) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = job.name();
    if !is_dns1035(name) {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            format!("should match: {NAME_RULE}"),
        ));
    } else if let Some(longest) = job
        .replicas
        .iter()
        .map(|(t, spec)| super::job::replica_name(name, t, spec.replicas.unwrap_or(1).max(1) - 1))
        .find(|n| n.len() > 63)
    {
        let detail = format!("the name of a replica, {longest:?}, must be no more than 63 characters");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    run_policy(old, job, &mut errors);
    if let Some(elastic) = &job.elastic
        && job.kind.framework == Framework::PyTorch
    {
        if job.replica("Worker").is_none() {
            let field = format!("spec.{}[Worker]", job.kind.replica_field);
            errors.push(FieldError::required(
                field,
                "must be configured if elastic policy is used",
            ));
        }
        if elastic.n_proc_per_node.is_some() && job.nproc_per_node.is_some() {
            let detail = "must not be used with spec.nprocPerNode";
            errors.push(FieldError::forbidden("spec.elasticPolicy.nProcPerNode", detail));
        }
        if let (Some(min), Some(max)) = (elastic.min_replicas, elastic.max_replicas)
            && min > max
        {
            let detail = format!("must be less than or equal to spec.elasticPolicy.maxReplicas {max}");
            errors.push(FieldError::invalid(
                "spec.elasticPolicy.minReplicas",
                min.to_string(),
                detail,
            ));
        }
    }
    replicas(job, &mut errors);
    errors
}

fn run_policy(old: Option<&Job>, job: &Job, errors: &mut Vec<FieldError>) {
    let policy = &job.run_policy;
    if old.is_some_and(|old| old.run_policy.managed_by != policy.managed_by) {
        let value = policy.managed_by.clone().unwrap_or_default();
        errors.push(FieldError::invalid(
            "spec.runPolicy.managedBy",
            value,
            "field is immutable",
        ));
    }
    if let Some(manager) = policy.managed_by.as_deref().filter(|m| !MANAGERS.contains(m)) {
        errors.push(FieldError::not_supported(
            "spec.runPolicy.managedBy",
            manager,
            &MANAGERS,
        ));
    }
    if let Some(clean) = policy
        .clean_pod_policy
        .as_deref()
        .filter(|p| !["None", "Running", "All"].contains(p))
    {
        let field = "spec.runPolicy.cleanPodPolicy";
        errors.push(FieldError::not_supported(
            field,
            clean,
            &["None", "Running", "All"],
        ));
    }
    for (field, value) in [
        (
            "ttlSecondsAfterFinished",
            policy.ttl_seconds_after_finished.map(i64::from),
        ),
        ("backoffLimit", policy.backoff_limit.map(i64::from)),
        ("activeDeadlineSeconds", policy.active_deadline_seconds),
    ] {
        if let Some(value) = value.filter(|v| *v < 0) {
            let field = format!("spec.runPolicy.{field}");
            errors.push(FieldError::invalid(
                field,
                value.to_string(),
                "must be greater than or equal to 0",
            ));
        }
    }
}

fn replicas(job: &Job, errors: &mut Vec<FieldError>) {
    let kind = job.kind;
    let root = format!("spec.{}", kind.replica_field);
    if job.replicas.is_empty() {
        errors.push(FieldError::required(&root, "must be required"));
        return;
    }
    let mut leaders = 0;
    for (replica_type, spec) in &job.replicas {
        let role = format!("{root}[{replica_type}]");
        if !kind.replica_types.contains(&replica_type.as_str()) {
            errors.push(FieldError::not_supported(&role, replica_type, kind.replica_types));
        }
        if let Some(policy) = spec.restart_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
            errors.push(FieldError::not_supported(
                format!("{role}.restartPolicy"),
                policy,
                &POLICIES,
            ));
        }
        let containers = format!("{role}.template.spec.containers");
        let list = spec
            .template
            .spec
            .as_ref()
            .map(|s| s.containers.as_slice())
            .unwrap_or_default();
        if list.is_empty() {
            errors.push(FieldError::required(&containers, "must be specified"));
        }
        for (index, container) in list.iter().enumerate() {
            if container.image.as_deref().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(
                    format!("{containers}[{index}].image"),
                    "must be required",
                ));
            }
        }
        if !list.iter().any(|c| c.name == kind.container) {
            let detail = format!("must have at least one container with name {}", kind.container);
            errors.push(FieldError::required(&containers, detail));
        }
        let count = spec.replicas.unwrap_or(1);
        let single =
            matches!(kind.framework, Framework::XGBoost | Framework::PyTorch) && replica_type == "Master";
        if single && count != 1 {
            errors.push(FieldError::forbidden(format!("{role}.replicas"), "must be 1"));
        } else if count < 0 || (count < 1 && kind.framework == Framework::PyTorch) {
            errors.push(FieldError::forbidden(
                format!("{role}.replicas"),
                "must be at least 1",
            ));
        }
        if replica_type == "Chief" || replica_type == "Master" {
            leaders += 1;
        }
    }
    if kind.framework == Framework::XGBoost && job.replica("Master").is_none() {
        errors.push(FieldError::required(format!("{root}[Master]"), "must be present"));
    }
    if kind.framework == Framework::TensorFlow && leaders > 1 {
        errors.push(FieldError::forbidden(
            root,
            "must not have more than 1 Chief or Master role",
        ));
    }
}

fn is_dns1035(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-')
}
