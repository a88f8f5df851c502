//! Which experiments are refused, and with what text: Katib's where Katib refuses, and at once where Katib would fail later.

use ferroflow_api::crd::tuning::{ExperimentSpec, ExperimentStatus, ParameterSpec, TrialParameterSpec};
use serde_json::Value;

use super::algorithm::space::{Space, SpaceError};
use super::algorithm::{self, ALGORITHMS, KNOWN_ELSEWHERE};
use super::experiment::{is_completed, is_restartable};
use super::gjson;
use super::template::{Template, meta_reference, placeholder, placeholders};
use ferroflow_reconcile::field::FieldError;

/// Longest name of an experiment: its trials and their Pods have longer ones.
const LONGEST_NAME: usize = 40;
const NAME_RULE: &str = "name must consist of lower case alphanumeric characters or '-', start with an alphabetic \
character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is \
'^[a-z]([-a-z0-9]*[a-z0-9])?)'";

/// The experiment that is replaced.
#[derive(Debug, Clone, Copy)]
pub struct Old<'a> {
    /// Its spec, with defaults.
    pub spec: &'a ExperimentSpec,
    /// Its status.
    pub status: &'a ExperimentStatus,
}

/// Checks an experiment, its defaults filled in. `template` is its trial template, or why it could not be read.
#[must_use]
pub fn validate(
    name: &str,
    spec: &ExperimentSpec,
    old: Option<Old>,
    template: Option<&Result<Template, String>>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_name(name, &mut errors);
    counts(spec, &mut errors);
    if let Some(old) = old {
        edits(spec, old, &mut errors);
    }
    let before = errors.len();
    objective(spec, &mut errors);
    if errors.len() > before {
        return errors;
    }
    check_algorithm(spec, &mut errors);
    if !matches!(
        spec.resume_policy.as_deref(),
        None | Some("" | "Never" | "LongRunning" | "FromVolume")
    ) {
        let value = spec.resume_policy.clone().unwrap_or_default();
        errors.push(FieldError::invalid(
            "spec.resumePolicy",
            value,
            "invalid ResumePolicyType",
        ));
    }
    trial_template(spec, template, &mut errors);
    let parameters = spec.parameters.as_deref().unwrap_or_default();
    if parameters.is_empty() && spec.nas_config.is_none() {
        errors.push(FieldError::required(
            "spec",
            "spec.parameters or spec.nasConfig must be specified",
        ));
    }
    if !parameters.is_empty() && spec.nas_config.is_some() {
        let detail = "only one of spec.parameters and spec.nasConfig can be specified";
        errors.push(FieldError::invalid("spec", "", detail));
    }
    check_parameters(parameters, &mut errors);
    collector(spec, &mut errors);
    if errors.is_empty() {
        settings(spec, &mut errors);
    }
    errors
}

