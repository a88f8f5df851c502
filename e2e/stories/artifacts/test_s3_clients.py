"""boto3, unmodified, against a Ferroflow: through the gateway, with minted keys and with none."""

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

boto3 = pytest.importorskip("boto3", reason="needs boto3 in this environment")
grpc = pytest.importorskip("grpc", reason="needs grpcio in this environment")
from botocore import UNSIGNED  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402

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
    """An unsigned request is the owner's: the gateway knows who connects."""
    s3 = boto3.client("s3", endpoint_url=ferroflow.url + "/s3", region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    s3.put_object(Bucket="mlpipeline", Key="by-hand/x", Body=b"x")
    assert (ferroflow.folder / "artifacts/mlpipeline/by-hand/x").read_bytes() == b"x"


def test_keys_that_are_wrong_are_refused_also_on_the_own_machine(ferroflow):
    minted = mint(ferroflow, namespace="default")
    tampered = minted["secret_access_key"][:-1] + "x"
    for key, secret, code in [
        ("minio", "minio123", "InvalidAccessKeyId"),
        (minted["access_key_id"], tampered, "SignatureDoesNotMatch"),
    ]:
        for version in ("s3v4", "s3"):
            s3 = boto3.client("s3", endpoint_url=ferroflow.url + "/s3", region_name="us-east-1", aws_access_key_id=key,
                              aws_secret_access_key=secret, config=Config(signature_version=version))
            if version == "s3v4":
                with pytest.raises(ClientError) as error:
                    s3.put_object(Bucket="mlpipeline", Key="by-hand/y", Body=b"y")
                answer = error.value.response
                assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, 403)
            link = s3.generate_presigned_url("get_object", Params={"Bucket": "mlpipeline", "Key": "by-hand/x"})
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(link)
            assert error.value.code == 403 and code in error.value.read().decode()
    assert not (ferroflow.folder / "artifacts/mlpipeline/by-hand/y").exists()


def test_tokens_that_are_wrong_are_refused_also_on_the_own_machine(ferroflow):
    """REST, artifacts, the Kubernetes API behind the gateway and its own port: 401; gRPC: UNAUTHENTICATED."""
    endpoint = json.loads(ferroflow.endpoint_file.read_text())
    unverified = ssl._create_unverified_context()
    account = "/kube/api/v1/namespaces/default/serviceaccounts/default/token"
    body = json.dumps({"spec": {"expirationSeconds": 600, "audiences": ["somebody-else"]}}).encode()
    request = urllib.request.Request(ferroflow.url + account, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        for_another = json.load(answer)["status"]["token"]
    header, claims, signature = for_another.split(".")
    wrong = ["Bearer wrong", f"Bearer {header}.{claims}.{signature[:-4]}AAAA", f"Bearer {for_another}", "Basic YTpi"]
    urls = [
        ferroflow.url + "/apis/v2beta1/experiments",
        ferroflow.url + "/artifacts/v1/buckets",
        ferroflow.url + "/kube/api/v1/namespaces/default/pods",
        endpoint["kubernetes"] + "/api/v1/namespaces/default/pods",
    ]
    for url in urls[:3]:
        assert urllib.request.urlopen(url).status == 200, url
    for url in urls:
        for value in wrong:
            if url.startswith("https") and value.startswith("Basic"):
                continue  # as on Kubernetes, whoever has no bearer token is anonymous there
            request = urllib.request.Request(url, headers={"Authorization": value})
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, context=unverified if url.startswith("https") else None)
            assert error.value.code == 401, (url, value)
    with grpc.insecure_channel(f"localhost:{ferroflow.port}") as channel:
        method = channel.unary_unary("/ferroflow.artifacts.v1.ArtifactService/ListBuckets")
        for value in wrong:
            with pytest.raises(grpc.RpcError) as error:
                method(b"", metadata=(("authorization", value),), timeout=10)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, value


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
