//! Algorithms, experiments and validation.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::semicolon_if_nothing_returned,
    clippy::type_complexity,
    reason = "helpers of tests"
)]

use std::collections::{BTreeMap, HashSet};

use ferroflow_api::crd::tuning::{
    Experiment, ExperimentSpec, FeasibleSpace, Metric, Observation, ParameterSpec, Suggestion,
    SuggestionStatus, Trial, TrialAssignment, TrialSpec, TrialStatus,
};
use ferroflow_tuning::domain::algorithm::space::{Point, Space};
use ferroflow_tuning::domain::algorithm::{propose, validate as validate_algorithm};
use ferroflow_tuning::domain::collector::{Injection, inject};
use ferroflow_tuning::domain::condition::is_true;
use ferroflow_tuning::domain::defaults::set_defaults;
use ferroflow_tuning::domain::experiment::{ExperimentAction, plan};
use ferroflow_tuning::domain::template::Template;
use ferroflow_tuning::domain::trial::{self, state};
use ferroflow_tuning::domain::validation::validate;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn number(name: &str, type_: &str, min: &str, max: &str, step: &str, distribution: &str) -> ParameterSpec {
    ParameterSpec {
        name: name.into(),
        parameter_type: type_.into(),
        feasible_space: FeasibleSpace {
            min: min.into(),
            max: max.into(),
            step: step.into(),
            distribution: distribution.into(),
            list: vec![],
        },
    }
}

fn list(name: &str, values: &[&str]) -> ParameterSpec {
    ParameterSpec {
        name: name.into(),
        parameter_type: "categorical".into(),
        feasible_space: FeasibleSpace {
            list: values.iter().map(ToString::to_string).collect(),
            ..Default::default()
        },
    }
}

fn values(points: &[Point], parameter: usize) -> Vec<f64> {
    points
        .iter()
        .map(|p| p[parameter].value.parse().unwrap())
        .collect()
}

#[test]
fn random_follows_its_distributions_within_the_bounds() {
    let space = Space::read(&[
        number("lr", "double", "0.01", "0.5", "", "logUniform"),
        number("depth", "int", "2", "8", "", "uniform"),
        number("drop", "double", "0.1", "0.5", "0.1", "uniform"),
        number("n", "double", "-3", "3", "", "normal"),
        number("ln", "double", "1", "100", "", "logNormal"),
        number("even", "int", "0", "9", "2", "uniform"),
        list("opt", &["sgd", "adam"]),
    ])
    .unwrap();
    let points = propose(
        "random",
        &space,
        &vec![("random_state".into(), "7".into())],
        &[],
        4000,
        0,
    )
    .unwrap()
    .points;
    let lr = values(&points, 0);
    assert!(lr.iter().all(|v| (0.01..=0.5).contains(v)));
    // the geometric mean of the bounds halves a log-uniform distribution
    let below = lr.iter().filter(|v| **v < (0.01f64 * 0.5).sqrt()).count();
    assert!((1850..2150).contains(&below), "{below}");
    let depth: BTreeMap<String, usize> = points.iter().fold(BTreeMap::new(), |mut counts, p| {
        *counts.entry(p[1].value.clone()).or_default() += 1;
        counts
    });
    assert_eq!(
        depth.keys().map(String::as_str).collect::<Vec<_>>(),
        ["2", "3", "4", "5", "6", "7", "8"]
    );
    assert!(depth.values().all(|n| (470..680).contains(n)), "{depth:?}");
    let drop: HashSet<&str> = points.iter().map(|p| p[2].value.as_str()).collect();
    assert_eq!(drop, HashSet::from(["0.1", "0.2", "0.3", "0.4", "0.5"]));
    let normal = values(&points, 3);
    assert!(normal.iter().all(|v| (-3.0..=3.0).contains(v)));
    let within = normal.iter().filter(|v| v.abs() < 1.0).count();
    assert!(
        (2600..2860).contains(&within),
        "68% within one deviation: {within}"
    );
    assert!(values(&points, 4).iter().all(|v| (1.0..=100.0).contains(v)));
    let even: HashSet<&str> = points.iter().map(|p| p[5].value.as_str()).collect();
    assert_eq!(even, HashSet::from(["0", "2", "4", "6", "8"]));
}

