"""Every REST route of the gateway, called by bob for what is ann's. A route without a case fails."""

import json
import re
from pathlib import Path

import boto3
import botocore
import pytest
from tenants import PIPELINE, SECRET

SERVICES = Path(__file__).parents[3] / "services"
V2, FF = "/apis/v2beta1", "/apis/ferroflow/v1"
RUN = {"pipeline_spec": PIPELINE}
BOTH = {"pipeline": {"name": "b", "namespace": "ann"}, "pipeline_version": {"name": "v", "pipeline_spec": PIPELINE}}
OFTEN = {"display_name": "b", "pipeline_spec": PIPELINE, "max_concurrency": "1", "mode": "DISABLE", "namespace": "ann",
         "trigger": {"periodic_schedule": {"interval_second": "3600"}}}
UPLOAD = {"uploadfile": ("p.yaml", json.dumps(PIPELINE))}

# (method and route as the service writes it, path that bob asks for, more of the request)
DENIED = [
    ("POST /apis/v2beta1/experiments", "", {"json": {"display_name": "b", "namespace": "ann"}}),
    ("GET /apis/v2beta1/experiments", "?namespace=ann", {}),
    ("GET /apis/v2beta1/experiments/{id}", "{experiment}", {}),
    ("DELETE /apis/v2beta1/experiments/{id}", "{experiment}", {}),
    ("POST /apis/v2beta1/experiments/{id}", "{experiment}:archive", {}),
    ("POST /apis/v2beta1/experiments/{id}", "{experiment}:unarchive", {}),
    ("POST /apis/v2beta1/runs", "", {"json": RUN | {"experiment_id": "{experiment}"}}),
    ("POST /apis/v2beta1/runs", "", {"json": {"pipeline_version_reference": {"pipeline_id": "{pipeline}", "pipeline_version_id": "{version}"}}}),
    ("GET /apis/v2beta1/runs", "?namespace=ann", {}),
    ("GET /apis/v2beta1/runs", "?experiment_id={experiment}", {}),
    ("GET /apis/v2beta1/runs/{id}", "{run}", {}),
    ("DELETE /apis/v2beta1/runs/{id}", "{run}", {}),
    *(("POST /apis/v2beta1/runs/{id}", "{run}:" + verb, {}) for verb in ("archive", "unarchive", "terminate", "retry")),
    ("GET /apis/v2beta1/runs/{id}/nodes/{node}/artifacts/{name}", f"{{run}}/nodes/{{node}}/artifacts/{SECRET}:read", {}),
    ("GET /apis/v2beta1/experiments/{experiment}/runs", "{experiment}/runs", {}),
    ("POST /apis/v2beta1/experiments/{experiment}/runs", "{experiment}/runs", {"json": RUN}),
    ("POST /apis/v2beta1/recurringruns", "", {"json": OFTEN | {"experiment_id": "{experiment}"}}),
    ("GET /apis/v2beta1/recurringruns", "?namespace=ann", {}),
    ("GET /apis/v2beta1/recurringruns/{id}", "{recurring}", {}),
    ("DELETE /apis/v2beta1/recurringruns/{id}", "{recurring}", {}),
    ("POST /apis/v2beta1/recurringruns/{id}", "{recurring}:enable", {}),
    ("POST /apis/v2beta1/recurringruns/{id}", "{recurring}:disable", {}),
    ("POST /apis/v2beta1/pipelines", "", {"json": {"name": "b", "display_name": "b", "namespace": "ann"}}),
    ("GET /apis/v2beta1/pipelines", "?namespace=ann", {}),
    ("POST /apis/v2beta1/pipelines/create", "", {"json": BOTH}),
    ("POST /apis/v2beta1/pipelines/upload", "?name=b&namespace=ann", {"files": UPLOAD}),
    ("POST /apis/v2beta1/pipelines/upload_version", "?name=b&pipelineid={pipeline}", {"files": UPLOAD}),
    ("GET /apis/v2beta1/pipelines/names/{name}", f"{SECRET}?namespace=ann", {}),
    ("GET /apis/v2beta1/pipelines/{id}", "{pipeline}", {}),
    ("DELETE /apis/v2beta1/pipelines/{id}", "{pipeline}?cascade=true", {}),
    ("PATCH /apis/v2beta1/pipelines/{id}", "{pipeline}", {"json": {"display_name": "b"}}),
    ("POST /apis/v2beta1/pipelines/{id}/versions", "{pipeline}/versions", {"json": {"name": "b", "pipeline_spec": PIPELINE}}),
    ("GET /apis/v2beta1/pipelines/{id}/versions", "{pipeline}/versions", {}),
    ("GET /apis/v2beta1/pipelines/{id}/versions/{version}", "{pipeline}/versions/{version}", {}),
    ("DELETE /apis/v2beta1/pipelines/{id}/versions/{version}", "{pipeline}/versions/{version}", {}),
    ("PATCH /apis/v2beta1/pipelines/{id}/versions/{version}", "{pipeline}/versions/{version}", {"json": {"display_name": "b"}}),
    ("GET /apis/v1alpha1/runs/{run}/nodes/{node}/log", "{run}/nodes/{node}/log", {}),
    ("GET /apis/ferroflow/v1/pipelines/runs/{id}/graph", "{run}/graph", {}),
    ("POST /apis/ferroflow/v1/pipelines/hints/{run}/{task}/{attempt}/{code}", "{run}/make/0/00", {}),
    ("GET /apis/ferroflow/v1/tuning/namespaces/{namespace}/experiments", "ann/experiments", {}),
    ("GET /apis/ferroflow/v1/tuning/namespaces/{namespace}/experiments/{name}", f"ann/experiments/{SECRET}", {}),
    ("GET /apis/ferroflow/v1/tuning/namespaces/{namespace}/experiments/{name}/trials", f"ann/experiments/{SECRET}/trials", {}),
    ("GET /apis/ferroflow/v1/tuning/namespaces/{namespace}/trials/{name}/observations", "ann/trials/{trial}/observations", {}),
    ("GET /apis/ferroflow/v1/training/namespaces/{namespace}/jobs", "ann/jobs", {}),
    ("GET /apis/ferroflow/v1/training/namespaces/{namespace}/jobs/{kind}/{name}", f"ann/jobs/XGBoostJob/{SECRET}", {}),
    ("GET /apis/ferroflow/v1/metadata/runs/{run}/lineage", "{run}/lineage?namespace=ann", {}),
    ("GET /apis/ferroflow/v1/metadata/models", "?namespace=ann", {}),
    *((f"{method} /artifacts/v1/objects/{{*path}}", f"{SECRET}/{SECRET}", {"data": "b"} if method == "PUT" else {})
      for method in ("GET", "HEAD", "PUT", "DELETE")),
    *((f"{method} /artifacts/v1/objects/{{*path}}", f"mlpipeline/{SECRET}/{SECRET}", {"data": "b"} if method == "PUT" else {})
      for method in ("GET", "HEAD", "PUT", "DELETE")),
    ("PUT /artifacts/v1/objects/{*path}", f"{SECRET}/new", {"data": "b", "headers": {"x-ferroflow-namespace": "ann"}}),
    ("POST /artifacts/v1/sign", "", {"json": {"uri": f"s3://{SECRET}/{SECRET}", "method": "GET", "ttl_seconds": 60}}),
    ("POST /artifacts/v1/credentials", "", {"json": {"namespace": "ann"}}),
]

