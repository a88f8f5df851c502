"""Experiments and InferenceServices that cannot work: refused when they are made, or told in their status."""

import copy

import pytest
import yaml
from programs import apply, eventually, inference_service

VALIDATOR = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: '


def experiment(argument="${trialParameters.learningRate}", reference="lr", low="0.1", algorithm="random"):
    container = {"name": "main", "image": "python:3.11", "command": ["echo", argument]}
    job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    space = {"min": low, "max": "0.5"}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "bad", "namespace": "default"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": algorithm},
            "maxTrialCount": 3,
            "parallelTrialCount": 1,
            "parameters": [{"name": "lr", "parameterType": "double", "feasibleSpace": space}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "learningRate", "reference": reference}],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": job},
            },
        },
    }


def refused(ferroflow, thing):
    """What kubectl says when the object is refused."""
    done = apply(ferroflow, thing, check=False)
    assert done.returncode == 1 and done.stdout == "", done.stdout
    kind = {"Experiment": "experiments", "InferenceService": "isvc"}[thing["kind"]]
    left = ferroflow.kubectl("get", kind, thing["metadata"]["name"], check=False)
    assert "not found" in left.stderr, "nothing is kept of what was refused"
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip().split(": ", 2)[2]


TEMPLATE = (
    '{"apiVersion":"batch/v1","kind":"Job","spec":{"template":{"spec":{"containers":[{"command":["echo","fixed"],'
    '"image":"python:3.11","name":"main"}],"restartPolicy":"Never"}}}}'
)
BAD_EXPERIMENTS = {
    "a parameter that the template does not use": (
        experiment(argument="fixed"),
        'spec.trialTemplate.trialParameters[0].name: Invalid value: "learningRate": parameter name: learningRate in '
        f"spec.trialParameters not found in spec.trialTemplate: {TEMPLATE}",
    ),
    "a parameter that no trial parameter refers to": (
        experiment(reference="nope"),
        '[spec.trialTemplate.trialParameters[0].reference: Invalid value: "nope": parameter reference nope does not exist in '
        'spec.parameters: [lr], spec.parameters[0].name: Invalid value: "lr": is not used by the trial template; add it to '
        "spec.trialTemplate.trialParameters: [{learningRate  nope}]]",
    ),
    "min above max": (
        experiment(low="0.9"),
        'spec.parameters[0].feasibleSpace.min: Invalid value: "0.9": must be less than or equal to feasibleSpace.max "0.5"',
    ),
    "an unknown algorithm": (
        experiment(algorithm="magic"),
        'spec.algorithm.algorithmName: Invalid value: "magic": unable to get Suggestion config data for algorithm magic: it is '
        "not known; use one of random, grid",
    ),
}


@pytest.mark.parametrize("case", BAD_EXPERIMENTS)
def test_a_bad_experiment_is_refused(ferroflow, case):
    thing, message = BAD_EXPERIMENTS[case]
    assert refused(ferroflow, thing) == VALIDATOR + message


def test_the_good_experiment_is_not_refused(ferroflow):
    good = copy.deepcopy(experiment())
    good["metadata"]["name"] = "good"
    assert apply(ferroflow, good) == "experiment.kubeflow.org/good created\n"
    ferroflow.kubectl("delete", "experiment", "good")


SERVING = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
SCHEMES = "[gs://, s3://, minio://, pvc://, file://, https://, http://, abfs://, abfss://]"
BAD_SERVICES = {
    "an unknown format": (
        inference_service("bad", "papyrus", "s3://mlpipeline/none"),
        'spec.predictor.model.modelFormat.name: Unsupported value: "papyrus": no serving runtime takes it; '
        "known formats: onnx, sklearn, xgboost; or add a ServingRuntime",
    ),
    "an unknown place": (
        inference_service("bad", "xgboost", "ftp://x/none"),
        f"storageUri, must be one of: {SCHEMES} or match https://{{}}.blob.core.windows.net/{{}}/{{}} or be an absolute local "
        "path. StorageUri [ftp://x/none] is not supported",
    ),
}


@pytest.mark.parametrize("case", BAD_SERVICES)
def test_a_bad_inference_service_is_refused(ferroflow, case):
    thing, message = BAD_SERVICES[case]
    assert refused(ferroflow, thing) == SERVING + message


def test_a_model_that_is_not_there(ferroflow):
    apply(ferroflow, inference_service("unreachable", "xgboost", "s3://mlpipeline/none"))
    message = 'cannot fetch s3://mlpipeline/none: there is no object "none" and none below "none/"'

    def told():
        status = yaml.safe_load(ferroflow.kubectl("get", "isvc", "unreachable", "-o", "yaml")).get("status", {})
        failed = status.get("modelStatus", {}).get("lastFailureInfo", {})
        return failed.get("message") == message and status

    status = eventually("the status tells why", told)
    assert status["modelStatus"]["lastFailureInfo"]["reason"] == "ModelLoadFailed"
    assert status["modelStatus"]["states"]["targetModelState"] == "FailedToLoad"
    assert status["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "ModelLoadFailed", message)
    ferroflow.kubectl("delete", "isvc", "unreachable")


def test_kubectl_says_itself_that_a_kind_is_unknown(ferroflow):
    file = ferroflow.folder / "unknown.yaml"
    file.write_text("apiVersion: kubeflow.org/v2beta1\nkind: MPIJob\nmetadata: {name: x}\nspec: {}\n")
    refused = ferroflow.kubectl("apply", "-f", str(file), check=False)
    assert refused.returncode != 0
    assert 'no matches for kind "MPIJob" in version "kubeflow.org/v2beta1"' in refused.stderr, refused.stderr
