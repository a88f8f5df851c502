#!/usr/bin/env python3
"""A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager, kube-scheduler) on free ports.

`go_programs.py` builds the binary once. etcd comes from the system (Debian: `etcd-server`).

    with Cluster() as cluster:                 # ready when entered
        cluster.url, cluster.token, cluster.ca, cluster.kubeconfig

As a program it builds, starts, prints the kubeconfig's path and waits for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from go_programs import Unavailable, control_plane  # noqa: E402

READY_WITHIN = 60


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def own_address() -> str:
    """An address that is not loopback, which the API server wants to advertise."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def write_kubeconfig(path: Path, url: str, token: str, ca: Path | None) -> None:
    cluster: dict = {"server": url}
    if ca is not None:
        cluster["certificate-authority"] = str(ca)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
    }
    path.write_text(json.dumps(config))
    path.chmod(0o600)


class Authority:
    """A certificate authority in a folder, and the certificates that it signs."""

    def __init__(self, folder: Path):
        openssl = shutil.which("openssl")
        if not openssl:
            raise Unavailable("openssl is not installed, it makes keys and certificates")
        self.openssl, self.folder = openssl, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ferroflow-test",
                  "-keyout", str(self._key), "-out", str(self.certificate))

    def _run(self, *args: str) -> None:
        subprocess.run([self.openssl, *args], check=True, capture_output=True)

    def sign(self, name: str, subject: str, alternatives: str = "") -> tuple[Path, Path]:
        """A certificate and its key, for `subject` such as `/O=group/CN=user` and names such as `IP:127.0.0.1`."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", str(key), "-out", str(request))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("basicConstraints=CA:FALSE\n" + (f"subjectAltName={alternatives}\n" if alternatives else ""))
        self._run("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
                  "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate))
        return certificate, key


class Cluster:
    """One control plane in a temporary folder. `controllers=False` starts the API server alone; `address` is where it listens,
    which Pods can only reach if it is not loopback."""

    def __init__(self, controllers: bool = True, extra: tuple[str, ...] = (), address: str = "127.0.0.1"):
        self.controllers = controllers
        self.extra = extra
        self.address = address
        self.processes: list[tuple[str, subprocess.Popen]] = []
        self.folder = Path()

    def __enter__(self) -> "Cluster":
        program = control_plane()
        etcd = shutil.which("etcd")
        openssl = shutil.which("openssl")
        if not etcd:
            raise Unavailable("etcd is not installed (Debian: etcd-server)")
        if not openssl:
            raise Unavailable("openssl is not installed, it makes the service account key")
        self.folder = Path(tempfile.mkdtemp(prefix="ferroflow-cluster-"))
        try:
            self._start(program, etcd, openssl)
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self, program: Path, etcd: str, openssl: str) -> None:
        folder = self.folder
        client_port, peer_port, port = free_ports(3)
        key = folder / "sa.key"
        subprocess.run([openssl, "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        self.token = secrets.token_hex(16)
        users = folder / "tokens.csv"
        users.write_text(f'{self.token},admin,admin,"system:masters"\n')
        self.url = f"https://{self.address}:{port}"
        self.authority = Authority(folder / "authority")
        kubelet_cert, kubelet_key = self.authority.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self.ca = folder / "certs" / "apiserver.crt"
        self.kubeconfig = folder / "kubeconfig"
        etcd_url = f"http://127.0.0.1:{client_port}"
        self._run("etcd", [
            etcd, "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
            "--listen-peer-urls", f"http://127.0.0.1:{peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer_port}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer_port}"])
        self._run("kube-apiserver", [
            str(program), "kube-apiserver", "--etcd-servers", etcd_url, "--cert-dir", str(folder / "certs"),
            "--service-account-key-file", str(key), "--service-account-signing-key-file", str(key),
            "--service-account-issuer", "https://kubernetes.default.svc", "--token-auth-file", str(users),
            "--authorization-mode", "Node,RBAC", "--secure-port", str(port), "--bind-address", self.address,
            "--advertise-address", own_address() if self.address.startswith("127.") else self.address,
            "--kubelet-client-certificate", str(kubelet_cert), "--kubelet-client-key", str(kubelet_key),
            "--kubelet-preferred-address-types", "InternalIP", "--service-cluster-ip-range", "10.96.0.0/16",
            "--allow-privileged", "--external-hostname", "localhost", *self.extra])
        self._until("kube-apiserver", self._ready)
        write_kubeconfig(self.kubeconfig, self.url, self.token, self.ca)
        if self.controllers:
            config = str(self.kubeconfig)
            self._run("kube-controller-manager", [
                str(program), "kube-controller-manager", "--kubeconfig", config, "--leader-elect=false",
                "--secure-port=0", "--service-account-private-key-file", str(key), "--root-ca-file", str(self.ca),
                "--use-service-account-credentials=false"])
            self._run("kube-scheduler", [
                str(program), "kube-scheduler", "--kubeconfig", config, "--leader-elect=false", "--secure-port=0"])
            self._until("kube-controller-manager", self._has_default_account)

    def _run(self, name: str, command: list[str]) -> None:
        log = open(self.folder / f"{name}.log", "wb")
        self.processes.append((name, subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)))
        log.close()

    def get(self, path: str) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.ca))
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def _ready(self) -> bool:
        return self.ca.exists() and self.get("/readyz")[0] == 200

    def _has_default_account(self) -> bool:
        return self.get("/api/v1/namespaces/default/serviceaccounts/default")[0] == 200

    def _until(self, name: str, condition) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            for running, process in self.processes:
                if process.poll() is not None:
                    log = (self.folder / f"{running}.log").read_text(errors="replace")
                    raise Unavailable(f"{running} ended with {process.returncode}: {log[-1500:]}")
            with contextlib.suppress(OSError, ssl.SSLError):
                if condition():
                    return
            if time.monotonic() > deadline:
                raise Unavailable(f"{name} was not ready within {READY_WITHIN} s, see {self.folder}")
            time.sleep(0.05)

    def stop(self) -> None:
        for _, process in reversed(self.processes):
            process.terminate()
        for _, process in reversed(self.processes):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        if self.folder != Path() and not os.environ.get("FERROFLOW_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> int:
    try:
        with Cluster(controllers="--apiserver-only" not in sys.argv) as cluster:
            print(cluster.kubeconfig, flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except Unavailable as error:
        print(f"no real control plane: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main())
