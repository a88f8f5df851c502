"""The story's pipeline: load, tune, train, serve and predict real digits, each step with packages of its own."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

PYTHON = "python:3.11"


@dsl.component(base_image=PYTHON, packages_to_install=["scikit-learn>=1.5", "numpy>=1.26"])
def load(train: Output[Dataset], test: Output[Dataset]):
    """Splits scikit-learn's 1,797 scans of digits into 1,437 to learn from and 360 to be tested on, always in the same way."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=360, random_state=7, stratify=labels)
    for artifact, x, y in ((train, x_train, y_train), (test, x_test, y_test)):
        with open(artifact.path, "wb") as out:
            np.savez(out, x=x.astype(np.float32), y=y.astype(np.int32))
        artifact.metadata["rows"] = len(y)
    print(f"{len(y_train)} rows to learn from, {len(y_test)} to be tested on")


@dsl.component(base_image=PYTHON, packages_to_install=["kubeflow-katib==0.19.0", "kubernetes<36"])
def tune(train: Input[Dataset], name: str) -> NamedTuple("Best", learning_rate=float, max_depth=int):
    """Finds good hyper-parameters with a Katib experiment of 12 trials, 3 at a time."""
    import os
    from collections import namedtuple

    from kubeflow import katib
    from kubernetes import client

    source = '''
import io, os, sys
import boto3, numpy as np, xgboost as xgb
bucket, key = os.environ["TRAIN_URI"].split("://", 1)[1].split("/", 1)
body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
data = np.load(io.BytesIO(body))
x, y = data["x"], data["y"]
held_out = np.arange(len(y)) % 5 == 0
params = {"objective": "multi:softprob", "num_class": 10, "eval_metric": "mlogloss", "nthread": 1,
          "learning_rate": float(sys.argv[1]), "max_depth": int(sys.argv[2])}
result = {}
xgb.train(params, xgb.DMatrix(x[~held_out], y[~held_out]), 40, evals=[(xgb.DMatrix(x[held_out], y[held_out]), "v")],
          evals_result=result, verbose_eval=False)
print(f"mlogloss={result['v']['mlogloss'][-1]:.4f}", flush=True)
'''
    install = 'python3 -m pip install --quiet "xgboost-cpu>=3" boto3 numpy'
    run = 'exec python3 -c "$SOURCE" ${trialParameters.learningRate} ${trialParameters.maxDepth}'
    storage = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    env = [{"name": k, "value": v} for k, v in {**storage, "SOURCE": source, "TRAIN_URI": train.uri}.items()]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {"name": "training-container", "image": "python:3.11", "env": env,
                         "command": ["sh", "-c", install + " && " + run]}
                    ],
                }
            },
        },
    }
    experiment = katib.V1beta1Experiment(
        api_version="kubeflow.org/v1beta1",
        kind="Experiment",
        metadata=client.V1ObjectMeta(name=name),
        spec=katib.V1beta1ExperimentSpec(
            objective=katib.V1beta1ObjectiveSpec(type="minimize", objective_metric_name="mlogloss"),
            algorithm=katib.V1beta1AlgorithmSpec(algorithm_name="random"),
            max_trial_count=12,
            parallel_trial_count=3,
            max_failed_trial_count=3,
            parameters=[
                katib.V1beta1ParameterSpec(
                    name="learning_rate",
                    parameter_type="double",
                    feasible_space=katib.V1beta1FeasibleSpace(min="0.01", max="0.5", distribution="logUniform"),
                ),
                katib.V1beta1ParameterSpec(
                    name="max_depth", parameter_type="int", feasible_space=katib.V1beta1FeasibleSpace(min="2", max="8")
                ),
            ],
            trial_template=katib.V1beta1TrialTemplate(
                primary_container_name="training-container",
                trial_parameters=[
                    katib.V1beta1TrialParameterSpec(name="learningRate", reference="learning_rate"),
                    katib.V1beta1TrialParameterSpec(name="maxDepth", reference="max_depth"),
                ],
                trial_spec=job,
            ),
        ),
    )
    tuner = katib.KatibClient()
    try:
        tuner.create_experiment(experiment)
    except RuntimeError as error:
        # a second attempt of this step finds the experiment of the first and goes on with it
        if "already exists" not in str(error) and "409" not in str(error.__cause__):
            raise
    tuner.wait_for_experiment_condition(name, timeout=900, polling_interval=1)
    best = tuner.get_optimal_hyperparameters(name)
    values = {a.name: a.value for a in best.parameter_assignments}
    print(f"best of 12 trials: {values} with {best.observation.metrics[0]}")
    return namedtuple("Best", "learning_rate max_depth")(float(values["learning_rate"]), int(values["max_depth"]))


