"""Limits of memory and cpu: what a container that goes over them is told, and its owner."""

import pytest
from programs import apply, end_of, eventually, get, pod, submit

EAT = "x = b'x' * (300 << 20)"
HUNGRY = f'exec python3 -c "{EAT}"'
RAISE = "exit code 137: OOMKilled: it used more than its memory limit of 64Mi; raise the limit with set_memory_limit() on the task"


@pytest.fixture(scope="module")
def held(ferroflow):
    """A Ferroflow on a machine that lets it make cgroups."""
    node = get(ferroflow, "nodes")["items"][0]
    limits = node["metadata"]["annotations"]["ferroflow.io/limits"]
    if limits.startswith("none"):
        pytest.skip(f"SKIPPED: limits are held by {limits}")
    assert limits.startswith("cgroup-v")
    return ferroflow


def limited(name, script, **limits):
    made = pod(name, script)
    made["spec"]["containers"][0]["resources"] = {"limits": limits}
    return made


def over(ferroflow, name):
    """The container's last state once its Pod is over."""

    def ended():
        found = get(ferroflow, "pod", name)
        return found["status"]["phase"] in ("Succeeded", "Failed") and found

    return eventually("the Pod ends", ended)["status"]["containerStatuses"][0]


def test_a_pod_over_its_memory_limit_is_oom_killed(held):
    apply(held, limited("hungry", HUNGRY, memory="64Mi"))
    ended = over(held, "hungry")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_pod_below_its_memory_limit_is_not(held):
    apply(held, limited("modest", "exec python3 -c \"x = b'x' * (20 << 20)\"", memory="256Mi"))
    assert over(held, "modest")["state"]["terminated"]["reason"] == "Completed"


def test_a_container_that_is_started_again_remembers(held):
    once = f'[ -e /keep/once ] && exec sleep 3600; touch /keep/once; {HUNGRY}'
    again = limited("again", once, memory="64Mi")
    again["spec"]["restartPolicy"] = "Always"
    again["spec"]["volumes"] = [{"name": "keep", "emptyDir": {}}]
    again["spec"]["containers"][0]["volumeMounts"] = [{"name": "keep", "mountPath": "/keep"}]
    apply(held, again)

    def restarted():
        status = get(held, "pod", "again")["status"].get("containerStatuses", [{}])[0]
        return status.get("restartCount") == 1 and "running" in status["state"] and status

    last = eventually("it runs again", restarted)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (137, "OOMKilled")


def test_an_oom_kill_is_told_after_kill_9_of_the_agent(fresh_ferroflow):
    node = get(fresh_ferroflow, "nodes")["items"][0]
    if node["metadata"]["annotations"]["ferroflow.io/limits"].startswith("none"):
        pytest.skip("SKIPPED: no limits are held here")
    gate = fresh_ferroflow.folder / "gate"
    gate.mkdir()
    late = limited("late", f"while [ ! -e /gate/go ]; do sleep 0.05; done; touch /gate/went; {HUNGRY}", memory="64Mi")
    late["spec"]["volumes"] = [{"name": "gate", "hostPath": {"path": str(gate)}}]
    late["spec"]["containers"][0]["volumeMounts"] = [{"name": "gate", "mountPath": "/gate"}]
    apply(fresh_ferroflow, late)
    fresh_ferroflow.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/late", "--timeout=60s")
    port = fresh_ferroflow.port
    fresh_ferroflow.kill()
    (gate / "go").touch()
    records = fresh_ferroflow.folder.glob
    eventually("it is on record", lambda: any("OOMKilled" in f.read_text() for f in records("kube/node/pods/*/exits.jsonl")))
    fresh_ferroflow.start(port=port)
    ended = over(fresh_ferroflow, "late")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


def test_a_job_gives_up_after_its_back_off_limit(held):
    template = limited("x", HUNGRY, memory="64Mi")["spec"]
    apply(held, {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "hungry", "namespace": "default"},
        "spec": {"backoffLimit": 1, "template": {"spec": template}},
    })
    held.kubectl("wait", "--for=condition=Failed", "job/hungry", "--timeout=120s")
    job = get(held, "job", "hungry")
    assert job["status"]["failed"] == 2
    reasons = [c["reason"] for c in job["status"]["conditions"] if c["type"] == "Failed"]
    assert reasons == ["BackoffLimitExceeded"]
    pods = get(held, "pods", "-l", "job-name=hungry")["items"]
    ends = [p["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] for p in pods]
    assert ends == ["OOMKilled", "OOMKilled"]


def test_a_pipeline_step_over_its_limit_says_what_to_do(held):
    container = {
        "image": "python:3.11", "command": ["sh", "-c", HUNGRY],
        "resources": {"memoryLimit": 0.067108864, "resourceMemoryLimit": "64Mi"},
    }
    run, step = end_of(submit(held, container))
    assert (run["state"], step["error"]["message"]) == ("FAILED", RAISE)
    assert run["error"]["message"] == f'task "eat" failed: {RAISE}'
    assert get(held, "pod", step["pod_name"])["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"},
    }


def test_a_container_gets_no_more_cpu_than_its_limit(held):
    burn = "import os, time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\nprint(sum(os.times()[:2]))"
    busy = limited("busy", "", cpu="200m")
    busy["spec"]["containers"][0]["command"] = ["python3", "-c", burn]
    apply(held, busy)
    assert over(held, "busy")["state"]["terminated"]["reason"] == "Completed"
    # 3 s at a fifth of a core, and what the start took
    assert float(held.kubectl("logs", "busy")) < 1.2


def test_limits_are_seen_by_the_container(held):
    seen = limited("seen", 'echo "$MEMORY $CPU $CORES"', memory="64Mi", cpu="1500m")
    field = lambda name, resource, divisor: {  # noqa: E731
        "name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}},
    }
    seen["spec"]["containers"][0]["env"] = [
        field("MEMORY", "limits.memory", "1Mi"), field("CPU", "limits.cpu", "1m"), field("CORES", "limits.cpu", "1"),
    ]
    apply(held, seen)
    over(held, "seen")
    assert held.kubectl("logs", "seen") == "64 1500 2\n"


def test_a_pod_of_a_stateful_set_knows_its_full_name(ferroflow):
    labels = {"app": "named"}
    apply(
        ferroflow,
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "named", "namespace": "default"},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 80}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "named", "namespace": "default"},
            "spec": {
                "serviceName": "named", "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [
                    {"name": "main", "image": "python:3.11", "command": ["sleep", "3600"]},
                ]}},
            },
        },
    )
    eventually("it is ready", lambda: ferroflow.kubectl(
        "get", "statefulset", "named", "-o", "jsonpath={.status.readyReplicas}") == "1")
    full = "named-0.named.default.svc.cluster.local\n"

    def name():
        return ferroflow.kubectl("exec", "named-0", "--", "hostname", "-f", check=False).stdout == full

    eventually("its full name is its own", name, timeout=20)
    assert ferroflow.kubectl("exec", "named-0", "--", "hostname") == "named-0\n"
