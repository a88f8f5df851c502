//! What to do about a job: which Pods and Services to create or delete, and what its status says.

use std::collections::BTreeMap;
use std::time::Duration;

use ferroflow_api::crd::training::{JobStatus, ReplicaSpec, ReplicaStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::environment::{EnvironmentError, variables};
use super::job::{Job, replica_name};
use super::kind::Framework;
use super::status::{JobEvent, conclude, condition, is_finished, is_true, seconds, set};

/// Labels on the Pods and Services of a job.
pub mod label {
    /// Name of the job.
    pub const JOB_NAME: &str = "training.kubeflow.org/job-name";
    /// Name of the controller of the job's kind.
    pub const OPERATOR_NAME: &str = "training.kubeflow.org/operator-name";
    /// Lower-case replica type.
    pub const REPLICA_TYPE: &str = "training.kubeflow.org/replica-type";
    /// Index within the type.
    pub const REPLICA_INDEX: &str = "training.kubeflow.org/replica-index";
    /// `master` on the Pod that decides.
    pub const JOB_ROLE: &str = "training.kubeflow.org/job-role";
}

/// One change to make.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create this Service.
    CreateService(Box<Service>),
    /// Delete the Service of this name.
    DeleteService(String),
    /// Create this Pod.
    CreatePod(Box<Pod>),
    /// Delete the Pod of this name.
    DeletePod(String),
    /// Delete the job itself: its time to live is over.
    DeleteJob,
}

/// Everything to do now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The status as it will be.
    pub status: JobStatus,
    /// To record on the job.
    pub events: Vec<JobEvent>,
    /// When to look again although nothing has changed.
    pub again: Option<Duration>,
}

/// Labels by which the Pods and Services of a job are found.
#[must_use]
pub fn job_labels(job: &Job) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::OPERATOR_NAME.to_owned(), job.kind.controller.to_owned()),
        (label::JOB_NAME.to_owned(), job.name().replace('/', "-")),
    ])
}

/// Decides. `pods` and `services` are those that this job controls.
///
/// # Errors
/// If the environment of a Pod cannot be made, see [`variables`].
pub fn plan(job: &Job, pods: &[Pod], services: &[Service], now: Timestamp) -> Result<Plan, EnvironmentError> {
    let mut plan = Plan {
        status: job.status.clone(),
        ..Plan::default()
    };
    let (kind, name) = (job.kind.kind, job.name());
    if !plan
        .status
        .conditions
        .iter()
        .any(|c| c.type_ == condition::CREATED)
    {
        let message = format!("{kind} {name} is created.");
        set(
            &mut plan.status,
            condition::CREATED,
            true,
            format!("{kind}Created"),
            message,
            now,
        );
    }
    if is_finished(&job.status) {
        finish(job, pods, &mut plan, now);
        if is_true(&plan.status, condition::SUCCEEDED) {
            for counts in plan.status.replica_statuses.values_mut() {
                counts.succeeded += std::mem::take(&mut counts.active);
            }
        }
        return Ok(plan);
    }
    if job.run_policy.suspend == Some(true) {
        suspend(job, pods, &mut plan, now);
        return Ok(plan);
    }
    if is_true(&plan.status, condition::SUSPENDED) {
        let message = format!("{kind} {name} is resumed.");
        let reason = format!("{kind}Resumed");
        plan.events.push(JobEvent {
            warning: false,
            reason: reason.clone(),
            message: message.clone(),
        });
        set(
            &mut plan.status,
            condition::SUSPENDED,
            false,
            reason,
            message,
            now,
        );
        plan.status.start_time = Some(seconds(now));
    }
    if let Some(message) = exceeded(job, pods, now) {
        let reason = format!("{kind}Failed");
        plan.events.push(JobEvent {
            warning: false,
            reason: reason.clone(),
            message: message.clone(),
        });
        plan.status.completion_time.get_or_insert_with(|| seconds(now));
        set(&mut plan.status, condition::FAILED, true, reason, message, now);
        finish(job, pods, &mut plan, now);
        return Ok(plan);
    }
    for (replica_type, spec) in &job.replicas {
        reconcile_services(job, services, replica_type, spec, &mut plan);
        reconcile_pods(job, pods, replica_type, spec, &mut plan, now)?;
    }
    let worker0 = job.replica("Worker").is_none()
        || of_type(pods, "Worker").any(|pod| index_of(pod) == Some(0) && phase(pod) == "Succeeded");
    let mut events = std::mem::take(&mut plan.events);
    conclude(job, &mut plan.status, worker0, now, &mut events);
    plan.events = events;
    if is_finished(&plan.status) {
        plan.status.completion_time.get_or_insert_with(|| seconds(now));
        finish(job, pods, &mut plan, now);
    } else if let (Some(deadline), Some(start)) =
        (job.run_policy.active_deadline_seconds, &plan.status.start_time)
    {
        plan.again = Some(remaining(start.0, deadline, now));
    }
    Ok(plan)
}

