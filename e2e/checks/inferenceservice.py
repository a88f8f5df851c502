"""Drives InferenceServices with KServe's own client against a running Ferroflow.

Usage: python e2e/checks/inferenceservice.py DATA_DIR   (needs kserve, "kubernetes<36", boto3, scikit-learn)

DATA_DIR is the folder of a running `ferroflow up`. Models come from file:// URIs of this repository, and from an s3:// URI
that is uploaded through the artifacts service's S3 endpoint at the gateway.
"""

import json
import pathlib
import sys
import time

import requests
from kserve import (
    KServeClient,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
    V1beta1XGBoostSpec,
)
from kubernetes import client

data = pathlib.Path(sys.argv[1])
fixtures = pathlib.Path(__file__).resolve().parents[2] / "services/modelserver/tests/fixtures"
endpoint = json.loads((data / "run/endpoint.json").read_text())["url"]
kserve = KServeClient(config_file=str(data / "kubeconfig"))
core = client.CoreV1Api()
expected = json.loads((fixtures / "iris.expected.json").read_text())
NAMESPACE = "default"


def service(name, predictor):
    return V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=client.V1ObjectMeta(name=name, namespace=NAMESPACE),
        spec=V1beta1InferenceServiceSpec(predictor=predictor),
    )


def model(form, uri, **more):
    return V1beta1PredictorSpec(
        model=V1beta1ModelSpec(model_format=V1beta1ModelFormat(name=form), storage_uri=uri, **more)
    )


def status(name):
    return kserve.get(name, namespace=NAMESPACE).get("status", {})


def until(what, condition, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def remove(name):
    try:
        kserve.delete(name, namespace=NAMESPACE)
    except RuntimeError:
        return
    selector = f"serving.kserve.io/inferenceservice={name}"
    until(f"{name} is gone", lambda: not core.list_namespaced_pod(NAMESPACE, label_selector=selector).items)


def ready(name, seconds=90):
    start = time.time()
    kserve.wait_isvc_ready(name, namespace=NAMESPACE, timeout_seconds=seconds, polling_interval=0.2)
    return time.time() - start


def refused(name, predictor):
    try:
        kserve.create(service(name, predictor))
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"{name} was not refused")


def xgboost():
    remove("iris")
    kserve.create(service("iris", V1beta1PredictorSpec(xgboost=V1beta1XGBoostSpec(storage_uri=f"file://{fixtures}/iris.json"))))
    took = ready("iris")
    seen = status("iris")
    assert seen["deploymentMode"] == "Standard" and seen["clusterServingRuntimeName"] == "kserve-xgbserver"
    assert seen["modelStatus"]["transitionStatus"] == "UpToDate" and seen["modelStatus"]["states"]["activeModelState"] == "Loaded"
    assert [each["type"] for each in seen["conditions"]] == ["IngressReady", "PredictorReady", "Ready"]
    answer = requests.post(f"{endpoint}/serving/{NAMESPACE}/iris/v1/models/iris:predict", json={"instances": expected["instances"]})
    assert answer.json()["predictions"] == expected["predictions"]
    host = seen["url"].split("//")[1]
    tensor = {"name": "x", "shape": [len(expected["instances"]), 4], "datatype": "FP64", "data": expected["instances"]}
    answer = requests.post(f"{endpoint}/v2/models/iris/infer", headers={"Host": host}, json={"inputs": [tensor]}).json()
    flat = [value for row in expected["predictions"] for value in row]
    assert answer["outputs"][0]["data"] == flat
    print(f"xgboost: ready in {took:.2f} s, V1 by path and V2 by host equal xgboost")

    # Another form of the same model: a new Pod takes over, and no request fails meanwhile.
    kserve.patch("iris", service("iris", model("xgboost", f"file://{fixtures}/iris.ubj")), namespace=NAMESPACE)
    failures = 0
    end = time.time() + 30
    while time.time() < end:
        answer = requests.post(f"{endpoint}/serving/{NAMESPACE}/iris/v1/models/iris:predict", json={"instances": expected["instances"][:1]})
        failures += answer.status_code != 200
        seen = kserve.get("iris", namespace=NAMESPACE)
        if seen["status"]["observedGeneration"] == seen["metadata"]["generation"] and seen["status"]["modelStatus"]["transitionStatus"] == "UpToDate":
            break
    assert seen["status"]["modelStatus"]["transitionStatus"] == "UpToDate", seen["status"]
    print(f"update: {failures} failed requests during the rollout")
    remove("iris")


