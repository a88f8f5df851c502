//! `api.v1.beta1.Suggestion`: the algorithms, for our controller and for anyone else who speaks Katib's protocol. It keeps
//! nothing between calls.

use ferroflow_api::api::v1::beta1 as katib;
use ferroflow_api::api::v1::beta1::suggestion_server::Suggestion;
use ferroflow_api::crd::tuning::{
    AlgorithmSetting, AlgorithmSpec, ExperimentSpec, FeasibleSpace, ObjectiveSpec, ParameterAssignment,
    ParameterSpec,
};
use ferroflow_auth::Caller;
use ferroflow_kernel::Error;
use tonic::{Request, Response, Status};

use crate::domain::algorithm::space::{Point, Space};
use crate::domain::algorithm::{self, AlgorithmError, Settings};

/// Points in one request.
const MOST: i32 = 10_000;

/// The service.
#[derive(Debug, Clone, Copy, Default)]
pub struct SuggestionService;

/// What both calls read.
struct Search {
    algorithm: String,
    settings: Settings,
    space: Space,
    max_trials: Option<i32>,
}

fn search(experiment: Option<katib::Experiment>) -> Result<Search, Error> {
    let spec = experiment
        .and_then(|e| e.spec)
        .ok_or_else(|| Error::field("experiment.spec", "is missing"))?;
    let algorithm = spec.algorithm.unwrap_or_default();
    let parameters: Vec<ParameterSpec> = spec
        .parameter_specs
        .into_iter()
        .flat_map(|p| p.parameters)
        .map(parameter_from)
        .collect();
    let space = Space::read(&parameters).map_err(|(index, error)| {
        Error::field(
            format!("experiment.spec.parameter_specs.parameters[{index}]"),
            error.to_string(),
        )
    })?;
    Ok(Search {
        algorithm: algorithm.algorithm_name,
        settings: algorithm
            .algorithm_settings
            .into_iter()
            .map(|s| (s.name, s.value))
            .collect(),
        space,
        max_trials: Some(spec.max_trial_count).filter(|max| *max > 0),
    })
}

fn refused(error: AlgorithmError) -> Error {
    Error::invalid(error.0)
}

#[tonic::async_trait]
impl Suggestion for SuggestionService {
    async fn get_suggestions(
        &self,
        request: Request<katib::GetSuggestionsRequest>,
    ) -> Result<Response<katib::GetSuggestionsReply>, Status> {
        Caller::of(&request)?;
        let request = request.into_inner();
        let Search {
            algorithm,
            settings,
            space,
            ..
        } = search(request.experiment)?;
        algorithm::validate(&algorithm, &space, &settings, None).map_err(refused)?;
        let count = request.current_request_number;
        if !(0..=MOST).contains(&count) {
            return Err(Error::field(
                "current_request_number",
                format!("{count} must be from 0 to {MOST}"),
            )
            .into());
        }
        let points: Vec<Point> = request
            .trials
            .into_iter()
            .filter_map(|trial| trial.spec?.parameter_assignments)
            .map(|given| {
                let assign = |a: katib::ParameterAssignment| ParameterAssignment {
                    name: a.name,
                    value: a.value,
                };
                given.assignments.into_iter().map(assign).collect()
            })
            .collect();
        let count = usize::try_from(count).unwrap_or(0);
        let (entropy, _) = uuid::Uuid::new_v4().as_u64_pair();
        let proposal =
            algorithm::propose(&algorithm, &space, &settings, &points, count, entropy).map_err(refused)?;
        let assignments = proposal.points.into_iter().map(|point| {
            let assign = |a: ParameterAssignment| katib::ParameterAssignment {
                name: a.name,
                value: a.value,
            };
            katib::get_suggestions_reply::ParameterAssignments {
                assignments: point.into_iter().map(assign).collect(),
                ..Default::default()
            }
        });
        let parameter_assignments = assignments.collect();
        let state = proposal.state;
        let algorithm = (!state.is_empty()).then(|| katib::AlgorithmSpec {
            algorithm_name: algorithm,
            algorithm_settings: state
                .into_iter()
                .map(|(name, value)| katib::AlgorithmSetting { name, value })
                .collect(),
        });
        Ok(Response::new(katib::GetSuggestionsReply {
            parameter_assignments,
            algorithm,
            early_stopping_rules: vec![],
        }))
    }

