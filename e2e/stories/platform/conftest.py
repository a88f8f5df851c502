"""What the tests of bad input share: a served model."""

from pathlib import Path

import pytest
import requests
from programs import apply, inference_service

MODEL = Path(__file__).parents[3] / "services/modelserver/tests/fixtures/iris.json"


@pytest.fixture(scope="module")
def iris(ferroflow):
    """URL of a small XGBoost model that is served."""
    put = requests.put(f"{ferroflow.url}/artifacts/v1/objects/mlpipeline/models/iris/model.json", data=MODEL.read_bytes(), timeout=30)
    assert put.status_code == 201, put.text
    apply(ferroflow, inference_service("iris", "xgboost", "s3://mlpipeline/models/iris"))
    ferroflow.kubectl("wait", "--for=condition=Ready", "isvc/iris", "--timeout=90s")
    return f"{ferroflow.url}/serving/default/iris"