# what answers, and shows nothing of ann's: it is about the caller's own namespace
OWN = [
    ("GET /apis/v2beta1/healthz", "", {}),
    ("GET /apis/v1beta1/healthz", "", {}),
    ("GET /apis/v2beta1/runs", "", {}),
    ("GET /apis/v2beta1/pipelines", "", {}),
    ("GET /apis/v2beta1/experiments", "", {}),
    ("GET /apis/ferroflow/v1/metadata/runs/{run}/lineage", "{run}/lineage", {}),
    ("GET /apis/ferroflow/v1/metadata/models", "", {}),
    ("POST /apis/ferroflow/v1/tuning/trials/{name}/observations", "{trial}/observations",
     {"json": {"metrics": [{"time": "2026-01-01T00:00:00Z", "name": "bobs", "value": "0"}]}}),
    ("GET /artifacts/v1/list", f"?uri=s3://{SECRET}/", {}),
    ("GET /artifacts/v1/list", "?uri=s3://mlpipeline/", {}),
    ("GET /artifacts/v1/buckets", "", {}),
    ("GET /artifacts/v1/archive/{*path}", f"{SECRET}/{SECRET}", {}),
    ("GET /artifacts/v1/objects/{*path}", "mlpipeline/", {}),
    ("ANY /api/model_registry/{*rest}", "v1alpha3/registered_models", {}),
    ("ANY /api/model_catalog/{*rest}", "v1alpha1/models", {}),
    ("ANY /api/2.0/mlflow/{*rest}", "experiments/search", {}),
    ("ANY /api/2.0/mlflow-artifacts/{*rest}", "artifacts", {}),
    ("ANY /api/3.0/mlflow/{*rest}", "traces", {}),
]
ALL = DENIED + OWN


