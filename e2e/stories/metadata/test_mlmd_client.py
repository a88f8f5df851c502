"""ML Metadata's own client, unmodified, against a Ferroflow."""

import json
import urllib.error
import urllib.request

import pytest

pytest.importorskip("ml_metadata", reason="needs ml-metadata 1.17 in this environment")

import mlmd  # noqa: E402


def test_what_kubeflow_pipelines_and_its_users_do(ferroflow):
    mlmd.main(ferroflow.url)


def get(ferroflow, path):
    with urllib.request.urlopen(ferroflow.url + path) as answer:
        return json.load(answer)


def test_models_and_lineage_as_json(ferroflow):
    mlmd.main(ferroflow.url)
    models = get(ferroflow, "/apis/ferroflow/v1/metadata/models?page_size=1")["models"]
    assert models[0]["metrics"] == {"accuracy": 0.97}
    run = models[0]["run_id"]
    lineage = get(ferroflow, f"/apis/ferroflow/v1/metadata/runs/{run}/lineage")
    assert [node["kind"] for node in lineage["nodes"]] == ["execution", "execution", "artifact", "artifact"]
    assert [edge["kind"] for edge in lineage["edges"]] == ["OUTPUT", "INPUT", "OUTPUT"]


def test_grpc_web_as_the_stock_ui_speaks_it(ferroflow):
    """An empty GetArtifactTypes in a grpc-web frame: no Envoy in between."""
    headers = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"}
    url = ferroflow.url + "/ml_metadata.MetadataStoreService/GetArtifactTypes"
    with urllib.request.urlopen(urllib.request.Request(url, data=b"\0" * 5, headers=headers)) as answer:
        assert b"grpc-status:0" in answer.read().replace(b" ", b"")


@pytest.mark.parametrize("path", [
    "/api/model_registry/v1alpha3/registered_models", "/api/2.0/mlflow/experiments/search?max_results=1",
])
def test_what_comes_later_says_so(ferroflow, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(ferroflow, path)
    assert error.value.code == 501
    assert "is not implemented yet" in json.load(error.value)["message"]
