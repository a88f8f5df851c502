"""Drives the service with the unmodified `kfp` client; `tests/kfp.rs` gives the URL and says how steps behave."""

import os
import sys
import tempfile
import warnings

warnings.simplefilter("ignore")
import kfp
import kfp_server_api
from kfp import compiler

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "fixtures"))
import compile as fixtures

url = sys.argv[1]
client = kfp.Client(host=url)
assert client.get_kfp_healthz().multi_user is False

# experiments
experiment = client.create_experiment("first", description="d", namespace="default")
assert client.create_experiment("first").experiment_id == experiment.experiment_id
assert client.get_experiment(experiment_name="first", namespace="default").description == "d"
assert [e.display_name for e in client.list_experiments(namespace="default").experiments] == ["first"]
client.archive_experiment(experiment.experiment_id)
assert client.get_experiment(experiment.experiment_id).storage_state == "ARCHIVED"
client.unarchive_experiment(experiment.experiment_id)

# runs from a function and from a package
result = client.create_run_from_pipeline_func(fixtures.one_step, arguments={"a": 5.0}, experiment_name="second")
run = client.wait_for_run_completion(result.run_id, timeout=60, sleep_duration=0.1)
assert run.state == "SUCCEEDED", run
assert {t.display_name for t in run.run_details.task_details} == {"root", "add"}
assert run.runtime_config.parameters == {"a": 5.0}

with tempfile.TemporaryDirectory() as folder:
    package = os.path.join(folder, "chain.yaml")
    compiler.Compiler().compile(fixtures.chain, package)
    run = client.create_run_from_pipeline_package(package, arguments={}, enable_caching=False)
    assert client.wait_for_run_completion(run.run_id, 60, sleep_duration=0.1).state == "SUCCEEDED"
    platform = os.path.join(folder, "platform.yaml")
    compiler.Compiler().compile(fixtures.platform, platform)
    run = client.create_run_from_pipeline_package(platform)
    assert client.wait_for_run_completion(run.run_id, 60, sleep_duration=0.1).state == "SUCCEEDED"

    # pipelines and versions
    uploaded = client.upload_pipeline(package, pipeline_name="the chain", description="x", namespace="default")
    assert uploaded.display_name == "the chain", uploaded
    try:
        client.upload_pipeline(package, pipeline_name="the chain")
        raise AssertionError("a second pipeline of that name")
    except kfp_server_api.ApiException as error:
        assert error.status == 409, error
    version = client.upload_pipeline_version(package, "v2", pipeline_id=uploaded.pipeline_id)
    assert client.get_pipeline_id("the chain") == uploaded.pipeline_id
    listed = client.list_pipeline_versions(uploaded.pipeline_id, sort_by="created_at desc")
    assert [v.display_name for v in listed.pipeline_versions] == ["v2", "the chain"], listed
    assert client.get_pipeline_version(uploaded.pipeline_id, version.pipeline_version_id).pipeline_spec
    run = client.run_pipeline(
        experiment.experiment_id, "by version", pipeline_id=uploaded.pipeline_id, version_id=version.pipeline_version_id,
        params={"rate": 0.75})
    done = client.wait_for_run_completion(run.run_id, 60, sleep_duration=0.1)
    assert done.state == "SUCCEEDED" and done.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id

    # the client adds its own version's pipeline name; bad parameters are refused
    for arguments, text in [
        ({"rate": "fast"}, "expected NUMBER_DOUBLE, got STRING"),
        ({"nope": 1}, "has no such parameter"),
    ]:
        try:
            client.create_run_from_pipeline_package(package, arguments=arguments)
            raise AssertionError(arguments)
        except kfp_server_api.ApiException as error:
            assert error.status == 400 and text in error.body, error

    # lists
    first = client.list_runs(page_size=2, sort_by="created_at desc", namespace="default")
    assert len(first.runs) == 2 and first.next_page_token and first.total_size == 4, first
    second = client.list_runs(page_token=first.next_page_token, page_size=2, sort_by="created_at desc", namespace="default")
    assert not {r.run_id for r in first.runs} & {r.run_id for r in second.runs}
    assert len(client.list_runs(experiment_id=experiment.experiment_id).runs) == 1

    # life of a run
    client.terminate_run(run.run_id)
    client.archive_run(run.run_id)
    assert client.get_run(run.run_id).storage_state == "ARCHIVED"
    client.unarchive_run(run.run_id)
    client.delete_run(run.run_id)
    try:
        client.get_run(run.run_id)
        raise AssertionError("a deleted run")
    except kfp_server_api.ApiException as error:
        assert error.status == 404, error

    # recurring runs
    recurring = client.create_recurring_run(
        experiment.experiment_id, "often", cron_expression="*/1 * * * * *", pipeline_package_path=package,
        params={"rate": 1.0}, max_concurrency=2)
    assert recurring.status == "ENABLED", recurring
    import time
    deadline = time.time() + 20
    while not [r for r in client.list_runs(namespace="default").runs if r.recurring_run_id == recurring.recurring_run_id]:
        assert time.time() < deadline, "the schedule makes no runs"
        time.sleep(0.1)
    client.disable_recurring_run(recurring.recurring_run_id)
    assert client.get_recurring_run(recurring.recurring_run_id).status == "DISABLED"
    assert [r.display_name for r in client.list_recurring_runs(namespace="default").recurring_runs] == ["often"]
    client.delete_recurring_run(recurring.recurring_run_id)

    try:
        client.delete_pipeline(uploaded.pipeline_id)
        raise AssertionError("a pipeline with versions")
    except kfp_server_api.ApiException as error:
        assert error.status == 400, error
    for each in client.list_pipeline_versions(uploaded.pipeline_id).pipeline_versions:
        client.delete_pipeline_version(uploaded.pipeline_id, each.pipeline_version_id)
    client.delete_pipeline(uploaded.pipeline_id)
client.delete_experiment(experiment.experiment_id)
print("every call of the client is answered")
