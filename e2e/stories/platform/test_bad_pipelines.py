"""Pipelines, runs and steps that cannot work, and what is said about each."""

import os
import subprocess

import pytest
import requests
import yaml
from programs import eventually

INTEGER = {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}}
NOT_A_SPEC = "submit what kfp.compiler.Compiler().compile() writes"


def task(name, component="comp-a", after=None, inputs=None):
    own = {"taskInfo": {"name": name}, "componentRef": {"name": component}, "cachingOptions": {}}
    return own | ({"dependentTasks": after} if after else {}) | ({"inputs": {"parameters": inputs}} if inputs else {})


def pipeline(*tasks, command=("echo",), image="python:3.11", component=None, inputs=None):
    """A PipelineSpec as kfp's compiler writes it, of tasks that all run one container."""
    root = {"dag": {"tasks": {t["taskInfo"]["name"]: t for t in tasks}}} | ({"inputDefinitions": inputs} if inputs else {})
    return {
        "pipelineInfo": {"name": "bad"},
        "root": root,
        "components": {"comp-a": {"executorLabel": "exec-a"} | (component or {})},
        "deploymentSpec": {"executors": {"exec-a": {"container": {"image": image, "command": list(command)}}}},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }


WITH_INTEGER = pipeline(
    task("a", inputs={"n": {"componentInputParameter": "n"}}), component={"inputDefinitions": INTEGER}, inputs=INTEGER
)

BAD_PIPELINES = {
    "a map of something else": (b"just: a map\n", f"pipeline_spec: not a PipelineSpec: field pipelineInfo is missing; {NOT_A_SPEC}"),
    "a list": (b"- 1\n- 2\n", f"pipeline_spec: not a PipelineSpec: it is [1,2]; {NOT_A_SPEC}"),
    "nothing": (b"", f"pipeline_spec: not a PipelineSpec: it is empty; {NOT_A_SPEC}"),
    "broken YAML": (
        b"a: [\n", f"pipeline_spec: not a PipelineSpec: unclosed bracket '[' at line 1, column 4; {NOT_A_SPEC}"
    ),
    "bytes": (b"\xff\xfe\x00", "uploadfile: p.yaml: cannot be read: stream did not contain valid UTF-8"),
    "a cycle": (
        pipeline(task("a", after=["b"]), task("b", after=["a"])),
        "root.dag.tasks: the tasks wait for each other in a cycle: a -> b -> a; remove one dependency",
    ),
    "a task that waits for an unknown one": (
        pipeline(task("a", after=["nope"])), 'root.dag.tasks.a: depends on unknown task "nope"; known are a'
    ),
    "a task that takes the output of an unknown one": (
        pipeline(task("a", inputs={"x": {"taskOutputParameter": {"producerTask": "ghost", "outputParameterKey": "o"}}})),
        'root.dag.tasks.a: depends on unknown task "ghost"; known are a',
    ),
    "an unknown component": (
        pipeline(task("a", component="comp-none")),
        'root.dag.tasks.a.componentRef.name: no component "comp-none"; known are comp-a',
    ),
    "a missing parameter": (
        pipeline(task("a"), component={"inputDefinitions": INTEGER}),
        'root.dag.tasks.a.inputs.parameters.n: is missing; component "comp-a" needs a NUMBER_INTEGER',
    ),
}


@pytest.mark.parametrize("case", BAD_PIPELINES)
def test_a_bad_pipeline_is_refused(ferroflow, case):
    content, message = BAD_PIPELINES[case]
    text = content if isinstance(content, bytes) else yaml.safe_dump(content)
    url = f"{ferroflow.url}/apis/v2beta1/pipelines/upload"
    answer = requests.post(url, params={"name": case}, files={"uploadfile": ("p.yaml", text)}, timeout=30)
    assert (answer.status_code, answer.json()["error_message"]) == (400, message)
    if not isinstance(content, bytes):
        answer = requests.post(f"{ferroflow.url}/apis/v2beta1/runs", json={"pipeline_spec": content}, timeout=30)
        assert answer.status_code == 400
    kept = requests.get(f"{ferroflow.url}/apis/v2beta1/pipelines", timeout=30).json().get("pipelines", [])
    assert not [p for p in kept if p["display_name"] == case], "nothing is kept of what was refused"


def test_what_only_argo_understands_is_refused(ferroflow):
    """CreatePVC of kfp-kubernetes, as its compiler writes it."""
    answer = requests.post(
        f"{ferroflow.url}/apis/v2beta1/runs", json={"pipeline_spec": pipeline(task("a"), image="argostub/createpvc")}, timeout=30
    )
    assert answer.status_code == 501, answer.text
    assert "createpvc of kfp-kubernetes is not implemented yet; make the claim with kubectl and use mount_pvc" in answer.text


BAD_PARAMETERS = [
    ({}, 'runtime_config.parameters.n: is missing and has no default; pipeline "bad" needs a NUMBER_INTEGER'),
    ({"n": "three"}, 'runtime_config.parameters.n: expected NUMBER_INTEGER, got STRING "three"; pass an integer such as 3'),
    ({"n": 1.5}, "runtime_config.parameters.n: expected NUMBER_INTEGER, got NUMBER_DOUBLE 1.5; pass an integer such as 3"),
    ({"n": 1, "m": 2}, 'runtime_config.parameters.m: pipeline "bad" has no such parameter; it has n'),
]


