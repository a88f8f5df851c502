//! Jobs and CronJobs.

use std::str::FromStr;

use serde_json::{Value, json};

use super::checks::{
    age, containers, default, immutable, list, name, non_negative, object, present, same, selector,
    selector_text, selects, spec_path, text,
};
use super::{pod_defaults, pod_validation};
use crate::field_error::{FieldError, FieldErrorKind, FieldPath};
use crate::kinds::{Column, KindRules};
use crate::meta;

/// Rules of Jobs.
pub struct Job;
/// Rules of CronJobs.
pub struct CronJob;

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const MOST_PARALLEL_INDEXED: i64 = 100_000;

fn default_spec(spec: &mut Value) {
    if !present(spec, "completions") && !present(spec, "parallelism") {
        spec["completions"] = json!(1);
    }
    default(spec, "parallelism", json!(1));
    let limit = if present(spec, "backoffLimitPerIndex") {
        i64::from(i32::MAX)
    } else {
        6
    };
    default(spec, "backoffLimit", json!(limit));
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "suspend", json!(false));
    let replace = if present(spec, "podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default(spec, "podReplacementPolicy", json!(replace));
    default(spec, "manualSelector", json!(false));
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        super::checks::each(policy, "rules", |rule| {
            super::checks::each(rule, "onPodConditions", |pattern| {
                default(pattern, "status", json!("True"));
            });
        });
    }
    if object(spec, "template").is_some() {
        pod_defaults::template(&mut spec["template"]);
    }
}

/// The errors that a Job and the template of a CronJob share.
fn validate_spec(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        non_negative(&mut errors, spec, path, field);
    }
    if present(spec, "maxFailedIndexes") && !present(spec, "backoffLimitPerIndex") {
        errors.push(FieldError::required(
            path.child("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    let manager = text(spec, "managedBy");
    if present(spec, "managedBy") && !manager.contains('/') {
        errors.push(FieldError::invalid(
            path.child("managedBy"),
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        ));
    }
    let mode = text(spec, "completionMode");
    match mode {
        "Indexed" => {
            let (completions, parallelism) = (spec["completions"].as_i64(), spec["parallelism"].as_i64());
            if completions.is_none() {
                errors.push(FieldError::required(
                    path.child("completions"),
                    "when completion mode is Indexed",
                ));
            }
            if let Some(parallelism) = parallelism.filter(|own| *own > MOST_PARALLEL_INDEXED) {
                let text = format!(
                    "must be less than or equal to {MOST_PARALLEL_INDEXED} when completion mode is Indexed"
                );
                errors.push(FieldError::invalid(path.child("parallelism"), parallelism, text));
            }
            if let (Some(completions), Some(most)) = (completions, spec["maxFailedIndexes"].as_i64())
                && most > completions
            {
                errors.push(FieldError::invalid(
                    path.child("maxFailedIndexes"),
                    most,
                    "must be less than or equal to completions",
                ));
            }
        }
        "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if present(spec, field) {
                    errors.push(FieldError::invalid(
                        path.child(field),
                        spec[field].clone(),
                        "requires indexed completion mode",
                    ));
                }
            }
        }
        other => errors.push(FieldError::not_supported(
            path.child("completionMode"),
            other,
            &["NonIndexed", "Indexed"],
        )),
    }
    if present(spec, "podFailurePolicy") {
        failure_policy(&mut errors, spec, &path.child("podFailurePolicy").child("rules"));
    }
    if present(spec, "successPolicy") {
        if mode == "Indexed" {
            if list(&spec["successPolicy"], "rules").is_empty() {
                errors.push(FieldError::required(
                    path.child("successPolicy").child("rules"),
                    "at least one rules must be specified when the successPolicy is specified",
                ));
            }
        } else {
            errors.push(FieldError::invalid(
                path.child("successPolicy"),
                spec["successPolicy"].clone(),
                "requires indexed completion mode",
            ));
        }
    }
    let replace = text(spec, "podReplacementPolicy");
    if present(spec, "podFailurePolicy") && replace != "Failed" {
        errors.push(FieldError::not_supported(
            path.child("podReplacementPolicy"),
            replace,
            &["Failed"],
        ));
    } else if !matches!(replace, "Failed" | "TerminatingOrFailed") {
        errors.push(FieldError::not_supported(
            path.child("podReplacementPolicy"),
            replace,
            &["Failed", "TerminatingOrFailed"],
        ));
    }
    errors.extend(pod_validation::template(
        &spec["template"],
        &path.child("template"),
    ));
    let at = path.child("template").child("spec").child("restartPolicy");
    match text(&spec["template"]["spec"], "restartPolicy") {
        "" | "Always" => errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" => {
            if present(spec, "podFailurePolicy") {
                errors.push(FieldError::invalid(
                    at,
                    "OnFailure",
                    "only \"Never\" is supported when podFailurePolicy is specified",
                ));
            }
        }
        other => errors.push(FieldError::not_supported(at, other, &["OnFailure", "Never"])),
    }
    errors
}