def filled(value, has):
    if isinstance(value, str):
        for name, known in has.items():
            value = value.replace("{" + name + "}", known)
        return value
    if isinstance(value, dict):
        return value if value is PIPELINE else {k: filled(v, has) for k, v in value.items()}
    return value


def call(world, case):
    route, path, more = case
    method, route = route.split(" ", 1)
    # what bob asks for begins where the route's first variable is
    base = route.split("{", 1)[0]
    more = {k: filled(v, world.has) if k in ("json", "params") else v for k, v in more.items()}
    return world.bob.call("GET" if method == "ANY" else method, base + filled(path, world.has), **more)


@pytest.mark.parametrize("case", DENIED, ids=lambda c: f"{c[0]} {c[1]}")
def test_bob_is_denied(world, case):
    answer = call(world, case)
    assert answer.status_code in (403, 404), f"{answer.status_code} {answer.text[:600]}"
    if answer.status_code == 403 and answer.text.startswith("{"):
        body = answer.json()
        message = body.get("message") or body.get("error_message")
        assert "bob" in message or "code" in message, body


@pytest.mark.parametrize("case", OWN, ids=lambda c: f"{c[0]} {c[1]}")
def test_bob_sees_nothing_of_ann(world, case):
    answer = call(world, case)
    assert answer.status_code < 500 or answer.status_code == 501, answer.text
    if answer.ok:
        assert SECRET not in answer.text, answer.text[:600]


def test_ann_is_not_denied(world):
    """What bob is refused is there: ann reads it."""
    for route, path, more in DENIED:
        method, route = route.split(" ", 1)
        if method == "GET":
            answer = world.ann.call(method, route.split("{", 1)[0] + filled(path, world.has), **more)
            assert answer.ok, f"{method} {route} {path}: {answer.status_code} {answer.text[:300]}"


def test_nothing_of_ann_was_changed(world):
    has, ann = world.has, world.ann
    run = ann.good("GET", f"{V2}/runs/{has['run']}")
    assert (run["state"], run.get("storage_state", "AVAILABLE"), run["display_name"]) == ("SUCCEEDED", "AVAILABLE", SECRET)
    assert len(ann.good("GET", f"{V2}/runs")["runs"]) == 1
    assert [p["pipeline_id"] for p in ann.good("GET", f"{V2}/pipelines?namespace=ann")["pipelines"]] == [has["pipeline"]]
    versions = ann.good("GET", f"{V2}/pipelines/{has['pipeline']}/versions")["pipeline_versions"]
    assert [v["display_name"] for v in versions] == [SECRET]
    assert ann.good("GET", f"{V2}/recurringruns/{has['recurring']}")["status"] == "DISABLED"
    for bucket, key in ((SECRET, SECRET), ("mlpipeline", f"{SECRET}/{SECRET}")):
        assert ann.call("GET", f"/artifacts/v1/objects/{bucket}/{key}").text == SECRET
    log = ann.good("GET", f"{FF}/tuning/namespaces/ann/trials/{has['trial']}/observations")
    assert [float(line["value"]) for line in log["metrics"]] == [0.5]


def credentials(tenant):
    given = tenant.good("POST", "/artifacts/v1/credentials", json={})
    config = botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    return boto3.client(
        "s3", endpoint_url=tenant.url + "/s3", region_name=given["region"], config=config,
        aws_access_key_id=given["access_key_id"], aws_secret_access_key=given["secret_access_key"],
    )


@pytest.mark.parametrize("key", [(SECRET, SECRET), ("mlpipeline", f"{SECRET}/{SECRET}")])
def test_s3(world, key):
    place = dict(zip(("Bucket", "Key"), key, strict=True))
    assert credentials(world.ann).get_object(**place)["Body"].read() == SECRET.encode()
    bob = credentials(world.bob)
    attempts = {
        "get_object": place, "head_object": place, "delete_object": place, "put_object": place | {"Body": b"b"},
        "copy_object": {"Bucket": "mlpipeline", "Key": "bob/copy", "CopySource": place},
        "create_multipart_upload": place, "delete_bucket": {"Bucket": SECRET},
    }
    for name, arguments in attempts.items():
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            getattr(bob, name)(**arguments)
        code = refused.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert code in (403, 404) or (name, code) == ("delete_bucket", 409), (name, code)
    try:
        listed = [o["Key"] for o in bob.list_objects_v2(Bucket=place["Bucket"]).get("Contents", [])]
        assert not [k for k in listed if SECRET in k]
    except botocore.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404)
    assert credentials(world.ann).get_object(**place)["Body"].read() == SECRET.encode()