fn remaining(from: Timestamp, seconds: i64, now: Timestamp) -> Duration {
    let end = from.as_millisecond().saturating_add(seconds.saturating_mul(1000));
    Duration::from_millis(u64::try_from(end.saturating_sub(now.as_millisecond())).unwrap_or(0))
}

/// Deletes what the clean Pod policy says, and the job when its time to live is over.
fn finish(job: &Job, pods: &[Pod], plan: &mut Plan, now: Timestamp) {
    let policy = job.run_policy.clean_pod_policy.as_deref().unwrap_or("None");
    for pod in pods {
        let delete = match policy {
            "None" => false,
            // A Pod that waits may run yet, and nobody would notice.
            "Running" => matches!(phase(pod), "Running" | "Pending"),
            _ => true,
        };
        if delete {
            delete_replica(pod, plan);
        }
    }
    let (Some(ttl), Some(end)) = (
        job.run_policy.ttl_seconds_after_finished,
        &plan.status.completion_time,
    ) else {
        return;
    };
    let left = remaining(end.0, i64::from(ttl), now);
    if left.is_zero() {
        plan.actions.push(Action::DeleteJob);
    } else {
        plan.again = Some(left);
    }
}

fn delete_replica(pod: &Pod, plan: &mut Plan) {
    if let Some(name) = pod
        .metadata
        .name
        .clone()
        .filter(|_| pod.metadata.deletion_timestamp.is_none())
    {
        plan.actions.push(Action::DeletePod(name.clone()));
        plan.actions.push(Action::DeleteService(name));
    }
}

fn suspend(job: &Job, pods: &[Pod], plan: &mut Plan, now: Timestamp) {
    for pod in pods {
        delete_replica(pod, plan);
    }
    for counts in plan.status.replica_statuses.values_mut() {
        counts.active = 0;
    }
    let kind = job.kind.kind;
    let (reason, message) = (
        format!("{kind}Suspended"),
        format!("{kind} {} is suspended.", job.name()),
    );
    if is_true(&plan.status, condition::RUNNING) {
        set(
            &mut plan.status,
            condition::RUNNING,
            false,
            reason.clone(),
            message.clone(),
            now,
        );
    }
    if !is_true(&plan.status, condition::SUSPENDED) {
        plan.events.push(JobEvent {
            warning: false,
            reason: reason.clone(),
            message: message.clone(),
        });
        set(&mut plan.status, condition::SUSPENDED, true, reason, message, now);
    }
}

/// Whether the job has restarted too often, or taken too long; the text says which.
fn exceeded(job: &Job, pods: &[Pod], now: Timestamp) -> Option<String> {
    let name = job.name();
    if let Some(limit) = job.run_policy.backoff_limit {
        let mut restarts = 0;
        for (replica_type, spec) in &job.replicas {
            if !matches!(
                spec.restart_policy.as_deref(),
                Some("OnFailure" | "Always" | "ExitCode")
            ) {
                continue;
            }
            for pod in of_type(pods, replica_type).filter(|pod| phase(pod) == "Running") {
                let status = pod.status.as_ref();
                let init = status
                    .and_then(|s| s.init_container_statuses.as_deref())
                    .unwrap_or_default();
                let main = status
                    .and_then(|s| s.container_statuses.as_deref())
                    .unwrap_or_default();
                restarts += init.iter().chain(main).map(|c| c.restart_count).sum::<i32>();
            }
        }
        let failed = i32::try_from(pods.iter().filter(|p| phase(p) == "Failed").count()).unwrap_or(i32::MAX);
        let known: i32 = job.status.replica_statuses.values().map(|s| s.failed).sum();
        let active = pods
            .iter()
            .filter(|p| !matches!(phase(p), "Succeeded" | "Failed"))
            .count();
        let new_failure = failed > known && i32::try_from(active) != Ok(job.total_replicas()) && limit < 1;
        let past = if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        };
        if new_failure || past {
            return Some(format!(
                "Job {name} has failed because it has reached the specified backoff limit"
            ));
        }
    }
    let (deadline, start) = (
        job.run_policy.active_deadline_seconds?,
        job.status.start_time.as_ref()?,
    );
    remaining(start.0, deadline, now)
        .is_zero()
        .then(|| format!("Job {name} has failed because it was active longer than specified deadline"))
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

