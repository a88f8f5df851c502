#!/usr/bin/env python3
"""Compares localkube with a real kube-apiserver, controller-manager and scheduler, case by case.

    python3 e2e/conformance/run.py [--localkube PROGRAM] [--only TEXT] [--jobs N] [--details]

Differences that stay are in `known_differences.yaml`, one a line, with a reason. A listed difference that no longer occurs
fails the run, so the list can only shrink; so does a difference that is not listed. The last line is
`N passed, N failed, N skipped`. Where the real control plane cannot be had, nothing is compared and that is said.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster")]

import cluster as real_cluster  # noqa: E402
from engine import Run, Server, differences, normalise  # noqa: E402

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "node-1"}}}
AMOUNTS = {"cpu": "64", "memory": "256Gi", "pods": "1000"}


def load_cases() -> list[dict]:
    cases: list[dict] = []
    for file in sorted((HERE / "cases").glob("*.py")):
        if file.name != "__init__.py":
            cases += importlib.import_module(f"cases.{file.stem}").CASES
    names = [case["name"] for case in cases]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise SystemExit(f"case names are not unique: {sorted(repeated)}")
    return cases


def load_known() -> list[dict]:
    known = []
    for number, line in enumerate((HERE / "known_differences.yaml").read_text().splitlines(), 1):
        if line.startswith("- "):
            entry = json.loads(line[2:])
            if not entry.get("reason"):
                raise SystemExit(f"known_differences.yaml:{number}: no reason is given")
            known.append(entry)
    return known


def default_localkube() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return target / "debug" / "examples" / "localkube"


class Localkube:
    """The program under test with a fresh data folder."""

    def __init__(self, program: Path):
        self.program = program

    def __enter__(self) -> Server:
        self.folder = tempfile.TemporaryDirectory(prefix="ferroflow-conformance-")
        self.log = open(os.environ.get("LOCALKUBE_LOG") or Path(self.folder.name) / "log", "wb")
        self.process = subprocess.Popen([str(self.program), self.folder.name + "/data"], stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.program} did not start, see its log")
        told = json.loads(line)
        return Server("localkube", told["url"], told["token"], told["ca"])

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


def until(what: str, condition, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen within {within:.0f} s")
        time.sleep(0.05)


def prepare(server: Server, namespaces: list[str]) -> None:
    """A ready node and one namespace per case."""
    server.call("POST", "/api/v1/nodes", NODE)
    condition = {"type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": "2026-01-01T00:00:00Z",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"capacity": AMOUNTS, "allocatable": AMOUNTS, "conditions": [condition]}
    merge = {"Content-Type": "application/merge-patch+json"}
    server.call("PATCH", "/api/v1/nodes/node-1/status", {"status": status}, merge)
    until(f"{server.name}: the node's taints are gone", lambda: not server.call("GET", "/api/v1/nodes/node-1")[1].get("spec", {}).get("taints"))
    for name in namespaces:
        code, body = server.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        if code != 201:
            raise SystemExit(f"{server.name}: namespace {name} was not created: {body}")
    wanted = set(namespaces)
    for resource, name in (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")):
        def everywhere() -> bool:
            _, listed = server.call("GET", f"/api/v1/{resource}?fieldSelector=metadata.name={name}")
            return wanted <= {item["metadata"]["namespace"] for item in listed.get("items", [])}
        until(f"{server.name}: {resource} in every namespace", everywhere, 60)


def compare(case: dict, namespace: str, servers: list[Server]) -> list[tuple[str, object, object]]:
    def run(server: Server) -> list[dict]:
        try:
            return normalise(Run(server, case, namespace).execute(), namespace)
        except Exception:  # noqa: BLE001 - a broken case is a failure of that case
            return [{"code": "exception", "body": traceback.format_exc(limit=3)}] if server.name == "real" else [{"code": "exception " + server.name}]
    with concurrent.futures.ThreadPoolExecutor(2) as both:
        real, local = both.map(run, servers)
    if any(record.get("code") in ("timeout", "exception") for record in real):
        return [("case", f"does not work on the real cluster: {json.dumps(real)[-600:]}", "")]
    return [item for item in differences(real, local)]


def shorten(value: object, limit: int) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--localkube", type=Path, default=None)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--details", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    cases = [case for case in load_cases() if options.only in case["name"]]
    if options.list:
        print("\n".join(case["name"] for case in cases))
        return 0
    program = options.localkube or default_localkube()
    if not program.exists():
        print(f"no localkube at {program}: cargo build -p localkube-controllers --example localkube")
        return 2
    try:
        real_cluster.control_plane()
    except real_cluster.Unavailable as error:
        print("=" * 78 + f"\nTHE CONFORMANCE SUITE DID NOT RUN: {error}\n" + "=" * 78)
        print(f"0 passed, 0 failed, {len(cases)} skipped")
        return 0
    known = load_known()
    try:
        with real_cluster.Cluster() as cluster, Localkube(program) as local:
            real = Server("real", cluster.url, cluster.token, str(cluster.ca))
            namespaces = [f"case-{number:03}" for number in range(len(cases))]
            with concurrent.futures.ThreadPoolExecutor(2) as both:
                list(both.map(lambda server: prepare(server, namespaces), (real, local)))
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                results = list(pool.map(lambda pair: compare(pair[0], pair[1], [real, local]), zip(cases, namespaces)))
    except real_cluster.Unavailable as error:
        print("=" * 78 + f"\nTHE CONFORMANCE SUITE DID NOT RUN: {error}\n" + "=" * 78)
        print(f"0 passed, 0 failed, {len(cases)} skipped")
        return 0
    passed = failed = 0
    used = [False] * len(known)
    for case, found in zip(cases, results):
        unlisted = []
        for path, on_real, on_local in found:
            listed = [index for index, entry in enumerate(known) if fnmatch.fnmatchcase(case["name"], entry["case"]) and fnmatch.fnmatchcase(path, entry["path"])]
            for index in listed:
                used[index] = True
            if not listed:
                unlisted.append((path, on_real, on_local))
        if unlisted:
            failed += 1
            print(f"FAILED {case['name']}")
            for path, on_real, on_local in unlisted[: 100 if options.details else 8]:
                limit = 4000 if options.details else 300
                print(f"    {path}\n        real:      {shorten(on_real, limit)}\n        localkube: {shorten(on_local, limit)}")
            if len(unlisted) > 8 and not options.details:
                print(f"    and {len(unlisted) - 8} more")
        else:
            passed += 1
    if not options.only:
        for entry, occurs in zip(known, used):
            if not occurs:
                failed += 1
                print(f"FAILED known difference no longer occurs, take it off the list: {entry['case']}: {entry['path']}")
    print(f"{sum(used)} known differences")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
