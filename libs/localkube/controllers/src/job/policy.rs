//! `podFailurePolicy` and `successPolicy` of a Job.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes;

/// What the first rule that matches a failed Pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// counts towards `backoffLimit`
    Count,
    /// does not count
    Ignore,
    /// the Pod's index is failed at once
    FailIndex,
    /// the Job is failed, with this message
    FailJob(String),
}

/// Judges a failed Pod.
#[must_use]
pub fn judge(job: &Job, pod: &Pod) -> Verdict {
    let Some(policy) = job
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_failure_policy.as_ref())
    else {
        return Verdict::Count;
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    for (at, rule) in policy.rules.iter().enumerate() {
        let because = if let Some(codes) = &rule.on_exit_codes {
            matching_container(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code} matching {} rule at index {at}", rule.action)
            })
        } else {
            let conditions = pod
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_deref())
                .unwrap_or_default();
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            conditions
                .iter()
                .find(|condition| {
                    patterns.iter().any(|pattern| {
                        pattern.type_ == condition.type_
                            && pattern.status.as_deref().unwrap_or("True") == condition.status
                    })
                })
                .map(|condition| {
                    format!(
                        "Pod {namespace}/{name} has condition {} matching {} rule at index {at}",
                        condition.type_, rule.action
                    )
                })
        };
        match (because, rule.action.as_str()) {
            (Some(message), "FailJob") => return Verdict::FailJob(message),
            (Some(_), "Ignore") => return Verdict::Ignore,
            (Some(_), "FailIndex") => return Verdict::FailIndex,
            (Some(_), "Count") => return Verdict::Count,
            _ => {}
        }
    }
    Verdict::Count
}

fn matching_container<'a>(
    pod: &'a Pod,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let matches = |container: &'a ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = requirement
            .container_name
            .as_ref()
            .is_none_or(|name| *name == container.name);
        let listed = requirement.values.contains(&code);
        let hit = match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && hit).then_some((container.name.as_str(), code))
    };
    let containers = status.container_statuses.iter().flatten();
    containers
        .chain(status.init_container_statuses.iter().flatten())
        .find_map(matches)
}

/// The message of the first success rule that is met.
#[must_use]
pub fn success(job: &Job, succeeded: &BTreeSet<i32>) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let policy = spec.success_policy.as_ref()?;
    if succeeded.is_empty() {
        return None;
    }
    let enough = |count: Option<i32>, have: usize| {
        count.is_some_and(|count| i32::try_from(have).unwrap_or(i32::MAX) >= count)
    };
    policy
        .rules
        .iter()
        .position(|rule| match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = indexes::parse(text, spec.completions.unwrap_or(0));
                let have = wanted.intersection(succeeded).count();
                !wanted.is_empty() && (have == wanted.len() || enough(rule.succeeded_count, have))
            }
            None => enough(rule.succeeded_count, succeeded.len()),
        })
        .map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(policy: serde_json::Value) -> Job {
        serde_json::from_value(
            json!({"spec": {"completions": 5, "template": {}, "podFailurePolicy": {"rules": policy}}}),
        )
        .unwrap()
    }

    fn failed(code: i32) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed",
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}),
        )
        .unwrap()
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let job = job(json!([
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}}]));
        assert_eq!(judge(&job, &failed(7)), Verdict::Ignore);
        assert_eq!(judge(&job, &failed(1)), Verdict::Count);
        let text = "Container c for pod n/p failed with exit code 9 matching FailJob rule at index 1";
        assert_eq!(judge(&job, &failed(9)), Verdict::FailJob(text.to_owned()));
    }

    #[test]
    fn success_rules() {
        let job: Job = serde_json::from_value(
            json!({"spec": {"completions": 5, "template": {}, "successPolicy": {"rules": [
            {"succeededIndexes": "0-2", "succeededCount": 2}]}}}),
        )
        .unwrap();
        assert_eq!(success(&job, &[0, 4].into()), None);
        assert_eq!(
            success(&job, &[0, 2].into()),
            Some("Matched rules at index 0".to_owned())
        );
    }
}