@pytest.mark.parametrize("path", [f"/serving/ann/{SECRET}/v2", f"/serving/ann/{SECRET}-predictor/v2", f"/notebook/ann/{SECRET}/", f"/notebook/ann/{SECRET}/api/kernels"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_models_and_notebooks(world, method, path):
    answer = world.bob.call(method, path)
    assert answer.status_code == 403, answer.text
    assert "bob" in answer.json()["message"]


def test_models_by_host(world):
    host = {"Host": f"{SECRET}.ann.localhost:{world.ferroflow.port}"}
    assert world.bob.call("GET", "/v2", headers=host).status_code == 403


def test_session_tells_who_calls(world):
    for tenant in (world.ann, world.bob):
        told = tenant.good("GET", f"{FF}/session")
        assert told["user"] == f"system:serviceaccount:{tenant.namespace}:default-editor"
        assert told["namespace"] == tenant.namespace


def test_a_caller_cannot_name_himself(world):
    """Headers by which proxies name users mean nothing here."""
    for header in ("kubeflow-userid", "x-remote-user", "impersonate-user", "x-forwarded-user"):
        headers = {header: "system:serviceaccount:ann:default-editor"}
        assert world.bob.call("GET", f"{V2}/runs?namespace=ann", headers=headers).status_code == 403
        assert world.bob.call("GET", "/kube/api/v1/namespaces/ann/secrets", headers=headers).status_code == 403


def routes():
    """Every route in the sources of the services, as `METHOD /path`."""
    found = set()
    for service in ("pipelines", "tuning", "training", "metadata", "artifacts", "profiles", "notebooks", "serving"):
        for file in sorted((SERVICES / service / "src").rglob("*.rs")):
            if file.stem in ("admission", "webhook"):
                continue  # only the API server calls these, in process
            text = file.read_text().split("#[cfg(test)]")[0]
            root = dict(re.findall(r'const (\w+): &(?:\'static )?str = "(/[^"]*)"', text))
            for call_ in re.finditer(r'\.route\(\s*(?:&format!\(\s*)?"([^"]*)"\s*\)?,\s*((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)', text):
                path, handlers = call_.groups()
                if path.startswith("{ROOT}"):
                    path = path.replace("{ROOT}", root["ROOT"]).replace("{{", "{").replace("}}", "}")
                if not path.startswith(("/api", "/artifacts")):
                    path = V2 + path
                for method in re.findall(r"\b(get|post|put|patch|delete|any)\(", handlers):
                    found.add(f"{method.upper()} {path}")
    found.add("POST /apis/ferroflow/v1/pipelines/hints/{run}/{task}/{attempt}/{code}")
    # routes that are made in loops, or for any method
    for rest in re.findall(r'"(/api/[^"]*\{\*rest\})"', (SERVICES / "metadata/src/api/rest.rs").read_text()):
        found.add(f"ANY {rest}")
    if "ANY /artifacts/v1/objects/{*path}" in found:
        found.remove("ANY /artifacts/v1/objects/{*path}")
        found |= {f"{m} /artifacts/v1/objects/{{*path}}" for m in ("GET", "HEAD", "PUT", "DELETE")}
    return found


def test_every_route_has_a_case():
    found, cases = routes(), {case[0] for case in ALL}
    assert len(found) > 50, f"the sources are not read rightly: {sorted(found)}"
    assert not found - cases, f"no case for {sorted(found - cases)}"
    assert not cases - found, f"no such route: {sorted(cases - found)}"


def test_every_prefix_of_the_gateway_has_a_case():
    table = (SERVICES / "ferroflow/src/platform/routes.rs").read_text()
    prefixes = re.findall(r'\("(/[^"]*)", "([^"]*)", (?:true|false), "\w+"\)', table)
    assert len(prefixes) >= 10
    paths = [case[0].split(" ", 1)[1] for case in ALL] + ["/s3/"]
    for prefix, strip in prefixes:
        assert any((path.startswith(prefix) or (strip + path).startswith(prefix)) for path in paths), f"no case for {prefix}"
