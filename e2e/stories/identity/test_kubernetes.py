"""Every resource and verb of the Kubernetes API, used by bob in ann's namespace and in none; found by discovery."""

import pytest
import yaml
from tenants import SECRET, eventually

# what anyone who is someone may do: ask about themselves
ABOUT_ONESELF = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"}
HTTP = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "get": "GET", "list": "GET", "watch": "GET",
        "deletecollection": "DELETE"}


def discovered(world):
    """(path of its group and version, resource) of all that the API serves."""
    admin = lambda path: yaml.safe_load(world.ferroflow.kubectl("get", "--raw", path))
    versions = ["/api/v1"]
    for group in admin("/apis")["groups"]:
        versions += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    return [(version, resource) for version in versions for resource in admin(version)["resources"]]


def attempts(version, resource):
    """Method, path and query of every verb of a resource, or of the bare subresource."""
    plural, _, sub = resource["name"].partition("/")
    scope = "/namespaces/ann" if resource["namespaced"] else ""
    many, one = f"{version}{scope}/{plural}", f"{version}{scope}/{plural}/{SECRET}" + (f"/{sub}" if sub else "")
    for verb in resource["verbs"] or ["get", "create"]:
        if verb in ("list", "watch", "deletecollection") or (verb == "create" and not sub):
            yield verb, many + ("?watch=true&timeoutSeconds=1" if verb == "watch" else "")
            if verb == "list" and resource["namespaced"]:
                yield verb, f"{version}/{plural}"
        else:
            yield verb, one


def test_bob_reaches_no_resource(world):
    resources = discovered(world)
    names = {resource["name"] for _, resource in resources}
    assert {"pods", "pods/log", "pods/exec", "secrets", "experiments", "trials", "inferenceservices", "notebooks", "xgboostjobs",
            "rolebindings", "clusterroles", "customresourcedefinitions", "runtimeimages", "profiles", "nodes"} <= names, names
    tried, wrong = 0, []
    for version, resource in resources:
        if resource["name"] in ABOUT_ONESELF:
            continue
        group = version.removeprefix("/apis/") if version != "/api/v1" else "v1"
        body = {"apiVersion": group, "kind": resource["kind"], "metadata": {"name": SECRET}}
        for verb, path in attempts(version, resource):
            more = {"json": body} if verb in ("create", "update") else {}
            if verb == "patch":
                more = {"json": {}, "headers": {"Content-Type": "application/merge-patch+json"}}
            answer = world.bob.call(HTTP[verb], "/kube" + path, **more)
            tried += 1
            if answer.status_code != 403 or answer.json().get("reason") != "Forbidden":
                wrong.append(f"{verb} {path}: {answer.status_code} {answer.text[:200]}")
    assert tried > 300, f"only {tried} attempts"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/v1/namespaces/ann/pods/{SECRET}/log"),
        ("GET", f"/api/v1/namespaces/ann/pods/{SECRET}/log?follow=true"),
        ("POST", f"/api/v1/namespaces/ann/pods/{SECRET}/exec?command=id&stdout=true&container=main"),
        ("GET", f"/api/v1/namespaces/ann/pods/{SECRET}/exec?command=id&stdout=true&container=main"),
        ("POST", f"/api/v1/namespaces/ann/pods/{SECRET}/attach?stdout=true"),
        ("POST", f"/api/v1/namespaces/ann/pods/{SECRET}/portforward?ports=80"),
        ("GET", f"/api/v1/namespaces/ann/pods/{SECRET}:8080/proxy/"),
        ("GET", f"/api/v1/namespaces/ann/services/{SECRET}:80/proxy/"),
        ("GET", "/api/v1/namespaces/kubeflow/services/ml-pipeline:8888/proxy/apis/v2beta1/runs?namespace=ann"),
        ("POST", "/api/v1/namespaces/ann/serviceaccounts/default-editor/token"),
        ("POST", "/api/v1/namespaces/kubeflow/serviceaccounts/pipelines/token"),
        ("GET", "/api/v1/secrets"),
        ("GET", "/api/v1/pods"),
        ("GET", "/apis/kubeflow.org/v1beta1/experiments"),
        ("DELETE", "/api/v1/namespaces/ann"),
        ("DELETE", "/apis/kubeflow.org/v1/profiles/ann"),
        ("GET", "/openapi/../api/v1/namespaces/ann/secrets"),
        ("GET", "/api/v1/namespaces/bob/../ann/secrets"),
        ("GET", "/api/v1/namespaces/bob/%2e%2e/ann/secrets"),
        ("GET", "/api/v1//namespaces/ann/secrets"),
    ],
)
def test_bob_finds_no_way_around(world, method, path):
    body = {"json": {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}} if path.endswith("/token") else {}
    answer = world.bob.call(method, "/kube" + path, **body)
    assert answer.status_code in (400, 403, 404), f"{answer.status_code} {answer.text[:400]}"