fn failure_policy(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = list(&spec["podFailurePolicy"], "rules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(path, rules.len(), 20));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        let action = text(rule, "action");
        if action.is_empty() {
            errors.push(FieldError::required(
                path.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ));
        } else if action == "FailIndex" && !present(spec, "backoffLimitPerIndex") {
            errors.push(FieldError::invalid(
                path.child("action"),
                action,
                "requires the backoffLimitPerIndex to be set",
            ));
        } else if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(path.child("action"), action, &ACTIONS));
        }
        let (codes, conditions) = (&rule["onExitCodes"], list(rule, "onPodConditions"));
        if codes.is_object() {
            let at = path.child("onExitCodes");
            let operator = text(codes, "operator");
            if !matches!(operator, "In" | "NotIn") {
                errors.push(FieldError::not_supported(
                    at.child("operator"),
                    operator,
                    &["In", "NotIn"],
                ));
            }
            let values = list(codes, "values");
            if values.is_empty() {
                errors.push(FieldError::invalid(
                    at.child("values"),
                    json!([]),
                    "at least one value is required",
                ));
            }
            for (index, value) in values.iter().enumerate() {
                if operator == "In" && value == 0 {
                    errors.push(FieldError::invalid(
                        at.child("values").index(index),
                        value.clone(),
                        "must not be 0 for the In operator",
                    ));
                }
            }
            if !conditions.is_empty() {
                errors.push(FieldError::invalid(
                    &path,
                    Value::Null,
                    "specifying both OnExitCodes and OnPodConditions is not supported",
                ));
            }
        } else if conditions.is_empty() {
            errors.push(FieldError::new(
                FieldErrorKind::Invalid,
                &path,
                None,
                "specifying one of OnExitCodes and OnPodConditions is required",
            ));
        }
    }
}

impl Job {
    fn validate(obj: &Value) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        let uid = text(&obj["metadata"], "uid");
        let own_name = text(&obj["metadata"], "name");
        if spec["manualSelector"] != true && spec["selector"].is_object() {
            let labels = &spec["template"]["metadata"]["labels"];
            let at = path.child("template").child("metadata").child("labels");
            for (label, wanted) in [
                (UID_LABELS[0], uid),
                (NAME_LABELS[0], own_name),
                (UID_LABELS[1], uid),
                (NAME_LABELS[1], own_name),
            ] {
                match labels[label].as_str() {
                    None => errors.push(FieldError::required(at.key(label), format!("must be '{wanted}'"))),
                    Some(found) if found != wanted => errors.push(FieldError::invalid(
                        &at,
                        labels.clone(),
                        format!("must be '{wanted}'"),
                    )),
                    Some(_) => {}
                }
            }
            if selects(
                &spec["selector"],
                &json!({UID_LABELS[0]: uid, NAME_LABELS[0]: own_name, UID_LABELS[1]: uid, NAME_LABELS[1]: own_name}),
            ) == Some(false)
            {
                errors.push(FieldError::invalid(
                    path.child("selector"),
                    spec["selector"].clone(),
                    "`selector` not auto-generated",
                ));
            }
        }
        errors.extend(validate_spec(spec, &path));
        if spec["selector"].is_null() {
            errors.push(FieldError::required(path.child("selector"), ""));
        } else {
            selector(&mut errors, &spec["selector"], &path.child("selector"));
        }
        if selects(&spec["selector"], &spec["template"]["metadata"]["labels"]) == Some(false) {
            let labels = spec["template"]["metadata"]["labels"].clone();
            let at = path.child("template").child("metadata").child("labels");
            errors.push(FieldError::invalid(
                at,
                labels,
                "`selector` does not match template `labels`",
            ));
        }
        if text(spec, "completionMode") == "Indexed"
            && let Some(completions) = spec["completions"].as_i64().filter(|own| *own > 0)
        {
            let host = format!("{own_name}-{}", completions - 1);
            if !meta::label_problems(&host).is_empty() {
                errors.push(FieldError::invalid(
                    "metadata.name",
                    own_name,
                    format!("will not able to create pod with invalid DNS label: {host}"),
                ));
            }
        }
        errors
    }
}

