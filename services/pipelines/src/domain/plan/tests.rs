use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::package::Package;
use super::super::run::{
    Artifact, AttemptFacts, AttemptState, CacheFact, Observed, Outputs, RunSpec, TaskState,
};
use super::{Action, Plan, StepPlan, plan};

fn run_of(package: Arc<Package>, parameters: &[(&str, Value)]) -> RunSpec {
    let given: BTreeMap<String, Value> = parameters
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone()))
        .collect();
    RunSpec {
        run_id: "r1".into(),
        display_name: "my run".into(),
        namespace: "default".into(),
        resource_name: "p-abc".into(),
        pipeline_root: "s3://mlpipeline/v2/artifacts".into(),
        parameters: super::super::validate::arguments(&package.spec, &given).unwrap(),
        package,
        created_at: Timestamp::UNIX_EPOCH,
        scheduled_at: Timestamp::UNIX_EPOCH,
        terminate: false,
    }
}

fn fixture(text: &str, parameters: &[(&str, Value)]) -> World {
    World::new(run_of(Package::from_text(text).unwrap(), parameters))
}

/// A world in which steps end as a function says.
struct World {
    run: RunSpec,
    observed: Observed,
    now: Timestamp,
    started: Vec<(String, StepPlan)>,
}

impl World {
    fn new(run: RunSpec) -> Self {
        Self {
            run,
            observed: Observed::new(),
            now: Timestamp::UNIX_EPOCH,
            started: Vec::new(),
        }
    }

    fn plan(&self) -> Plan {
        let first = plan(&self.run, &self.observed, self.now, usize::MAX);
        let again = plan(&self.run, &self.observed, self.now, usize::MAX);
        assert_eq!(first, again, "the same facts must give the same plan");
        first
    }

    /// Applies the actions of one plan; whether there were any.
    fn apply(&mut self, plan: Plan) -> bool {
        let any = !plan.actions.is_empty();
        for action in plan.actions {
            match action {
                Action::LookUpCache { path, .. } => {
                    let facts = self.observed.entry(path).or_default();
                    assert_eq!(facts.cache, CacheFact::Unasked, "the cache is asked once");
                    facts.cache = CacheFact::Miss;
                }
                Action::Start { path, plan, .. } => {
                    let facts = self.observed.entry(path.clone()).or_default();
                    assert_eq!(
                        plan.step.attempt as usize,
                        facts.attempts.len(),
                        "attempts are numbered in order"
                    );
                    assert!(
                        facts
                            .attempts
                            .iter()
                            .all(|a| matches!(a.state, AttemptState::Failed(_) | AttemptState::Stopped)),
                        "{path} is started although an attempt is under way or succeeded"
                    );
                    facts.attempts.push(AttemptFacts {
                        state: AttemptState::Started,
                        ended_at: None,
                        trouble: None,
                    });
                    self.started.push((path, *plan));
                }
                Action::Stop { path, attempt } => {
                    let fact = &mut self.observed.get_mut(&path).unwrap().attempts[attempt as usize];
                    assert_eq!(fact.state, AttemptState::Started);
                    fact.state = AttemptState::Stopped;
                    fact.ended_at = Some(self.now);
                }
            }
        }
        any
    }

    fn finish(&mut self, path: &str, state: AttemptState) {
        let fact = self.observed.get_mut(path).unwrap().attempts.last_mut().unwrap();
        assert_eq!(fact.state, AttemptState::Started);
        fact.state = state;
        fact.ended_at = Some(self.now);
    }

