"""Server-side apply: owners of fields, conflicts, what a second apply takes away."""

from objects import CONTAINER, changed, config_map, create, deployment, pod, service

OWNERS = ["metadata.managedFields"]


def apply(path: str, body: dict, manager: str = "me", force: bool = False, **more) -> dict:
    return {"do": f"PATCH apply {path}?fieldManager={manager}" + ("&force=true" if force else ""), "body": body, **more}


MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
DEPLOYMENT = deployment(replicas=0, paused=True)


def data(**values) -> dict:
    return {**MAP, "data": values}


CASES = [
    {"name": "apply: creates", "steps": [apply("configmaps/x", data(a="1"))]},
    {"name": "apply: owners after create", "steps": [apply("configmaps/x", data(a="1"), only=OWNERS)]},
    {"name": "apply: owners after a plain create", "steps": [create("configmaps?fieldManager=maker", config_map(), only=OWNERS)]},
    {"name": "apply: owners after a plain update", "steps": [create("configmaps?fieldManager=maker", config_map(), quiet=True), {"do": "PATCH merge configmaps/x?fieldManager=changer", "body": {"data": {"n": "1"}}, "only": OWNERS}]},
    {"name": "apply: takes away what is no longer applied", "steps": [apply("configmaps/x", data(a="1", b="2"), quiet=True), apply("configmaps/x", data(a="1"))]},
    {"name": "apply: keeps what others applied", "steps": [apply("configmaps/x", data(a="1"), quiet=True), apply("configmaps/x", data(b="2"), "you", quiet=True), apply("configmaps/x", data(a="3")), {"do": "GET configmaps/x", "only": OWNERS}]},
    {"name": "apply: conflicts", "steps": [apply("configmaps/x", data(a="1"), quiet=True), apply("configmaps/x", data(a="2"), "you")]},
    {"name": "apply: conflicts with an update", "steps": [create("configmaps?fieldManager=maker", config_map(k="v"), quiet=True), apply("configmaps/x", data(k="w"), only=["code", "reason", "message", "details"])]},
    {"name": "apply: forces", "steps": [apply("configmaps/x", data(a="1"), quiet=True), apply("configmaps/x", data(a="2"), "you", force=True), {"do": "GET configmaps/x", "only": OWNERS}]},
    {"name": "apply: shares equal values", "steps": [apply("configmaps/x", data(a="1"), quiet=True), apply("configmaps/x", data(a="1"), "you", only=OWNERS), apply("configmaps/x", MAP), {"do": "GET configmaps/x", "only": ["data", *OWNERS]}]},
    {"name": "apply: without a manager", "steps": [{"do": "PATCH apply configmaps/x", "body": data(a="1")}]},
    {"name": "apply: under another name", "steps": [apply("configmaps/x", {**data(a="1"), "metadata": {"name": "y"}})]},
    {"name": "apply: with managed fields", "steps": [apply("configmaps/x", {**data(a="1"), "metadata": {"name": "x", "managedFields": [{"manager": "z", "operation": "Apply"}]}})]},
    {"name": "apply: without kind", "steps": [apply("configmaps/x", {"apiVersion": "v1", "metadata": {"name": "x"}}, only=["code", "reason"])]},
    {"name": "apply: an unknown field", "steps": [apply("configmaps/x", {**data(a="1"), "nothing": 1}, only=["code", "reason"])]},
    {"name": "apply: labels", "steps": [apply("configmaps/x", {**MAP, "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}}}, quiet=True), apply("configmaps/x", {**MAP, "metadata": {"name": "x", "labels": {"a": "1"}}}, only=["metadata.labels"])]},
    {"name": "apply: a deployment", "steps": [apply("deployments/x", DEPLOYMENT, only=["spec"])]},
    {"name": "apply: owners of a deployment", "steps": [apply("deployments/x", DEPLOYMENT, only=["metadata.managedFields.0"])]},
    {"name": "apply: a second container", "steps": [apply("deployments/x", DEPLOYMENT, quiet=True), apply("deployments/x", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {
        "selector": DEPLOYMENT["spec"]["selector"], "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "second", "image": "s:1"}]}}}}, "you", only=["spec.template.spec.containers"])]},
    {"name": "apply: takes a container away", "steps": [apply("deployments/x", changed(DEPLOYMENT, "spec/template/spec/containers/-", {"name": "b", "image": "b:1"}), quiet=True), apply("deployments/x", DEPLOYMENT, only=["spec.template.spec.containers"])]},
    {"name": "apply: environment", "steps": [apply("deployments/x", changed(DEPLOYMENT, "spec/template/spec/containers/0/env", [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]), quiet=True),
        apply("deployments/x", changed(DEPLOYMENT, "spec/template/spec/containers/0/env", [{"name": "B", "value": "3"}]), only=["spec.template.spec.containers.0.env"])]},
    {"name": "apply: replicas of a scaled deployment", "steps": [apply("deployments/x", changed(DEPLOYMENT, "spec/replicas", 1), quiet=True), {"do": "PATCH merge deployments/x/scale?fieldManager=scaler", "body": {"spec": {"replicas": 2}}, "quiet": True},
        apply("deployments/x", changed(DEPLOYMENT, "spec/replicas", 1), only=["code", "reason", "message"]), apply("deployments/x", changed(DEPLOYMENT, "spec/replicas", None), only=["spec.replicas"])]},
    {"name": "apply: an immutable field", "steps": [apply("deployments/x", DEPLOYMENT, quiet=True), apply("deployments/x", changed(DEPLOYMENT, "spec/selector", {"matchLabels": {"app": "b"}}), only=["code", "reason"])]},
    {"name": "apply: an invalid object", "steps": [apply("deployments/x", changed(DEPLOYMENT, "spec/template/spec/containers", []), only=["code", "reason", "message"])]},
    {"name": "apply: service ports", "steps": [apply("services/x", service(ports=[{"port": 80, "name": "a", "protocol": "TCP"}, {"port": 81, "name": "b", "protocol": "TCP"}]), quiet=True),
        apply("services/x", service(ports=[{"port": 81, "name": "c", "protocol": "TCP"}]), only=["spec.ports"])]},
    {"name": "apply: status", "steps": [create("pods", pod(nodeName="nowhere", automountServiceAccountToken=False), quiet=True), apply("pods/x/status", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "status": {"message": "m"}}, only=["status.message", "status.phase"])]},
    {"name": "apply: as a dry run", "steps": [{"do": "PATCH apply configmaps/x?fieldManager=me&dryRun=All", "body": data(a="1")}, {"do": "GET configmaps/x", "only": ["code"]}]},
    {"name": "apply: nothing new", "steps": [apply("configmaps/x", data(a="1"), keep={"version": "metadata.resourceVersion"}, quiet=True), apply("configmaps/x", data(a="1"), keep={"again": "metadata.resourceVersion"}, quiet=True),
        {"do": "PATCH json configmaps/x", "body": [{"op": "test", "path": "/metadata/resourceVersion", "value": "{version}"}], "only": ["kind"]}]},
]
_ = CONTAINER