#[test]
fn a_seed_that_nobody_chose_becomes_state_and_replays() {
    let space = Space::read(&[number("x", "double", "0", "1", "", "")]).unwrap();
    let first = propose("random", &space, &vec![], &[], 2, 99).unwrap();
    assert_eq!(first.state.len(), 1);
    let all = propose("random", &space, &first.state, &[], 5, 1).unwrap().points;
    assert_eq!(all[..2], first.points[..]);
    let rest = propose("random", &space, &first.state, &all[..3], 2, 2)
        .unwrap()
        .points;
    assert_eq!(rest[..], all[3..]);
}

#[test]
fn grid_walks_every_point_once_and_says_when_it_is_too_small() {
    let space = Space::read(&[
        number("a", "double", "0.01", "0.03", "0.01", ""),
        list("b", &["x", "y"]),
    ])
    .unwrap();
    let points = propose("grid", &space, &vec![], &[], 10, 0).unwrap().points;
    let text: Vec<String> = points
        .iter()
        .map(|p| format!("{}{}", p[0].value, p[1].value))
        .collect();
    assert_eq!(text, ["0.01x", "0.01y", "0.02x", "0.02y", "0.03x", "0.03y"]);
    assert!(
        propose("grid", &space, &vec![], &points, 3, 0)
            .unwrap()
            .points
            .is_empty()
    );
    let error = validate_algorithm("grid", &space, &vec![], Some(7)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Max Trial Count: 7 > all possible search combinations: 6"
    );
    let endless = Space::read(&[number("a", "double", "0", "1", "", "")]).unwrap();
    let error = validate_algorithm("grid", &endless, &vec![], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "param: a step is nil; for discrete search space, all parameters must include step"
    );
    let error = validate_algorithm("random", &space, &vec![("gamma".into(), "1".into())], None).unwrap_err();
    assert_eq!(error.to_string(), "unknown setting gamma for algorithm random");
}

proptest! {
    /// In batches of any size random search never proposes a point twice while there are others.
    #[test]
    fn no_duplicates_until_the_space_is_used(batches in prop::collection::vec(1usize..6, 1..8), seed in any::<u32>()) {
        let space = Space::read(&[number("a", "int", "1", "4", "", ""), list("b", &["x", "y", "z"])]).unwrap();
        let settings = vec![("random_state".into(), seed.to_string())];
        let mut points: Vec<Point> = vec![];
        for batch in batches {
            let new = propose("random", &space, &settings, &points, batch, 0).unwrap().points;
            prop_assert_eq!(new.len(), batch);
            points.extend(new);
        }
        let distinct: HashSet<&Point> = points.iter().collect();
        prop_assert_eq!(distinct.len(), points.len().min(12));
    }
}

fn experiment_json() -> Value {
    json!({
        "apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": "tune", "namespace": "team", "uid": "u"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 2, "maxTrialCount": 3, "maxFailedTrialCount": 2,
            "parameters": [{"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.5"}}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "rate", "reference": "lr"}],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [
                    {"name": "main", "image": "python", "command": ["python", "t.py", "--lr=${trialParameters.rate}"]}]}}}},
            },
        },
    })
}

fn experiment() -> Experiment {
    let mut experiment: Experiment = serde_json::from_value(experiment_json()).unwrap();
    set_defaults(&mut experiment.spec);
    experiment
}