fn of_type<'a>(pods: &'a [Pod], replica_type: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let wanted = replica_type.to_lowercase();
    pods.iter().filter(move |pod| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(label::REPLICA_TYPE))
            .is_some_and(|t| *t == wanted)
    })
}

fn index_of(pod: &Pod) -> Option<i32> {
    index_label(&pod.metadata)
}

fn index_label(metadata: &ObjectMeta) -> Option<i32> {
    metadata.labels.as_ref()?.get(label::REPLICA_INDEX)?.parse().ok()
}

fn reconcile_services(
    job: &Job,
    services: &[Service],
    replica_type: &str,
    spec: &ReplicaSpec,
    plan: &mut Plan,
) {
    let wanted = replica_type.to_lowercase();
    let replicas = spec.replicas.unwrap_or(1);
    let mut present = vec![false; usize::try_from(replicas).unwrap_or(0)];
    for service in services {
        let labels = service.metadata.labels.as_ref();
        if labels.and_then(|l| l.get(label::REPLICA_TYPE)) != Some(&wanted) {
            continue;
        }
        let slot = index_label(&service.metadata).and_then(|i| usize::try_from(i).ok());
        match slot.and_then(|i| present.get_mut(i)) {
            Some(slot) => *slot = true,
            None if slot.is_some() => {
                plan.actions
                    .extend(service.metadata.name.clone().map(Action::DeleteService));
            }
            None => {}
        }
    }
    for (index, present) in (0..replicas).zip(present) {
        if !present {
            plan.actions.push(Action::CreateService(Box::new(service(
                job,
                replica_type,
                index,
                spec,
            ))));
        }
    }
}

