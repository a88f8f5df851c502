"""API calls per second, watch latency and memory of localkube beside a real kube-apiserver with etcd."""

import http.client
import json
import ssl
import statistics
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import startup
from table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cluster"))

import cluster as real  # noqa: E402

CALLS = 400


class Api:
    """One kept connection to an API server."""

    def __init__(self, url, token):
        self.parts = urlsplit(url)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.connection = self.connect()

    def connect(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self.parts.hostname, self.parts.port, context=context, timeout=30)

    def call(self, method, path, body=None):
        self.connection.request(method, path, json.dumps(body) if body is not None else None, self.headers)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")


def config_map(n):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"bench-{n}"}, "data": {"n": str(n)}}


def times(action):
    taken = []
    for n in range(CALLS):
        started = time.perf_counter()
        status, body = action(n)
        taken.append(time.perf_counter() - started)
        assert status < 300, body
    return taken


def watch_latencies(api):
    """Milliseconds from the start of a create to its event on a watch."""
    path = "/api/v1/namespaces/default/configmaps"
    _, listed = api.call("GET", path)
    watcher = Api.__new__(Api)
    watcher.parts, watcher.headers = api.parts, api.headers
    connection = watcher.connect()
    connection.request("GET", f"{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}", headers=api.headers)
    stream = connection.getresponse()
    seen, ready = {}, threading.Event()

    def read():
        ready.set()
        while len(seen) < 100:
            line = stream.readline()
            if not line:
                return
            seen[json.loads(line)["object"]["metadata"]["name"]] = time.perf_counter()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    ready.wait()
    sent = {}
    for n in range(100):
        body = config_map(f"watch-{n}")
        sent[body["metadata"]["name"]] = time.perf_counter()
        api.call("POST", path, body)
    reader.join(timeout=20)
    return [seen[name] - at for name, at in sent.items() if name in seen]


def figures(url, token):
    api = Api(url, token)
    path = "/api/v1/namespaces/default/configmaps"
    for n in range(CALLS):
        api.call("DELETE", f"{path}/bench-{n}")
    create = times(lambda n: api.call("POST", path, config_map(n)))
    get = times(lambda n: api.call("GET", f"{path}/bench-{n}"))
    patch_headers = dict(api.headers)
    api.headers["Content-Type"] = "application/merge-patch+json"
    patch = times(lambda n: api.call("PATCH", f"{path}/bench-{n}", {"data": {"more": "x"}}))
    api.headers = patch_headers
    return {
        "create": statistics.median(create),
        "get": statistics.median(get),
        "patch": statistics.median(patch),
        "watch": statistics.median(watch_latencies(api)),
    }


def measure(server):
    """`server` is a running Ferroflow."""
    table = Table(
        "Kubernetes API",
        f"Median of {CALLS} calls one after another over HTTPS from one Python client (whose own share is in all figures); watch: from sending a "
        "create to seeing its event. The peer is kube-apiserver 1.35 with etcd (no fsync), both on this machine.",
        ("figure", "localkube", "kube-apiserver + etcd", "ratio"),
    )
    config = (server.kubeconfig).read_text()
    token = config.split("token: ")[1].split()[0]
    url = json.loads(server.endpoint_file.read_text())["kubernetes"]
    own = figures(url, token)
    own_memory = startup.resident_mib(server.process.pid)
    try:
        with real.Cluster(controllers=False) as peer:
            theirs = figures(peer.url, peer.token)
            memory = sum(startup.resident_mib(process.pid) for _, process in peer.processes)
    except real.Unavailable as reason:
        for name, seconds in own.items():
            table.add(name, f"{seconds * 1000:.2f} ms", f"not run: {reason}", "")
        return table
    for name, seconds in own.items():
        table.add(name, f"{seconds * 1000:.2f} ms", f"{theirs[name] * 1000:.2f} ms", f"{theirs[name] / seconds:.1f}x faster")
    table.add("resident memory", f"{own_memory:.0f} MiB (all of Ferroflow)", f"{memory:.0f} MiB", f"{memory / own_memory:.1f}x less")
    return table