def test_bob_gives_himself_no_rights(world):
    subject = {"kind": "ServiceAccount", "name": "default-editor", "namespace": "bob"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    for scope in ("/namespaces/ann/rolebindings", "/namespaces/bob/rolebindings", "/clusterrolebindings"):
        kind = "ClusterRoleBinding" if scope.startswith("/cluster") else "RoleBinding"
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "mine"},
                   "roleRef": role, "subjects": [subject]}
        answer = world.bob.call("POST", "/kube/apis/rbac.authorization.k8s.io/v1" + scope, json=binding)
        assert answer.status_code == 403, f"{scope}: {answer.text}"


def run_in_bob(world, name, **spec):
    """Makes a Pod in bob's namespace with bob's token; answers what came of the request."""
    container = {"name": "main", "image": "python:3.11"} | spec.pop("container", {})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"restartPolicy": "Never", "containers": [container], **spec}}
    return world.bob.call("POST", "/kube/api/v1/namespaces/bob/pods", json=pod)


def ended(world, name):
    """What a Pod of bob's printed, once it has ended."""
    path = f"/kube/api/v1/namespaces/bob/pods/{name}"
    eventually("the Pod ends", lambda: world.bob.good("GET", path)["status"]["phase"] in ("Succeeded", "Failed"))
    return world.bob.call("GET", path + "/log").text


def test_a_pod_of_bob_calls_as_bob(world):
    """Without a token it is known by its address; ann's runs and trials stay out of its reach."""
    script = f"""
import urllib.error, urllib.request
for url in ("http://ml-pipeline.kubeflow:8888/apis/v2beta1/runs?namespace=ann",
            "http://ml-pipeline.kubeflow:8888/apis/v2beta1/runs",
            "http://minio-service.kubeflow:9000/{SECRET}/{SECRET}"):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"""
    assert run_in_bob(world, "asks", container={"command": ["python3", "-c", script]}).status_code == 201
    lines = ended(world, "asks").splitlines()
    assert lines[0].startswith("403 ") and "system:serviceaccount:bob:default" in lines[0], lines
    assert lines[1] == "200 {}", lines
    assert lines[2].startswith("403 "), lines


def test_a_pod_of_bob_does_not_take_the_address_of_anns(world):
    address = world.ferroflow.kubectl("get", "pod", SECRET, "-n", "ann", "-o", "jsonpath={.status.podIP}")
    assert address.startswith("127.")
    script = f"""
import socket
try:
    ours = socket.create_connection(("ml-pipeline.kubeflow", 8888), timeout=20, source_address=({address!r}, 0))
    ours.sendall(b"GET /apis/v2beta1/runs?namespace=ann HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
    answer = b""
    while part := ours.recv(65536):
        answer += part
    print(answer.decode())
except OSError as error:
    print("refused:", error)
"""
    assert run_in_bob(world, "spoofs", container={"command": ["python3", "-c", script]}).status_code == 201
    said = ended(world, "spoofs")
    assert said.startswith("refused:") or " 403 " in said.splitlines()[0], said[:600]
