"""Every gRPC method of the gateway, called by bob for what is ann's. A method without a case fails."""

import importlib.resources
import re
import tempfile
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc
from tenants import PIPELINE, SECRET

ROOT = Path(__file__).parents[3]
REFUSED = {"PERMISSION_DENIED", "NOT_FOUND", "UNAUTHENTICATED", "UNIMPLEMENTED"}
KFP = "kubeflow.pipelines.backend.api.v2beta1."
FF = "ferroflow."
MLMD = "ml_metadata.MetadataStoreService/"
URI = f"s3://{SECRET}/{SECRET}"


CASES = {
    KFP + "RunService/CreateRun": {"run": {"display_name": "b", "pipeline_spec": PIPELINE, "experiment_id": "{experiment}"}},
    KFP + "RunService/GetRun": {"run_id": "{run}"},
    KFP + "RunService/ListRuns": {"namespace": "ann"},
    **{f"{KFP}RunService/{verb}Run": {"run_id": "{run}"} for verb in ("Archive", "Unarchive", "Delete", "Terminate", "Retry")},
    KFP + "RunService/ReadArtifact": {"run_id": "{run}", "node_id": "{node}", "artifact_name": SECRET},
    KFP + "ExperimentService/CreateExperiment": {"experiment": {"display_name": "b", "namespace": "ann"}},
    KFP + "ExperimentService/ListExperiments": {"namespace": "ann"},
    **{f"{KFP}ExperimentService/{verb}Experiment": {"experiment_id": "{experiment}"} for verb in ("Get", "Archive", "Unarchive", "Delete")},
    KFP + "PipelineService/CreatePipeline": {"pipeline": {"display_name": "b", "name": "b", "namespace": "ann"}},
    KFP + "PipelineService/GetPipeline": {"pipeline_id": "{pipeline}"},
    KFP + "PipelineService/GetPipelineByName": {"name": SECRET, "namespace": "ann"},
    KFP + "PipelineService/ListPipelines": {"namespace": "ann"},
    KFP + "PipelineService/DeletePipeline": {"pipeline_id": "{pipeline}"},
    KFP + "PipelineService/CreatePipelineAndVersion": {
        "pipeline": {"display_name": "b", "name": "b", "namespace": "ann"},
        "pipeline_version": {"display_name": "b", "name": "b", "pipeline_spec": PIPELINE},
    },
    KFP + "PipelineService/CreatePipelineVersion": {
        "pipeline_version": {"pipeline_id": "{pipeline}", "display_name": "b", "name": "b", "pipeline_spec": PIPELINE}
    },
    KFP + "PipelineService/GetPipelineVersion": {"pipeline_id": "{pipeline}", "pipeline_version_id": "{version}"},
    KFP + "PipelineService/ListPipelineVersions": {"pipeline_id": "{pipeline}"},
    KFP + "PipelineService/DeletePipelineVersion": {"pipeline_id": "{pipeline}", "pipeline_version_id": "{version}"},
    "api.v1.beta1.DBManager/ReportObservationLog": {
        "trial_name": "{trial}",
        "observation_log": {"metric_logs": [{"time_stamp": "2026-01-01T00:00:00Z", "metric": {"name": "bobs", "value": "0"}}]},
    },
    "api.v1.beta1.DBManager/GetObservationLog": {"trial_name": "{trial}"},
    "api.v1.beta1.DBManager/DeleteObservationLog": {"trial_name": "{trial}"},
    "api.v1.beta1.Suggestion/GetSuggestions": {},
    "api.v1.beta1.Suggestion/ValidateAlgorithmSettings": {},
    FF + "metadata.v1.MetadataService/GetRunLineage": {"namespace": "ann", "run_id": "{run}"},
    FF + "metadata.v1.MetadataService/ListModels": {"namespace": "ann"},
    FF + "training.v1.TrainingService/ListJobs": {"namespace": "ann"},
    FF + "training.v1.TrainingService/GetJob": {"namespace": "ann", "kind": "XGBoostJob", "name": SECRET},
    FF + "tuning.v1.TuningService/ListExperiments": {"namespace": "ann"},
    FF + "tuning.v1.TuningService/GetExperiment": {"namespace": "ann", "name": SECRET},
    FF + "tuning.v1.TuningService/ListTrials": {"namespace": "ann", "experiment": SECRET},
    FF + "profiles.v1.ProfileService/ListProfiles": {},
    FF + "profiles.v1.ProfileService/GetProfile": {"name": "ann"},
    FF + "notebooks.v1.NotebookService/ListNotebooks": {"namespace": "ann"},
    FF + "notebooks.v1.NotebookService/GetNotebook": {"namespace": "ann", "name": SECRET},
    FF + "serving.v1.ServingService/ListModels": {"namespace": "ann"},
    FF + "serving.v1.ServingService/GetModel": {"namespace": "ann", "name": SECRET},
    FF + "artifacts.v1.ArtifactService/Put": {"header": {"uri": URI}},
    FF + "artifacts.v1.ArtifactService/Get": {"uri": URI},
    FF + "artifacts.v1.ArtifactService/List": {"uri": f"s3://{SECRET}/"},
    FF + "artifacts.v1.ArtifactService/Stat": {"uri": URI},
    FF + "artifacts.v1.ArtifactService/Delete": {"uri": URI},
    FF + "artifacts.v1.ArtifactService/SignUrl": {"uri": URI, "method": "GET"},
    FF + "artifacts.v1.ArtifactService/MintCredentials": {"namespace": "ann"},
}
# bob's own view, in which nothing of ann's is
OWN_VIEW = {
    "api.v1.beta1.DBManager/ReportObservationLog", "api.v1.beta1.DBManager/GetObservationLog",
    "api.v1.beta1.DBManager/DeleteObservationLog", "api.v1.beta1.Suggestion/GetSuggestions",
    "api.v1.beta1.Suggestion/ValidateAlgorithmSettings", FF + "profiles.v1.ProfileService/ListProfiles",
    FF + "artifacts.v1.ArtifactService/List",
}