fn refusals(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut value = experiment_json();
    change(&mut value);
    let mut experiment: Experiment = serde_json::from_value(value).unwrap();
    set_defaults(&mut experiment.spec);
    let template = experiment
        .spec
        .trial_template
        .as_ref()
        .and_then(|t| t.trial_spec.clone())
        .map(Template::Inline);
    let name = experiment.metadata.name.as_deref().unwrap();
    let errors = validate(name, &experiment.spec, None, template.map(Ok).as_ref());
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn bad_experiments_are_refused_at_create() {
    assert_eq!(refusals(|_| ()), Vec::<String>::new());
    let cases: Vec<(fn(&mut Value), &str)> = vec![
        (
            |e| e["spec"]["parameters"][0]["feasibleSpace"] = json!({"min": "0.5", "max": "0.1"}),
            r#"spec.parameters[0].feasibleSpace.min: Invalid value: "0.5": must be less than or equal to feasibleSpace.max "0.1""#,
        ),
        (
            |e| e["spec"]["parameters"][0]["feasibleSpace"] = json!({"min": "low", "max": "1"}),
            r#"spec.parameters[0].feasibleSpace.min: Invalid value: "low": must be a number, such as "0.1""#,
        ),
        (
            |e| {
                e["spec"]["parameters"][0]["feasibleSpace"] =
                    json!({"min": "0", "max": "1", "distribution": "logUniform"})
            },
            r#"spec.parameters[0].feasibleSpace.min: Invalid value: "0": must be greater than 0 for distribution logUniform"#,
        ),
        (
            |e| {
                e["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"] =
                    json!(["true"])
            },
            concat!(
                r#"spec.trialTemplate.trialParameters[0].name: Invalid value: "rate": parameter name: rate in spec.trialParameters "#,
                r#"not found in spec.trialTemplate: {"apiVersion":"batch/v1","kind":"Job","spec":{"template":{"spec":{"containers":"#,
                r#"[{"command":["true"],"image":"python","name":"main"}]}}}}"#
            ),
        ),
        (
            |e| {
                let more =
                    json!({"name": "n", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "2"}});
                e["spec"]["parameters"].as_array_mut().unwrap().push(more);
            },
            r#"spec.parameters[1].name: Invalid value: "n": is not used by the trial template; add it to spec.trialTemplate.trialParameters: [{rate  lr}]"#,
        ),
        (
            |e| e["spec"]["trialTemplate"]["trialParameters"] = json!([]),
            "spec.trialTemplate: Invalid value: \"\": parameters: [${trialParameters.rate}] in spec.trialTemplate not found in spec.trialParameters: []",
        ),
        (
            |e| e["spec"]["trialTemplate"]["trialParameters"][0]["reference"] = json!("x"),
            r#"spec.trialTemplate.trialParameters[0].reference: Invalid value: "x": parameter reference x does not exist in spec.parameters: [lr]"#,
        ),
        (
            |e| e["spec"]["algorithm"]["algorithmName"] = json!("tpe"),
            r#"spec.algorithm.algorithmName: Invalid value: "tpe": unable to get Suggestion config data for algorithm tpe: it is not implemented yet; use one of random, grid"#,
        ),
        (
            |e| e["spec"]["algorithm"] = json!({"algorithmName": "grid"}),
            r#"spec.algorithm: Invalid value: "grid": param: lr step is nil; for discrete search space, all parameters must include step"#,
        ),
        (
            |e| e["spec"]["parallelTrialCount"] = json!(4),
            r#"spec.parallelTrialCount: Invalid value: "4": should be less than or equal to spec.maxTrialCount"#,
        ),
        (
            |e| e["spec"]["objective"] = Value::Null,
            "spec.objective: Required value: must be specified",
        ),
        (
            |e| e["metadata"]["name"] = json!("a234567890123456789012345678901234567890x"),
            r#"metadata.name: Invalid value: "a234567890123456789012345678901234567890x": name must be no more than 40 characters; it has 41"#,
        ),
        (
            |e| {
                e["spec"]["metricsCollectorSpec"] =
                    json!({"source": {"filter": {"metricsFormat": ["loss=(.*)"]}}})
            },
            r#"spec.metricsCollectorSpec.source.filter.metricsFormat: Invalid value: "loss=(.*)": two top subexpressions are required"#,
        ),
    ];
    for (change, text) in cases {
        let errors = refusals(change);
        assert!(
            errors.contains(&text.to_owned()),
            "expected {text}\nfound {errors:#?}"
        );
    }
}

