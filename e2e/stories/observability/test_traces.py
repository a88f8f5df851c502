"""A run is one trace, from the request over services and Pods, also when Ferroflow is killed in between."""

import tempfile
import time

import kfp
import pytest
from kfp import dsl

from collector import Collector
from server import Ferroflow


@dsl.component(base_image="python:3.12")
def think(seconds: float) -> str:
    import os
    import time

    time.sleep(seconds)
    return os.environ.get("TRACEPARENT", "")


@dsl.component(base_image="python:3.12")
def break_down():
    raise ValueError("broken")


@dsl.pipeline(name="traced")
def traced(seconds: float = 0.0):
    think(seconds=seconds)


@dsl.pipeline(name="broken")
def broken():
    break_down()


@pytest.fixture(scope="module")
def collector():
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ferroflow(collector):
    running = Ferroflow(tempfile.mkdtemp(prefix="ferroflow-story-", dir="/var/tmp"), "--otlp-endpoint", collector.url)
    running.start()
    yield running
    running.end()


def submit(ferroflow, pipeline, **arguments):
    client = kfp.Client(host=ferroflow.url)
    return client, client.create_run_from_pipeline_func(pipeline, arguments=arguments, enable_caching=False).run_id


def run_span(collector, run_id):
    return collector.wait_for(lambda s: s.name.startswith("run ") and s.attributes.get("ferroflow.run.id") == run_id)


def step_span(collector, run_id):
    return collector.wait_for(lambda s: s.name.startswith("step ") and s.attributes.get("ferroflow.run.id") == run_id)


def above(collector, span):
    """The spans above a span, nearest first."""
    known = {s.id: s for s in collector.spans()}
    while span.parent in known:
        span = known[span.parent]
        yield span


def test_a_run_is_one_trace(ferroflow, collector):
    client, run_id = submit(ferroflow, traced, seconds=0.2)
    assert client.wait_for_run_completion(run_id, 120).state == "SUCCEEDED"
    run, step = run_span(collector, run_id), step_span(collector, run_id)
    launcher = collector.wait_for(lambda s: s.service == "ferroflow-launcher" and s.parent == step.id)
    assert step.parent == run.id and step.name == "step think", step
    assert {run.trace, step.trace, launcher.trace} == {run.trace}
    assert run.seconds >= step.seconds >= launcher.seconds >= 0.2
    # above the run is the request that made it
    collector.wait_for(lambda s: s.id == run.parent)
    names = [s.name for s in above(collector, run)]
    assert any("runs" in name for name in names), names
    # below the launcher are its calls, and what the services did for them
    below = collector.wait_for(
        lambda s: s.service != "ferroflow-launcher" and s.trace == run.trace and launcher.id in [a.id for a in above(collector, s)]
    )
    assert below.failed is False


def test_the_users_code_finds_its_place(ferroflow, collector):
    client, run_id = submit(ferroflow, traced)
    client.wait_for_run_completion(run_id, 120)
    step = step_span(collector, run_id)
    [task] = [t for t in client.get_run(run_id).run_details.task_details if t.display_name == "think"]
    pod = ferroflow.kubectl("get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "json")
    assert task.state == "SUCCEEDED" and f"00-{step.trace}-{step.id}-01" in pod


def test_a_failure_is_told(ferroflow, collector):
    client, run_id = submit(ferroflow, broken)
    assert client.wait_for_run_completion(run_id, 120).state == "FAILED"
    run, step = run_span(collector, run_id), step_span(collector, run_id)
    assert run.failed and step.failed and "break-down" in run.raw.status.message, run.raw.status.message


def test_a_trace_goes_on_after_a_crash(ferroflow, collector):
    client, run_id = submit(ferroflow, traced, seconds=3)
    deadline = time.monotonic() + 60
    while "Running" not in ferroflow.kubectl("get", "pods", "-l", f"pipeline/runid={run_id}"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ferroflow.kill()
    ferroflow.start()
    client = kfp.Client(host=ferroflow.url)
    assert client.wait_for_run_completion(run_id, 120).state == "SUCCEEDED"
    run, step = run_span(collector, run_id), step_span(collector, run_id)
    launcher = collector.wait_for(lambda s: s.service == "ferroflow-launcher" and s.parent == step.id)
    assert step.parent == run.id and launcher.trace == step.trace == run.trace
    assert step.seconds >= 3


def test_without_a_collector_nothing_changes():
    """A collector that is away costs nothing but its spans."""
    away = Ferroflow(tempfile.mkdtemp(prefix="ferroflow-story-", dir="/var/tmp"), "--otlp-endpoint", "http://127.0.0.1:1")
    away.start()
    try:
        client, run_id = submit(away, traced)
        assert client.wait_for_run_completion(run_id, 120).state == "SUCCEEDED"
    finally:
        away.end()