def mlmd_cases(ids):
    """MLMD's methods for the ids of ann's artifacts, executions and contexts. They have no namespace: all see their own."""
    artifacts, executions, contexts = ids["artifacts"], ids["executions"], ids["contexts"]
    artifact, execution, context = artifacts[0], executions[0], contexts[0]
    kind = {"name": "bobs-type"}
    cases = {
        "PutArtifacts": {"artifacts": [artifact | {"uri": "s3://b/b", "name": "b"}]},
        "PutExecutions": {"executions": [execution | {"name": "b", "last_known_state": "FAILED"}]},
        "PutContexts": {"contexts": [context | {"name": "b"}]},
        "PutEvents": {"events": [{"artifact_id": artifact["id"], "execution_id": execution["id"], "type": "INPUT"}]},
        "PutExecution": {"execution": execution | {"name": "b"}, "artifact_event_pairs": [{"artifact": artifact}]},
        "PutLineageSubgraph": {"executions": [execution | {"name": "b"}], "artifacts": [artifact], "contexts": [context]},
        "PutAttributionsAndAssociations": {
            "attributions": [{"artifact_id": artifact["id"], "context_id": context["id"]}],
            "associations": [{"execution_id": execution["id"], "context_id": context["id"]}],
        },
        "PutParentContexts": {"parent_contexts": [{"parent_id": context["id"], "child_id": contexts[-1]["id"]}]},
        "PutArtifactType": {"artifact_type": kind}, "PutExecutionType": {"execution_type": kind},
        "PutContextType": {"context_type": kind}, "PutTypes": {"artifact_types": [kind]},
        "GetArtifactsByURI": {"uris": [artifact.get("uri", "")]},
        "GetEventsByExecutionIDs": {"execution_ids": [e["id"] for e in executions]},
        "GetEventsByArtifactIDs": {"artifact_ids": [a["id"] for a in artifacts]},
        "GetContextsByArtifact": {"artifact_id": artifact["id"]}, "GetContextsByExecution": {"execution_id": execution["id"]},
        "GetParentContextsByContext": {"context_id": context["id"]},
        "GetChildrenContextsByContext": {"context_id": context["id"]},
        "GetParentContextsByContexts": {"context_ids": [c["id"] for c in contexts]},
        "GetChildrenContextsByContexts": {"context_ids": [c["id"] for c in contexts]},
        "GetArtifactsByContext": {"context_id": context["id"]}, "GetExecutionsByContext": {"context_id": context["id"]},
        "GetLineageGraph": {"options": {"artifacts_options": {"filter_query": f"id = {artifact['id']}"}}},
        "GetLineageSubgraph": {"lineage_subgraph_query_options": {"starting_artifacts": {"filter_query": f"id = {artifact['id']}"}}},
    }
    for one, known in (("Artifact", artifacts), ("Execution", executions), ("Context", contexts)):
        key = one.lower()
        cases |= {
            f"Get{one}s": {},
            f"Get{one}sByID": {f"{key}_ids": [k["id"] for k in known]},
            f"Get{one}sByType": {"type_name": known[0]["type"]},
            f"Get{one}ByTypeAndName": {"type_name": known[0]["type"], f"{key}_name": known[0].get("name", "")},
            f"Get{one}sByExternalIds": {"external_ids": [SECRET]},
            f"Get{one}Type": {"type_name": known[0]["type"]},
            f"Get{one}Types": {},
            f"Get{one}TypesByID": {"type_ids": [known[0]["type_id"]]},
            f"Get{one}TypesByExternalIds": {"external_ids": [SECRET]},
        }
    return cases


