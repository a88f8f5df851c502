"""Runs one case against one API server and gives what can be compared: status codes and normalised bodies.

A case is a dict: `name`, and `steps`, a list of dicts with one verb each:

    {"do": "POST pods", "body": {...}}            a request; `pods/x` is in the case's namespace, `/...` is absolute;
                                                  with "until" again and again until f(body) is true
    {"do": "PATCH merge pods/x", "body": {...}}   merge, json, strategic or apply
    {"wait": "pods?labelSelector=a", "until": f}  polls until f(body) is true, then records the body
    {"watch": "pods", "as": "w"}                  opens a watch from now on
    {"events": "w", "until": f}                   reads events until f(events) is true, then records them
    {"pods": "a=b", "status": {...}}              patches the status of all Pods of a selector (there is no kubelet);
                                                  with "of" and "until" again and again until f(body of that path)

`quiet: True` runs a step without recording it; `sort: "reason"` orders the items of a list; `only: ["a.b"]` records only these parts; `keep: {"x": "metadata.uid"}` makes
`{x}` usable in later paths and bodies.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
import time
from urllib.parse import quote, urlsplit

GROUPS = {
    "apps/v1": "deployments replicasets statefulsets daemonsets controllerrevisions",
    "batch/v1": "jobs cronjobs",
    "rbac.authorization.k8s.io/v1": "roles rolebindings clusterroles clusterrolebindings",
    "storage.k8s.io/v1": "storageclasses",
    "scheduling.k8s.io/v1": "priorityclasses",
    "coordination.k8s.io/v1": "leases",
    "discovery.k8s.io/v1": "endpointslices",
    "networking.k8s.io/v1": "networkpolicies ingresses",
    "policy/v1": "poddisruptionbudgets",
    "autoscaling/v2": "horizontalpodautoscalers",
    "admissionregistration.k8s.io/v1": "mutatingwebhookconfigurations validatingwebhookconfigurations",
    "apiextensions.k8s.io/v1": "customresourcedefinitions",
}
PREFIX = {plural: f"/apis/{group}" for group, plurals in GROUPS.items() for plural in plurals.split()}
CLUSTER = set("namespaces nodes persistentvolumes clusterroles clusterrolebindings storageclasses priorityclasses customresourcedefinitions "
              "mutatingwebhookconfigurations validatingwebhookconfigurations".split())
PATCHES = {
    "merge": "application/merge-patch+json", "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json", "apply": "application/apply-patch+yaml",
}
DEADLINE = 20.0


class Server:
    """An API server: where it is and who we are."""

    def __init__(self, name: str, url: str, token: str, ca: str):
        self.name, self.token = name, token
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.tls = ssl.create_default_context(cafile=ca)
        self.local = threading.local()

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=30)

    def call(self, method: str, path: str, body=None, headers: dict | None = None) -> tuple[int, object]:
        data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
        sent = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", "Content-Type": "application/json"}
        sent.update(headers or {})
        for attempt in (0, 1):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = self.connect()
            try:
                connection.request(method, path, data, sent)
                answer = connection.getresponse()
                raw = answer.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if attempt:
                    raise
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, raw.decode(errors="replace")


class Watch(threading.Thread):
    """Collects the events of a watch until it is closed."""

    def __init__(self, server: Server, path: str):
        super().__init__(daemon=True)
        self.events: list[dict] = []
        self.connection = server.connect()
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {server.token}", "Accept": "application/json"})
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def run(self) -> None:
        try:
            for line in self.answer:
                if line.strip():
                    self.events.append(json.loads(line))
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass

    def close(self) -> None:
        if self.connection.sock:
            try:
                self.connection.sock.shutdown(2)
            except OSError:
                pass


def path_of(text: str, namespace: str) -> str:
    if text.startswith("/"):
        return text
    plural = re.split(r"[/?]", text, maxsplit=1)[0]
    prefix = PREFIX.get(plural, "/api/v1")
    return f"{prefix}/{text}" if plural in CLUSTER else f"{prefix}/namespaces/{namespace}/{text}"


def at(value, path: str):
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part.replace("~", "."))
        else:
            return None
    return value


class Run:
    """One case on one server."""

    def __init__(self, server: Server, case: dict, namespace: str):
        self.server, self.case, self.namespace = server, case, namespace
        self.names: dict[str, object] = {"ns": namespace}
        self.watches: dict[str, Watch] = {}
        self.records: list[dict] = []

    def fill(self, value):
        if isinstance(value, str):
            for name, known in self.names.items():
                value = value.replace("{" + name + "}", str(known))
            return value
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return value

    def path(self, text: str) -> str:
        return path_of(self.fill(text), self.namespace)

    def record(self, step: dict, **result) -> None:
        if step.get("quiet"):
            return
        if "sort" in step and isinstance(result.get("body"), dict):
            result["body"].get("items", []).sort(key=lambda item: str(at(item, step["sort"])))
        only = step.get("only")
        if only and "body" in result:
            result["body"] = {path: at(result["body"], path) for path in only}
        self.records.append(result)

    def execute(self) -> list[dict]:
        try:
            for step in self.case["steps"]:
                self.step(step)
        finally:
            for watch in self.watches.values():
                watch.close()
        return self.records

    def step(self, step: dict) -> None:
        if "do" in step:
            self.request(step)
        elif "wait" in step:
            path, deadline = self.path(step["wait"]), time.monotonic() + step.get("within", DEADLINE)
            while True:
                code, body = self.server.call("GET", path)
                if self.holds(step["until"], code, body):
                    break
                if time.monotonic() > deadline:
                    self.record({}, code="timeout", body=body)
                    return
                time.sleep(0.03)
            self.remember(step, body)
            self.record(step, code=code, body=body)
        elif "watch" in step:
            path = self.path(step["watch"])
            if "resourceVersion" not in path:
                _, listed = self.server.call("GET", path + ("&" if "?" in path else "?") + "limit=1")
                path += ("&" if "?" in path else "?") + f"resourceVersion={at(listed, 'metadata.resourceVersion')}"
            path += "&watch=true"
            watch = Watch(self.server, path)
            self.watches[step["as"]] = watch
            watch.start()
        elif "events" in step:
            watch, deadline = self.watches[step["events"]], time.monotonic() + step.get("within", DEADLINE)
            while not step["until"](watch.events) and time.monotonic() < deadline and watch.is_alive():
                time.sleep(0.02)
            shown = [{"type": event["type"], "object": event["object"]} for event in list(watch.events)]
            if step.get("only"):
                shown = [{"type": event["type"], **{path: at(event["object"], path) for path in step["only"]}} for event in shown]
            if not step.get("quiet"):
                self.records.append({"code": watch.status, "body": shown})
        elif "pods" in step and "until" in step:
            # Time goes on: new Pods get the status too, until the condition holds.
            deadline = time.monotonic() + step.get("within", DEADLINE)
            while not self.holds(step["until"], *self.server.call("GET", self.path(step["of"]))):
                self.set_pods(step)
                if time.monotonic() > deadline:
                    self.record({}, code="timeout", body=step["of"])
                    return
                time.sleep(0.05)
        elif "pods" in step:
            self.set_pods(step)
        else:
            raise ValueError(f"step of case {self.case['name']!r} has no verb: {step}")

    def holds(self, until, code: int, body) -> bool:
        try:
            return bool(until(code, body) if until.__code__.co_argcount == 2 else until(body))
        except (KeyError, TypeError, IndexError, AttributeError):
            return False

    def request(self, step: dict) -> None:
        words = step["do"].split(" ")
        method, path, headers = words[0], self.path(words[-1]), dict(step.get("headers") or {})
        if method == "PATCH":
            headers.setdefault("Content-Type", PATCHES[words[1]])
        deadline = time.monotonic() + step.get("within", DEADLINE)
        while True:
            code, body = self.server.call(method, path, self.fill(step.get("body")), headers)
            if "until" not in step or self.holds(step["until"], code, body) or time.monotonic() > deadline:
                break
            time.sleep(0.03)
        self.remember(step, body)
        self.record(step, code=code, body=body)

    def remember(self, step: dict, body) -> None:
        for name, path in (step.get("keep") or {}).items():
            self.names[name] = at(body, path)

    def set_pods(self, step: dict) -> None:
        path = self.path(f"pods?labelSelector={quote(self.fill(step['pods']))}")
        _, listed = self.server.call("GET", path)
        found = sorted(listed["items"], key=lambda pod: pod["metadata"]["name"])
        if "which" in step:
            found = [pod for pod in found if step["which"](pod)]
        for pod in found[: step.get("first", len(found))]:
            self.server.call("PATCH", path_of(f"pods/{pod['metadata']['name']}/status", self.namespace), {"status": step["status"]},
                             {"Content-Type": PATCHES["strategic"]})


TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
ADDRESS = re.compile(r"\b(10\.96\.\d+\.\d+|127\.(9[6-9]|10\d|11[01])\.\d+\.\d+)\b")
HASH = re.compile(r"(?<![a-z0-9])[bcdfghjklmnpqrstvwxz2456789]{8,10}(?![a-z0-9])")
AGE = re.compile(r"^\d+(ms|s|m)\d*s?$")


class Normaliser:
    """Replaces what no two servers agree on by what can be compared; the same value gets the same word within a case."""

    def __init__(self, namespace: str):
        self.namespace = namespace
        self.words: dict[str, str] = {}
        self.generated: dict[str, str] = {}

    def word(self, kind: str, value: str) -> str:
        return self.words.setdefault(value, f"<{kind} {sum(word.startswith('<' + kind) for word in self.words.values())}>")

    def learn(self, value) -> None:
        """Finds generated names and hashes before anything is replaced."""
        if isinstance(value, list):
            for item in value:
                self.learn(item)
        if not isinstance(value, dict):
            return
        meta = value.get("metadata")
        if isinstance(meta, dict):
            name, base = meta.get("name"), meta.get("generateName")
            if name and base and name.startswith(base) and len(name) == len(base) + 5:
                self.generated.setdefault(name, f"{base}<random>")
        for item in value.values():
            self.learn(item)

    def text(self, value: str) -> str:
        for name, word in sorted(self.generated.items(), key=lambda pair: -len(pair[0])):
            value = value.replace(name, word)
        value = re.sub(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}(?=\b)(?=[^a-z0-9-]|$)", "<random>", value)
        value = value.replace(self.namespace, "<namespace>")
        value = TIME.sub("<time>", value)
        value = UID.sub(lambda found: self.word("uid", found.group()), value)
        value = HASH.sub("<hash>", value)
        value = ADDRESS.sub(lambda found: self.word("address", found.group()), value)
        return "<age>" if AGE.match(value) else value

    def value(self, value):
        if isinstance(value, dict):
            changed = {}
            for key in sorted(value):
                if key in ("resourceVersion", "managedFields", "selfLink", "continue"):
                    if key == "continue":
                        changed[key] = "<continue>"
                    continue
                if key == "nodePort" and value[key]:
                    changed[key] = "<node port>"
                    continue
                changed[self.text(key)] = self.value(value[key])
            return changed
        if isinstance(value, list):
            items = [self.value(item) for item in value]
            if items and all(isinstance(item, dict) and "fieldsV1" in item for item in items):
                # Managers are in the order of their last write, in whole seconds.
                items.sort(key=lambda item: (str(item.get("manager")), str(item.get("operation")), str(item.get("subresource"))))
            if items and all(isinstance(item, dict) and "<random>" in str(at(item, "metadata.name")) for item in items):
                items.sort(key=lambda item: json.dumps(item, sort_keys=True))
            return items
        return self.text(value) if isinstance(value, str) else value


def normalise(records: list[dict], namespace: str) -> list[dict]:
    normaliser = Normaliser(namespace)
    normaliser.learn(records)
    return [normaliser.value(record) for record in records]


def differences(real, local, path: str = "") -> list[tuple[str, object, object]]:
    """Paths at which two values differ, with both values."""
    if isinstance(real, dict) and isinstance(local, dict):
        found = []
        for key in sorted(set(real) | set(local)):
            here = f"{path}.{key}" if path else key
            if key not in real:
                found.append((here, "<absent>", local[key]))
            elif key not in local:
                found.append((here, real[key], "<absent>"))
            else:
                found += differences(real[key], local[key], here)
        return found
    if isinstance(real, list) and isinstance(local, list) and len(real) == len(local):
        return [item for index, pair in enumerate(zip(real, local)) for item in differences(*pair, f"{path}.{index}" if path else str(index))]
    return [] if real == local and type(real) is type(local) else [(path, real, local)]
