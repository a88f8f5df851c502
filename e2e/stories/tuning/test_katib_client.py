"""Katib's own client, unmodified, against a Ferroflow: kubeflow-katib 0.19 (protobuf 4)."""

import json
import time
import urllib.request

import pytest

katib = pytest.importorskip("kubeflow.katib", reason="needs kubeflow-katib 0.19 in this environment")
from kubernetes import client as kubernetes  # noqa: E402


@pytest.fixture(scope="module")
def tuner(ferroflow):
    return katib.KatibClient(config_file=str(ferroflow.kubeconfig))


def address(ferroflow):
    return f"localhost:{ferroflow.port}"


def shell_experiment(name, script, **spec):
    """An experiment over x in [0, 1] whose trials run a shell script as Jobs."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}],
                }
            },
        },
    }
    defaults = dict(
        objective=katib.V1beta1ObjectiveSpec(type="minimize", objective_metric_name="loss"),
        algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="random"),
        max_trial_count=4,
        parallel_trial_count=2,
        max_failed_trial_count=2,
        parameters=[
            katib.V1beta1ParameterSpec(
                name="x", parameter_type="double", feasible_space=katib.V1beta1FeasibleSpace(min="0", max="1")
            )
        ],
        trial_template=katib.V1beta1TrialTemplate(
            primary_container_name="main",
            trial_parameters=[katib.V1beta1TrialParameterSpec(name="x", reference="x")],
            trial_spec=job,
        ),
    )
    return katib.V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata=kubernetes.V1ObjectMeta(name=name),
        spec=katib.V1beta1ExperimentSpec(**{**defaults, **spec}),
    )


def wait_until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_random_search_over_shell_jobs(ferroflow, tuner):
    tuner.create_experiment(shell_experiment("shell", "echo loss=0.9; echo loss=${trialParameters.x}"), "default")
    done = tuner.wait_for_experiment_condition("shell", "default", timeout=120, polling_interval=1)
    assert (done.status.trials, done.status.trials_succeeded) == (4, 4)
    assert tuner.is_experiment_succeeded("shell", "default")
    best = tuner.get_optimal_hyperparameters("shell", "default")
    trials = tuner.list_trials("shell", "default")
    assert len(trials) == 4
    values = {t.metadata.name: float(t.spec.parameter_assignments[0].value) for t in trials}
    assert len(set(values.values())) == 4
    assert best.best_trial_name == min(values, key=values.get)
    metric = best.observation.metrics[0]
    assert float(metric.min) == float(metric.latest) == values[best.best_trial_name]
    assert float(metric.max) == 0.9
    log = tuner.get_trial_metrics(best.best_trial_name, "default", db_manager_address=address(ferroflow))
    assert [(m.metric.name, m.metric.value) for m in log] == [("loss", "0.9"), ("loss", metric.latest)]
    suggestion = tuner.get_suggestion("shell", "default")
    assert suggestion.status.suggestion_count == 4
    # the Jobs of a trial that ended go with their Pods; a trial that ends forgets nothing else
    jobs = lambda: ferroflow.kubectl("get", "jobs", "-o", "name").split()  # noqa: E731
    wait_until(lambda: not [j for j in jobs() if "/shell-" in j])


def test_tune_runs_a_python_function(ferroflow, tuner):
    def objective(parameters):
        loss = (float(parameters["lr"]) - 0.3) ** 2 + 0.1 * (int(parameters["depth"]) - 4) ** 2
        print(f"loss={loss}")

    tuner.tune(
        name="function",
        objective=objective,
        base_image="python:3.11",
        parameters={
            "lr": katib.search.double(min=0.01, max=0.5),
            "depth": katib.search.int(min=2, max=8),
        },
        namespace="default",
        objective_metric_name="loss",
        objective_type="minimize",
        max_trial_count=4,
        parallel_trial_count=2,
    )
    done = tuner.wait_for_experiment_condition("function", "default", timeout=240, polling_interval=1)
    assert done.status.trials_succeeded == 4
    best = tuner.get_optimal_hyperparameters("function", "default")
    assert {a.name for a in best.parameter_assignments} == {"lr", "depth"}


def test_report_metrics_pushes_from_the_trial(ferroflow, tuner):
    def objective(parameters):
        import kubeflow.katib as inner

        for epoch in range(3):
            inner.report_metrics({"accuracy": float(parameters["x"]) + epoch})

    tuner.tune(
        name="push",
        objective=objective,
        base_image="python:3.11",
        packages_to_install=["kubeflow-katib==0.19.0"],
        parameters={"x": katib.search.double(min=0, max=1)},
        namespace="default",
        objective_metric_name="accuracy",
        objective_type="maximize",
        max_trial_count=2,
        parallel_trial_count=2,
        metrics_collector_config={"kind": "Push"},
    )
    done = tuner.wait_for_experiment_condition("push", "default", timeout=300, polling_interval=1)
    assert done.status.trials_succeeded == 2
    best = tuner.get_optimal_hyperparameters("push", "default")
    log = tuner.get_trial_metrics(best.best_trial_name, "default", db_manager_address=address(ferroflow))
    assert len(log) == 3


def test_grid_stops_where_the_grid_ends_and_files_are_collected(ferroflow, tuner):
    experiment = shell_experiment(
        "grid",
        "echo '{\"loss\": \"${trialParameters.x}\", \"timestamp\": 1}' > /var/log/katib/m.json",
        algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="grid"),
        max_trial_count=None,
        max_failed_trial_count=None,
        parameters=[
            katib.V1beta1ParameterSpec(
                name="x",
                parameter_type="double",
                feasible_space=katib.V1beta1FeasibleSpace(min="0.1", max="0.3", step="0.1"),
            )
        ],
        metrics_collector_spec=katib.V1beta1MetricsCollectorSpec(
            collector=katib.V1beta1CollectorSpec(kind="File"),
            source=katib.V1beta1SourceSpec(
                file_system_path=katib.V1beta1FileSystemPath(kind="File", path="/var/log/katib/m.json", format="JSON")
            ),
        ),
    )
    tuner.create_experiment(experiment, "default")
    done = tuner.wait_for_experiment_condition("grid", "default", timeout=120, polling_interval=1)
    assert done.status.trials_succeeded == 3
    reason = [c.reason for c in done.status.conditions if c.type == "Succeeded"]
    assert reason == ["ExperimentSuggestionEndReached"]
    assert done.status.current_optimal_trial.observation.metrics[0].min == "0.1"


def test_a_trial_without_the_objective_has_no_metrics(ferroflow, tuner):
    tuner.create_experiment(
        shell_experiment("silent", "echo ${trialParameters.x}", max_failed_trial_count=1, parallel_trial_count=1), "default"
    )
    done = tuner.wait_for_experiment_condition("silent", "default", "Failed", timeout=120, polling_interval=1)
    assert done.status.trial_metrics_unavailable == 1
    trial = tuner.list_trials("silent", "default")[0]
    assert [c.type for c in trial.status.conditions if c.status == "True"][-1] == "MetricsUnavailable"


def test_failed_trials_fail_the_experiment_and_the_goal_ends_it(ferroflow, tuner):
    tuner.create_experiment(shell_experiment("broken", "echo ${trialParameters.x}; exit 3"), "default")
    goal = katib.V1beta1ObjectiveSpec(type="minimize", objective_metric_name="loss", goal=0.5)
    script = "echo loss=0.1 x ${trialParameters.x}"
    tuner.create_experiment(shell_experiment("goal", script, objective=goal, parallel_trial_count=1), "default")
    broken = tuner.wait_for_experiment_condition("broken", "default", "Failed", timeout=120, polling_interval=1)
    assert broken.status.trials_failed == 2
    done = tuner.wait_for_experiment_condition("goal", "default", timeout=120, polling_interval=1)
    assert [c.reason for c in done.status.conditions if c.type == "Succeeded"] == ["ExperimentGoalReached"]
    assert done.status.trials == 1


def test_a_larger_budget_resumes(ferroflow, tuner):
    experiment = shell_experiment(
        "resume", "echo loss=${trialParameters.x}", resume_policy="LongRunning", max_trial_count=2, max_failed_trial_count=1
    )
    tuner.create_experiment(experiment, "default")
    tuner.wait_for_experiment_condition("resume", "default", timeout=120, polling_interval=1)
    tuner.edit_experiment_budget("resume", "default", max_trial_count=3)
    more = wait_until(lambda: (e := tuner.get_experiment("resume", "default")).status.trials_succeeded == 3 and e)
    assert more.status.trials == 3


BAD = [
    (
        dict(parameters=[katib.V1beta1ParameterSpec(
            name="x", parameter_type="double", feasible_space=katib.V1beta1FeasibleSpace(min="2", max="1"))]),
        'spec.parameters[0].feasibleSpace.min: Invalid value: "2": must be less than or equal to feasibleSpace.max "1"',
    ),
    (
        dict(algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="tpe")),
        'spec.algorithm.algorithmName: Invalid value: "tpe": unable to get Suggestion config data for algorithm tpe: '
        "it is not implemented yet; use one of random, grid",
    ),
]


@pytest.mark.parametrize("change,message", BAD)
def test_bad_experiments_are_refused_at_create(ferroflow, tuner, change, message):
    refusal(tuner, shell_experiment("bad", "echo loss=${trialParameters.x}", **change), message)


def test_a_template_must_use_its_parameters(ferroflow, tuner):
    message = "parameter name: x in spec.trialParameters not found in spec.trialTemplate"
    refusal(tuner, shell_experiment("bad", "echo loss=1"), message)


def refusal(tuner, experiment, message):
    body = katib.ApiClient().sanitize_for_serialization(experiment)
    with pytest.raises(kubernetes.ApiException) as error:
        tuner.custom_api.create_namespaced_custom_object("kubeflow.org", "v1beta1", "default", "experiments", body)
    text = json.loads(error.value.body)["message"]
    assert text.startswith('admission webhook "validator.experiment.katib.kubeflow.org" denied the request: ')
    assert message in text


def test_the_dashboard_reads_parameters_and_metrics_in_one_call(ferroflow, tuner):
    tuner.create_experiment(shell_experiment("plot", "echo loss=${trialParameters.x}"), "default")
    tuner.wait_for_experiment_condition("plot", "default", timeout=120, polling_interval=1)
    url = ferroflow.url + "/apis/ferroflow/v1/tuning/namespaces/default/experiments/plot/trials"
    with urllib.request.urlopen(url, timeout=10) as answer:
        body = json.load(answer)
    assert body["experiment"]["parameters"][0]["name"] == "x"
    assert len(body["trials"]) == 4
    assert all(t["objective"] == pytest.approx(float(t["parameters"]["x"])) for t in body["trials"])
    assert sum(t.get("best", False) for t in body["trials"]) == 1


def test_an_experiment_survives_kill_9(fresh_ferroflow):
    ferroflow = fresh_ferroflow
    tuner = katib.KatibClient(config_file=str(ferroflow.kubeconfig))
    script = "echo loss=0.5; sleep 2; echo loss=${trialParameters.x}"
    tuner.create_experiment(shell_experiment("durable", script), "default")
    wait_until(lambda: (status := tuner.get_experiment("durable", "default").status) and status.trials_running)
    ferroflow.kill()
    time.sleep(3)  # the trials end while nobody is there to hear it
    ferroflow.start()
    tuner = katib.KatibClient(config_file=str(ferroflow.kubeconfig))
    done = tuner.wait_for_experiment_condition("durable", "default", timeout=120, polling_interval=1)
    assert (done.status.trials, done.status.trials_succeeded) == (4, 4)
    for trial in tuner.list_trials("durable", "default"):
        x = trial.spec.parameter_assignments[0].value
        assert trial.status.observation.metrics[0].latest == x


def test_a_deleted_experiment_leaves_nothing(ferroflow, tuner):
    tuner.create_experiment(shell_experiment("gone", "echo loss=${trialParameters.x}"), "default")
    tuner.wait_for_experiment_condition("gone", "default", timeout=120, polling_interval=1)
    tuner.delete_experiment("gone", "default")
    left = lambda: ferroflow.kubectl("get", "trials,suggestions,jobs,pods", "-o", "name").split()  # noqa: E731
    wait_until(lambda: not [one for one in left() if "/gone" in one])
