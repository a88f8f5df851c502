"""The unmodified `ml-metadata` client against Ferroflow's metadata service: what KFP's driver, launcher and UI do, filters,
paging and lineage.

    python e2e/stories/metadata/mlmd.py http://localhost:8080
"""

import sys
import urllib.parse
import uuid

from ml_metadata import errors
from ml_metadata.metadata_store import ListOptions, MetadataStore, OrderByField
from ml_metadata.proto import metadata_store_pb2 as pb


def connect(url):
    parsed = urllib.parse.urlparse(url)
    return MetadataStore(pb.MetadataStoreClientConfig(host=parsed.hostname, port=parsed.port or 80))


def raises(kind, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except kind:
        return
    raise AssertionError(f"{call.__name__} did not raise {kind.__name__}")


def artifact(type_id, uri, **custom):
    one = pb.Artifact(type_id=type_id, uri=uri, state=pb.Artifact.LIVE)
    for name, value in custom.items():
        if isinstance(value, float):
            one.custom_properties[name].double_value = value
        else:
            one.custom_properties[name].string_value = value
    return one


def event(kind, *path):
    one = pb.Event(type=kind)
    for step in path:
        one.path.steps.add().key = step
    return one


def main(url):
    store = connect(url)
    tag = uuid.uuid4().hex[:8]

    # types: created once, the same again, evolving only when allowed
    dataset = store.put_artifact_type(pb.ArtifactType(name=f"system.Dataset{tag}", properties={"rows": pb.INT}))
    assert dataset == store.put_artifact_type(pb.ArtifactType(name=f"system.Dataset{tag}", properties={"rows": pb.INT}))
    wider = pb.ArtifactType(name=f"system.Dataset{tag}", properties={"rows": pb.INT, "split": pb.STRING})
    raises(errors.AlreadyExistsError, store.put_artifact_type, wider)
    assert dataset == store.put_artifact_type(wider, can_add_fields=True)
    raises(errors.AlreadyExistsError, store.put_artifact_type, pb.ArtifactType(name=f"system.Dataset{tag}"))
    assert dataset == store.put_artifact_type(pb.ArtifactType(name=f"system.Dataset{tag}"), can_omit_fields=True)
    changed = pb.ArtifactType(name=f"system.Dataset{tag}", properties={"rows": pb.STRING, "split": pb.STRING})
    raises(errors.AlreadyExistsError, store.put_artifact_type, changed, can_add_fields=True)
    raises(errors.NotFoundError, store.get_artifact_type, f"none{tag}")
    second = store.put_artifact_type(pb.ArtifactType(name=f"system.Dataset{tag}", version="2"))
    assert second != dataset and store.get_artifact_type(f"system.Dataset{tag}", "2").version == "2"
    model = store.put_artifact_type(pb.ArtifactType(name="system.Model"), can_omit_fields=True)
    step = store.put_execution_type(pb.ExecutionType(name="system.ContainerExecution"), can_omit_fields=True)
    run_type = store.put_context_type(pb.ContextType(name="system.PipelineRun"), can_omit_fields=True)
    pipeline_type = store.put_context_type(pb.ContextType(name="system.Pipeline"), can_omit_fields=True)
    assert {t.name for t in store.get_context_types()} >= {"system.Pipeline", "system.PipelineRun"}

    # contexts: names are unique in their type; parents never in a circle
    pipeline, = store.put_contexts([pb.Context(type_id=pipeline_type, name=f"digits-{tag}")])
    run, = store.put_contexts([pb.Context(type_id=run_type, name=f"run-{tag}")])
    raises(errors.AlreadyExistsError, store.put_contexts, [pb.Context(type_id=run_type, name=f"run-{tag}")])
    store.put_parent_contexts([pb.ParentContext(child_id=run, parent_id=pipeline)])
    raises(errors.AlreadyExistsError, store.put_parent_contexts, [pb.ParentContext(child_id=run, parent_id=pipeline)])
    raises(errors.InvalidArgumentError, store.put_parent_contexts, [pb.ParentContext(child_id=pipeline, parent_id=run)])
    assert [c.id for c in store.get_parent_contexts_by_context(run)] == [pipeline]
    assert [c.id for c in store.get_children_contexts_by_context(pipeline)] == [run]
    assert store.get_context_by_type_and_name("system.PipelineRun", f"run-{tag}").type == "system.PipelineRun"
    assert store.get_context_by_type_and_name("system.PipelineRun", "none") is None

    # an execution with what it wrote, in one call, as KFP's launcher publishes it
    load = pb.Execution(type_id=step, name=f"load-{tag}", last_known_state=pb.Execution.COMPLETE)
    load.custom_properties["task_name"].string_value = "load"
    data = artifact(dataset, f"s3://mlpipeline/{tag}/train")
    data.properties["rows"].int_value = 1437
    load_id, (data_id,), (context_id,) = store.put_execution(
        load, [(data, event(pb.Event.OUTPUT, "train"))], [pb.Context(type_id=run_type, name=f"run-{tag}")],
        reuse_context_if_already_exist=True)
    assert context_id == run
    raises(errors.AlreadyExistsError, store.put_execution, pb.Execution(type_id=step), [],
           [pb.Context(type_id=run_type, name=f"run-{tag}")])
    train = pb.Execution(type_id=step, name=f"train-{tag}", last_known_state=pb.Execution.RUNNING)
    weights = artifact(model, f"s3://mlpipeline/{tag}/model", accuracy=0.97)
    train_id, artifact_ids, _ = store.put_execution(
        train, [(pb.Artifact(id=data_id, type_id=dataset, uri=data.uri, state=data.state, properties=data.properties),
                 event(pb.Event.INPUT, "train")),
                (weights, event(pb.Event.OUTPUT, "model"))], [pb.Context(id=run, type_id=run_type, name=f"run-{tag}")],
        reuse_context_if_already_exist=True)
    assert artifact_ids[0] == data_id
    model_id = artifact_ids[1]
    raises(errors.AlreadyExistsError, store.put_executions, [pb.Execution(type_id=step, name=f"train-{tag}")])
    wrong = artifact(dataset, "x")
    wrong.properties["rows"].string_value = "many"
    raises(errors.InvalidArgumentError, store.put_artifacts, [wrong])
    raises(errors.InvalidArgumentError, store.put_artifacts, [pb.Artifact(uri="x")])

    # reading
    assert [a.id for a in store.get_artifacts_by_uri(data.uri)] == [data_id]
    found, = store.get_artifacts_by_id([data_id])
    assert found.type == f"system.Dataset{tag}" and found.properties["rows"].int_value == 1437
    assert found.create_time_since_epoch > 0 and found.state == pb.Artifact.LIVE
    assert {e.id for e in store.get_executions_by_context(run)} == {load_id, train_id}
    assert {a.id for a in store.get_artifacts_by_context(run)} == {data_id, model_id}
    assert [c.id for c in store.get_contexts_by_artifact(model_id)] == [run]
    assert [c.id for c in store.get_contexts_by_execution(train_id)] == [run]
    events = store.get_events_by_execution_ids([train_id])
    assert {(e.artifact_id, e.type, e.path.steps[0].key) for e in events} == {
        (data_id, pb.Event.INPUT, "train"), (model_id, pb.Event.OUTPUT, "model")}
    assert {e.execution_id for e in store.get_events_by_artifact_ids([data_id])} == {load_id, train_id}
    assert store.get_execution_by_type_and_name("system.ContainerExecution", f"load-{tag}").id == load_id

    # updates, whole and masked
    execution = store.get_executions_by_id([train_id])[0]
    execution.last_known_state = pb.Execution.COMPLETE
    store.put_executions([execution])
    after = store.get_executions_by_id([train_id])[0]
    assert after.last_known_state == pb.Execution.COMPLETE
    assert after.last_update_time_since_epoch > after.create_time_since_epoch
    masked = pb.Artifact(id=data_id, uri="ignored")
    masked.custom_properties["note"].string_value = "hi"
    store.put_artifacts([masked], field_mask_paths=["custom_properties.note"])
    found, = store.get_artifacts_by_id([data_id])
    assert found.uri == data.uri and found.custom_properties["note"].string_value == "hi"
    external = artifact(dataset, "y")
    external.external_id = f"ext-{tag}"
    external_id, = store.put_artifacts([external])
    raises(errors.AlreadyExistsError, store.put_artifacts, [external])
    assert [a.id for a in store.get_artifacts_by_external_ids([f"ext-{tag}"])] == [external_id]

    # filters
    def ids(query):
        return {a.id for a in store.get_artifacts(ListOptions(filter_query=query))}

    assert ids(f"uri = '{data.uri}'") == {data_id}
    assert ids(f"type = 'system.Dataset{tag}' AND properties.rows.int_value > 1000") == {data_id}
    assert ids(f"contexts_a.name = 'run-{tag}' AND contexts_a.type = 'system.PipelineRun' AND state = LIVE") == {data_id, model_id}
    assert ids(f"contexts_a.name = 'run-{tag}' AND custom_properties.accuracy.double_value >= 0.9") == {model_id}
    assert ids(f"contexts_a.name = 'run-{tag}' AND custom_properties.accuracy.double_value IS NULL") == {data_id}
    assert ids(f"contexts_a.name = 'run-{tag}' AND NOT (uri LIKE '%/model')") == {data_id}
    assert ids(f"events_0.execution_id = {train_id} AND events_0.type = INPUT") == {data_id}
    assert ids(f"id IN ({data_id}, {model_id}) AND (uri LIKE '%train' OR uri LIKE '%model')") == {data_id, model_id}
    runs = store.get_contexts(ListOptions(filter_query=f"parent_contexts_p.name = 'digits-{tag}'"))
    assert [c.id for c in runs] == [run]
    steps = store.get_executions(ListOptions(filter_query=f"contexts_a.id = {run} AND last_known_state = COMPLETE"))
    assert {e.id for e in steps} == {load_id, train_id}
    raises(errors.InvalidArgumentError, store.get_artifacts, ListOptions(filter_query="nonsense = 1"))
    raises(errors.InvalidArgumentError, store.get_artifacts, ListOptions(filter_query="uri = 1"))

    # pages, in any order
    many = store.put_artifacts([artifact(second, f"many/{n}") for n in range(250)])
    assert len(many) == 250
    query = f"type_id = {second}"
    ordered = ListOptions(order_by=OrderByField.ID, is_asc=False, filter_query=query)
    assert [a.id for a in store.get_artifacts(ordered)] == sorted(many, reverse=True)
    newest = ListOptions(order_by=OrderByField.CREATE_TIME, is_asc=False, filter_query=query, limit=7)
    assert [a.id for a in store.get_artifacts(newest)] == sorted(many, reverse=True)[:7]
    assert len(store.get_artifacts_by_type(f"system.Dataset{tag}", "2")) == 250

    # lineage
    def lineage(**options):
        return store.get_lineage_subgraph(pb.LineageSubgraphQueryOptions(**options))

    start = pb.LineageSubgraphQueryOptions.StartingNodes(filter_query=f"id = {model_id}")
    up = lineage(starting_artifacts=start, direction=pb.LineageSubgraphQueryOptions.UPSTREAM)
    assert {a.id for a in up.artifacts} == {data_id, model_id} and {e.id for e in up.executions} == {load_id, train_id}
    assert len(up.events) == 3 and {c.id for c in up.contexts} == {run}
    assert {t.name for t in up.artifact_types} == {f"system.Dataset{tag}", "system.Model"}
    one = lineage(starting_artifacts=start, direction=pb.LineageSubgraphQueryOptions.UPSTREAM, max_num_hops=1)
    assert {e.id for e in one.executions} == {train_id} and {a.id for a in one.artifacts} == {model_id}
    down = lineage(starting_artifacts=start, direction=pb.LineageSubgraphQueryOptions.DOWNSTREAM)
    assert not down.executions
    ends = pb.LineageSubgraphQueryOptions.EndingNodes(filter_query=f"id = {train_id}", include_ending_nodes=True)
    ended = lineage(starting_artifacts=start, direction=pb.LineageSubgraphQueryOptions.UPSTREAM, ending_executions=ends)
    assert {e.id for e in ended.executions} == {train_id} and {a.id for a in ended.artifacts} == {model_id}
    print("ml-metadata client: ok")


if __name__ == "__main__":
    main(sys.argv[1])
