"""boto3, unmodified, against a Ferroflow: through the gateway, with minted keys and with none."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

boto3 = pytest.importorskip("boto3", reason="needs boto3 in this environment")

CLIENTS = Path(__file__).parents[3] / "services/artifacts/tests/s3_clients.py"


def mint(ferroflow, **body):
    headers = {"Content-Type": "application/json"}
    url = ferroflow.url + "/artifacts/v1/credentials"
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_what_data_tools_do(ferroflow):
    keys = {}
    for tenant, namespace in [("A", "default"), ("B", "other")]:
        minted = mint(ferroflow, namespace=namespace)
        keys[f"KEY_{tenant}"], keys[f"SECRET_{tenant}"] = minted["access_key_id"], minted["secret_access_key"]
    environment = {**os.environ, **keys, "S3_PREFIXED": ferroflow.url + "/s3"}
    subprocess.run([sys.executable, str(CLIENTS)], env=environment, check=True)


def test_the_user_of_the_machine_needs_no_keys(ferroflow):
    """Tools come with keys of their own, such as minio/minio123; the gateway knows who connects."""
    s3 = boto3.client("s3", endpoint_url=ferroflow.url + "/s3", region_name="us-east-1",
                      aws_access_key_id="minio", aws_secret_access_key="minio123")
    s3.put_object(Bucket="mlpipeline", Key="by-hand/x", Body=b"x")
    assert (ferroflow.folder / "artifacts/mlpipeline/by-hand/x").read_bytes() == b"x"


def test_objects_outlive_kill_9(fresh_ferroflow):
    url = "/artifacts/v1/objects/mlpipeline/v2/artifacts/p/run/task/uuid/outcome.json"

    def put(text):
        request = urllib.request.Request(fresh_ferroflow.url + url, data=text, headers={"If-None-Match": "*"}, method="PUT")
        return urllib.request.urlopen(request)

    put(b"first")
    fresh_ferroflow.kill()
    fresh_ferroflow.start()
    with urllib.request.urlopen(fresh_ferroflow.url + url) as answer:
        assert answer.read() == b"first"
    with pytest.raises(urllib.error.HTTPError) as error:
        put(b"second")
    assert error.value.code == 412