#[test]
fn only_budgets_may_be_edited() {
    let old = experiment();
    let status = old.status.clone().unwrap_or_default();
    let template = Ok(Template::Inline(
        old.spec.trial_template.clone().unwrap().trial_spec.unwrap(),
    ));
    let check = |spec: &ExperimentSpec| {
        let old = ferroflow_tuning::domain::validation::Old {
            spec: &old.spec,
            status: &status,
        };
        validate("tune", spec, Some(old), Some(&template))
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let mut spec = old.spec.clone();
    spec.max_trial_count = Some(9);
    assert_eq!(check(&spec), Vec::<String>::new());
    spec.objective.as_mut().unwrap().type_ = "maximize".into();
    let text = "spec: Forbidden: only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable";
    assert_eq!(check(&spec), [text]);
}

/// An experiment and its trials, moved as the controllers would.
struct World {
    experiment: Experiment,
    suggestion: Option<Suggestion>,
    trials: Vec<Trial>,
    killed: Vec<String>,
}

impl World {
    fn new(change: impl FnOnce(&mut ExperimentSpec)) -> Self {
        let mut experiment = experiment();
        change(&mut experiment.spec);
        Self {
            experiment,
            suggestion: None,
            trials: vec![],
            killed: vec![],
        }
    }

    fn step(&mut self) -> bool {
        let plan = plan(&self.experiment, self.suggestion.as_ref(), &self.trials, now());
        let changed = self.experiment.status.as_ref() != Some(&plan.status) || !plan.actions.is_empty();
        self.experiment.status = Some(plan.status);
        for action in plan.actions {
            match action {
                ExperimentAction::Request(total) => {
                    let suggestion = self
                        .suggestion
                        .get_or_insert_with(|| Suggestion::new("tune", Default::default()));
                    suggestion.spec.requests = total;
                    let status = suggestion.status.get_or_insert_with(SuggestionStatus::default);
                    for n in status.suggestions.len()..usize::try_from(total).unwrap() {
                        status.suggestions.push(TrialAssignment {
                            name: format!("tune-{n}"),
                            ..Default::default()
                        });
                    }
                }
                ExperimentAction::CreateTrial(assignment) => {
                    let spec = TrialSpec {
                        objective: self.experiment.spec.objective.clone(),
                        ..Default::default()
                    };
                    let mut trial = Trial::new(&assignment.name, spec);
                    trial.status = Some(TrialStatus::default());
                    self.trials.push(trial);
                }
                ExperimentAction::KillTrials(names, why) => {
                    for trial in self
                        .trials
                        .iter_mut()
                        .filter(|t| names.contains(t.metadata.name.as_ref().unwrap()))
                    {
                        trial.status = trial::kill(trial, why, now());
                    }
                    self.killed.extend(names);
                }
                ExperimentAction::DeleteTrials(names) => {
                    self.trials
                        .retain(|t| !names.contains(t.metadata.name.as_ref().unwrap()));
                    let status = self.suggestion.as_mut().unwrap();
                    status
                        .status
                        .as_mut()
                        .unwrap()
                        .suggestions
                        .retain(|s| !names.contains(&s.name));
                    status.spec.requests =
                        i32::try_from(status.status.as_ref().unwrap().suggestions.len()).unwrap();
                }
                ExperimentAction::FinishSuggestion => {
                    let status = self.suggestion.as_mut().unwrap().status.as_mut().unwrap();
                    ferroflow_tuning::domain::condition::set(
                        &mut status.conditions,
                        "Succeeded",
                        true,
                        "r",
                        "m",
                        now(),
                    );
                }
                ExperimentAction::ResumeSuggestion => {
                    self.suggestion
                        .as_mut()
                        .unwrap()
                        .status
                        .as_mut()
                        .unwrap()
                        .conditions
                        .clear();
                }
            }
        }
        changed
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            if !self.step() {
                return;
            }
        }
        panic!("does not settle");
    }

    fn end(&mut self, index: usize, type_: &str, loss: Option<&str>) {
        let status = self.trials[index].status.as_mut().unwrap();
        ferroflow_tuning::domain::condition::set(&mut status.conditions, type_, true, "r", "m", now());
        let metric = |v: &str| Metric {
            name: "loss".into(),
            min: v.into(),
            max: v.into(),
            latest: v.into(),
        };
        status.observation = loss.map(|v| Observation {
            metrics: vec![metric(v)],
        });
    }

    fn last(&self) -> (String, String) {
        let conditions = &self.experiment.status.as_ref().unwrap().conditions;
        let last = conditions.last().unwrap();
        (last.type_.clone(), last.reason.clone())
    }
}

