"""What Prometheus scrapes."""

import kfp
import requests
from kfp import dsl
from prometheus_client.parser import text_string_to_metric_families


@dsl.component(base_image="python:3.12")
def nothing():
    pass


@dsl.pipeline(name="counted")
def counted():
    nothing()


def scrape(url):
    """Every sample by its name, with the labels."""
    text = requests.get(f"{url}/metrics", timeout=10).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_requests_calls_and_the_process_are_counted(ferroflow):
    client = kfp.Client(host=ferroflow.url)
    run = client.create_run_from_pipeline_func(counted, enable_caching=False)
    assert run.wait_for_run_completion(120).state == "SUCCEEDED"
    found = scrape(ferroflow.url)
    [(_, memory)] = found["process_resident_memory_bytes"]
    assert 10e6 < memory < 2e9
    [(_, seconds)] = found["process_cpu_seconds_total"]
    assert seconds > 0
    assert [1.0] == [value for labels, value in found["pipeline_runs_ended_total"] if labels == {"state": "SUCCEEDED"}]
    [(_, attempts)] = found["pipeline_attempt_duration_seconds_count"]
    assert attempts == 1
    at_work = {labels["what"]: value for labels, value in found["pipeline_at_work"]}
    assert (at_work["runs"], at_work["attempts"]) == (0, 0) and at_work["attempts_at_most"] > 0
    names = "\n".join(sorted(found))
    handled = [labels for labels, value in found.get("grpc_server_handled_total", []) if value]
    assert any(labels.get("grpc_code") == "OK" for labels in handled), names