def faults():
    text = refused("unknown", model("foo", "s3://b/m"))
    assert (
        'spec.predictor.model.modelFormat.name: Unsupported value: \\"foo\\": no serving runtime takes it; '
        "known formats: onnx, sklearn, xgboost; or add a ServingRuntime" in text
    ), text
    assert "must start with alphabetical character" in refused("1st", model("xgboost", "s3://b/m"))
    assert "StorageUri [ftp://x/y] is not supported" in refused("ftp", model("xgboost", "ftp://x/y"))
    for name, uri, cause in (
        ("nofile", "file:///nowhere/model.json", "cannot fetch file:///nowhere/model.json: cannot read /nowhere/model.json: No such file"),
        ("nohost", "https://127.0.0.1:1/model.json", "Connection refused"),
        ("nobucket", "s3://nobucket/none/model.json", "nobucket"),
    ):
        remove(name)
        kserve.create(service(name, model("xgboost", uri)))
        seen = until(
            f"{name} is blocked", lambda: (found := status(name)) and found["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad" and found
        )
        info = seen["modelStatus"]["lastFailureInfo"]
        assert info["reason"] == "ModelLoadFailed" and cause in info["message"], info
        ready_condition = next(each for each in seen["conditions"] if each["type"] == "Ready")
        assert ready_condition["status"] == "False"
        print(f"{name}: {info['message']}")
        remove(name)


def onnx():
    remove("onnx")
    kserve.create(service("onnx", model("onnx", f"file://{fixtures}/iris.onnx", protocol_version="v2")))
    took = ready("onnx")
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}
    answer = requests.post(f"{endpoint}/serving/{NAMESPACE}/onnx/v2/models/onnx/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["data"] == [0], answer
    print(f"onnx: ready in {took:.2f} s")
    remove("onnx")


def sklearn():
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, kinds = load_iris(return_X_y=True)
    fitted = LogisticRegression(max_iter=500).fit(rows, kinds)
    # Pods do not share /tmp.
    path = data / "check-sklearn.joblib"
    joblib.dump(fitted, path)
    remove("pickled")
    kserve.create(service("pickled", model("sklearn", f"file://{path}")))
    took = ready("pickled", 180)
    answer = requests.post(f"{endpoint}/serving/{NAMESPACE}/pickled/v1/models/pickled:predict", json={"instances": rows.tolist()})
    assert answer.json()["predictions"] == fitted.predict(rows).tolist(), answer.text
    print(f"sklearn: ready in {took:.2f} s")
    remove("pickled")


def s3():
    import boto3

    minted = requests.post(f"{endpoint}/artifacts/v1/credentials", json={"namespace": NAMESPACE}).json()
    session = boto3.client(
        "s3",
        endpoint_url=f"{endpoint}/s3",
        aws_access_key_id=minted["access_key_id"],
        aws_secret_access_key=minted["secret_access_key"],
        region_name=minted["region"],
    )
    key = "v2/artifacts/check/serving/model.json"
    session.upload_file(str(fixtures / "iris.json"), "mlpipeline", key)
    remove("stored")
    kserve.create(service("stored", model("xgboost", f"s3://mlpipeline/{key}")))
    took = ready("stored")
    answer = requests.post(f"{endpoint}/serving/{NAMESPACE}/stored/v1/models/stored:predict", json={"instances": expected["instances"]})
    assert answer.json()["predictions"] == expected["predictions"]
    print(f"s3: ready in {took:.2f} s")
    remove("stored")


if __name__ == "__main__":
    checks = sys.argv[2:] or ["xgboost", "faults", "s3", "onnx", "sklearn"]
    for check in checks:
        globals()[check]()
