"""Updates and patches: what changes, what may not, conflicts, generation."""

from objects import CONTAINER, changed, claim, config_map, create, cron_job, deployment, job, make, pod, replica_set, service, stateful_set

POD = pod(automountServiceAccountToken=False, nodeName="nowhere")


def put(plural: str, obj: dict) -> list[dict]:
    return [create(plural, obj, quiet=True)]


def patched(name: str, plural: str, obj: dict, kind: str, body, **more) -> dict:
    return {"name": name, "steps": [create(plural, obj, quiet=True), {"do": f"PATCH {kind} {plural}/x", "body": body, **more}]}


CASES = [
    patched("merge patch changes a label", "configmaps", config_map(), "merge", {"metadata": {"labels": {"a": "b"}}}),
    patched("merge patch removes a key", "configmaps", config_map(k="v", l="w"), "merge", {"data": {"k": None}}),
    patched("merge patch replaces a list", "pods", POD, "merge", {"spec": {"containers": [{"name": "main", "image": "other:1"}]}}),
    patched("merge patch that is not an object", "configmaps", config_map(), "merge", ["a"]),
    patched("json patch adds, tests and removes", "configmaps", config_map(k="v"), "json", [
        {"op": "test", "path": "/data/k", "value": "v"}, {"op": "add", "path": "/data/l", "value": "w"}, {"op": "remove", "path": "/data/k"}]),
    patched("json patch with a failing test", "configmaps", config_map(k="v"), "json", [{"op": "test", "path": "/data/k", "value": "w"}]),
    patched("json patch of a missing path", "configmaps", config_map(k="v"), "json", [{"op": "remove", "path": "/data/none"}]),
    patched("json patch with an unknown operation", "configmaps", config_map(k="v"), "json", [{"op": "turn", "path": "/data/k"}]),
    patched("strategic patch merges containers by name", "deployments", deployment(replicas=0), "strategic",
            {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "new:1"}, {"name": "second", "image": "s:1"}]}}}}, only=["spec"]),
    patched("strategic patch deletes a container", "deployments", changed(deployment(replicas=0), "spec/template/spec/containers/-", {"name": "b", "image": "b:1"}),
            "strategic", {"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}}, only=["spec"]),
    patched("strategic patch replaces a map", "deployments", changed(deployment(replicas=0), "metadata/labels", {"a": "1", "b": "2"}), "strategic",
            {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}, only=["metadata.labels"]),
    patched("strategic patch merges finalizers", "configmaps", changed(config_map(), "metadata/finalizers", ["a.example.com/x"]), "strategic",
            {"metadata": {"finalizers": ["b.example.com/y"]}}),
    patched("strategic patch takes a finalizer away", "configmaps", changed(config_map(), "metadata/finalizers", ["a.example.com/x", "b.example.com/y"]), "strategic",
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.example.com/x"]}}),
    patched("strategic patch merges environment", "deployments", changed(deployment(replicas=0), "spec/template/spec/containers/0/env", [{"name": "A", "value": "1"}]),
            "strategic", {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "2"}]}]}}}}, only=["spec"]),
    patched("strategic patch merges service ports", "services", service(), "strategic", {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}}),
    patched("strategic patch sets a number", "deployments", deployment(replicas=0), "strategic", {"spec": {"minReadySeconds": 3}}, only=["spec"]),
    patched("patch of an unknown field", "configmaps", config_map(), "merge", {"nothing": {"a": 1}}),
    patched("patch of the name", "configmaps", config_map(), "merge", {"metadata": {"name": "other"}}),
    patched("patch of the namespace", "configmaps", config_map(), "merge", {"metadata": {"namespace": "other"}}),
    patched("patch with another uid", "configmaps", config_map(), "merge", {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}),
    patched("patch with an old version", "configmaps", config_map(), "merge", {"metadata": {"resourceVersion": "1"}, "data": {"a": "b"}}),
    patched("patch of the creation time", "configmaps", config_map(), "merge", {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}),
    patched("patch of status through the main resource", "deployments", deployment(replicas=0), "merge", {"status": {"replicas": 7}}, only=["kind", "spec.replicas", "metadata.generation"]),
    {"name": "patch of spec through status", "steps": [create("pods", POD, quiet=True), {"do": "PATCH merge pods/x/status", "body": {"spec": {"hostname": "h"}, "status": {"message": "m"}}}]},
    {"name": "patch of an absent object", "steps": [{"do": "PATCH merge configmaps/none", "body": {"data": {}}}]},
    {"name": "patch of an unsupported type", "steps": [create("configmaps", config_map(), quiet=True),
                                                   {"do": "PATCH merge configmaps/x", "body": {}, "headers": {"Content-Type": "application/json"}}]},
    {"name": "generation counts changes of spec", "steps": [create("deployments", deployment(replicas=0), only=["metadata.generation"]),
        {"do": "PATCH merge deployments/x", "body": {"metadata": {"labels": {"l": "1"}}}, "only": ["metadata.generation"]},
        {"do": "PATCH merge deployments/x", "body": {"spec": {"minReadySeconds": 1}}, "only": ["metadata.generation"]},
        {"do": "PATCH merge deployments/x", "body": {"spec": {"minReadySeconds": 1}}, "only": ["metadata.generation"]}]},
    {"name": "put replaces everything", "steps": [*put("configmaps", config_map(k="v")), {"do": "PUT configmaps/x", "body": config_map(l="w")}]},
    {"name": "put with an old version", "steps": [*put("configmaps", config_map()), {"do": "PUT configmaps/x", "body": changed(config_map(), "metadata/resourceVersion", "1")}]},
    {"name": "put of an absent object", "steps": [{"do": "PUT configmaps/x", "body": config_map()}]},
    {"name": "put under another name", "steps": [*put("configmaps", config_map()), {"do": "PUT configmaps/x", "body": config_map("y")}]},
    {"name": "put with another uid", "steps": [*put("configmaps", config_map()), {"do": "PUT configmaps/x", "body": changed(config_map(), "metadata/uid", "other")}]},
    {"name": "put keeps an immutable config map", "steps": [*put("configmaps", changed(config_map(), "immutable", True)),
                                                      {"do": "PUT configmaps/x", "body": changed(config_map(k="w"), "immutable", True)},
                                                      {"do": "PATCH merge configmaps/x", "body": {"immutable": False}}]},
    patched("type of a secret may not change", "secrets", make("v1", "Secret", data={"a": "AA=="}), "merge", {"type": "other"}),
    patched("image of a pod may change", "pods", POD, "strategic", {"spec": {"containers": [{"name": "main", "image": "new:1"}]}}),
    patched("command of a pod may not change", "pods", POD, "strategic", {"spec": {"containers": [{"name": "main", "command": ["x"]}]}},
            only=["code", "reason", "details.causes.0.field", "details.causes.0.reason"]),
    patched("containers of a pod may not be added", "pods", POD, "strategic", {"spec": {"containers": [{"name": "b", "image": "b"}]}}),
    patched("deadline of a pod may be set", "pods", POD, "merge", {"spec": {"activeDeadlineSeconds": 100}}),
    patched("tolerations of a pod may be added", "pods", POD, "json", [{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "a", "operator": "Exists"}}]),
    patched("parallelism of a job may change", "jobs", job(suspend=True), "merge", {"spec": {"parallelism": 3}}, only=["spec"]),
    patched("completions of a job may not change", "jobs", job(suspend=True), "merge", {"spec": {"completions": 3}}),
    patched("template of a job may not change", "jobs", job(parallelism=0), "strategic", {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "n"}]}}}},
            only=["code", "reason", "details.causes.0.field", "details.causes.0.reason"]),
    patched("completions of an indexed job change with parallelism", "jobs", job(suspend=True, completionMode="Indexed", completions=2, parallelism=2), "merge", {"spec": {"completions": 3, "parallelism": 3}}, only=["kind", "spec"]),
    patched("schedule of a cron job may change", "cronjobs", cron_job(), "merge", {"spec": {"schedule": "@daily"}}),
    patched("selector of a deployment may not change", "deployments", deployment(replicas=0), "merge", {"spec": {"selector": {"matchLabels": {"app": "b"}},
            "template": {"metadata": {"labels": {"app": "b"}}}}}),
    patched("selector of a replica set may not change", "replicasets", replica_set(replicas=0), "merge", {"spec": {"selector": {"matchLabels": {"app": "b"}},
            "template": {"metadata": {"labels": {"app": "b"}}}}}),
    patched("service name of a stateful set may not change", "statefulsets", stateful_set(replicas=0), "merge", {"spec": {"serviceName": "other"}}),
    patched("replicas of a stateful set may change", "statefulsets", stateful_set(replicas=0), "merge", {"spec": {"minReadySeconds": 2}}, only=["spec"]),
    patched("address of a service may not change", "services", service(), "merge", {"spec": {"clusterIP": "10.96.200.200"}}, only=["code", "reason"]),
    patched("ports of a service may change", "services", service(), "merge", {"spec": {"ports": [{"port": 81}]}}),
    patched("a service becomes a node port", "services", service(), "merge", {"spec": {"type": "NodePort"}}),
    patched("a node port becomes a cluster service", "services", service(type="NodePort"), "merge", {"spec": {"type": "ClusterIP"}}),
    patched("a claim may not change", "persistentvolumeclaims", claim(), "merge", {"spec": {"accessModes": ["ReadOnlyMany"]}}, only=["code", "reason", "details.causes.0.field"]),
    patched("role of a binding may not change", "rolebindings", make("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={
        "kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}), "merge", {"roleRef": {"name": "edit"}}),
    {"name": "scale of a deployment", "steps": [*put("deployments", deployment(replicas=0, paused=True)), {"do": "GET deployments/x/scale"},
        {"do": "PATCH merge deployments/x/scale", "body": {"spec": {"replicas": 0}}}]},
    {"name": "scale below zero", "steps": [*put("deployments", deployment(replicas=0)), {"do": "PATCH merge deployments/x/scale", "body": {"spec": {"replicas": -1}}}]},
    {"name": "status of a pod", "steps": [*put("pods", POD), {"do": "PATCH strategic pods/x/status", "body": {"status": {"phase": "Running", "podIP": "10.1.2.3",
        "podIPs": [{"ip": "10.1.2.3"}], "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"name": "main", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}}}]},
    {"name": "conditions of a status merge by type", "steps": [*put("pods", POD),
        {"do": "PATCH strategic pods/x/status", "body": {"status": {"conditions": [{"type": "A", "status": "True"}]}}, "quiet": True},
        {"do": "PATCH strategic pods/x/status", "body": {"status": {"conditions": [{"type": "B", "status": "False"}, {"type": "A", "status": "Unknown"}]}}}]},
]
_ = CONTAINER