def descriptors():
    """All of Ferroflow's protos."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/all.bin"
        google = str(importlib.resources.files("grpc_tools") / "_proto")
        files = [str(f.relative_to(ROOT / "proto")) for f in sorted((ROOT / "proto").rglob("*.proto"))]
        arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{google}", "--include_imports", f"--descriptor_set_out={out}", *files]
        assert protoc.main(arguments) == 0
        return descriptor_pb2.FileDescriptorSet.FromString(Path(out).read_bytes())


class Caller:
    """Calls methods by name with messages as JSON."""

    def __init__(self, tenant, port):
        self.metadata = (("authorization", f"Bearer {tenant.token}"),)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.pool = descriptor_pool.DescriptorPool()
        for file in descriptors().file:
            self.pool.Add(file)

    def __call__(self, name, request):
        """Code and answer; a code other than OK comes with its text."""
        service, method = name.split("/")
        found = self.pool.FindServiceByName(service).FindMethodByName(method)
        input_class = message_factory.GetMessageClass(found.input_type)
        output_class = message_factory.GetMessageClass(found.output_type)
        message = json_format.ParseDict(request, input_class())
        shape = ("stream" if found.client_streaming else "unary") + "_" + ("stream" if found.server_streaming else "unary")
        stub = getattr(self.channel, shape)(
            f"/{name}", request_serializer=input_class.SerializeToString, response_deserializer=output_class.FromString
        )
        try:
            answer = stub(iter([message]) if found.client_streaming else message, metadata=self.metadata, timeout=30)
            answers = list(answer) if found.server_streaming else [answer]
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", [json_format.MessageToDict(a, preserving_proto_field_name=True) for a in answers]


@pytest.fixture(scope="module")
def calls(world):
    ann, bob = (Caller(t, world.ferroflow.port) for t in (world.ann, world.bob))
    ids = {}
    for kind in ("artifacts", "executions", "contexts"):
        code, answer = ann(f"{MLMD}Get{kind.capitalize()}", {})
        assert code == "OK" and answer[0].get(kind), f"ann has {kind}: {code} {answer}"
        keep = ("id", "type", "type_id", "name", "uri")
        ids[kind] = [{k: v for k, v in item.items() if k in keep} for item in answer[0][kind]]
    return ann, bob, {MLMD + name: case for name, case in mlmd_cases(ids).items()}


def filled(value, has):
    if isinstance(value, str) and value.startswith("{"):
        return has[value[1:-1]]
    if isinstance(value, dict):
        return value if value is PIPELINE else {k: filled(v, has) for k, v in value.items()}
    return [filled(v, has) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", CASES)
def test_bob_is_denied(world, calls, name):
    code, answer = calls[1](name, filled(CASES[name], world.has))
    if name in OWN_VIEW and code == "OK":
        assert SECRET not in str(answer) and "'ann'" not in str(answer), answer
    elif name not in OWN_VIEW:
        assert code in REFUSED, (code, answer)
        assert code != "UNAUTHENTICATED", "bob's token is good: it is his rights that are missing"


def test_mlmd_shows_bob_nothing_of_ann(calls):
    """No method of MLMD's gives an id, a name or a URI of ann's, or takes one."""
    ann, bob, cases = calls
    before = {k: ann(f"{MLMD}Get{k}", {}) for k in ("Artifacts", "Executions", "Contexts")}
    wrong = []
    for name, request in sorted(cases.items()):
        code, answer = bob(name, request)
        short = name.split("/")[1]
        if code == "OK" and short.startswith("Put") and "Type" not in short:
            wrong.append((short, "took what names ann's", answer))
        elif code == "OK" and "Type" not in short.removesuffix("ByType").removesuffix("ByTypeAndName") and any(answer[0].values()):
            if short != "GetLineageGraph" or any((answer[0].get("subgraph") or {}).values()):
                wrong.append((short, "shows", str(answer)[:300]))
        elif SECRET in str(answer) and code == "OK":
            wrong.append((short, "shows", str(answer)[:300]))
        elif code not in REFUSED | {"OK", "INVALID_ARGUMENT", "ALREADY_EXISTS"}:
            wrong.append((short, code, answer))
    after = {k: ann(f"{MLMD}Get{k}", {}) for k in ("Artifacts", "Executions", "Contexts")}
    assert not wrong, "\n".join(map(str, wrong))
    assert after == before, "what is ann's was changed"


def test_ann_sees_her_own(world, calls):
    """What bob is refused is there."""
    for name in CASES:
        if re.search(r"/(Get|List|Stat)", name) and "Suggest" not in name and "Profile" not in name:
            code, answer = calls[0](name, filled(CASES[name], world.has))
            assert code == "OK", f"{name}: {code} {answer}"


def test_a_token_is_needed_to_be_someone(world):
    class Nobody:
        token = "nonsense"

    code, said = Caller(Nobody, world.ferroflow.port)(KFP + "RunService/ListRuns", {"namespace": "ann"})
    assert (code, said) == ("UNAUTHENTICATED", "the bearer token is not valid or has expired; get a new one")


def test_every_method_has_a_case(calls):
    """Every method of every service that the gateway routes, from the protos and the services' own lists."""
    served = set()
    for file in (ROOT / "services").glob("*/src/lib.rs"):
        for block in re.findall(r"GRPC_SERVICES[^=]*=\s*&\[([^\]]*)\]", file.read_text()):
            served |= set(re.findall(r'"([\w.]+)"', block))
    assert len(served) >= 12, f"the sources are not read rightly: {served}"
    methods = set()
    for file in descriptors().file:
        for service in file.service:
            name = f"{file.package}.{service.name}"
            if name in served:
                methods |= {f"{name}/{method.name}" for method in service.method}
                served.discard(name)
    assert not served, f"no proto for {served}"
    cases = set(CASES) | set(calls[2])
    assert not methods - cases, f"no case for {sorted(methods - cases)}"
    assert not cases - methods, f"no such method: {sorted(cases - methods)}"
