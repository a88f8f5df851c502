"""Time per pipeline step: a chain of 50 and a fan-out of 200, against kfp.local's SubprocessRunner without venv."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kfp import Client, dsl

from table import Table

CHAIN, FAN = 50, 200


@dsl.component(base_image="python:3.11")
def step(n: int) -> int:
    return n + 1


@dsl.pipeline(name="chain")
def chain():
    value = step(n=0)
    for _ in range(CHAIN - 1):
        value = step(n=value.output)


@dsl.pipeline(name="fan-out")
def fan_out():
    for n in range(FAN):
        step(n=n)


LOCAL = """
import sys
from kfp import dsl, local
sys.path.insert(0, sys.argv[2])
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[3])
from steps import step
import time
n = int(sys.argv[1])
started = time.perf_counter()
for i in range(n):
    step(n=i)
print("SECONDS", time.perf_counter() - started)
"""


def ours(client, pipeline):
    started = time.perf_counter()
    run = client.create_run_from_pipeline_func(pipeline, arguments={}, enable_caching=False)
    while (state := client.get_run(run.run_id).state) not in ("SUCCEEDED", "FAILED", "CANCELED"):
        time.sleep(0.02)
    if state != "SUCCEEDED":
        raise SystemExit(f"run {run.run_id} ended as {state}: {client.get_run(run.run_id).error}")
    return time.perf_counter() - started


def local(steps):
    """Seconds that kfp.local needs for so many steps, one after another (it has no parallelism)."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-c", LOCAL, str(steps), str(Path(__file__).parent), root]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
        if done.returncode:
            raise SystemExit(f"kfp.local failed:\n{done.stdout}{done.stderr}")
    return float(done.stdout.split("SECONDS")[1])


def interpreter(python):
    """Seconds of starting Python and importing what every lightweight step imports."""
    code = "import kfp.dsl.executor_main"
    best = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([python, "-c", code], check=True, env={**os.environ, "_KFP_RUNTIME": "true"})
        best.append(time.perf_counter() - started)
    return sorted(best)[2]


def measure(url):
    """Both pipelines after one warm-up run, which builds the environment."""
    client = Client(host=url)
    ours(client, chain)
    floor = interpreter(sys.executable)
    table = Table(
        "Time per step",
        f"Lightweight components with a cached environment. Starting Python and importing kfp's executor takes {floor * 1000:.0f} ms here by "
        "itself; 'beyond' is what is left. The peer is kfp.local's SubprocessRunner without venv, 20 steps.",
        ("pipeline", "Ferroflow", "a step", "beyond start and imports", "kfp.local a step", "ratio"),
    )
    peer = local(20) / 20
    cores = os.cpu_count() or 1
    for name, pipeline, steps, parallel in (("chain of 50", chain, CHAIN, 1), ("fan-out of 200", fan_out, FAN, cores)):
        seconds = ours(client, pipeline)
        each = seconds / steps
        beyond = each - floor / parallel
        table.add(name, f"{seconds:.2f} s", f"{each * 1000:.0f} ms", f"{beyond * 1000:.0f} ms", f"{peer * 1000:.0f} ms", f"{peer / each:.1f}x")
    return table
