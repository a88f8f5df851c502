#!/usr/bin/env python3
"""Programs of Kubernetes, built from Go modules once (minutes) into a cache outside the clone.

`controlplane/go.mod` says which version; the cache is keyed by it, go.sum and main.go.

    python3 e2e/cluster/go_programs.py kubectl        # builds what the cache lacks, prints the path
    python3 e2e/cluster/go_programs.py controlplane
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "controlplane"
# what each program is a package of; the second is a `tool` in go.mod
PACKAGES = {"controlplane": ".", "kubectl": "k8s.io/kubernetes/cmd/kubectl"}


class Unavailable(Exception):
    """The program cannot be had on this machine; says why."""


def version() -> str:
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (SOURCE / "go.mod").read_text(), re.M)
    if not found:
        raise Unavailable("controlplane/go.mod does not require k8s.io/kubernetes")
    return found.group(1)


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ferroflow" / "controlplane"


def built(name: str) -> Path:
    """The executable of this name, built when the cache has none for these sources."""
    digest = hashlib.sha256()
    for file in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCE / file).read_bytes())
    wanted = version()
    target = cache_root() / f"{wanted}-{digest.hexdigest()[:16]}" / name
    if target.exists():
        return target
    go = shutil.which("go")
    if not go:
        raise Unavailable(f"go is not installed, so {name} {wanted} cannot be built")
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"building {name} {wanted} from Go modules (minutes, once)", file=sys.stderr)
    major, minor = wanted.lstrip("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    flags = f"-s -w -X {package}.gitVersion={wanted} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    partial = target.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        ["nice", "-n", "10", go, "build", "-buildvcs=false", "-ldflags", flags, "-o", str(partial), PACKAGES[name]],
        cwd=SOURCE, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"go build of {name} failed: {done.stderr.strip()[-2000:]}")
    partial.rename(target)
    return target


def control_plane() -> Path:
    """kube-apiserver, kube-controller-manager and kube-scheduler in one executable."""
    return built("controlplane")


def kubectl() -> Path:
    """The machine's kubectl, or one of our own where it has none."""
    found = shutil.which("kubectl")
    return Path(found) if found else built("kubectl")


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in PACKAGES:
        print(f"usage: go_programs.py {'|'.join(PACKAGES)}", file=sys.stderr)
        return 2
    try:
        print(built(sys.argv[1]))
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
