"""The Training Operator's own client, unmodified, against a Ferroflow: kubeflow-training 1.9."""

import json

import pytest

training = pytest.importorskip("kubeflow.training", reason="needs kubeflow-training 1.9 in this environment")
from kubernetes import client as kubernetes  # noqa: E402


def trainer(ferroflow, kind):
    return training.TrainingClient(config_file=str(ferroflow.kubeconfig), namespace="default", job_kind=kind)


def replica(container, script, replicas=1, image="python:3.11", restart_policy="Never", folder=None):
    """A replica that runs a shell script; `folder` of this machine is at /kept."""
    volumes, mounts = None, None
    if folder:
        volumes = [kubernetes.V1Volume(name="kept", host_path=kubernetes.V1HostPathVolumeSource(path=str(folder)))]
        mounts = [kubernetes.V1VolumeMount(name="kept", mount_path="/kept")]
    main = kubernetes.V1Container(name=container, image=image, command=["sh", "-c", script], volume_mounts=mounts)
    return training.KubeflowOrgV1ReplicaSpec(
        replicas=replicas,
        restart_policy=restart_policy,
        template=kubernetes.V1PodTemplateSpec(spec=kubernetes.V1PodSpec(containers=[main], volumes=volumes)),
    )


XGBOOST = """
import json, os, socket
import numpy as np, xgboost as xgb
from xgboost import collective
from xgboost.tracker import RabitTracker
rank, world, port = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
master = socket.gethostbyname(os.environ["MASTER_ADDR"])
if rank == 0:
    tracker = RabitTracker(n_workers=world, host_ip=master, port=port)
    tracker.start()
with collective.CommunicatorContext(dmlc_communicator="rabit", dmlc_tracker_uri=master, dmlc_tracker_port=port,
                                    dmlc_task_id=str(rank), dmlc_retry=60):
    assert collective.get_world_size() == world
    x = np.random.default_rng(rank).normal(size=(200, 4))
    data = xgb.DMatrix(x, (x[:, 0] > 0).astype(int))
    result = {}
    xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 10, evals=[(data, "train")], evals_result=result, verbose_eval=False)
    print("ranks", world, "logloss", round(result["train"]["logloss"][-1], 4), flush=True)
if rank == 0:
    tracker.wait_for()
"""


def test_xgboost_trains_on_two_replicas_together(ferroflow):
    client = trainer(ferroflow, "XGBoostJob")
    script = f"pip install -q xgboost-cpu numpy && exec python3 -c '{XGBOOST}'"
    job = training.KubeflowOrgV1XGBoostJob(
        api_version="kubeflow.org/v1",
        kind="XGBoostJob",
        metadata=kubernetes.V1ObjectMeta(name="boost"),
        spec=training.KubeflowOrgV1XGBoostJobSpec(
            run_policy=training.KubeflowOrgV1RunPolicy(clean_pod_policy="None"),
            xgb_replica_specs={"Master": replica("xgboost", script), "Worker": replica("xgboost", script)},
        ),
    )
    client.create_job(job)
    done = client.wait_for_job_conditions("boost", wait_timeout=300, polling_interval=1)
    assert [c.type for c in done.status.conditions if c.status == "True"] == ["Created", "Succeeded"]
    assert {p.metadata.name for p in client.get_job_pods("boost")} == {"boost-master-0", "boost-worker-0"}
    assert client.get_job_pod_names("boost", is_master=True) == ["boost-master-0"]
    logs, _ = client.get_job_logs("boost", is_master=False)
    lines = {text.strip().splitlines()[-1] for text in logs.values()}
    assert len(logs) == 2 and len(lines) == 1, "both replicas see one model: " + str(logs)
    assert lines.pop().startswith("ranks 2 logloss ")


TORCH = """
import os, socket, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    server = socket.create_server(("", address[1]))
    seen = sorted(int(server.accept()[0].recv(9)) for _ in range(world - 1))
    print("rank 0 has met", seen, os.environ["PET_NNODES"], os.environ["PET_NPROC_PER_NODE"])
else:
    host = socket.gethostbyname(address[0])
    for _ in range(200):
        try:
            socket.create_connection((host, address[1])).sendall(str(rank).encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    print("rank", rank, "has met rank 0")
"""


def test_pytorch_workers_meet_their_master(ferroflow):
    client = trainer(ferroflow, "PyTorchJob")
    script = f"exec python3 -c '{TORCH}'"
    job = training.KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=kubernetes.V1ObjectMeta(name="torch"),
        spec=training.KubeflowOrgV1PyTorchJobSpec(
            run_policy=training.KubeflowOrgV1RunPolicy(),
            pytorch_replica_specs={"Master": replica("pytorch", script), "Worker": replica("pytorch", script, replicas=2)},
        ),
    )
    client.create_job(job)
    client.wait_for_job_conditions("torch", wait_timeout=120, polling_interval=1)
    logs, _ = client.get_job_logs("torch", is_master=True)
    assert logs["torch-master-0"].strip() == "rank 0 has met [1, 2] 3 auto"
    assert client.is_job_succeeded("torch")


def test_a_failing_replica_fails_the_job_and_exit_codes_restart_it(ferroflow, tmp_path):
    client = trainer(ferroflow, "XGBoostJob")
    scripts = {
        "fails": ("Never", "exit 3"),
        "restarts": ("ExitCode", "if mkdir /kept/once; then exit 137; fi; echo second time"),
    }
    for name, (policy, script) in scripts.items():
        job = training.KubeflowOrgV1XGBoostJob(
            api_version="kubeflow.org/v1",
            kind="XGBoostJob",
            metadata=kubernetes.V1ObjectMeta(name=name),
            spec=training.KubeflowOrgV1XGBoostJobSpec(
                run_policy=training.KubeflowOrgV1RunPolicy(),
                xgb_replica_specs={"Master": replica("xgboost", script, image="busybox", restart_policy=policy, folder=tmp_path)},
            ),
        )
        client.create_job(job)
    failed = client.wait_for_job_conditions("fails", expected_conditions={"Failed"}, wait_timeout=60, polling_interval=1)
    last = failed.status.conditions[-1]
    assert (last.reason, last.message) == ("XGBoostJobFailed", "XGBoostJob fails is failed because 1 Master replica(s) failed.")
    client.wait_for_job_conditions("restarts", wait_timeout=60, polling_interval=1)
    logs, _ = client.get_job_logs("restarts", is_master=True)
    assert logs["restarts-master-0"].strip().endswith("second time")


def test_bad_jobs_are_refused_with_the_field(ferroflow):
    client = trainer(ferroflow, "XGBoostJob")
    body = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "XGBoostJob",
        "metadata": {"name": "bad"},
        "spec": {"xgbReplicaSpecs": {"Worker": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}}},
    }
    with pytest.raises(kubernetes.ApiException) as error:
        client.custom_api.create_namespaced_custom_object("kubeflow.org", "v1", "default", "xgboostjobs", body)
    text = json.loads(error.value.body)["message"]
    assert text == (
        'admission webhook "validator.jobs.training-operator.kubeflow.org" denied the request: '
        "[spec.xgbReplicaSpecs[Worker].template.spec.containers: Required value: must have at least one container with name "
        "xgboost, spec.xgbReplicaSpecs[Master]: Required value: must be present]"
    )