#[test]
fn a_budget_is_used_two_at_a_time() {
    let mut world = World::new(|_| ());
    world.settle();
    assert_eq!(world.trials.len(), 2);
    world.end(0, state::SUCCEEDED, Some("0.3"));
    world.settle();
    assert_eq!(world.trials.len(), 3, "a slot is filled as soon as it is free");
    world.end(1, state::SUCCEEDED, Some("0.2"));
    world.end(2, state::METRICS_UNAVAILABLE, None);
    world.settle();
    assert_eq!(
        world.last(),
        ("Succeeded".into(), "ExperimentMaxTrialsReached".into())
    );
    let status = world.experiment.status.as_ref().unwrap();
    assert_eq!(status.current_optimal_trial.best_trial_name, "tune-1");
    assert_eq!(
        (
            status.trials,
            status.trials_succeeded,
            status.trial_metrics_unavailable
        ),
        (3, 2, 1)
    );
    assert!(is_true(
        &world.suggestion.unwrap().status.unwrap().conditions,
        "Succeeded"
    ));
}

#[test]
fn the_goal_ends_the_experiment_and_its_other_trials() {
    let mut world = World::new(|spec| spec.objective.as_mut().unwrap().goal = Some(0.25));
    world.settle();
    world.end(0, state::SUCCEEDED, Some("0.25"));
    world.settle();
    assert_eq!(world.last(), ("Succeeded".into(), "ExperimentGoalReached".into()));
    assert_eq!(world.killed, ["tune-1"]);
    assert_eq!(world.experiment.status.as_ref().unwrap().trials_killed, 1);
}

#[test]
fn failures_end_the_experiment() {
    let mut world = World::new(|_| ());
    world.settle();
    world.end(0, state::FAILED, None);
    world.end(1, state::METRICS_UNAVAILABLE, None);
    world.settle();
    assert_eq!(world.last(), ("Failed".into(), "ExperimentFailed".into()));
}

#[test]
fn a_larger_budget_goes_on() {
    let mut world = World::new(|spec| {
        spec.resume_policy = Some("LongRunning".into());
        spec.max_trial_count = Some(2);
    });
    world.settle();
    world.end(0, state::SUCCEEDED, Some("1"));
    world.end(1, state::SUCCEEDED, Some("2"));
    world.settle();
    assert_eq!(world.last().0, "Succeeded");
    world.experiment.spec.max_trial_count = Some(3);
    world.settle();
    assert_eq!(world.trials.len(), 3);
    assert!(is_true(
        &world.experiment.status.as_ref().unwrap().conditions,
        "Restarting"
    ));
    world.end(2, state::SUCCEEDED, Some("0"));
    world.settle();
    assert_eq!(
        world.last(),
        ("Succeeded".into(), "ExperimentMaxTrialsReached".into())
    );
    assert_eq!(
        world
            .experiment
            .status
            .unwrap()
            .current_optimal_trial
            .best_trial_name,
        "tune-2"
    );
}

#[test]
fn fewer_at_once_takes_trials_back() {
    let mut world = World::new(|spec| spec.max_trial_count = Some(9));
    world.experiment.spec.parallel_trial_count = Some(3);
    world.settle();
    assert_eq!(world.trials.len(), 3);
    world.experiment.spec.parallel_trial_count = Some(1);
    world.settle();
    assert_eq!(world.trials.len(), 1);
}

proptest! {
    /// Whatever trials do: never more at once or in all than allowed, and it ends when the budget is used.
    #[test]
    fn budgets_hold(ends in prop::collection::vec((0usize..8, 0usize..3), 0..30), parallel in 1i32..4, max in 4i32..7) {
        let mut world = World::new(|spec| {
            spec.parallel_trial_count = Some(parallel);
            spec.max_trial_count = Some(max);
            spec.max_failed_trial_count = None;
        });
        world.settle();
        for (index, how) in ends {
            if index < world.trials.len() && !trial::is_over(world.trials[index].status.as_ref().unwrap()) {
                let type_ = [state::SUCCEEDED, state::FAILED, state::METRICS_UNAVAILABLE][how];
                world.end(index, type_, (how == 0).then_some("0.5"));
            }
            world.settle();
            let active = world.trials.iter().filter(|t| !trial::is_over(t.status.as_ref().unwrap())).count();
            prop_assert!(i32::try_from(active).unwrap() <= parallel);
            prop_assert!(i32::try_from(world.trials.len()).unwrap() <= max);
            let over = world.trials.len() - active;
            let ended = is_true(&world.experiment.status.as_ref().unwrap().conditions, "Succeeded");
            prop_assert_eq!(ended, i32::try_from(over).unwrap() == max);
            prop_assert!(ended || i32::try_from(active).unwrap() == parallel.min(max - i32::try_from(over).unwrap()));
        }
    }
}