@pytest.mark.parametrize(("parameters", "message"), BAD_PARAMETERS)
def test_a_run_with_bad_parameters_is_refused(ferroflow, parameters, message):
    run = {"display_name": "bad", "pipeline_spec": WITH_INTEGER, "runtime_config": {"parameters": parameters}}
    answer = requests.post(f"{ferroflow.url}/apis/v2beta1/runs", json=run, timeout=30)
    assert (answer.status_code, answer.json()["message"], answer.json()["code"]) == (400, message, 3)
    field, description = message.split(": ", 1)
    assert answer.json()["details"] == [{"field": field, "description": description}]


def ended(ferroflow, *command, image="python:3.11"):
    """Runs a pipeline of one step to its end; answers the run and the step."""
    runs = f"{ferroflow.url}/apis/v2beta1/runs"
    made = requests.post(runs, json={"pipeline_spec": pipeline(task("a"), command=command, image=image)}, timeout=30)
    assert made.status_code == 200, made.text
    one = f"{runs}/{made.json()['run_id']}"

    def done():
        run = requests.get(one, timeout=30).json()
        return run["state"] in ("SUCCEEDED", "FAILED") and run

    run = eventually("the run ends", done, timeout=120)
    return run, next(t for t in run["run_details"]["task_details"] if t["display_name"] == "a")


def container(ferroflow, step):
    """What kubectl tells of the step's container."""
    pod = yaml.safe_load(ferroflow.kubectl("get", "pod", step["pod_name"], "-o", "yaml"))
    return pod["status"]["containerStatuses"][0]["state"]


def test_a_package_that_does_not_exist(ferroflow):
    install = "python3 -m pip install --quiet no-such-package-of-ferroflow && echo ran"
    run, step = ended(ferroflow, "sh", "-c", install)
    message = "exit code 1: ERROR: No matching distribution found for no-such-package-of-ferroflow"
    assert (run["state"], step["state"], step["error"]["message"]) == ("FAILED", "FAILED", message)
    assert run["error"]["message"] == f'task "a" failed: {message}'


def test_a_step_that_fails_with_a_code(ferroflow):
    run, step = ended(ferroflow, "sh", "-c", "echo oops >&2; exit 3")
    assert (run["state"], step["error"]["message"]) == ("FAILED", "exit code 3: oops")


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM")])
def test_a_step_that_ends_by_a_signal(ferroflow, number, name):
    run, step = ended(ferroflow, "python3", "-c", f"import os, signal; signal.raise_signal({number})")
    assert (run["state"], step["error"]["message"]) == ("FAILED", f"ended by signal {number} ({name})")
    # the run is told by the launcher, which ends a moment later
    ended_as = eventually("the container ends", lambda: container(ferroflow, step).get("terminated"))
    assert (ended_as["exitCode"], ended_as["reason"]) == (128 + number, "Error")


def test_an_image_that_nothing_maps(ferroflow):
    run, step = ended(ferroflow, "echo", image="example.org/team/tool:1")
    assert run["state"] == "FAILED"
    message = step["error"]["message"]
    assert message.startswith("ImagePullBackOff: ") or message.startswith("ErrImagePull: "), message
    assert 'no RuntimeImage maps image "example.org/team/tool:1": this node runs Pods as processes' in message
    # the remedy can be pasted as it is
    remedy = message[message.index("kubectl apply"): message.index("\n(or `host")].replace("[numpy]", "[]")
    environment = os.environ | {"KUBECONFIG": str(ferroflow.kubeconfig)}
    subprocess.run(["sh", "-c", remedy + "\n"], env=environment, check=True, timeout=60)
    run, step = ended(ferroflow, "python3", "-c", "print('mapped')", image="example.org/team/tool:1")
    assert run["state"] == "SUCCEEDED", step


def test_a_step_that_prints_300_mb(ferroflow):
    flood = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 300000000; echo; echo the end"
    run, step = ended(ferroflow, "sh", "-c", flood)
    assert run["state"] == "SUCCEEDED", step
    assert ferroflow.kubectl("logs", step["pod_name"], "--tail=1") == "the end\n"
    kept = sum(f.stat().st_size for f in ferroflow.folder.glob("kube/node/pods/*/logs/*/*"))
    assert 1_000_000 < kept < 64_000_000, f"{kept} bytes of logs are kept"


def test_a_child_that_outlives_its_step(ferroflow):
    # a name of its own, so that it is found even where it has no parent, session or group of the step any more
    child, started = "ferroflow-story-outlives", ferroflow.folder / "child-started"
    live = f"open({str(started)!r}, 'w').close() or os.execvp('sleep', ['{child}', '4711'])"
    script = f"import os; os.fork() or os.setsid() or os.fork() or {live}"
    script += f"\nwhile not os.path.exists({str(started)!r}): os.sched_yield()"
    run, step = ended(ferroflow, "python3", "-c", script)
    assert run["state"] == "SUCCEEDED", step

    def gone():
        return subprocess.run(["pgrep", "-f", f"^{child}"], capture_output=True, check=False).returncode == 1

    eventually("the child is gone", gone, timeout=20)


def test_a_run_in_a_namespace_that_does_not_exist_is_refused(ferroflow):
    made = requests.post(f"{ferroflow.url}/apis/v2beta1/experiments", json={"display_name": "e", "namespace": "nowhere"}, timeout=30)
    wanted = 'namespace "nowhere" does not exist; make it with a Profile or with kubectl create namespace nowhere'
    assert (made.status_code, made.json()["message"]) == (404, wanted)
