"""The story while Ferroflow is killed in the middle of each stage: what runs goes on, and the result is the same."""

import json
import logging
import re
import time
import warnings

warnings.filterwarnings("ignore")
logging.getLogger("kfp").setLevel(logging.ERROR)

import kfp  # noqa: E402
import requests  # noqa: E402

from digits import ENDED, STAGES, log_of  # noqa: E402
from pipeline import digits  # noqa: E402

NAME = "digits-killed"
TIMEOUT = 1200


def look(url, run_id):
    """State of the run and of its stages."""
    answer = requests.get(f"{url}/apis/v2beta1/runs/{run_id}", timeout=30)
    answer.raise_for_status()
    run = answer.json()
    tasks = {t["display_name"]: t for t in run.get("run_details", {}).get("task_details", [])}
    return run, tasks


def wait(ferroflow, run_id, what, check, deadline):
    """Waits until the run is as `check` says; answers it. A run that failed is never waited for."""
    run, tasks = look(ferroflow.url, run_id)
    while not check(run, tasks):
        states = {name: t["state"] for name, t in tasks.items()}
        errors = [t["error"] for t in tasks.values() if "error" in t]
        assert run["state"] not in ENDED, f"{what}: the run ended as {run['state']}: {states} {errors}\n{ferroflow.log()}"
        assert time.monotonic() < deadline, f"{what}: not in time: {states}\n{ferroflow.kubectl('get', 'pods', '-A')}"
        time.sleep(0.05)
        run, tasks = look(ferroflow.url, run_id)
    return run, tasks


def running_containers(ferroflow):
    """Pods whose containers run now, with when they were started."""
    pods = json.loads(ferroflow.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    found = {}
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"]:
                key = (pod["metadata"]["name"], status["name"])
                found[key] = (status["state"]["running"]["startedAt"], status["restartCount"])
    return found


def started(ferroflow):
    """When each container that ran or runs was started, and how often again."""
    pods = json.loads(ferroflow.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    found = {}
    for pod in pods:
        for status in pod["status"].get("containerStatuses", []):
            state = status["state"].get("running") or status["state"].get("terminated") or {}
            found[(pod["metadata"]["name"], status["name"])] = (state.get("startedAt"), status["restartCount"])
    return found


def test_kill_in_every_stage(fresh_ferroflow):
    ferroflow = fresh_ferroflow
    port, deadline = ferroflow.port, time.monotonic() + TIMEOUT
    client = kfp.Client(host=ferroflow.url)
    made = client.create_run_from_pipeline_func(
        digits, arguments={"name": NAME}, enable_caching=False, experiment_name=NAME, run_name=NAME
    )
    killed = []
    for stage in STAGES:
        wait(ferroflow, made.run_id, f"{stage} begins", lambda _, tasks: tasks.get(stage, {}).get("state") == "RUNNING", deadline)

        def has_started():
            # "in the middle": the step's own process runs
            run, tasks = look(ferroflow.url, made.run_id)
            assert tasks[stage]["state"] == "RUNNING", f"{stage} ended before it was seen to run"
            pod = tasks[stage].get("pod_name")
            return pod and any(name == pod for name, _ in running_containers(ferroflow))

        while not has_started():
            assert time.monotonic() < deadline, f"{stage} does not start: {ferroflow.kubectl('get', 'pods', '-A')}"
            time.sleep(0.05)
        before = running_containers(ferroflow)
        ferroflow.kill()
        ferroflow.start(port=port)
        after = started(ferroflow)
        again = {key for key, start in before.items() if key in after and after[key] != start}
        assert not again, f"started again after the kill in {stage}: {again}"
        killed.append(stage)
    run, tasks = wait(ferroflow, made.run_id, "the run ends", lambda run, _: run["state"] in ENDED, deadline)

    assert killed == STAGES
    run = client.get_run(made.run_id)
    assert run.state == "SUCCEEDED", f"{run.error}\n{[(n, t['state'], t.get('error')) for n, t in tasks.items()]}"
    accuracy = re.search(r"accuracy (0\.\d+) \(v1\) (0\.\d+) \(v2\)", log_of(ferroflow.url, run, "predict"))
    v1, v2 = accuracy.groups()
    assert float(v1) >= 0.95 and v1 == v2
    trials = ferroflow.kubectl("get", "trials", "-l", f"katib.kubeflow.org/experiment={NAME}", "-o", "json")
    succeeded = [
        trial["metadata"]["name"]
        for trial in json.loads(trials)["items"]
        if any(c["type"] == "Succeeded" and c["status"] == "True" for c in trial["status"]["conditions"])
    ]
    assert len(succeeded) == 12, succeeded