    fn running(&self) -> Vec<String> {
        let started = |f: &&AttemptFacts| f.state == AttemptState::Started;
        self.observed
            .iter()
            .filter(|(_, f)| f.attempts.last().as_ref().is_some_and(started))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Runs to the end; `end` gives what each step does.
    fn play(&mut self, end: impl Fn(&str, &StepPlan) -> AttemptState) -> Plan {
        for _ in 0..10_000 {
            let next = self.plan();
            let (state, wake) = (next.state, next.wake);
            if state.is_final() {
                assert!(next.actions.is_empty() && self.running().is_empty());
                return next;
            }
            if self.apply(next) {
                continue;
            }
            if let Some(path) = self.running().first() {
                let step = self
                    .started
                    .iter()
                    .rev()
                    .find(|(p, _)| p == path)
                    .unwrap()
                    .1
                    .clone();
                self.finish(path, end(path, &step));
            } else {
                self.now = wake.expect("a run that is not over waits for a step or a time");
            }
        }
        panic!("the run does not end");
    }

    fn paths(&self) -> Vec<&str> {
        self.started.iter().map(|(path, _)| path.as_str()).collect()
    }

    fn input(&self, path: &str) -> Value {
        let step = &self
            .started
            .iter()
            .find(|(p, _)| p == path)
            .unwrap_or_else(|| panic!("{path} never started"))
            .1;
        step.step.executor_input["inputs"]["parameterValues"].clone()
    }
}

fn gives(parameters: &Value) -> AttemptState {
    let parameters = parameters.as_object().unwrap().clone().into_iter().collect();
    AttemptState::Succeeded(Arc::new(Outputs {
        parameters,
        ..Outputs::default()
    }))
}

/// What the components of the fixtures do.
fn behave(_: &str, step: &StepPlan) -> AttemptState {
    let input = &step.step.executor_input["inputs"]["parameterValues"];
    let function = step.step.args.last().map(String::as_str).unwrap_or_default();
    match function {
        "add" => gives(&json!({"Output": input["a"].as_f64().unwrap() + input["b"].as_f64().unwrap()})),
        "say" | "maybe" => gives(&json!({"Output": input["text"]})),
        "flip" => gives(&json!({"Output": "heads"})),
        "numbers" => gives(&json!({"Output": [1.0, 2.0, 3.0]})),
        "total" => {
            let sum: f64 = input["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap())
                .sum();
            gives(&json!({"Output": sum}))
        }
        "make" => {
            let artifact = Artifact {
                name: "data".into(),
                uri: format!("{}/data", step.folder),
                schema_title: "system.Dataset".into(),
                ..Artifact::default()
            };
            AttemptState::Succeeded(Arc::new(Outputs {
                parameters: BTreeMap::from([("note".into(), json!("made"))]),
                artifacts: BTreeMap::from([("data".into(), vec![artifact])]),
            }))
        }
        "count_all" => {
            let all = &step.step.executor_input["inputs"]["artifacts"]["items"]["artifacts"];
            gives(&json!({"Output": all.as_array().unwrap().len()}))
        }
        _ => gives(&json!({})),
    }
}

#[test]
fn a_step_is_told_everything_it_needs() {
    let mut world = fixture(
        include_str!("../../../tests/fixtures/one_step.yaml"),
        &[("a", json!(5.0))],
    );
    let end = world.play(behave);
    assert_eq!(end.state, TaskState::Succeeded);
    let (path, step) = &world.started[0];
    assert_eq!(path, "root/add");
    assert_eq!(step.image, "python:3.11");
    assert_eq!(
        step.step.executor_input["inputs"],
        json!({"parameterValues": {"a": 5, "b": 2}}),
        "whole numbers carry no fraction, and defaults are filled in"
    );
    assert!(
        step.folder
            .starts_with("s3://mlpipeline/v2/artifacts/one-step/r1/add/")
    );
    assert_eq!(
        step.step.executor_input["outputs"]["parameters"]["Output"]["outputFile"],
        "/tmp/kfp/outputs/Output"
    );
    assert_eq!(end.tasks[0].outputs.parameters["Output"], json!(7.0));
    assert_eq!(step.step.args[1], "{{$}}");
}

#[test]
fn tasks_follow_their_inputs_and_their_dependencies() {
    let mut world = fixture(include_str!("../../../tests/fixtures/chain.yaml"), &[]);
    let first = world.plan();
    assert!(world.apply(first));
    let end = world.play(|path, step| match path {
        "root/train" => gives(&json!({"loss": 0.25, "tags": ["a"]})),
        _ => behave(path, step),
    });
    assert_eq!(world.paths(), ["root/make", "root/train", "root/say"]);
    assert_eq!(end.tasks[0].outputs.parameters["Output"], json!(0.25));
    let train = &world.started[1].1;
    assert_eq!(
        train.limits,
        BTreeMap::from([("cpu".into(), "1".into()), ("memory".into(), "512Mi".into())])
    );
    assert_eq!(train.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(train.roots, BTreeSet::from(["/s3"]));
}

#[test]
fn a_failed_step_is_tried_again_after_its_back_off() {
    let mut world = fixture(include_str!("../../../tests/fixtures/chain.yaml"), &[]);
    let end = world.play(|path, step| match path {
        "root/train" => AttemptState::Failed("exit code 3".into()),
        _ => behave(path, step),
    });
    assert_eq!(
        world.paths(),
        ["root/make", "root/train", "root/train", "root/train"]
    );
    assert_eq!(end.state, TaskState::Failed);
    assert_eq!(end.error.as_deref(), Some("task \"train\" failed: exit code 3"));
    // 1 s, then 2 s.
    assert_eq!(world.now, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(3));
    let say = end.tasks.iter().find(|t| t.path == "root/say").unwrap();
    assert_eq!(
        (say.state, say.message.as_deref()),
        (TaskState::Skipped, Some("task \"train\" failed"))
    );

    // By hand, once more.
    let train = world.observed.get_mut("root/train").unwrap();
    train.forgiven = train.attempts.len();
    let end = world.play(|path, step| match path {
        "root/train" => gives(&json!({"loss": 1, "tags": []})),
        _ => behave(path, step),
    });
    assert_eq!(end.state, TaskState::Succeeded);
    assert_eq!(world.paths()[4..], ["root/train", "root/say"]);
}

#[test]
fn one_branch_runs_and_gives_its_value_on() {
    for (side, inner) in [
        ("heads", "condition-2/say"),
        ("tails", "condition-3/say-2"),
        ("x", "condition-4/say-3"),
    ] {
        let mut world = fixture(
            include_str!("../../../tests/fixtures/branches.yaml"),
            &[("threshold", json!(2))],
        );
        let end = world.play(|path, step| match path {
            "root/flip" => gives(&json!({"Output": side})),
            _ => behave(path, step),
        });
        assert_eq!(end.state, TaskState::Succeeded, "{end:#?}");
        assert_eq!(
            world.paths(),
            [
                "root/flip",
                &format!("root/condition-branches-1/{inner}"),
                "root/say-4"
            ]
        );
        let chosen = if side == "x" { "edge" } else { side };
        assert_eq!(world.input("root/say-4")["text"], chosen);
        let skipped = end.tasks.iter().find(|t| t.path == "root/condition-5").unwrap();
        assert_eq!(skipped.state, TaskState::Skipped);
    }
}

#[test]
fn nested_pipelines_hand_values_in_and_out() {
    let mut world = fixture(
        include_str!("../../../tests/fixtures/nested.yaml"),
        &[("x", json!(10.0))],
    );
    let end = world.play(behave);
    assert_eq!(end.state, TaskState::Succeeded);
    assert_eq!(world.input("root/inner/add-2"), json!({"a": 12, "b": 12}));
    assert_eq!(world.input("root/inner/say"), json!({"text": "n", "times": 1}));
    assert_eq!(end.tasks[0].outputs.parameters["Output"], json!(26.0));
}

#[test]
fn loops_run_every_pass_and_collect_in_order() {
    let mut world = fixture(
        include_str!("../../../tests/fixtures/loops.yaml"),
        &[("names", json!(["x", "y", "z"]))],
    );
    let first = world.plan();
    world.apply(first);
    let second = world.plan();
    world.apply(second);
    let side_by_side = world
        .running()
        .iter()
        .filter(|p| p.starts_with("root/for-loop-2/"))
        .count();
    assert_eq!(side_by_side, 2, "parallelism is 2");
    let end = world.play(behave);
    assert_eq!(end.state, TaskState::Succeeded, "{:?}", end.error);
    assert_eq!(world.input("root/total")["values"], json!([3, 4, 5]));
    assert_eq!(
        world.input("root/for-loop-5/1/say-2"),
        json!({"text": "t", "times": 2})
    );
    let counted = end.tasks.iter().find(|t| t.path == "root/count-all").unwrap();
    assert_eq!(counted.outputs.parameters["Output"], json!(2));
    let said: Vec<&str> = world
        .paths()
        .into_iter()
        .filter(|p| p.starts_with("root/for-loop-6"))
        .collect();
    assert_eq!(
        said,
        ["root/for-loop-6/1/condition-7/say-3"],
        "only the pass whose item is 2"
    );
}

#[test]
fn exit_tasks_run_after_failure_and_learn_the_state() {
    let mut world = fixture(include_str!("../../../tests/fixtures/exits.yaml"), &[]);
    let end = world.play(|path, step| match path {
        "root/exit-handler-1/say" => AttemptState::Failed("boom".into()),
        "root/flip" => AttemptState::Failed("no coin".into()),
        _ => behave(path, step),
    });
    assert_eq!(end.state, TaskState::Failed);
    let status = &world.input("root/notify")["status"];
    assert_eq!(status["state"], "FAILED");
    assert_eq!(status["error"]["message"], "task \"say\" failed: boom");
    assert_eq!(status["pipelineTaskName"], "exit-handler-1");
    assert_eq!(
        world.input("root/maybe"),
        json!({"extra": {}}),
        "an optional input of a failed task is left out"
    );
    assert!(!world.paths().contains(&"root/exit-handler-1/say-2"));
}

#[test]
fn placeholders_are_replaced_before_a_pod_exists() {
    let mut world = fixture(include_str!("../../../tests/fixtures/containers.yaml"), &[]);
    let end = world.play(|path, step| match path {
        "root/shell" => gives(&json!({"out": "hi"})),
        _ => behave(path, step),
    });
    assert_eq!(end.state, TaskState::Succeeded);
    let step = |path: &str| &world.started.iter().find(|(p, _)| p == path).unwrap().1.step;
    assert_eq!(
        step("root/shell").args,
        ["hi", "/tmp/kfp/outputs/out", "--suffix", "s-x"]
    );
    assert_eq!(step("root/shell-2").args, ["hi", "/tmp/kfp/outputs/out"]);
    assert_eq!(world.input("root/say")["text"], "my run");
    assert_eq!(world.input("root/maybe-2")["text"], "job r1 and hi");
    assert_eq!(world.input("root/maybe"), Value::Null);
}

#[test]
fn an_importer_needs_no_pod() {
    let mut world = fixture(include_str!("../../../tests/fixtures/imports.yaml"), &[]);
    world.play(behave);
    assert_eq!(world.paths(), ["root/train"]);
    let data = &world.started[0].1.step.executor_input["inputs"]["artifacts"]["data"]["artifacts"][0];
    assert_eq!(
        *data,
        json!({"name": "artifact", "uri": "s3://mlpipeline/data.csv", "metadata": {"k": "v"},
               "type": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}})
    );
}

#[test]
fn a_cached_result_stands_for_the_step() {
    let mut world = fixture(include_str!("../../../tests/fixtures/one_step.yaml"), &[]);
    let outputs = Arc::new(Outputs {
        parameters: BTreeMap::from([("Output".into(), json!(3))]),
        ..Outputs::default()
    });
    let Action::LookUpCache { path, key } = world.plan().actions.remove(0) else {
        panic!("the cache comes first")
    };
    assert_eq!((path.as_str(), key.len()), ("root/add", 64));
    world.observed.entry(path).or_default().cache = CacheFact::Hit(outputs);
    let end = world.plan();
    assert_eq!(end.state, TaskState::Succeeded);
    assert!(end.tasks[1].cached && end.actions.is_empty());
}

#[test]
fn a_terminated_run_stops_what_runs_and_starts_nothing() {
    let mut world = fixture(include_str!("../../../tests/fixtures/loops.yaml"), &[]);
    let first = world.plan();
    world.apply(first);
    let second = world.plan();
    world.apply(second);
    let running = world.running().len();
    assert!(running > 3);
    world.run.terminate = true;
    let stopping = world.plan();
    assert_eq!(stopping.state, TaskState::Canceling);
    assert_eq!(stopping.actions.len(), running);
    assert!(stopping.actions.iter().all(|a| matches!(a, Action::Stop { .. })));
    world.apply(stopping);
    let end = world.plan();
    assert_eq!(end.state, TaskState::Canceled);
    assert!(end.actions.is_empty());
}

#[test]
fn no_more_is_started_than_there_is_room_for() {
    let mut world = fixture(include_str!("../../../tests/fixtures/loops.yaml"), &[]);
    let first = world.plan();
    world.apply(first);
    let starts = plan(&world.run, &world.observed, world.now, 2).actions;
    assert_eq!(
        starts
            .iter()
            .filter(|a| matches!(a, Action::Start { .. }))
            .count(),
        2
    );
    assert!(plan(&world.run, &world.observed, world.now, 0).actions.is_empty());
}

#[test]
fn a_platform_spec_is_resolved() {
    let mut world = fixture(include_str!("../../../tests/fixtures/platform.yaml"), &[]);
    world.play(behave);
    let kubernetes = world.started[0].1.kubernetes.as_ref().unwrap();
    assert_eq!(kubernetes["secretAsEnv"][0]["secretNameParameter"], "s");
    assert_eq!(kubernetes["pvcMount"][0]["pvcNameParameter"], "claim");
}

/// A graph of tasks: who depends on whom, who retries, who caches, who tolerates failure.
#[derive(Debug, Clone)]
struct Shape {
    tasks: Vec<(Vec<usize>, u32, bool, bool)>,
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop::collection::vec(
        (
            prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            0..3_u32,
            any::<bool>(),
            any::<bool>(),
        ),
        1..9,
    )
    .prop_map(|raw| Shape {
        tasks: raw
            .into_iter()
            .enumerate()
            .map(|(i, (before, retries, cache, tolerant))| {
                let before: BTreeSet<usize> = before.iter().filter(|_| i > 0).map(|b| b.index(i)).collect();
                (before.into_iter().collect(), retries, cache, tolerant)
            })
            .collect(),
    })
}

fn shaped(shape: &Shape) -> RunSpec {
    let tasks: serde_json::Map<String, Value> = shape
        .tasks
        .iter()
        .enumerate()
        .map(|(i, (before, retries, cache, tolerant))| {
            let parameters: serde_json::Map<String, Value> = before
                .iter()
                .map(|b| {
                    let from = json!({"taskOutputParameter": {"producerTask": format!("t{b}"), "outputParameterKey": "out"}});
                    (format!("in{b}"), from)
                })
                .collect();
            let task = json!({
                "componentRef": {"name": "comp"}, "inputs": {"parameters": parameters},
                "cachingOptions": {"enableCache": cache},
                "retryPolicy": {"maxRetryCount": retries, "backoffDuration": "5s"},
                "triggerPolicy": if *tolerant { json!({"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}) } else { json!({}) },
            });
            (format!("t{i}"), task)
        })
        .collect();
    let inputs: serde_json::Map<String, Value> = (0..9)
        .map(|i| {
            (
                format!("in{i}"),
                json!({"parameterType": "STRING", "isOptional": true}),
            )
        })
        .collect();
    let spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
        "components": {"comp": {"executorLabel": "e", "inputDefinitions": {"parameters": inputs},
            "outputDefinitions": {"parameters": {"out": {"parameterType": "STRING"}}}}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "i", "command": ["c"]}}}},
        "root": {"dag": {"tasks": tasks}}
    });
    run_of(Package::from_json(&spec).unwrap(), &[])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever fails in whatever order: inputs exist before a task starts, every attempt is made once, the run ends,
    /// and it fails exactly if a task does.
    #[test]
    fn any_run_ends_and_never_starts_a_task_before_its_inputs(
        shape in shapes(),
        choices in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 64),
        terminate_at in 0..200_usize,
    ) {
        let mut world = World::new(shaped(&shape));
        let mut choice = choices.iter().cycle();
        let mut steps = 0;
        let end = loop {
            steps += 1;
            prop_assert!(steps < 1000, "the run does not end");
            world.run.terminate |= steps > terminate_at;
            let next = world.plan();
            for action in &next.actions {
                let Action::Start { path, plan, .. } = action else { continue };
                let index: usize = path.trim_start_matches("root/t").parse().unwrap();
                for before in &shape.tasks[index].0 {
                    let upstream = next.tasks.iter().find(|t| t.path == format!("root/t{before}")).unwrap();
                    prop_assert!(upstream.state.is_final());
                    let input = &plan.step.executor_input["inputs"]["parameterValues"][format!("in{before}")];
                    if upstream.state == TaskState::Succeeded {
                        prop_assert_eq!(input, &json!(format!("out of root/t{before}")));
                    } else {
                        prop_assert!(shape.tasks[index].3, "only a tolerant task runs after a failure");
                        prop_assert!(input.is_null());
                    }
                }
                prop_assert!(!world.run.terminate);
            }
            if next.state.is_final() {
                break next;
            }
            let wake = next.wake;
            if world.apply(next) {
                continue;
            }
            let running = world.running();
            if running.is_empty() {
                world.now = wake.expect("a run that is not over waits for a step or a time");
                continue;
            }
            let (which, succeeds) = choice.next().unwrap();
            let path = &running[which.index(running.len())];
            let state = if *succeeds { gives(&json!({"out": format!("out of {path}")})) } else { AttemptState::Failed("x".into()) };
            world.finish(path, state);
        };
        prop_assert!(world.running().is_empty());
        for (index, (_, retries, _, _)) in shape.tasks.iter().enumerate() {
            let attempts = world.observed.get(&format!("root/t{index}")).map_or(0, |f| f.attempts.len());
            prop_assert!(attempts <= *retries as usize + 1);
        }
        let failed = end.tasks.iter().skip(1).any(|t| t.state == TaskState::Failed);
        if world.run.terminate {
            prop_assert!(matches!(end.state, TaskState::Canceled | TaskState::Failed | TaskState::Succeeded));
        } else {
            prop_assert_eq!(end.state, if failed { TaskState::Failed } else { TaskState::Succeeded });
        }
    }
}