@dsl.component(base_image=PYTHON, packages_to_install=["kubeflow-training==1.9.0", "kubernetes<36", "boto3"])
def train(
    train: Input[Dataset], name: str, learning_rate: float, max_depth: int, model: Output[Model], metrics: Output[Metrics]
):
    """Trains on two replicas that build one model together, and keeps it as XGBoost JSON."""
    import json
    import os
    import pathlib

    import boto3
    from kubeflow.training import TrainingClient, constants
    from kubernetes import client

    source = '''
import io, json, os, socket
import boto3, numpy as np, xgboost as xgb
from xgboost import collective
from xgboost.tracker import RabitTracker
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
s3 = boto3.client("s3")
split = lambda uri: uri.split("://", 1)[1].split("/", 1)
bucket, key = split(os.environ["TRAIN_URI"])
data = np.load(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read()))
tracker = None
if rank == 0:
    tracker = RabitTracker(n_workers=world, host_ip=socket.gethostbyname(socket.gethostname()), port=port)
    tracker.start()
params = {"objective": "multi:softprob", "num_class": 10, "eval_metric": "mlogloss", "nthread": 1, "tree_method": "hist",
          "learning_rate": float(os.environ["LEARNING_RATE"]), "max_depth": int(os.environ["MAX_DEPTH"])}
with collective.CommunicatorContext(dmlc_communicator="rabit", dmlc_tracker_uri=socket.gethostbyname(address),
                                    dmlc_tracker_port=port, dmlc_task_id=str(rank), dmlc_retry=30):
    assert collective.get_world_size() == world, "the replicas do not train together"
    mine = np.arange(len(data["y"])) % world == rank
    shard = xgb.DMatrix(data["x"][mine], data["y"][mine])
    result = {}
    booster = xgb.train(params, shard, 60, evals=[(shard, "train")], evals_result=result, verbose_eval=20)
    print(f"replica {rank} of {world} learned from {mine.sum()} rows", flush=True)
    if collective.get_rank() == 0:
        bucket, key = split(os.environ["RESULT_URI"])
        s3.put_object(Bucket=bucket, Key=key + "/model.json", Body=bytes(booster.save_raw("json")))
        logloss = result["train"]["mlogloss"][-1]
        s3.put_object(Bucket=bucket, Key=key + "/metrics.json", Body=json.dumps({"train_mlogloss": logloss}).encode())
if tracker:
    tracker.wait_for()
'''
    result_uri = model.uri + "-of-replica-0"
    storage = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    values = {
        **storage, "SOURCE": source, "TRAIN_URI": train.uri, "RESULT_URI": result_uri,
        "LEARNING_RATE": str(learning_rate), "MAX_DEPTH": str(max_depth),
    }
    command = 'python3 -m pip install --quiet "xgboost-cpu>=3" boto3 numpy && exec python3 -c "$SOURCE"'
    replica = {
        "replicas": 1,
        "restartPolicy": "Never",
        "template": {
            "spec": {
                "containers": [
                    {"name": "xgboost", "image": "python:3.11", "command": ["sh", "-c", command],
                     "env": [{"name": k, "value": v} for k, v in values.items()]}
                ]
            }
        },
    }
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "XGBoostJob",
        "metadata": {"name": name},
        "spec": {"runPolicy": {"cleanPodPolicy": "None"}, "xgbReplicaSpecs": {"Master": replica, "Worker": replica}},
    }
    trainer = TrainingClient(job_kind=constants.XGBOOSTJOB_KIND)
    try:
        client.CustomObjectsApi(trainer.custom_api.api_client).create_namespaced_custom_object(
            "kubeflow.org", "v1", trainer.namespace, "xgboostjobs", job
        )
    except client.ApiException as error:
        if error.status != 409:  # the job of an earlier attempt of this step is as good
            raise
    done = trainer.wait_for_job_conditions(name, timeout=900, polling_interval=1)
    print([f"{c.type}: {c.message}" for c in done.status.conditions])

    s3 = boto3.client("s3")
    bucket, key = result_uri.split("://", 1)[1].split("/", 1)
    folder = pathlib.Path(model.path)
    folder.mkdir(parents=True, exist_ok=True)
    s3.download_file(bucket, key + "/model.json", str(folder / "model.json"))
    logloss = json.loads(s3.get_object(Bucket=bucket, Key=key + "/metrics.json")["Body"].read())["train_mlogloss"]
    model.metadata.update(framework="xgboost", format="json", learning_rate=learning_rate, max_depth=max_depth)
    metrics.log_metric("train_mlogloss", logloss)