impl KindRules for Job {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let labels = obj["spec"]["template"]["metadata"]["labels"].clone();
        default_spec(&mut obj["spec"]);
        let unlabelled = obj["metadata"]["labels"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
        // Also with the labels that `prepare_create` made, as the real server does when it reads what it stored.
        if unlabelled && labels.is_object() {
            obj["metadata"]["labels"] = labels;
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
        if obj["spec"]["manualSelector"] == true {
            return;
        }
        let uid = obj["metadata"]["uid"].clone();
        let own_name = obj["metadata"]["name"].clone();
        // In Go the Job's labels are the template's own map when they came from there, and so get these too.
        let shared = obj["metadata"]["labels"].is_object()
            && obj["metadata"]["labels"] == obj["spec"]["template"]["metadata"]["labels"];
        let spec = &mut obj["spec"];
        if let Some(labels) = object(spec, "template")
            .and_then(|template| template.get_mut("metadata"))
            .and_then(|meta| object(meta, "labels"))
        {
            for label in NAME_LABELS {
                labels.entry(label).or_insert_with(|| own_name.clone());
            }
            for label in UID_LABELS {
                labels.entry(label).or_insert_with(|| uid.clone());
            }
        }
        if object(spec, "selector").is_some()
            && let Some(labels) = object(&mut spec["selector"], "matchLabels")
        {
            labels.entry(UID_LABELS[1]).or_insert(uid);
        }
        if shared {
            obj["metadata"]["labels"] = obj["spec"]["template"]["metadata"]["labels"].clone();
        }
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old, path) = (&obj["spec"], &old["spec"], spec_path());
        let mut errors: Vec<FieldError> = Self::validate(obj)
            .into_iter()
            .filter(|error| error.field != "metadata.name")
            .collect();
        if text(new, "completionMode") == "Indexed" {
            if new["completions"] != old["completions"]
                && present(new, "completions")
                && new["completions"] != new["parallelism"]
            {
                let text = "can only be modified in tandem with spec.parallelism";
                errors.push(FieldError::invalid(
                    path.child("completions"),
                    new["completions"].clone(),
                    text,
                ));
            }
        } else {
            immutable(
                &mut errors,
                &new["completions"],
                &old["completions"],
                path.child("completions"),
            );
        }
        immutable(
            &mut errors,
            &new["selector"],
            &old["selector"],
            path.child("selector"),
        );
        let mut template = old["template"].clone();
        if old["suspend"] == true {
            for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
                template["spec"][field] = new["template"]["spec"][field].clone();
            }
            template["metadata"] = new["template"]["metadata"].clone();
        }
        if !same(&new["template"], &template) {
            errors.push(FieldError::invalid(
                path.child("template"),
                new["template"].clone(),
                "field is immutable",
            ));
        }
        for field in [
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
            "managedBy",
            "successPolicy",
        ] {
            immutable(&mut errors, &new[field], &old[field], path.child(field));
        }
        errors
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        let problems = meta::label_problems(text(&obj["metadata"], "name"));
        if problems.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        )]
    }

    fn field(&self, obj: &Value, label: &str) -> Option<String> {
        (label == "status.successful").then(|| obj["status"]["succeeded"].as_i64().unwrap_or(0).to_string())
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Status", "string", 0),
            Column::new("Completions", "string", 0),
            Column::new("Duration", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("Containers", "string", 1),
            Column::new("Images", "string", 1),
            Column::new("Selector", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&obj["spec"], &obj["status"]);
        let holds = |kind: &str| {
            list(status, "conditions")
                .iter()
                .any(|one| text(one, "type") == kind && text(one, "status") == "True")
        };
        let word = if holds("Complete") {
            "Complete"
        } else if holds("Failed") {
            "Failed"
        } else if obj["metadata"]["deletionTimestamp"].is_string() {
            "Terminating"
        } else if holds("Suspended") {
            "Suspended"
        } else if holds("FailureTarget") {
            "FailureTarget"
        } else if holds("SuccessCriteriaMet") {
            "SuccessCriteriaMet"
        } else {
            "Running"
        };
        let succeeded = status["succeeded"].as_i64().unwrap_or(0);
        let completions = match spec["completions"].as_i64() {
            Some(completions) => format!("{succeeded}/{completions}"),
            None => match spec["parallelism"].as_i64().unwrap_or(0) {
                parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
                _ => format!("{succeeded}/1"),
            },
        };
        let seconds = |field: &str| {
            status[field]
                .as_str()
                .and_then(crate::times::parse)
                .map(jiff::Timestamp::as_second)
        };
        let duration = seconds("startTime").map_or_else(String::new, |start| {
            crate::times::human_duration(seconds("completionTime").unwrap_or(now) - start)
        });
        let (names, images) = containers(&spec["template"]["spec"]);
        vec![
            name(obj),
            json!(word),
            json!(completions),
            json!(duration),
            age(obj, now),
            names,
            images,
            selector_text(&spec["selector"]),
        ]
    }
}

