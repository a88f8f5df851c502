"""Helpers: the program as a person at a shell uses it, and waiting with a deadline."""

import json
import os
import subprocess
import time

import requests
import yaml

PROGRAM = os.environ.get("FERROFLOW", "ferroflow")


def run(*arguments, **environment):
    """Runs the program to its end; answers exit code, standard output and standard error."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FERROFLOW_")} | environment
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


def eventually(what, check, timeout=60, every=0.2):
    """Waits until `check` answers something true and answers that; fails with what it answered last."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(every)


def apply(ferroflow, *objects, check=True):
    """kubectl create of objects; answers the finished process where `check` is off."""
    text = "---\n".join(yaml.safe_dump(o) for o in objects)
    file = ferroflow.folder / f"apply-{time.monotonic_ns()}.yaml"
    file.write_text(text)
    return ferroflow.kubectl("create", "-f", str(file), check=check)


def pod(name, script, image="python:3.11", **spec):
    """A Pod of one container `main` that runs a shell script once."""
    container = {"name": "main", "image": image, "command": ["sh", "-c", script]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def phase(ferroflow, name):
    """Phase of a Pod of namespace default."""
    return ferroflow.kubectl("get", "pod", name, "-n", "default", "-o", "jsonpath={.status.phase}")


def inference_service(name, model_format, uri):
    """An InferenceService of one model."""
    model = {"modelFormat": {"name": model_format}, "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"predictor": {"model": model}},
    }


def get(ferroflow, *what):
    """What kubectl gets, parsed."""
    return json.loads(ferroflow.kubectl("get", *what, "-o", "json"))


def submit(ferroflow, container, platform=None):
    """A run of one step called `eat`; answers how to read it."""
    spec = {
        "pipelineInfo": {"name": "hungry"},
        "root": {"dag": {"tasks": {"eat": {"taskInfo": {"name": "eat"}, "componentRef": {"name": "comp-eat"}, "cachingOptions": {}}}}},
        "components": {"comp-eat": {"executorLabel": "exec-eat"}},
        "deploymentSpec": {"executors": {"exec-eat": {"container": container}}},
        "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
    }
    if platform:
        spec = {"pipeline_spec": spec, "platform_spec": {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-eat": platform}}}}}}
    runs = f"{ferroflow.url}/apis/v2beta1/runs"
    made = requests.post(runs, json={"display_name": "hungry", "pipeline_spec": spec}, timeout=30)
    assert made.status_code == 200, made.text
    return lambda: requests.get(f"{runs}/{made.json()['run_id']}", timeout=30).json()


def step_of(run):
    """The step called `eat` of a run, once there is one."""
    return next((t for t in run["run_details"]["task_details"] if t["display_name"] == "eat"), None)


def end_of(read):
    """The run and its step once the run is over."""

    def done():
        run = read()
        return run["state"] in ("SUCCEEDED", "FAILED") and run

    run = eventually("the run ends", done, timeout=120)
    return run, step_of(run)