fn check_name(name: &str, errors: &mut Vec<FieldError>) {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-');
    if !good {
        errors.push(FieldError::invalid("metadata.name", name, NAME_RULE));
    }
    if name.len() > LONGEST_NAME {
        let detail = format!(
            "name must be no more than {LONGEST_NAME} characters; it has {}",
            name.len()
        );
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
}

fn counts(spec: &ExperimentSpec, errors: &mut Vec<FieldError>) {
    let mut bad = |field: &str, value: i32, detail: &str| {
        errors.push(FieldError::invalid(
            format!("spec.{field}"),
            value.to_string(),
            detail,
        ));
    };
    if let Some(failed) = spec.max_failed_trial_count.filter(|n| *n < 0) {
        bad("maxFailedTrialCount", failed, "should not be less than 0");
    }
    if let Some(max) = spec.max_trial_count.filter(|n| *n <= 0) {
        bad("maxTrialCount", max, "must be greater than 0");
    }
    if let Some(parallel) = spec.parallel_trial_count.filter(|n| *n <= 0) {
        bad("parallelTrialCount", parallel, "must be greater than 0");
    }
    let Some(max) = spec.max_trial_count else { return };
    if let Some(failed) = spec.max_failed_trial_count.filter(|n| *n > max) {
        bad(
            "maxFailedTrialCount",
            failed,
            "should be less than or equal to spec.maxTrialCount",
        );
    }
    if let Some(parallel) = spec.parallel_trial_count.filter(|n| *n > max) {
        bad(
            "parallelTrialCount",
            parallel,
            "should be less than or equal to spec.maxTrialCount",
        );
    }
}

fn edits(spec: &ExperimentSpec, old: Old, errors: &mut Vec<FieldError>) {
    if spec == old.spec {
        return;
    }
    if is_completed(old.status) && !is_restartable(old.status, old.spec.resume_policy.as_deref()) {
        let value = spec.resume_policy.clone().unwrap_or_default();
        let detail = "Experiment can be restarted if it is in succeeded state by reaching max trials and \
            spec.resumePolicy = LongRunning or spec.resumePolicy = FromVolume, when experiment is completed";
        errors.push(FieldError::invalid("spec.resumePolicy", value, detail));
    }
    if let Some(max) = spec.max_trial_count.filter(|max| *max <= old.status.trials) {
        let detail = "must be greater than status.trials count";
        errors.push(FieldError::invalid("spec.maxTrialCount", max.to_string(), detail));
    }
    let editable = ExperimentSpec {
        parallel_trial_count: spec.parallel_trial_count,
        max_trial_count: spec.max_trial_count,
        max_failed_trial_count: spec.max_failed_trial_count,
        ..old.spec.clone()
    };
    if *spec != editable {
        let detail =
            "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn objective(spec: &ExperimentSpec, errors: &mut Vec<FieldError>) {
    let Some(objective) = &spec.objective else {
        errors.push(FieldError::required("spec.objective", "must be specified"));
        return;
    };
    if objective.type_ != "minimize" && objective.type_ != "maximize" {
        errors.push(FieldError::invalid(
            "spec.objective.type",
            &objective.type_,
            "must be minimize or maximize",
        ));
    }
    if objective.objective_metric_name.is_empty() {
        errors.push(FieldError::required(
            "spec.objective.objectiveMetricName",
            "must be specified",
        ));
    }
    let additional = objective.additional_metric_names.as_deref().unwrap_or_default();
    if additional.contains(&objective.objective_metric_name) {
        let detail = "should not contain spec.objective.objectiveMetricName";
        errors.push(FieldError::invalid(
            "spec.objective.additionalMetricNames",
            additional.join(","),
            detail,
        ));
    }
    for (index, strategy) in objective.metric_strategies.iter().flatten().enumerate() {
        if !["min", "max", "latest"].contains(&strategy.value.as_str()) {
            let field = format!("spec.objective.metricStrategies[{index}].value");
            errors.push(FieldError::not_supported(
                field,
                &strategy.value,
                &["min", "max", "latest"],
            ));
        }
    }
}

fn check_algorithm(spec: &ExperimentSpec, errors: &mut Vec<FieldError>) {
    match &spec.algorithm {
        None => errors.push(FieldError::required("spec.algorithm", "must be specified")),
        Some(algorithm) if algorithm.algorithm_name.is_empty() => {
            errors.push(FieldError::required(
                "spec.algorithm.algorithmName",
                "must be specified",
            ));
        }
        Some(algorithm) if !ALGORITHMS.contains(&algorithm.algorithm_name.as_str()) => {
            let name = &algorithm.algorithm_name;
            let why = if KNOWN_ELSEWHERE.contains(&name.as_str()) {
                "it is not implemented yet"
            } else {
                "it is not known"
            };
            let detail = format!(
                "unable to get Suggestion config data for algorithm {name}: {why}; use one of {}",
                ALGORITHMS.join(", ")
            );
            errors.push(FieldError::invalid("spec.algorithm.algorithmName", name, detail));
        }
        Some(_) => {}
    }
    if let Some(stopping) = &spec.early_stopping {
        let name = &stopping.algorithm_name;
        if name.is_empty() {
            errors.push(FieldError::required(
                "spec.earlyStopping.algorithmName",
                "must be specified",
            ));
        } else {
            let why = if name == "medianstop" {
                "it is not implemented yet"
            } else {
                "it is not known"
            };
            let detail = format!(
                "unable to get EarlyStopping config data for algorithm {name}: {why}; leave spec.earlyStopping out"
            );
            errors.push(FieldError::invalid(
                "spec.earlyStopping.algorithmName",
                name,
                detail,
            ));
        }
    }
    if spec.nas_config.is_some() {
        let detail = "neural architecture search is not implemented yet; use spec.parameters";
        errors.push(FieldError::forbidden("spec.nasConfig", detail));
    }
}

fn check_parameters(parameters: &[ParameterSpec], errors: &mut Vec<FieldError>) {
    for (index, parameter) in parameters.iter().enumerate() {
        let root = format!("spec.parameters[{index}]");
        let space = &parameter.feasible_space;
        let type_ = parameter.parameter_type.as_str();
        let before = errors.len();
        if parameter.name.is_empty() {
            errors.push(FieldError::required(format!("{root}.name"), "must be specified"));
        } else if parameters[..index].iter().any(|p| p.name == parameter.name) {
            let detail = "parameter names must be different";
            errors.push(FieldError::invalid(
                format!("{root}.name"),
                &parameter.name,
                detail,
            ));
        }
        if !["int", "double", "categorical", "discrete"].contains(&type_) {
            let detail = format!("parameterType: {type_} is not supported");
            errors.push(FieldError::invalid(
                format!("{root}.parameterType"),
                type_,
                detail,
            ));
        }
        let field = format!("{root}.feasibleSpace");
        let bounds = !(space.min.is_empty() && space.max.is_empty() && space.step.is_empty());
        if !bounds && space.list.is_empty() {
            errors.push(FieldError::required(field, "feasibleSpace must be specified"));
        } else if matches!(type_, "double" | "int") {
            if !space.list.is_empty() {
                let detail = format!("feasibleSpace.list is not supported for parameterType: {type_}");
                errors.push(FieldError::invalid(
                    format!("{field}.list"),
                    space.list.join(","),
                    detail,
                ));
            }
            if space.max.is_empty() || space.min.is_empty() {
                let detail = format!(
                    "feasibleSpace.max or feasibleSpace.min must be specified for parameterType: {type_}"
                );
                errors.push(FieldError::required(format!("{field}.max"), detail));
            }
        } else if bounds {
            let detail =
                format!("feasibleSpace .max, .min and .step is not supported for parameterType: {type_}");
            errors.push(FieldError::invalid(
                field,
                format!("{}..{}", space.min, space.max),
                detail,
            ));
        }
        if errors.len() == before
            && let Err((_, SpaceError { field, value, detail })) =
                Space::read(std::slice::from_ref(parameter))
        {
            errors.push(FieldError::invalid(format!("{root}.{field}"), value, detail));
        }
    }
}

/// As Go prints them, since Katib's messages hold them.
fn printed(parameters: &[TrialParameterSpec]) -> String {
    let one = |p: &TrialParameterSpec| {
        format!(
            "{{{} {} {}}}",
            p.name,
            p.description.as_deref().unwrap_or_default(),
            p.reference
        )
    };
    format!("[{}]", parameters.iter().map(one).collect::<Vec<_>>().join(" "))
}

fn trial_template(
    spec: &ExperimentSpec,
    source: Option<&Result<Template, String>>,
    errors: &mut Vec<FieldError>,
) {
    const ROOT: &str = "spec.trialTemplate";
    let Some(template) = &spec.trial_template else {
        errors.push(FieldError::required(ROOT, "must be specified"));
        return;
    };
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if empty(&template.primary_container_name) {
        errors.push(FieldError::required(
            format!("{ROOT}.primaryContainerName"),
            "must be specified",
        ));
    }
    if empty(&template.success_condition) || empty(&template.failure_condition) {
        errors.push(FieldError::required(
            ROOT,
            "successCondition and failureCondition must be specified",
        ));
    }
    for (field, condition) in [
        ("successCondition", &template.success_condition),
        ("failureCondition", &template.failure_condition),
    ] {
        let condition = condition.as_deref().unwrap_or_default();
        if let Some(error) = (!condition.is_empty())
            .then(|| gjson::get(&Value::Null, condition).err())
            .flatten()
        {
            errors.push(FieldError::invalid(
                format!("{ROOT}.{field}"),
                condition,
                error.to_string(),
            ));
        }
    }
    let Some(parameters) = &template.trial_parameters else {
        errors.push(FieldError::required(
            format!("{ROOT}.trialParameters"),
            "must be specified",
        ));
        return;
    };
    match (&template.trial_spec, &template.config_map) {
        (None, None) => {
            let detail = "spec.trialTemplate.trialSpec or spec.trialTemplate.configMap must be specified";
            errors.push(FieldError::required(format!("{ROOT}.TrialSource"), detail));
            return;
        }
        (Some(_), Some(_)) => {
            let detail =
                "only one of spec.trialTemplate.trialSpec or spec.trialTemplate.configMap can be specified";
            errors.push(FieldError::required(ROOT, detail));
            return;
        }
        (None, Some(map))
            if map.config_map_name.is_empty()
                || map.config_map_namespace.is_empty()
                || map.template_path.is_empty() =>
        {
            let detail = "configMapName, configMapNamespace and templatePath must be specified";
            errors.push(FieldError::required(format!("{ROOT}.configMap"), detail));
            return;
        }
        _ => {}
    }
    match source {
        Some(Ok(source)) => placeholders_fit(spec, source, parameters, errors),
        Some(Err(why)) => {
            errors.push(FieldError::invalid(
                ROOT,
                "",
                format!("unable to parse spec.trialTemplate: {why}"),
            ));
        }
        None => {}
    }
}

fn placeholders_fit(
    spec: &ExperimentSpec,
    template: &Template,
    parameters: &[TrialParameterSpec],
    errors: &mut Vec<FieldError>,
) {
    const ROOT: &str = "spec.trialTemplate";
    let own = spec.parameters.as_deref().unwrap_or_default();
    let text = template.text();
    let mut accepted: Vec<&TrialParameterSpec> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let field = format!("{ROOT}.trialParameters[{index}]");
        let TrialParameterSpec { name, reference, .. } = parameter;
        if name.is_empty() || reference.is_empty() || name.contains(['{', '}']) {
            let detail = "name and reference must be specified and name must not contain '{' or '}'";
            errors.push(FieldError::invalid(field, "", detail));
            continue;
        }
        let all = printed(parameters);
        if accepted.iter().any(|p| p.name == *name) {
            let detail = format!(
                "parameter name {name} can't be duplicated in spec.trialTemplate.trialParameters: {all}"
            );
            errors.push(FieldError::invalid(format!("{field}.name"), name, detail));
            continue;
        }
        if accepted.iter().any(|p| p.reference == *reference) {
            let detail = format!(
                "parameter reference {reference} can't be duplicated in spec.trialTemplate.trialParameters: {all}"
            );
            errors.push(FieldError::invalid(
                format!("{field}.reference"),
                reference,
                detail,
            ));
            continue;
        }
        accepted.push(parameter);
        if !own.is_empty() && meta_reference(reference).is_none() && !own.iter().any(|p| p.name == *reference)
        {
            let names: Vec<&str> = own.iter().map(|p| p.name.as_str()).collect();
            let detail = format!(
                "parameter reference {reference} does not exist in spec.parameters: [{}]",
                names.join(" ")
            );
            errors.push(FieldError::invalid(
                format!("{field}.reference"),
                reference,
                detail,
            ));
        }
        if !text.contains(&placeholder(name)) {
            let detail = format!(
                "parameter name: {name} in spec.trialParameters not found in spec.trialTemplate: {text}"
            );
            errors.push(FieldError::invalid(format!("{field}.name"), name, detail));
            return;
        }
    }
    let unknown: Vec<String> = placeholders(&text)
        .into_iter()
        .filter(|name| !parameters.iter().any(|p| p.name == *name))
        .map(|name| placeholder(&name))
        .collect();
    if !unknown.is_empty() {
        let detail = format!(
            "parameters: [{}] in spec.trialTemplate not found in spec.trialParameters: {}",
            unknown.join(" "),
            printed(parameters)
        );
        errors.push(FieldError::invalid(ROOT, "", detail));
    }
    for (index, parameter) in own.iter().enumerate() {
        if !parameters.iter().any(|p| p.reference == parameter.name) {
            let detail = format!(
                "is not used by the trial template; add it to spec.trialTemplate.trialParameters: {}",
                printed(parameters)
            );
            errors.push(FieldError::invalid(
                format!("spec.parameters[{index}].name"),
                &parameter.name,
                detail,
            ));
        }
    }
    resource(template, parameters, errors);
}

fn resource(template: &Template, parameters: &[TrialParameterSpec], errors: &mut Vec<FieldError>) {
    const ROOT: &str = "spec.trialTemplate";
    let values: Vec<(String, String)> = parameters
        .iter()
        .map(|p| (p.name.clone(), "test-value".to_owned()))
        .collect();
    let resource = match template.substitute(&values) {
        Ok(resource) => resource,
        Err(error) => {
            let detail = format!(
                "unable to convert spec.trialTemplate: {} to unstructured: {error}",
                template.text()
            );
            errors.push(FieldError::invalid(ROOT, "", detail));
            return;
        }
    };
    let text = |pointer: &str| {
        resource
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if !text("/metadata/name").is_empty() || !text("/metadata/namespace").is_empty() {
        let detail = "metadata.name and metadata.namespace in spec.trialTemplate must be omitted";
        errors.push(FieldError::invalid(ROOT, "", detail));
    }
    if text("/apiVersion").is_empty() || text("/kind").is_empty() {
        let detail = "APIVersion and Kind in spec.trialTemplate must be specified";
        errors.push(FieldError::required(ROOT, detail));
    }
    if (text("/apiVersion"), text("/kind")) == ("batch/v1", "Job")
        && resource
            .pointer("/spec/template/spec/containers")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
    {
        let detail = "invalid spec.trialTemplate: Job has no spec.template.spec.containers";
        errors.push(FieldError::invalid(ROOT, "", detail));
    }
}

fn collector(spec: &ExperimentSpec, errors: &mut Vec<FieldError>) {
    const ROOT: &str = "spec.metricsCollectorSpec";
    let Some(metrics) = &spec.metrics_collector_spec else {
        return;
    };
    let kind = metrics
        .collector
        .as_ref()
        .and_then(|c| c.kind.as_deref())
        .unwrap_or("StdOut");
    let file = metrics.source.as_ref().and_then(|s| s.file_system_path.as_ref());
    let filters = metrics
        .source
        .as_ref()
        .and_then(|s| s.filter.as_ref())
        .and_then(|f| f.metrics_format.as_deref());
    let kind_field = format!("{ROOT}.collector.kind");
    match kind {
        "StdOut" | "Push" | "None" => {}
        "File" => {
            let absolute = file.is_some_and(|f| {
                f.kind.as_deref() == Some("File") && f.path.as_deref().is_some_and(|p| p.starts_with('/'))
            });
            if !absolute {
                let detail = "file path where metrics file exists is required";
                errors.push(FieldError::required(
                    format!("{ROOT}.source.fileSystemPath.path"),
                    detail,
                ));
            }
            let format = file.and_then(|f| f.format.as_deref());
            if !matches!(format, Some("TEXT" | "JSON")) {
                let detail = "format of metrics file is required for metrics collector";
                errors.push(FieldError::required(
                    format!("{ROOT}.source.fileSystemPath.format"),
                    detail,
                ));
            }
            if format == Some("JSON") && filters.is_some() {
                let detail = "filter must be nil when format of metrics file is json";
                errors.push(FieldError::invalid(format!("{ROOT}.source.filter"), "", detail));
            }
        }
        "TensorFlowEvent" | "PrometheusMetric" | "Custom" => {
            let detail =
                format!("metrics collector kind: {kind} is not implemented yet; use StdOut, File or Push");
            errors.push(FieldError::invalid(kind_field, kind, detail));
        }
        other => {
            let detail = format!("invalid metrics collector kind: {other}");
            errors.push(FieldError::invalid(kind_field, other, detail));
        }
    }
    for filter in filters.into_iter().flatten() {
        let field = format!("{ROOT}.source.filter.metricsFormat");
        match regex::Regex::new(filter) {
            Err(error) => {
                let line = error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .to_owned();
                errors.push(FieldError::invalid(
                    field,
                    filter,
                    format!("invalid filter: {line}"),
                ));
            }
            Ok(regex) if regex.captures_len() < 3 => {
                errors.push(FieldError::invalid(
                    field,
                    filter,
                    "two top subexpressions are required",
                ));
            }
            Ok(_) => {}
        }
    }
}

/// What the suggestion service would refuse later.
fn settings(spec: &ExperimentSpec, errors: &mut Vec<FieldError>) {
    let Some(algorithm) = &spec.algorithm else { return };
    let Ok(space) = Space::read(spec.parameters.as_deref().unwrap_or_default()) else {
        return;
    };
    let settings = algorithm
        .algorithm_settings
        .iter()
        .flatten()
        .map(|s| (s.name.clone(), s.value.clone()))
        .collect();
    if let Err(error) =
        algorithm::validate(&algorithm.algorithm_name, &space, &settings, spec.max_trial_count)
    {
        errors.push(FieldError::invalid(
            "spec.algorithm",
            &algorithm.algorithm_name,
            error.to_string(),
        ));
    }
}