impl CronJob {
    fn validate(obj: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let (spec, path) = (&obj["spec"], spec_path());
        let mut errors = Vec::new();
        let schedule = text(spec, "schedule");
        if schedule.is_empty() {
            errors.push(FieldError::required(path.child("schedule"), ""));
        } else {
            if let Err(problem) = schedule_problem(schedule) {
                errors.push(FieldError::invalid(path.child("schedule"), schedule, problem));
            }
            if schedule.contains("TZ") {
                let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(FieldError::invalid(path.child("schedule"), schedule, text));
            }
        }
        non_negative(&mut errors, spec, &path, "startingDeadlineSeconds");
        let zone = &spec["timeZone"];
        if let Some(own) = zone.as_str()
            && old.is_none_or(|old| old["spec"]["timeZone"] != *zone)
        {
            let at = path.child("timeZone");
            if own.is_empty() {
                errors.push(FieldError::invalid(
                    at,
                    own,
                    "timeZone must be nil or non-empty string",
                ));
            } else if own.eq_ignore_ascii_case("local") {
                let text =
                    "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
                errors.push(FieldError::invalid(at, own, text));
            } else if jiff::tz::TimeZone::get(own).is_err() {
                errors.push(FieldError::invalid(at, own, format!("unknown time zone {own}")));
            }
        }
        super::checks::one_of(
            &mut errors,
            spec,
            &path,
            "concurrencyPolicy",
            &["Allow", "Forbid", "Replace"],
        );
        let template = &spec["jobTemplate"]["spec"];
        let at = path.child("jobTemplate").child("spec");
        errors.extend(validate_spec(template, &at));
        if present(template, "selector") {
            errors.push(FieldError::invalid(
                at.child("selector"),
                template["selector"].clone(),
                "`selector` will be auto-generated",
            ));
        }
        if template["manualSelector"] == true {
            errors.push(FieldError::not_supported(
                at.child("manualSelector"),
                true,
                &["nil", "false"],
            ));
        }
        non_negative(&mut errors, spec, &path, "successfulJobsHistoryLimit");
        non_negative(&mut errors, spec, &path, "failedJobsHistoryLimit");
        let own = text(&obj["metadata"], "name");
        if old.is_none() && own.len() > 52 {
            errors.push(FieldError::invalid(
                "metadata.name",
                own,
                "must be no more than 52 characters",
            ));
        }
        errors
    }
}

