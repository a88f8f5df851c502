"""Small valid objects that cases start from, and `changed`, which makes a variant."""

from __future__ import annotations

import copy

CONTAINER = {"name": "main", "image": "busybox:1.36", "command": ["sleep", "1"]}
LABELS = {"app": "a"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER]}}


def meta(name: str, **more) -> dict:
    return {"name": name, **more}


def make(api: str, kind: str, name: str = "x", **fields) -> dict:
    labels = {"labels": fields.pop("labels")} if "labels" in fields else {}
    annotations = {"annotations": fields.pop("annotations")} if "annotations" in fields else {}
    return copy.deepcopy({"apiVersion": api, "kind": kind, "metadata": meta(name, **labels, **annotations), **fields})


def pod(name: str = "x", **spec) -> dict:
    labels = spec.pop("labels", None)
    extra = {"labels": labels} if labels else {}
    return make("v1", "Pod", name, spec={"containers": [CONTAINER], **spec}, **extra)


def job(name: str = "x", **spec) -> dict:
    template = spec.pop("template", {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}})
    return make("batch/v1", "Job", name, spec={**spec, "template": template})


def cron_job(name: str = "x", **spec) -> dict:
    return make("batch/v1", "CronJob", name, spec={"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job()["spec"]}, **spec})


def deployment(name: str = "x", **spec) -> dict:
    return make("apps/v1", "Deployment", name, spec={"selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec})


def replica_set(name: str = "x", **spec) -> dict:
    return make("apps/v1", "ReplicaSet", name, spec={"selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec})


def stateful_set(name: str = "x", **spec) -> dict:
    return make("apps/v1", "StatefulSet", name, spec={"serviceName": "svc", "selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec})


def daemon_set(name: str = "x", **spec) -> dict:
    return make("apps/v1", "DaemonSet", name, spec={"selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec})


def service(name: str = "x", **spec) -> dict:
    return make("v1", "Service", name, spec={"selector": LABELS, "ports": [{"port": 80}], **spec})


def claim(name: str = "x", **spec) -> dict:
    return make("v1", "PersistentVolumeClaim", name, spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                                                         "storageClassName": "none", **spec})


def config_map(name: str = "x", **data) -> dict:
    return make("v1", "ConfigMap", name, data=data or {"k": "v"})


def changed(obj: dict, path: str, value) -> dict:
    """A copy with one field set; `value` None takes it away. Parts of the path are split by `/`."""
    obj = copy.deepcopy(obj)
    parts = path.split("/")
    here = obj
    for part, following in zip(parts, parts[1:]):
        if isinstance(here, list):
            here = here[int(part)]
        else:
            here = here.setdefault(part, [] if following == "-" else {})
    last = parts[-1]
    if value is None:
        here.pop(last, None)
    elif isinstance(here, list):
        here.append(value) if last == "-" else here.__setitem__(int(last), value)
    else:
        here[last] = value
    return obj


def create(plural: str, obj: dict, **more) -> dict:
    return {"do": f"POST {plural}", "body": obj, **more}
