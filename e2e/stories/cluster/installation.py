"""Ferroflow's services apart from each other on a real control plane: nine processes, a Node, PostgreSQL and NATS.

No container and no address outside this machine: the services listen on the first address of a range that is local to the
machine, and the Pods have the others.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "cluster"))

import go_programs  # noqa: E402
from cluster import Cluster, write_kubeconfig  # noqa: E402

SERVICES = ["profiles", "metadata", "artifacts", "tuning", "training", "serving", "notebooks", "pipelines", "gateway"]
WEBHOOKS = ["tuning", "training", "serving"]
READY_WITHIN = 60


def program():
    return os.environ.get("FERROFLOW", "ferroflow")


def environment():
    """This process's, without what would configure Ferroflow."""
    return {k: v for k, v in os.environ.items() if not k.startswith("FERROFLOW_")}


def wait_until(what, condition, timeout, explain=lambda: ""):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s\n{explain()}")
        time.sleep(0.1)


class Process:
    """One ferroflow process that a test may kill and start again."""

    def __init__(self, name, command, folder, env):
        self.name, self.command, self.env = name, command, env
        self.log_file = folder / f"{name}.log"
        self.process = None

    def start(self):
        log = open(self.log_file, "ab")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env)
        return self

    def log(self):
        return self.log_file.read_text(errors="replace")[-3000:] if self.log_file.exists() else ""

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()


class Service(Process):
    def __init__(self, name, address, port, command, folder, env):
        super().__init__(name, command, folder, env)
        self.url, self.port = f"http://{address}:{port}", port

    def ready(self):
        assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.log()}"
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_ready(self):
        wait_until(f"{self.name} is ready", self.ready, READY_WITHIN, self.log)