/// The headless Service whose name is the replica's host name.
fn service(job: &Job, replica_type: &str, index: i32, spec: &ReplicaSpec) -> Service {
    let mut labels = job_labels(job);
    labels.insert(label::REPLICA_TYPE.to_owned(), replica_type.to_lowercase());
    labels.insert(label::REPLICA_INDEX.to_owned(), index.to_string());
    let containers = spec
        .template
        .spec
        .as_ref()
        .map(|s| s.containers.as_slice())
        .unwrap_or_default();
    let ports = containers
        .iter()
        .find(|c| c.name == job.kind.container)
        .and_then(|c| c.ports.clone());
    let ports = ports.unwrap_or_default().into_iter().map(|p| ServicePort {
        name: p.name,
        port: p.container_port,
        ..ServicePort::default()
    });
    Service {
        metadata: ObjectMeta {
            name: Some(replica_name(job.name(), replica_type, index)),
            namespace: Some(job.namespace().to_owned()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![job.owner()]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(labels),
            ports: Some(ports.collect()),
            // A replica must be reachable by name before its readiness probe, if it has one, has passed:
            // what it waits for may be the others.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn reconcile_pods(
    job: &Job,
    pods: &[Pod],
    replica_type: &str,
    spec: &ReplicaSpec,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), EnvironmentError> {
    let replicas = spec.replicas.unwrap_or(1);
    let selector = selector(job, replica_type);
    let mut counts = ReplicaStatus {
        selector,
        ..ReplicaStatus::default()
    };
    let mut present = vec![false; usize::try_from(replicas).unwrap_or(0)];
    for pod in of_type(pods, replica_type) {
        let (Some(index), Some(name)) = (index_of(pod), pod.metadata.name.clone()) else {
            continue;
        };
        let leaving = pod.metadata.deletion_timestamp.is_some();
        match usize::try_from(index).ok().and_then(|i| present.get_mut(i)) {
            Some(slot) => *slot = true,
            None if !leaving => plan.actions.push(Action::DeletePod(name.clone())),
            None => {}
        }
        if phase(pod) == "Failed" {
            failed_pod(job, pod, &name, replica_type, spec, plan, now);
        }
        match phase(pod) {
            "Running" if leaving => counts.failed += 1,
            "Running" => counts.active += 1,
            "Succeeded" => counts.succeeded += 1,
            "Failed" => counts.failed += 1,
            _ => {}
        }
    }
    plan.status
        .replica_statuses
        .insert(replica_type.to_owned(), counts);
    for (index, present) in (0..replicas).zip(present) {
        if !present && may_start(job, pods, replica_type, index) {
            plan.actions
                .push(Action::CreatePod(Box::new(pod(job, replica_type, index, spec)?)));
        }
    }
    Ok(())
}

fn selector(job: &Job, replica_type: &str) -> Option<String> {
    if job.kind.framework == Framework::XGBoost || job.kind.framework == Framework::TensorFlow {
        return None;
    }
    let mut labels = job_labels(job);
    labels.insert(label::REPLICA_TYPE.to_owned(), replica_type.to_lowercase());
    Some(
        labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(","),
    )
}

/// A replica starts when the one it connects to has an address, so that its name resolves.
///
/// The Training Operator gives PyTorch's workers an init container that asks a name server in a loop, and leaves
/// XGBoost's and JAX's to fail and be restarted, or not. Holding the Pod back needs no image, no name server and no
/// polling, holds no resources while the first replica waits for its own, and serves every framework.
fn may_start(job: &Job, pods: &[Pod], replica_type: &str, index: i32) -> bool {
    let first = match job.kind.framework {
        Framework::XGBoost | Framework::PyTorch if job.replica("Master").is_some() => "Master",
        Framework::Jax => "Worker",
        _ => return true,
    };
    if replica_type == first && (first == "Master" || index == 0) {
        return true;
    }
    of_type(pods, first).any(|pod| {
        index_of(pod) == Some(0)
            && (phase(pod) != "Pending" || pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some()))
    })
}

fn failed_pod(
    job: &Job,
    pod: &Pod,
    name: &str,
    replica_type: &str,
    spec: &ReplicaSpec,
    plan: &mut Plan,
    now: Timestamp,
) {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    let exit_code = statuses
        .iter()
        .filter(|s| s.name == job.kind.container)
        .filter_map(|s| s.state.as_ref()?.terminated.as_ref())
        .map(|t| t.exit_code)
        .next_back();
    let policy = spec.restart_policy.as_deref().unwrap_or_default();
    let kind = job.kind.kind;
    let restart = match policy {
        "OnFailure" | "Always" => true,
        "ExitCode" => exit_code.is_some_and(|code| code >= 128),
        _ => return,
    };
    if restart {
        if pod.metadata.deletion_timestamp.is_none() {
            plan.actions.push(Action::DeletePod(name.to_owned()));
            let message = format!(
                "job {} is restarting because {replica_type} replica(s) failed.",
                job.name()
            );
            let reason = format!("{kind}Restarting");
            plan.events.push(JobEvent {
                warning: true,
                reason: reason.clone(),
                message: message.clone(),
            });
            set(
                &mut plan.status,
                condition::RESTARTING,
                true,
                reason,
                message,
                now,
            );
        }
    } else {
        let message = format!(
            "job {:?} is failing because {replica_type:?} replica(s) failed.",
            job.name()
        );
        let reason = format!("{kind}Failed");
        plan.events.push(JobEvent {
            warning: true,
            reason: reason.clone(),
            message: message.clone(),
        });
        set(&mut plan.status, condition::FAILED, true, reason, message, now);
    }
}

fn pod(job: &Job, replica_type: &str, index: i32, spec: &ReplicaSpec) -> Result<Pod, EnvironmentError> {
    let template = spec.template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    labels.extend(job_labels(job));
    labels.insert(label::REPLICA_TYPE.to_owned(), replica_type.to_lowercase());
    labels.insert(label::REPLICA_INDEX.to_owned(), index.to_string());
    if job.is_master_role(replica_type, index) {
        labels.insert(label::JOB_ROLE.to_owned(), "master".to_owned());
    }
    let mut pod = spec.template.spec.clone().unwrap_or_default();
    let env = variables(job, replica_type, index)?;
    if !env.is_empty() {
        for container in &mut pod.containers {
            container.env.get_or_insert_default().extend(env.iter().cloned());
        }
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Never");
    pod.restart_policy = Some(if policy == "ExitCode" { "Never" } else { policy }.to_owned());
    Ok(Pod {
        metadata: ObjectMeta {
            name: Some(replica_name(job.name(), replica_type, index)),
            namespace: Some(job.namespace().to_owned()),
            labels: Some(labels),
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![job.owner()]),
            ..ObjectMeta::default()
        },
        spec: Some(pod),
        status: None,
    })
}
