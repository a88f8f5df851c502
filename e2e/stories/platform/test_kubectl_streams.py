"""kubectl port-forward, exec and attach, over WebSockets and over plain SPDY, which kubectl falls back to."""

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

from programs import apply, eventually, pod

ECHO, DIGEST, WEB, CLOSED = 7000, 7001, 8080, 7999
WITHIN = 60

SERVERS = f"""
import hashlib, http.server, socketserver, threading

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)

class Digest(socketserver.BaseRequestHandler):
    def handle(self):
        digest, count = hashlib.sha256(), 0
        while data := self.request.recv(65536):
            digest.update(data)
            count += len(data)
        self.request.sendall(f"{{count}} {{digest.hexdigest()}}".encode())

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

for port, handler in [({ECHO}, Echo), ({DIGEST}, Digest)]:
    threading.Thread(target=Server(("", port), handler).serve_forever).start()
http.server.test(http.server.SimpleHTTPRequestHandler, port={WEB})
"""

LABELS = {"app": "talker"}
CARRIERS = {
    "websocket": {},
    "spdy": {"KUBECTL_PORT_FORWARD_WEBSOCKETS": "false", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"},
}


@pytest.fixture(scope="module")
def talker(ferroflow):
    """A Deployment of one Pod that listens on some ports, with a Service; answers the Pod's name."""
    container = {
        "name": "main", "image": "python:3.11", "command": ["python", "-c", SERVERS],
        "readinessProbe": {"tcpSocket": {"port": WEB}},
    }
    meta = {"name": "talker", "namespace": "default"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
        "spec": {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template},
    }
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"selector": LABELS, "ports": [{"name": "web", "port": 80, "targetPort": WEB}]},
    }
    apply(ferroflow, deployment, service)
    ferroflow.kubectl("wait", "--for=condition=Available", "deploy/talker", "--timeout=90s")
    return ferroflow.kubectl("get", "pods", "-l", "app=talker", "-o", "jsonpath={.items[0].metadata.name}")


@pytest.fixture(params=list(CARRIERS))
def carrier(request):
    """The environment that makes kubectl use a carrier."""
    return os.environ | CARRIERS[request.param]


class Forwarding:
    """A running `kubectl port-forward`."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def said(self, what):
        return next((found for line in list(self.lines) if (found := re.search(what, line))), None)

    def port(self, remote):
        """The local port that is forwarded there."""
        what = rf"Forwarding from 127\.0\.0\.1:(\d+) -> {remote}$"
        check = lambda: self.said(what) or self.process.poll() is not None  # noqa: E731
        eventually(f"kubectl forwards to {remote}: {self.lines}", check, WITHIN)
        return int(self.said(what)[1])

    def connect(self, remote):
        connection = socket.create_connection(("127.0.0.1", self.port(remote)), timeout=WITHIN)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextlib.contextmanager
def forwarding(ferroflow, carrier, target, *ports):
    command = ferroflow.kubectl_command("port-forward", target, *(f":{port}" for port in ports))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=carrier)
    try:
        yield Forwarding(process)
    finally:
        process.kill()
        process.wait()


def read_all(connection):
    data = bytearray()
    while more := connection.recv(65536):
        data += more
    return bytes(data)


@pytest.mark.parametrize("target", ["deploy/talker", "svc/talker", "pod"])
def test_a_page_is_fetched(ferroflow, talker, carrier, target):
    remote = 80 if target.startswith("svc") else WEB
    with forwarding(ferroflow, carrier, talker if target == "pod" else target, remote) as forwarded:
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{forwarded.port(WEB)}/", timeout=WITHIN) as answer:
                assert b"Directory listing" in answer.read()


def test_several_connections_to_several_ports_at_once(ferroflow, talker, carrier):
    with forwarding(ferroflow, carrier, talker, ECHO, DIGEST) as forwarded:
        connections = [forwarded.connect(ECHO) for _ in range(30)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
        with forwarded.connect(DIGEST) as other:
            other.shutdown(socket.SHUT_WR)
            assert read_all(other).startswith(b"0 ")
        for number, connection in reversed(list(enumerate(connections))):
            assert connection.recv(100) == b"%d" % number
            connection.close()


def test_much_goes_both_ways_and_one_side_ends_first(ferroflow, talker, carrier):
    data = os.urandom(1 << 20) * 32
    with forwarding(ferroflow, carrier, talker, ECHO, DIGEST) as forwarded:
        with forwarded.connect(DIGEST) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection).decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        with forwarded.connect(ECHO) as connection:
            def send():
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            sender = threading.Thread(target=send)
            sender.start()
            back = read_all(connection)
            sender.join()
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest(), f"{len(back)} of {len(data)} bytes"


def test_a_closed_port_is_told(ferroflow, talker, carrier):
    """kubectl itself may end at the first error, whatever the kubelet: "lost connection to pod"."""
    with forwarding(ferroflow, carrier, talker, CLOSED, ECHO) as forwarded:
        with forwarded.connect(CLOSED) as connection:
            with contextlib.suppress(ConnectionError):
                assert read_all(connection) == b""
        told = rf"error forwarding port {CLOSED} to pod {talker}: Connection refused"
        eventually(f"kubectl tells it: {forwarded.lines}", lambda: forwarded.said(told), WITHIN)


def run(ferroflow, carrier, *arguments, given=b""):
    command = ferroflow.kubectl_command(*arguments)
    done = subprocess.run(command, input=given, capture_output=True, timeout=WITHIN, env=carrier, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_command_reads_writes_and_ends_with_its_code(ferroflow, talker, carrier):
    script = "cat; echo wrong >&2; exit 7"
    code, out, error = run(ferroflow, carrier, "exec", "-i", talker, "--", "sh", "-c", script, given=b"typed\n")
    assert (code, out) == (7, b"typed\n"), error
    assert error == b"wrong\ncommand terminated with exit code 7\n"
    assert run(ferroflow, carrier, "exec", talker, "--", "echo", "well") == (0, b"well\n", b"")


def test_a_command_takes_and_gives_much(ferroflow, talker, carrier):
    data = os.urandom(1 << 20) * 16
    code, out, error = run(ferroflow, carrier, "exec", "-i", talker, "--", "cat", given=data)
    # what kubectl says when it hears of a channel before it has made it; a kubelet's first message has no bytes there either
    said = [line for line in error.decode().splitlines() if not line.endswith("Unknown stream id 1, discarding message")]
    assert (code, said) == (0, [])
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest(), f"{len(out)} of {len(data)} bytes"


def test_a_command_that_cannot_be_run_says_why(ferroflow, talker, carrier):
    code, out, error = run(ferroflow, carrier, "exec", talker, "--", "no-such-program")
    assert code != 0 and out == b"" and b"no-such-program" in error, error
    code, out, error = run(ferroflow, carrier, "exec", talker, "-c", "nobody", "--", "true")
    assert code == 1 and b"container nobody is not valid for pod" in error, error


def test_attach_shows_what_is_written_from_now_on(ferroflow, carrier):
    name = f"ticker-{time.monotonic_ns()}"
    apply(ferroflow, pod(name, "while [ ! -e /tmp/go ]; do sleep 0.1; done; sleep 1; echo said; echo warned >&2"))
    ferroflow.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    attached = subprocess.Popen(
        ferroflow.kubectl_command("attach", name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=carrier)
    try:
        ferroflow.kubectl("exec", name, "--", "touch", "/tmp/go")
        out, error = attached.communicate(timeout=WITHIN)
    finally:
        attached.kill()
    assert out == b"said\n" and b"warned\n" in error