fn trial_with(collector: Value) -> Trial {
    let mut trial = Trial::new("tune-x", TrialSpec::default());
    trial.spec.objective = experiment().spec.objective;
    trial.spec.primary_container_name = Some("main".into());
    trial.spec.success_condition =
        Some("status.conditions.#(type==\"Complete\")#|#(status==\"True\")#".into());
    trial.spec.failure_condition = Some("status.conditions.#(type==\"Failed\")#|#(status==\"True\")#".into());
    trial.spec.metrics_collector = serde_json::from_value(collector).unwrap();
    trial
}

#[test]
fn a_trial_follows_its_resource() {
    let mut trial = trial_with(json!({}));
    let created = trial::plan(&trial, None, None, now()).unwrap();
    assert_eq!(created.action, Some(trial::TrialAction::CreateRun));
    trial.status = Some(created.status);
    let running = trial::plan(&trial, Some(&json!({"status": {}})), None, now()).unwrap();
    assert!(is_true(&running.status.conditions, "Running"));
    trial.status = Some(running.status);
    let done = json!({"status": {"conditions": [{"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": "all done"}]}});
    assert!(trial::plan(&trial, Some(&done), None, now()).unwrap().needs_log);
    let log = [ferroflow_tuning::domain::observation::Report {
        time: now(),
        name: "loss".into(),
        value: "0.5".into(),
    }];
    let good = trial::plan(&trial, Some(&done), Some(&log), now())
        .unwrap()
        .status;
    let last = good.conditions.last().unwrap();
    assert_eq!(
        (last.type_.as_str(), last.reason.as_str()),
        ("Succeeded", "TrialSucceeded. Job reason: CompletionsReached")
    );
    assert_eq!(last.message, "Trial has succeeded. Job message: all done");
    let silent = trial::plan(&trial, Some(&done), Some(&[]), now()).unwrap().status;
    assert!(is_true(&silent.conditions, "MetricsUnavailable") && !is_true(&silent.conditions, "Succeeded"));
    trial.status = Some(good);
    let ended = trial::plan(&trial, Some(&done), None, now()).unwrap();
    assert_eq!(ended.action, Some(trial::TrialAction::DeleteRun));
    trial.spec.retain_run = Some(true);
    assert_eq!(
        trial::plan(&trial, Some(&done), None, now()).unwrap().action,
        None
    );
}

#[test]
fn the_primary_container_is_wrapped() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "main", "image": "python", "command": ["python"], "args": ["t.py"]}, {"name": "other", "image": "x"}]}}))
    .unwrap();
    let injection = Injection {
        launcher_image: "ghcr.io/ferroflow/launcher:v0.1.0".into(),
        db_manager: "db:6789".into(),
    };
    let out = inject(
        &pod,
        &trial_with(json!({"source": {"filter": {"metricsFormat": ["$(\\w+)=(.*)"]}}})),
        &injection,
    )
    .unwrap();
    let spec = out.spec.unwrap();
    let expected = [
        "/ferroflow/launcher",
        "collect-metrics",
        "--trial",
        "tune-x",
        "--metrics",
        "loss",
        "--type",
        "StdOut",
        "--objective-type",
        "minimize",
        "--db-manager",
        "db:6789",
        "--filter",
        "$$(\\w+)=(.*)",
        "--",
    ];
    assert_eq!(spec.containers[0].command.as_deref().unwrap(), expected);
    assert_eq!(spec.containers[0].args.as_deref().unwrap(), ["python", "t.py"]);
    assert_eq!(
        spec.volumes.unwrap()[0]
            .image
            .as_ref()
            .unwrap()
            .reference
            .as_deref(),
        Some("ghcr.io/ferroflow/launcher:v0.1.0")
    );
    assert_eq!(out.metadata.labels.unwrap()["katib.kubeflow.org/trial"], "tune-x");
    let push = inject(
        &pod,
        &trial_with(json!({"collector": {"kind": "Push"}})),
        &injection,
    )
    .unwrap();
    assert_eq!(
        push.spec.unwrap().containers[0].command.as_deref().unwrap(),
        ["python"]
    );
    let mut other = trial_with(json!({}));
    other.spec.primary_pod_labels = Some([("a".to_owned(), "c".to_owned())].into());
    assert_eq!(inject(&pod, &other, &injection).unwrap().spec, pod.spec);
}