@dsl.component(base_image=PYTHON, packages_to_install=["kserve==0.21.0", "kubernetes<36"])
def serve(model: Input[Model], name: str) -> str:
    """Serves the model artifact and answers the URL inside the cluster once it is ready."""
    from kserve import (
        KServeClient,
        V1beta1InferenceService,
        V1beta1InferenceServiceSpec,
        V1beta1ModelFormat,
        V1beta1ModelSpec,
        V1beta1PredictorSpec,
        constants,
    )
    from kubernetes import client

    kserve = KServeClient()
    namespace = open("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read()
    service = V1beta1InferenceService(
        api_version=constants.KSERVE_V1BETA1,
        kind=constants.KSERVE_KIND_INFERENCESERVICE,
        metadata=client.V1ObjectMeta(name=name, namespace=namespace),
        spec=V1beta1InferenceServiceSpec(
            predictor=V1beta1PredictorSpec(
                model=V1beta1ModelSpec(model_format=V1beta1ModelFormat(name="xgboost"), storage_uri=model.uri)
            )
        ),
    )
    try:
        kserve.create(service, namespace=namespace)
    except RuntimeError as error:
        if "AlreadyExists" not in str(error):
            raise
    kserve.wait_isvc_ready(name, namespace=namespace, timeout_seconds=300, polling_interval=1)
    status = kserve.get(name, namespace=namespace)["status"]
    print(f"ready at {status['url']}, inside the cluster at {status['address']['url']}")
    return status["address"]["url"]


@dsl.component(base_image=PYTHON, packages_to_install=["requests", "numpy>=1.26", "xgboost-cpu>=3"])
def predict(
    test: Input[Dataset], model: Input[Model], name: str, url: str, metrics: Output[Metrics]
) -> NamedTuple("Accuracy", v1=float, v2=float):
    """Asks the served model for the 360 test digits in both protocols and compares with xgboost itself."""
    from collections import namedtuple

    import numpy as np
    import requests
    import xgboost as xgb

    data = np.load(test.path)
    x, y = data["x"], data["y"]
    booster = xgb.Booster(model_file=model.path + "/model.json")
    expected = booster.predict(xgb.DMatrix(x))

    answer = requests.post(f"{url}/v1/models/{name}:predict", json={"instances": x.tolist()}, timeout=30)
    answer.raise_for_status()
    v1 = np.asarray(answer.json()["predictions"], dtype=np.float32)

    request = {
        "inputs": [{"name": "input-0", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}]
    }
    answer = requests.post(f"{url}/v2/models/{name}/infer", json=request, timeout=30)
    answer.raise_for_status()
    output = answer.json()["outputs"][0]
    v2 = np.asarray(output["data"], dtype=np.float32).reshape(output["shape"])

    accuracy = {}
    for protocol, served in (("v1", v1), ("v2", v2)):
        np.testing.assert_array_equal(served, expected, err_msg=f"{protocol} differs from xgboost's own predictions")
        accuracy[protocol] = float((served.argmax(axis=1) == y).mean())
        metrics.log_metric(f"accuracy_{protocol}", accuracy[protocol])
    print(f"accuracy {accuracy['v1']:.3f} (v1) {accuracy['v2']:.3f} (v2)", flush=True)
    assert min(accuracy.values()) >= 0.95, "the model is worse than it must be"
    return namedtuple("Accuracy", "v1 v2")(accuracy["v1"], accuracy["v2"])


def again(task):
    """Steps that call the platform themselves are tried again: it may be away for a moment, and they go on where they were."""
    return task.set_retry(num_retries=5, backoff_duration="1s", backoff_factor=1.5, backoff_max_duration="5s")


@dsl.pipeline(name="digits", description="Load, tune, train, serve and predict real scans of digits.")
def digits(name: str = "digits"):
    """The whole story; `name` names the experiment, the job and the model."""
    data = load()
    best = again(tune(train=data.outputs["train"], name=name))
    trained = again(
        train(
            train=data.outputs["train"], name=name,
            learning_rate=best.outputs["learning_rate"], max_depth=best.outputs["max_depth"],
        )
    )
    served = again(serve(model=trained.outputs["model"], name=name))
    again(predict(test=data.outputs["test"], model=trained.outputs["model"], name=name, url=served.output))