    async fn validate_algorithm_settings(
        &self,
        request: Request<katib::ValidateAlgorithmSettingsRequest>,
    ) -> Result<Response<katib::ValidateAlgorithmSettingsReply>, Status> {
        Caller::of(&request)?;
        let Search {
            algorithm,
            settings,
            space,
            max_trials,
        } = search(request.into_inner().experiment)?;
        algorithm::validate(&algorithm, &space, &settings, max_trials).map_err(refused)?;
        Ok(Response::new(katib::ValidateAlgorithmSettingsReply {}))
    }
}

fn parameter_from(spec: katib::ParameterSpec) -> ParameterSpec {
    let type_ = spec.parameter_type();
    let space = spec.feasible_space.unwrap_or_default();
    let distribution = match space.distribution() {
        katib::Distribution::Unspecified => "",
        katib::Distribution::Uniform => "uniform",
        katib::Distribution::LogUniform => "logUniform",
        katib::Distribution::Normal => "normal",
        katib::Distribution::LogNormal => "logNormal",
    };
    ParameterSpec {
        name: spec.name,
        parameter_type: match type_ {
            katib::ParameterType::Double => "double",
            katib::ParameterType::Int => "int",
            katib::ParameterType::Discrete => "discrete",
            katib::ParameterType::Categorical => "categorical",
            katib::ParameterType::UnknownType => "unknown",
        }
        .to_owned(),
        feasible_space: FeasibleSpace {
            max: space.max,
            min: space.min,
            list: space.list,
            step: space.step,
            distribution: distribution.to_owned(),
        },
    }
}

fn parameter(spec: &ParameterSpec) -> katib::ParameterSpec {
    let space = &spec.feasible_space;
    let type_ = match spec.parameter_type.as_str() {
        "double" => katib::ParameterType::Double,
        "int" => katib::ParameterType::Int,
        "discrete" => katib::ParameterType::Discrete,
        "categorical" => katib::ParameterType::Categorical,
        _ => katib::ParameterType::UnknownType,
    };
    let distribution = match space.distribution.as_str() {
        "uniform" => katib::Distribution::Uniform,
        "logUniform" => katib::Distribution::LogUniform,
        "normal" => katib::Distribution::Normal,
        "logNormal" => katib::Distribution::LogNormal,
        _ => katib::Distribution::Unspecified,
    };
    katib::ParameterSpec {
        name: spec.name.clone(),
        parameter_type: type_.into(),
        feasible_space: Some(katib::FeasibleSpace {
            max: space.max.clone(),
            min: space.min.clone(),
            list: space.list.clone(),
            step: space.step.clone(),
            distribution: distribution.into(),
        }),
    }
}

fn objective(objective: &ObjectiveSpec) -> katib::ObjectiveSpec {
    let type_ = match objective.type_.as_str() {
        "minimize" => katib::ObjectiveType::Minimize,
        "maximize" => katib::ObjectiveType::Maximize,
        _ => katib::ObjectiveType::Unknown,
    };
    katib::ObjectiveSpec {
        r#type: type_.into(),
        goal: objective.goal.unwrap_or_default(),
        objective_metric_name: objective.objective_metric_name.clone(),
        additional_metric_names: objective.additional_metric_names.clone().unwrap_or_default(),
    }
}

/// The algorithm with its settings; `state` overlays those of the experiment.
fn algorithm_spec(algorithm: &AlgorithmSpec, state: &[AlgorithmSetting]) -> katib::AlgorithmSpec {
    let mut settings: Vec<AlgorithmSetting> = algorithm.algorithm_settings.clone().unwrap_or_default();
    settings.retain(|own| !state.iter().any(|s| s.name == own.name));
    settings.extend(state.iter().cloned());
    katib::AlgorithmSpec {
        algorithm_name: algorithm.algorithm_name.clone(),
        algorithm_settings: settings
            .into_iter()
            .map(|s| katib::AlgorithmSetting {
                name: s.name,
                value: s.value,
            })
            .collect(),
    }
}

/// An experiment as the protocol has it.
#[must_use]
pub fn experiment_message(
    name: &str,
    spec: &ExperimentSpec,
    state: &[AlgorithmSetting],
) -> katib::Experiment {
    let parameters = spec.parameters.iter().flatten().map(parameter).collect();
    katib::Experiment {
        name: name.to_owned(),
        spec: Some(katib::ExperimentSpec {
            parameter_specs: Some(katib::experiment_spec::ParameterSpecs { parameters }),
            objective: spec.objective.as_ref().map(objective),
            algorithm: spec.algorithm.as_ref().map(|a| algorithm_spec(a, state)),
            early_stopping: None,
            parallel_trial_count: spec.parallel_trial_count.unwrap_or(3),
            max_trial_count: spec.max_trial_count.unwrap_or(0),
            nas_config: None,
        }),
    }
}