/// Whether a schedule can be read, with the text of the library that Kubernetes uses for the common mistake.
fn schedule_problem(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let known = [
            "@yearly",
            "@annually",
            "@monthly",
            "@weekly",
            "@daily",
            "@midnight",
            "@hourly",
        ];
        return if known.contains(&schedule) || schedule.starts_with("@every ") {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule
        .split_whitespace()
        .filter(|part| !part.contains("TZ="))
        .collect();
    if fields.len() != 5 {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    croner::Cron::from_str(&fields.join(" "))
        .map(|_| ())
        .map_err(|error| error.to_string())
}

impl KindRules for CronJob {
    fn default(&self, obj: &mut Value) {
        if object(obj, "spec").is_none() {
            return;
        }
        let spec = &mut obj["spec"];
        default(spec, "concurrencyPolicy", json!("Allow"));
        default(spec, "suspend", json!(false));
        default(spec, "successfulJobsHistoryLimit", json!(3));
        default(spec, "failedJobsHistoryLimit", json!(1));
        if object(spec, "jobTemplate").is_some() && object(&mut spec["jobTemplate"], "spec").is_some() {
            let template = &mut spec["jobTemplate"]["spec"];
            // The Job's own defaults come when it is made.
            if object(template, "template").is_some() {
                pod_defaults::template(&mut template["template"]);
            }
            let _made = object(&mut spec["jobTemplate"], "metadata");
        }
    }

    fn prepare_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
    }

    fn validate_create(&self, obj: &Value) -> Vec<FieldError> {
        Self::validate(&with_job_defaults(obj), None)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> Vec<FieldError> {
        Self::validate(&with_job_defaults(obj), Some(old))
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Schedule", "string", 0),
            Column::new("Timezone", "string", 0),
            Column::new("Suspend", "boolean", 0),
            Column::new("Active", "integer", 0),
            Column::new("Last Schedule", "string", 0),
            Column::new("Age", "string", 0),
            Column::new("Containers", "string", 1),
            Column::new("Images", "string", 1),
            Column::new("Selector", "string", 1),
        ]
    }

    fn cells(&self, obj: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&obj["spec"], &obj["status"]);
        let (names, images) = containers(&spec["jobTemplate"]["spec"]["template"]["spec"]);
        let last = status["lastScheduleTime"].as_str();
        vec![
            name(obj),
            spec["schedule"].clone(),
            json!(spec["timeZone"].as_str().unwrap_or("<none>")),
            json!(if spec["suspend"] == true { "True" } else { "False" }),
            json!(list(status, "active").len()),
            json!(if last.is_some() {
                crate::times::age(last, now)
            } else {
                "<none>".to_owned()
            }),
            age(obj, now),
            names,
            images,
            json!("<none>"),
        ]
    }
}

fn with_job_defaults(obj: &Value) -> Value {
    let mut copy = obj.clone();
    default(
        &mut copy["spec"]["jobTemplate"]["spec"],
        "completionMode",
        json!("NonIndexed"),
    );
    let replace = if present(&copy["spec"]["jobTemplate"]["spec"], "podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default(
        &mut copy["spec"]["jobTemplate"]["spec"],
        "podReplacementPolicy",
        json!(replace),
    );
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(change: impl FnOnce(&mut Value)) -> Value {
        let mut obj = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut obj["spec"]);
        Job.default(&mut obj);
        Job.prepare_create(&mut obj);
        obj
    }

    fn errors(obj: &Value) -> Vec<String> {
        Job.validate_create(obj).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn labels_and_selector_come_from_the_uid() {
        let obj = job(|_| {});
        assert!(errors(&obj).is_empty(), "{:?}", errors(&obj));
        assert_eq!(
            obj["spec"]["selector"]["matchLabels"],
            json!({"batch.kubernetes.io/controller-uid": "u"})
        );
        assert_eq!(obj["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!(obj["spec"]["backoffLimit"], 6);
    }

    #[test]
    fn restart_policy() {
        let always = errors(&job(|spec| {
            spec["template"]["spec"]["restartPolicy"] = Value::Null;
        }));
        assert_eq!(
            always,
            [r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#]
        );
    }

    #[test]
    fn the_template_is_immutable() {
        let old = job(|_| {});
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x");
        let errors = Job.validate_update(&new, &old);
        assert_eq!((errors.len(), errors[0].field.as_str()), (1, "spec.template"));
        new = old.clone();
        new["spec"]["parallelism"] = json!(3);
        assert!(Job.validate_update(&new, &old).is_empty());
    }

    #[test]
    fn schedules() {
        assert!(schedule_problem("*/5 * * * *").is_ok());
        assert_eq!(
            schedule_problem("x").unwrap_err(),
            "expected exactly 5 fields, found 1: [x]"
        );
        assert!(schedule_problem("@daily").is_ok());
    }
}
