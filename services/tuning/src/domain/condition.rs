//! Conditions by Katib's rules.

use ferroflow_api::crd::tuning::Condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whole seconds, as Kubernetes writes times.
#[must_use]
pub fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Whether a condition of this type is true.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// The condition of this type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Sets a condition; it moves to the end unless nothing about it changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    value: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if value { "True" } else { "False" };
    let current = get(conditions, type_);
    if current.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
        return;
    }
    let transition = current
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != type_);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_update_time: Some(seconds(now)),
        last_transition_time: Some(transition.unwrap_or_else(|| seconds(now))),
    });
}

/// Turns a condition that exists to false, where it is.
pub fn lower(conditions: &mut [Condition], type_: &str, now: Timestamp) {
    for condition in conditions
        .iter_mut()
        .filter(|c| c.type_ == type_ && c.status == "True")
    {
        "False".clone_into(&mut condition.status);
        condition.last_update_time = Some(seconds(now));
        condition.last_transition_time = Some(seconds(now));
    }
}
