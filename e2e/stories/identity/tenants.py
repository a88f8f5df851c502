"""Two tenants of one Ferroflow: ann, who has something of everything, and bob, who must not reach any of it."""

import time

import requests
import yaml

SECRET = "annsecret"  # is part of every name and value of ann's, so that it is seen wherever it leaks

PIPELINE = {
    "pipelineInfo": {"name": SECRET},
    "root": {"dag": {"tasks": {"make": {"taskInfo": {"name": "make"}, "componentRef": {"name": "comp-make"}, "cachingOptions": {}}}}},
    "components": {
        "comp-make": {
            "executorLabel": "exec-make",
            "outputDefinitions": {
                "artifacts": {SECRET: {"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}}}
            },
        }
    },
    "deploymentSpec": {
        "executors": {
            "exec-make": {
                "container": {
                    "image": "python:3.11",
                    "command": ["sh", "-c", f'echo {SECRET}; mkdir -p "$(dirname "$0")"; echo {SECRET} > "$0"'],
                    "args": [f"{{{{$.outputs.artifacts['{SECRET}'].path}}}}"],
                }
            }
        }
    },
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
}


def eventually(what, check, timeout=90):
    """Waits until `check` answers something true and answers that."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.2)


class Tenant:
    """One who calls with a token of their own namespace."""

    def __init__(self, ferroflow, namespace):
        self.url, self.namespace = ferroflow.url, namespace
        self.token = ferroflow.kubectl("create", "token", "default-editor", "-n", namespace).strip()

    def call(self, method, path, **more):
        headers = {"Authorization": f"Bearer {self.token}"} | more.pop("headers", {})
        return requests.request(method, self.url + path, headers=headers, timeout=60, allow_redirects=False, **more)

    def good(self, method, path, **more):
        """A call that must succeed; answers its JSON."""
        answer = self.call(method, path, **more)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


def profile(name):
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "Profile",
        "metadata": {"name": name},
        "spec": {"owner": {"kind": "User", "name": f"{name}@example.org"}},
    }


def possessions():
    """Objects that ann has: one of each kind that Ferroflow's services run, besides Secrets and Pods."""
    container = {"name": "main", "image": "python:3.11", "command": ["sh", "-c", f"echo {SECRET}; exec sleep 600"]}
    once = container | {"command": ["sh", "-c", f"echo {SECRET}=0.5"]}
    job = {"template": {"spec": {"restartPolicy": "Never", "containers": [once | {"env": [{"name": "R", "value": "${trialParameters.r}"}]}]}}}
    replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [once | {"name": "xgboost"}]}}}
    model = {"modelFormat": {"name": "xgboost"}, "storageUri": f"s3://mlpipeline/{SECRET}"}
    things = [
        ("v1", "Secret", {"stringData": {"value": SECRET}}),
        ("v1", "ConfigMap", {"data": {"value": SECRET}}),
        ("v1", "Service", {"spec": {"ports": [{"port": 80}]}}),
        ("v1", "Pod", {"spec": {"restartPolicy": "Never", "containers": [container]}}),
        ("kubeflow.org/v1", "XGBoostJob", {"spec": {"xgbReplicaSpecs": {"Master": replica}}}),
        ("kubeflow.org/v1", "Notebook", {"spec": {"template": {"spec": {"containers": [container | {"name": SECRET}]}}}}),
        ("serving.kserve.io/v1beta1", "InferenceService", {"spec": {"predictor": {"model": model}}}),
        ("kubeflow.org/v1beta1", "Experiment", {"spec": {
            "objective": {"type": "minimize", "objectiveMetricName": SECRET},
            "algorithm": {"algorithmName": "random"},
            "maxTrialCount": 1,
            "parallelTrialCount": 1,
            "parameters": [{"name": "r", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "9"}}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "r", "reference": "r"}],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
            },
        }}),
    ]
    return [{"apiVersion": v, "kind": k, "metadata": {"name": SECRET, "namespace": "ann"}} | rest for v, k, rest in things]


def settle(ferroflow):
    """Makes both tenants and all that ann has; answers ann, bob and the names of what ann has."""
    file = ferroflow.folder / "tenants.yaml"
    file.write_text("---\n".join(yaml.safe_dump(profile(name)) for name in ("ann", "bob")))
    ferroflow.kubectl("apply", "-f", str(file))
    for name in ("ann", "bob"):
        ready = lambda: ferroflow.kubectl("get", "rolebinding", "default-editor", "-n", name, check=False).returncode == 0
        eventually(f"{name} has an account", ready)
    ann, bob = Tenant(ferroflow, "ann"), Tenant(ferroflow, "bob")

    file.write_text("---\n".join(yaml.safe_dump(o) for o in possessions()))
    ferroflow.kubectl("apply", "-f", str(file))
    has = {}
    body = {"pipeline": {"name": SECRET, "display_name": SECRET, "namespace": "ann"},
            "pipeline_version": {"name": SECRET, "display_name": SECRET, "pipeline_spec": PIPELINE}}
    has["pipeline"] = ann.good("POST", "/apis/v2beta1/pipelines/create", json=body)["pipeline_id"]
    versions = ann.good("GET", f"/apis/v2beta1/pipelines/{has['pipeline']}/versions")["pipeline_versions"]
    has["version"] = versions[0]["pipeline_version_id"]
    run = ann.good("POST", "/apis/v2beta1/runs", json={"display_name": SECRET, "pipeline_spec": PIPELINE})
    has["run"], has["experiment"] = run["run_id"], run["experiment_id"]
    often = {"display_name": SECRET, "pipeline_spec": PIPELINE, "max_concurrency": "1", "mode": "DISABLE",
             "trigger": {"periodic_schedule": {"interval_second": "3600"}}}
    has["recurring"] = ann.good("POST", "/apis/v2beta1/recurringruns", json=often)["recurring_run_id"]
    ann.good("PUT", f"/artifacts/v1/objects/{SECRET}/{SECRET}", data=SECRET)
    ann.good("PUT", f"/artifacts/v1/objects/mlpipeline/{SECRET}/{SECRET}", data=SECRET)

    def ended():
        found = ann.good("GET", f"/apis/v2beta1/runs/{has['run']}")
        assert found["state"] != "FAILED", found
        return found["state"] == "SUCCEEDED" and found

    tasks = eventually("ann's run ends", ended)["run_details"]["task_details"]
    has["node"] = next(t for t in tasks if t["display_name"] == "make")["pod_name"]
    get = ("get", "trials", "-n", "ann", "-o", "jsonpath={.items[0].metadata.name}")
    ended = '{.items[0].status.conditions[?(@.type=="Succeeded")].status}'
    eventually("ann's trial ends", lambda: ferroflow.kubectl(*get[:-1], f"jsonpath={ended}") == "True")
    has["trial"] = ferroflow.kubectl(*get)
    return ann, bob, has
