"""The platform on a real Kubernetes control plane, each service a process of its own, with unmodified clients."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import kfp
import pytest
import requests

from installation import wait_until
from pipeline import three_steps

DIGITS = Path(__file__).resolve().parents[1] / "digits"
ENDED = {"SUCCEEDED", "FAILED", "CANCELED"}
WITHIN = 180


@pytest.fixture
def client(cluster):
    return kfp.Client(host=cluster.url, existing_token=cluster.token)


def submit(client, seconds=0.0):
    made = client.create_run_from_pipeline_func(three_steps, arguments={"seconds": seconds}, enable_caching=False)
    return made.run_id


def run_of(cluster, run_id):
    """The run as the gateway tells it; nothing while the service behind it is away."""
    try:
        answer = requests.get(
            f"{cluster.url}/apis/v2beta1/runs/{run_id}", headers={"Authorization": f"Bearer {cluster.token}"}, timeout=10
        )
    except requests.ConnectionError:
        return None
    return answer.json() if answer.ok else None


def finish(cluster, run_id):
    last = {}

    def ended():
        run = run_of(cluster, run_id)
        last.update(run or {})
        return run and run["state"] in ENDED

    wait_until("the run ends", ended, WITHIN, lambda: f"{json.dumps(last)[:3000]}\n{cluster.explain()}")
    assert last["state"] == "SUCCEEDED", f"{json.dumps(last)[:3000]}\n{cluster.explain()}"
    return last


def wait_running(cluster, run_id, step):
    """Waits until the container of a step runs."""

    def running():
        pods = json.loads(cluster.kubectl("get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "json").stdout)["items"]
        mine = [p for p in pods if p["metadata"]["annotations"].get("ferroflow.dev/task") == f"root/{step}"]
        return any("running" in c["state"] for p in mine for c in p["status"].get("containerStatuses", []))

    wait_until(f"{step} runs", running, WITHIN, cluster.explain)


def starts(cluster, run_id):
    """Every container of a run with how often it was started again."""
    pods = json.loads(cluster.kubectl("get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "json").stdout)["items"]
    return {p["metadata"]["annotations"]["ferroflow.dev/task"]: p["status"]["containerStatuses"][0]["restartCount"] for p in pods}


def leader(cluster, service="pipelines"):
    path = "jsonpath={.spec.holderIdentity}"
    return cluster.kubectl("get", "lease", f"ferroflow-{service}", "-n", "kubeflow", "-o", path).stdout


def test_three_steps(cluster, client):
    run_id = submit(client)
    run = finish(cluster, run_id)
    assert starts(cluster, run_id) == {"root/make": 0, "root/think": 0, "root/say": 0}
    tasks = {t["display_name"]: t for t in run["run_details"]["task_details"]}
    node = tasks["say"]["pod_name"]
    log = requests.get(
        f"{cluster.url}/apis/v1alpha1/runs/{run_id}/nodes/{node}/log",
        headers={"Authorization": f"Bearer {cluster.token}"}, timeout=30,
    )
    assert "the answer is 42" in log.text, f"{log.status_code} {log.text}"


def test_nobody_without_a_token(cluster):
    answer = requests.get(f"{cluster.url}/apis/v2beta1/runs", timeout=10)
    assert answer.status_code == 401, answer.text


def test_webhooks_refuse(cluster):
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "bad", "namespace": "default"},
               "spec": {"predictor": {"model": {"modelFormat": {"name": "nonsense"}, "storageUri": "s3://mlpipeline/x"}}}}
    refused = cluster.kubectl("create", "-f", "-", stdin=json.dumps(service), check=False)
    assert refused.returncode != 0 and "nonsense" in refused.stderr, refused.stderr


def test_a_service_that_is_killed_goes_on(cluster, client):
    run_id = submit(client, seconds=15)
    wait_running(cluster, run_id, "think")
    pipelines = cluster.services["pipelines"]
    pipelines.kill()
    pipelines.start().wait_ready()
    finish(cluster, run_id)
    assert starts(cluster, run_id) == {"root/make": 0, "root/think": 0, "root/say": 0}


def test_a_second_replica_takes_over(cluster, client):
    first = cluster.services["pipelines"]
    wait_until("the first leads", lambda: f"_{first.process.pid}_" in leader(cluster), 60, first.log)
    second = cluster.service("pipelines", cluster.spare_port, replica="-2").start()
    try:
        second.wait_ready()
        run_id = submit(client, seconds=5)
        wait_running(cluster, run_id, "think")
        first.kill()
        killed = time.monotonic()
        leads = lambda: f"_{second.process.pid}_" in leader(cluster)
        wait_until("the second leads", leads, 60, second.log)
        print(f"the second replica leads {time.monotonic() - killed:.1f} s after the first was killed")
        # the first comes back and follows: what it is asked for the second does
        first.start().wait_ready()
        finish(cluster, run_id)
        finish(cluster, submit(client))
        assert leads(), leader(cluster)
    finally:
        second.stop()
        cluster.services["pipelines"] = first


def test_digits(cluster):
    endpoint = cluster.folder / "endpoint.json"
    endpoint.write_text(json.dumps({"url": cluster.url}))
    command = [sys.executable, DIGITS / "digits.py", "--endpoint", endpoint, "--kubeconfig", cluster.cluster.kubeconfig,
               "--token", cluster.token]
    story = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert story.returncode == 0, story.stdout[-6000:] + story.stderr[-3000:] + cluster.explain()
    v1, v2 = re.search(r"accuracy (0\.\d+) \(v1\) (0\.\d+) \(v2\)", story.stdout).groups()
    assert float(v1) >= 0.95 and v1 == v2


@pytest.fixture(scope="module")
def talker(cluster):
    """A Pod that serves its files at port 8080."""
    container = {"name": "main", "image": "python:3.11", "command": ["python", "-m", "http.server", "8080"],
                 "readinessProbe": {"tcpSocket": {"port": 8080}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker", "namespace": "default"}, "spec": {"containers": [container]}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/talker", f"--timeout={WITHIN}s")
    return "talker"


@pytest.fixture(params=["true", "false"], ids=["websocket", "spdy"])
def websockets(request, monkeypatch):
    """Whether kubectl speaks WebSockets to the API server; to our kubelet, the API server speaks SPDY in any case."""
    for what in ["PORT_FORWARD", "REMOTE_COMMAND"]:
        monkeypatch.setenv(f"KUBECTL_{what}_WEBSOCKETS", request.param)


def test_kubectl_exec(cluster, talker, websockets):
    done = cluster.kubectl("exec", "-i", talker, "--", "sh", "-c", "cat; echo wrong >&2; exit 7", stdin="typed\n", check=False)
    assert (done.returncode, done.stdout) == (7, "typed\n"), done.stderr
    assert "wrong\n" in done.stderr


def test_kubectl_port_forward(cluster, talker, websockets):
    command = cluster.kubectl_command("port-forward", talker, ":8080")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            port = re.search(r"127\.0\.0\.1:(\d+) -> 8080", forwarding.stdout.readline())[1]
            for _ in range(3):
                assert "Directory listing" in requests.get(f"http://127.0.0.1:{port}/", timeout=30).text
        finally:
            forwarding.kill()
