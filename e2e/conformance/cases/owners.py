"""Field ownership, server-side apply, and who may do what."""

from __future__ import annotations

from objects import make

OWNERS = ["metadata.managedFields", "data", "spec.containers", "code", "reason", "message", "details"]
SAR = "/apis/authorization.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"


def config(**data) -> dict:
    return make("v1", "ConfigMap", data=data)


def apply(path: str, manager: str, body: dict, force: bool = False, **more) -> dict:
    query = f"fieldManager={manager}" + ("&force=true" if force else "")
    return {"do": f"PATCH apply {path}?{query}", "body": body, "only": OWNERS, **more}


def merge(path: str, body: dict, manager: str = "someone", **more) -> dict:
    return {"do": f"PATCH merge {path}?fieldManager={manager}", "body": body, "only": OWNERS, **more}


def idle_pod(*containers: dict, **meta) -> dict:
    """No scheduler takes it, so nobody else writes to it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **meta},
            "spec": {"schedulerName": "none", "containers": list(containers) or [{"name": "a", "image": "busybox"}]}}


def case(name: str, *steps: dict) -> dict:
    return {"name": f"owners: {name}", "steps": list(steps)}


CM = "configmaps/x"
WITH_LABEL = {**config(a="1"), "metadata": {"name": "x", "labels": {"l": "1"}, "annotations": {"n": "1"}}}

CASES = [
    case("creates", apply(CM, "me", config(a="1"))),
    case("again changes nothing", apply(CM, "me", config(a="1"), quiet=True), {"do": f"GET {CM}", "keep": {"rv": "metadata.resourceVersion"}, "quiet": True},
         apply(CM, "me", config(a="1"), quiet=True), {"do": f"GET {CM}?resourceVersion={{rv}}", "only": OWNERS}),
    case("adds a field", apply(CM, "me", config(a="1"), quiet=True), apply(CM, "me", config(a="1", b="2"))),
    case("takes away what it no longer has", apply(CM, "me", config(a="1", b="2"), quiet=True), apply(CM, "me", config(a="1"))),
    case("of another field of another", apply(CM, "me", config(a="1"), quiet=True), apply(CM, "you", config(b="2"))),
    case("of an equal field shares it", apply(CM, "me", config(a="1"), quiet=True), apply(CM, "you", config(a="1"))),
    case("a shared field stays when one leaves", apply(CM, "me", config(a="1", b="2"), quiet=True), apply(CM, "you", config(a="1"), quiet=True),
         apply(CM, "me", config(b="2"))),
    case("conflict", apply(CM, "me", config(a="1"), quiet=True), apply(CM, "you", config(a="2"))),
    case("two conflicts", apply(CM, "me", config(a="1", b="1"), quiet=True), apply(CM, "you", config(a="2", b="2"))),
    case("conflict with an update", {"do": "POST configmaps?fieldManager=maker", "body": config(a="1"), "quiet": True}, apply(CM, "me", config(a="2"))),
    case("force takes the field", apply(CM, "me", config(a="1", b="1"), quiet=True), apply(CM, "you", config(a="2"), force=True)),
    case("without a manager", {"do": f"PATCH apply {CM}", "body": config(a="1")}),
    case("with managed fields", {"do": f"PATCH apply {CM}?fieldManager=me", "body": {**config(a="1"), "metadata": {"name": "x", "managedFields": [{}]}}}),
    case("under another name", {"do": f"PATCH apply {CM}?fieldManager=me", "body": {**config(a="1"), "metadata": {"name": "y"}}}),
    case("without a kind", {"do": f"PATCH apply {CM}?fieldManager=me", "body": {"metadata": {"name": "x"}}}),
    case("with an unknown field", {"do": f"PATCH apply {CM}?fieldManager=me", "body": {**config(a="1"), "bogus": 1}}),
    case("forced merge patch", {"do": f"PATCH merge {CM}?force=true", "body": {"data": {}}}),
    case("of a version of nothing", {"do": f"PATCH apply {CM}?fieldManager=me", "body": {**config(a="1"), "metadata": {"name": "x", "resourceVersion": "1"}}}),
    case("an update owns what it makes", {"do": "POST configmaps?fieldManager=maker", "body": WITH_LABEL, "only": OWNERS}),
    case("an update takes a field from an apply", apply(CM, "me", config(a="1", b="1"), quiet=True), merge(CM, {"data": {"a": "2"}})),
    case("an update that removes a field", apply(CM, "me", config(a="1", b="1"), quiet=True), merge(CM, {"data": {"a": None}})),
    case("an update that changes nothing", apply(CM, "me", config(a="1"), quiet=True), merge(CM, {"data": {"a": "1"}})),
    case("two updates", {"do": "POST configmaps?fieldManager=maker", "body": config(a="1"), "quiet": True}, merge(CM, {"data": {"b": "2"}}), merge(CM, {"data": {"a": "2"}}, "third")),
    case("an update resets ownership", apply(CM, "me", config(a="1"), quiet=True), merge(CM, {"metadata": {"managedFields": [{}]}})),
    case("conflict after an update", apply(CM, "me", config(a="1"), quiet=True), merge(CM, {"data": {"a": "2"}}, quiet=True), apply(CM, "me", config(a="1"))),
    case("a pod", apply("pods/x", "me", idle_pod())),
    case("another container", apply("pods/x", "me", idle_pod(), quiet=True),
         apply("pods/x", "me", idle_pod({"name": "a", "image": "alpine"}))),
    case("status is another owner", {"do": "POST pods?fieldManager=maker", "body": idle_pod(), "quiet": True},
         {"do": "PATCH merge pods/x/status?fieldManager=agent", "body": {"status": {"message": "m"}}, "only": OWNERS}),
    case("applied status", {"do": "POST pods?fieldManager=maker", "body": idle_pod(), "quiet": True},
         {"do": "PATCH apply pods/x/status?fieldManager=agent", "body": {"apiVersion": "v1", "kind": "Pod", "status": {"message": "m"}}, "only": OWNERS + ["status.message"]}),
    case("finalizers are a set", apply(CM, "me", {**make("v1", "ConfigMap"), "metadata": {"name": "x", "finalizers": ["a.io/x"]}}, quiet=True),
         apply(CM, "you", {**make("v1", "ConfigMap"), "metadata": {"name": "x", "finalizers": ["a.io/y"]}}), {"do": f"GET {CM}", "only": ["metadata.finalizers", "metadata.managedFields"]},
         merge(CM, {"metadata": {"finalizers": None}}, quiet=True)),
    case("ports by their keys", apply("services/x", "me", make("v1", "Service", spec={"ports": [{"port": 80, "protocol": "TCP"}]}), quiet=True),
         {"do": "PATCH apply services/x?fieldManager=you", "body": make("v1", "Service", spec={"ports": [{"name": "b", "port": 81, "protocol": "TCP"}, {"name": "a", "port": 80, "protocol": "TCP"}]}),
          "only": ["spec.ports", "message"]}),

    {"name": "rights: a role without rights to give them", "steps": [
        {"do": f"POST roles", "body": make(f"{RBAC}/v1", "Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
         "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "rights: more than one holds", "steps": [
        {"do": "POST rolebindings", "body": make(f"{RBAC}/v1", "RoleBinding", roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": "admin"},
                                                 subjects=[{"apiGroup": RBAC, "kind": "User", "name": "ann-{ns}"}]), "quiet": True},
        {"do": "POST roles", "body": make(f"{RBAC}/v1", "Role", "probe", rules=[]), "headers": {"Impersonate-User": "ann-{ns}"}, "quiet": True, "until": lambda code, body: code in (201, 409)},
        {"do": "POST roles", "body": make(f"{RBAC}/v1", "Role", "more", rules=[{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "delete"]}]),
         "headers": {"Impersonate-User": "ann"}, "quiet": True},
        {"do": "GET roles/none"}]},
    {"name": "rights: nobody lists pods", "steps": [{"do": "GET pods", "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "rights: nobody gets a node", "steps": [{"do": "GET nodes/node-1", "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "rights: nobody sets a status", "steps": [{"do": "PATCH merge deployments/x/status", "body": {}, "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "rights: nobody reads a path", "steps": [{"do": "GET /metrics", "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "rights: everybody reads the version", "steps": [{"do": "GET /version", "headers": {"Impersonate-User": "nobody"}, "only": ["code"]}]},
    {"name": "rights: a bad token", "steps": [{"do": "GET pods", "headers": {"Authorization": "Bearer bad"}}]},
    {"name": "rights: no token", "steps": [{"do": "GET pods", "headers": {"Authorization": ""}}]},
    {"name": "rights: rules of a namespace", "steps": [
        {"do": f"POST {SAR}/selfsubjectrulesreviews", "body": {"spec": {"namespace": "{ns}"}}, "only": ["status.incomplete", "kind"]}]},
    {"name": "rights: review without a user", "steps": [{"do": f"POST {SAR}/subjectaccessreviews", "body": {"spec": {"resourceAttributes": {"verb": "get"}}}}]},
    {"name": "rights: review without attributes", "steps": [{"do": f"POST {SAR}/subjectaccessreviews", "body": {"spec": {"user": "u"}}}]},
    {"name": "rights: review of both attributes", "steps": [
        {"do": f"POST {SAR}/subjectaccessreviews", "body": {"spec": {"user": "u", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/x", "verb": "get"}}}}]},
    {"name": "rights: local review elsewhere", "steps": [
        {"do": f"POST {SAR}/namespaces/{{ns}}/localsubjectaccessreviews", "body": {"spec": {"user": "u", "resourceAttributes": {"namespace": "other", "verb": "get"}}}}]},
    {"name": "rights: review of a master", "steps": [
        {"do": f"POST {SAR}/subjectaccessreviews", "body": {"spec": {"user": "u", "groups": ["system:masters"], "resourceAttributes": {"verb": "get", "resource": "pods"}}}}]},
    {"name": "rights: a token that is none", "steps": [
        {"do": "POST /apis/authentication.k8s.io/v1/tokenreviews", "body": {"spec": {"token": "x"}}, "only": ["status.authenticated", "status.user"]}]},
    {"name": "rights: a token of an account", "steps": [
        {"do": "POST serviceaccounts/default/token", "body": {"spec": {}}, "keep": {"token": "status.token"}, "quiet": True},
        {"do": "POST /apis/authentication.k8s.io/v1/tokenreviews", "body": {"spec": {"token": "{token}"}}, "only": ["status.authenticated", "status.user.username", "status.user.groups"]}]},
    {"name": "rights: a token for too short", "steps": [{"do": "POST serviceaccounts/default/token", "body": {"spec": {"expirationSeconds": 5}}}]},
    {"name": "rights: a token of no account", "steps": [{"do": "POST serviceaccounts/none/token", "body": {"spec": {}}}]},
    {"name": "rights: a token of a pod that is not there", "steps": [
        {"do": "POST serviceaccounts/default/token", "body": {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}}}]},

    {"name": "pod: bound twice", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True},
        {"do": "POST pods/x/binding", "body": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "x"}, "target": {"kind": "Node", "name": "node-1"}}},
        {"do": "POST pods/x/binding", "body": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "x"}, "target": {"kind": "Node", "name": "node-1"}}}]},
    {"name": "pod: bound to nothing", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True},
        {"do": "POST pods/x/binding", "body": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "x"}, "target": {}}}]},
    {"name": "pod: evicted", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True},
        {"do": "POST pods/x/eviction", "body": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x"}}}, {"do": "GET pods/x"}]},
    {"name": "pod: log of a pod without a node", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True}, {"do": "GET pods/x/log"}]},
    {"name": "pod: log of an unknown container", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True}, {"do": "GET pods/x/log?container=z"}]},
    {"name": "pod: log of one of two containers", "steps": [
        {"do": "POST pods", "body": idle_pod({"name": "a", "image": "b"}, {"name": "c", "image": "b"}), "quiet": True}, {"do": "GET pods/x/log"}]},
    {"name": "pod: exec without a node", "steps": [{"do": "POST pods", "body": idle_pod(), "quiet": True}, {"do": "POST pods/x/exec?command=ls&stdout=true"}]},
    {"name": "service: proxy to nothing", "steps": [{"do": "POST services", "body": make("v1", "Service", spec={"ports": [{"port": 80}]}), "quiet": True}, {"do": "GET services/x/proxy/"}]},
    {"name": "service: proxy to an unknown port", "steps": [{"do": "POST services", "body": make("v1", "Service", spec={"ports": [{"port": 80}]}), "quiet": True}, {"do": "GET services/x:99/proxy/"}]},
    {"name": "service: proxy of no service", "steps": [{"do": "GET services/none/proxy/"}]},
]