class Installation:
    def __init__(self, folder, postgres, nats):
        self.folder = Path(folder)
        self.postgres, self.nats = postgres, nats
        self.range = f"10.{random.randint(200, 250)}.{random.randint(0, 255)}.0/24"
        self.address = self.range.replace(".0/24", ".1")
        self.services, self.node, self.cluster = {}, None, None

    def __enter__(self):
        subprocess.run(["ip", "route", "add", "local", self.range, "dev", "lo"], check=True)
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def _start(self):
        self.cluster = Cluster(address=self.address).__enter__()
        self.token = self.cluster.token
        self.key = self.folder / "caller.key"
        self.key.write_bytes(os.urandom(32))
        self.cert = self.cluster.authority.sign("webhooks", "/CN=webhooks", f"IP:{self.address}")
        self.database = self._database()
        ports = self._free_ports(len(SERVICES) + len(WEBHOOKS) + 1)
        self.ports = dict(zip(SERVICES, ports))
        self.webhook_ports = dict(zip(WEBHOOKS, ports[len(SERVICES):]))
        self.spare_port = ports[-1]
        self._apply_manifests()
        self.node = self._start_node()
        for name in SERVICES:
            self.services[name] = self.service(name, self.ports[name]).start()
        for service in self.services.values():
            service.wait_ready()
        self._lead_services()
        profile = {"apiVersion": "kubeflow.org/v1", "kind": "Profile", "metadata": {"name": "default"},
                   "spec": {"owner": {"kind": "User", "name": "admin"}}}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(profile))
        has_account = lambda: self.kubectl("get", "sa", "default-editor", check=False).returncode == 0
        wait_until("the profile has its accounts", has_account, READY_WITHIN, self.services["profiles"].log)

    def _free_ports(self, count):
        sockets = [socket.create_server((self.address, 0)) for _ in range(count)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        return ports

    def _database(self):
        """A fresh database, so that a server may be used again."""
        name = f"cluster_{os.getpid()}_{random.randint(0, 1 << 30)}"
        subprocess.run(["psql", "-q", self.postgres, "-c", f"CREATE DATABASE {name}"], check=True)
        return self.postgres.rsplit("/", 1)[0] + f"/{name}"

    def _apply_manifests(self):
        command = [program(), "manifests", "--ca-bundle", str(self.cluster.authority.certificate)]
        for name, port in self.webhook_ports.items():
            command += ["--webhook-url", f"{name}=https://{self.address}:{port}"]
        manifests = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
        self.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)

    def _start_node(self):
        kubeconfig = str(self.cluster.kubeconfig)
        command = [program(), "node", "--node-name", "here", "--pod-cidr", self.range, "--node-ip", self.address,
                   "--kubelet-port", "0", "--client-ca", str(self.cluster.authority.certificate),
                   "--data-dir", str(self.folder / "node")]
        node = Process("node", command, self.folder, {**environment(), "KUBECONFIG": kubeconfig}).start()

        def ready():
            assert node.process.poll() is None, f"the node ended with {node.process.returncode}:\n{node.log()}"
            path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
            return self.kubectl("get", "node", "here", "-o", path, check=False).stdout == "True"

        wait_until("the node is ready", ready, READY_WITHIN, node.log)
        return node

    def service(self, name, port, replica=""):
        """A process of a service, which acts as its own ServiceAccount."""
        token = self.kubectl("create", "token", name, "-n", "kubeflow", "--duration", "4h").stdout.strip()
        kubeconfig = self.folder / f"{name}.kubeconfig"
        write_kubeconfig(kubeconfig, self.cluster.url, token, self.cluster.ca)
        command = [program(), "serve", name, "--bind", self.address, "--port", str(port), "--caller-key", str(self.key),
                   "--database", self.database, "--events", self.nats, "--data-dir", str(self.folder / "state"),
                   "--artifacts", f"file://{self.folder}/artifacts", "--host", self.address,
                   "--public-url", f"http://localhost:{self.ports['gateway']}"]
        for other, at in self.ports.items():
            command += ["--service", f"{other}=http://{self.address}:{at}"]
        if name in WEBHOOKS:
            cert, key = self.cert
            command += ["--webhook-port", str(self.webhook_ports[name]), "--webhook-cert", str(cert), "--webhook-key", str(key)]
        (self.folder / "artifacts").mkdir(exist_ok=True)
        env = {**environment(), "KUBECONFIG": str(kubeconfig)}
        return Service(name + replica, self.address, port, command, self.folder, env)

    def _lead_services(self):
        """Services select Pods, of which our processes are none: their addresses are written beside."""
        for service in json.loads(self.kubectl("get", "services", "-n", "kubeflow", "-o", "json").stdout)["items"]:
            name, spec = service["metadata"]["name"], service["spec"]
            behind = spec["selector"]["app.kubernetes.io/component"]
            ports = [{"name": p["name"], "port": self.ports[behind]} for p in spec["ports"] if p["name"] != "webhooks"]
            labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "story"}
            piece = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
                     "metadata": {"name": f"{name}-story", "namespace": "kubeflow", "labels": labels},
                     "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}}]}
            self.kubectl("apply", "-f", "-", stdin=json.dumps(piece))

    @property
    def url(self):
        return self.services["gateway"].url

    def kubectl_command(self, *args):
        return [str(go_programs.kubectl()), "--kubeconfig", str(self.cluster.kubeconfig), *args]

    def kubectl(self, *args, stdin=None, check=True):
        done = subprocess.run(self.kubectl_command(*args), input=stdin, capture_output=True, text=True, timeout=180)
        assert not check or done.returncode == 0, f"{' '.join(args)}: {done.stderr}"
        return done

    def explain(self):
        """What a failed test shows."""
        logs = [f"--- {s.name}\n{s.log()}" for s in [*self.services.values(), self.node] if s]
        pods = self.kubectl("get", "pods,events", "-A", check=False).stdout
        return "\n".join(logs)[-12000:] + "\n" + pods[-6000:]

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.node and self.node.process.poll() is None:
            for kind in ["deployments", "jobs", "pods"]:
                self.kubectl("delete", kind, "-A", "--all", "--grace-period=0", "--force", "--wait=false", check=False)
            gone = lambda: not self.kubectl("get", "pods", "-A", "-o", "name", check=False).stdout.strip()
            try:
                wait_until("Pods are gone", gone, 30)
            except AssertionError as error:
                print(error)
        for process in [*self.services.values(), self.node]:
            if process:
                process.stop()
        if self.cluster:
            self.cluster.stop()
        subprocess.run(["ip", "route", "del", "local", self.range, "dev", "lo"], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
