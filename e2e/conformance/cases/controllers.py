"""What controllers do. There is no kubelet on either side: the cases write the status of Pods."""

from objects import CONTAINER, LABELS, changed, claim, config_map, create, cron_job, deployment, job, make, pod, replica_set, service, stateful_set

RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
DONE = {"phase": "Succeeded"}


def ended(code: int) -> dict:
    state = {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:00Z"}}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}]}


def pods(count: int, selector: str = "job-name%3Dx", **more) -> dict:
    return {"wait": f"pods?labelSelector={selector}", "until": lambda body: len(body["items"]) == count, "quiet": True, **more}


def live(count: int, selector: str = "app%3Da", **more) -> dict:
    return {"wait": f"pods?labelSelector={selector}", "until": lambda body: sum("deletionTimestamp" not in one["metadata"] for one in body["items"]) == count, "quiet": True, **more}


def condition(kind: str):
    return lambda body: any(one["type"] == kind and one["status"] == "True" for one in body["status"].get("conditions", []))


def job_case(name: str, obj: dict, *steps) -> dict:
    return {"name": f"job: {name}", "steps": [create("jobs", obj, quiet=True), *steps]}


def finished(kind: str, **more) -> dict:
    return {"wait": "jobs/x", "until": condition(kind), "only": ["status", "spec.suspend"], **more}


def status_is(**fields):
    return lambda body: all(body["status"].get(key, 0) == value for key, value in fields.items())


GATED = "spec/template/spec/schedulingGates"
JOBS = [
    job_case("makes a pod", job(), pods(1), {"wait": "pods?labelSelector=job-name%3Dx", "until": lambda body: body["items"][0]["spec"].get("nodeName")}),
    job_case("status while it runs", job(), pods(1), {"pods": "job-name=x", "status": RUNNING}, {"wait": "jobs/x", "until": status_is(active=1, ready=1), "only": ["status"]}),
    job_case("succeeds", job(), pods(1), {"pods": "job-name=x", "status": DONE}, finished("Complete"), {"do": "GET pods?labelSelector=job-name%3Dx", "only": ["items.0.metadata.finalizers", "items.0.status.phase"]}),
    job_case("succeeds with several completions", job(completions=3, parallelism=2), pods(2), {"pods": "job-name=x", "status": DONE}, pods(3), {"pods": "job-name=x", "status": DONE}, finished("Complete")),
    job_case("runs in parallel", job(parallelism=3, completions=3), pods(3), {"wait": "jobs/x", "until": status_is(active=3), "only": ["status"]}),
    job_case("fails at once without retries", job(backoffLimit=0), pods(1), {"pods": "job-name=x", "status": ended(1)}, finished("Failed")),
    job_case("fails after a retry", job(backoffLimit=1), pods(1), {"pods": "job-name=x", "status": ended(1)}, pods(2), {"pods": "job-name=x", "status": ended(2)}, finished("Failed")),
    job_case("succeeds after a retry", job(backoffLimit=2), pods(1), {"pods": "job-name=x", "status": ended(1)}, pods(2),
             {"pods": "job-name=x", "status": ended(0), "which": lambda one: one["status"]["phase"] != "Failed"}, finished("Complete")),
    job_case("stops the others when it fails", job(backoffLimit=0, parallelism=3, completions=3), pods(3), {"pods": "job-name=x", "status": ended(1), "first": 1}, {"wait": "jobs/x", "until": condition("FailureTarget"), "only": ["status.conditions.0.reason"]},
             {"wait": "pods?labelSelector=job-name%3Dx", "until": lambda body: sum("deletionTimestamp" in one["metadata"] for one in body["items"]) == 2, "quiet": True},
             {"wait": "jobs/x", "until": status_is(terminating=2), "only": ["status.active", "status.terminating"]}),
    job_case("indexed", job(completions=3, parallelism=2, completionMode="Indexed"), pods(2), {"do": "GET pods?labelSelector=batch.kubernetes.io/job-completion-index%3D0"},
             {"pods": "batch.kubernetes.io/job-completion-index=0", "status": DONE}, {"wait": "pods?labelSelector=batch.kubernetes.io/job-completion-index%3D2", "until": lambda body: len(body["items"]) == 1, "quiet": True},
             {"wait": "jobs/x", "until": lambda body: body["status"].get("completedIndexes") == "0", "only": ["status.completedIndexes", "status.succeeded", "status.active"]}),
    job_case("indexed succeeds", job(completions=3, parallelism=3, completionMode="Indexed"), pods(3), {"pods": "job-name=x", "status": DONE}, finished("Complete")),
    job_case("indexed fails per index", job(completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=0), pods(2), {"pods": "batch.kubernetes.io/job-completion-index=0", "status": ended(1)},
             {"pods": "batch.kubernetes.io/job-completion-index=1", "status": DONE}, finished("Failed")),
    job_case("success policy", job(completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules": [{"succeededIndexes": "0"}]}), pods(3), {"pods": "batch.kubernetes.io/job-completion-index=0", "status": DONE},
             {"wait": "jobs/x", "until": condition("SuccessCriteriaMet"), "only": ["status.conditions.0", "status.completedIndexes", "status.succeeded"]}),
    job_case("starts suspended", job(suspend=True), {"wait": "jobs/x", "until": condition("Suspended"), "only": ["status"]}, {"do": "GET pods?labelSelector=job-name%3Dx", "only": ["items"]}),
    job_case("is resumed", job(suspend=True), {"wait": "jobs/x", "until": condition("Suspended"), "quiet": True}, {"do": "PATCH merge jobs/x", "body": {"spec": {"suspend": False}}, "quiet": True}, pods(1),
             {"wait": "jobs/x", "until": status_is(active=1), "only": ["status"]}),
    job_case("is suspended", job(), pods(1), {"do": "PATCH merge jobs/x", "body": {"spec": {"suspend": True}}, "quiet": True}, {"wait": "jobs/x", "until": condition("Suspended"), "only": ["status.conditions", "status.active", "status.startTime"]}),
    job_case("passes its deadline", job(activeDeadlineSeconds=1), pods(1), {"wait": "jobs/x", "until": condition("FailureTarget"), "only": ["status.conditions.0"]}),
    job_case("a failure policy fails it", job(backoffLimit=6, podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}), pods(1), {"pods": "job-name=x", "status": ended(42)}, finished("Failed")),
    job_case("a failure policy ignores", job(backoffLimit=0, podFailurePolicy={"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]}), pods(1), {"pods": "job-name=x", "status": ended(42)}, pods(2),
             {"wait": "jobs/x", "until": status_is(active=1), "only": ["status.failed", "status.active"]}),
    job_case("work queue", job(parallelism=2), pods(2), {"pods": "job-name=x", "status": DONE, "first": 1}, {"wait": "jobs/x", "until": status_is(succeeded=1), "only": ["status.active", "status.succeeded", "spec.completions"]},
             {"pods": "job-name=x", "status": DONE}, finished("Complete")),
    job_case("fewer in parallel", job(parallelism=3, completions=5), pods(3), {"do": "PATCH merge jobs/x", "body": {"spec": {"parallelism": 1}}, "quiet": True}, live(1, "job-name%3Dx"), {"wait": "jobs/x", "until": status_is(active=1), "only": ["status.active", "status.failed", "status.succeeded"]}),
    job_case("a deleted pod is replaced", job(), pods(1), {"do": "DELETE pods?labelSelector=job-name%3Dx", "body": {"gracePeriodSeconds": 0}, "quiet": True},
             {"wait": "jobs/x", "until": status_is(failed=1, active=1), "only": ["status.failed", "status.active"]}),
    job_case("goes away after its time", job(ttlSecondsAfterFinished=0), pods(1), {"pods": "job-name=x", "status": DONE}, {"wait": "jobs/x", "until": lambda code, body: code == 404}),
    job_case("its pods go with it", job(), pods(1), {"do": "DELETE jobs/x?propagationPolicy=Background", "only": ["kind", "code", "status", "details"]}, {"wait": "jobs/x", "until": lambda code, body: code == 404, "quiet": True}, {"wait": "pods", "until": lambda body: all("deletionTimestamp" in one["metadata"] and not one["metadata"].get("finalizers") for one in body["items"]), "only": ["kind"]}),
    job_case("its pods stay when orphaned", job(), pods(1), {"do": "DELETE jobs/x?propagationPolicy=Orphan", "quiet": True}, {"wait": "jobs/x", "until": lambda code, body: code == 404, "quiet": True}, {"wait": "pods?labelSelector=job-name%3Dx", "until": lambda body: not body["items"][0]["metadata"].get("ownerReferences"), "only": ["items.0.metadata.ownerReferences", "items.0.metadata.deletionTimestamp"]}),
    job_case("events", job(), pods(1), {"pods": "job-name=x", "status": DONE}, finished("Complete", quiet=True),
             {"wait": "events?fieldSelector=involvedObject.kind%3DJob", "until": lambda body: len(body["items"]) == 2, "sort": "reason", "only": ["items.0.reason", "items.1.reason", "items.0.type"]}),
]

DEPLOYED = {"wait": "deployments/x", "until": lambda body: body["status"].get("availableReplicas") == body["spec"]["replicas"] == body["status"].get("updatedReplicas") == body["status"]["replicas"]}
READY_ALL = {"pods": "app=a", "status": RUNNING}


def deployment_case(name: str, obj: dict, *steps) -> dict:
    return {"name": f"deployment: {name}", "steps": [create("deployments", obj, quiet=True), *steps]}


NEW_IMAGE = {"do": "PATCH strategic deployments/x", "body": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "new:1"}]}}}}, "quiet": True}
SETS = "replicasets?labelSelector=app%3Da"
DEPLOYMENTS = [
    deployment_case("makes a replica set and pods", deployment(replicas=2), live(2), {"wait": SETS, "until": lambda body: body["items"][0]["status"]["replicas"] == 2},
                    {"wait": "deployments/x", "until": status_is(updatedReplicas=2, unavailableReplicas=2), "only": ["metadata", "status"]}),
    deployment_case("becomes available", deployment(replicas=2), live(2), READY_ALL, {**DEPLOYED, "only": ["metadata.annotations", "metadata.generation", "status"]}),
    deployment_case("pods", deployment(replicas=1), live(1), {"wait": "pods?labelSelector=app%3Da", "until": lambda body: body["items"][0]["spec"].get("nodeName"), "only": ["items.0.metadata", "items.0.spec.containers.0.name"]}),
    deployment_case("scales up and down", deployment(replicas=1), live(1), {"do": "PATCH merge deployments/x/scale", "body": {"spec": {"replicas": 3}}, "quiet": True}, live(3),
                    {"do": "PATCH merge deployments/x", "body": {"spec": {"replicas": 1}}, "quiet": True}, live(1), {"wait": SETS, "until": lambda body: body["items"][0]["status"].get("observedGeneration", 0) >= 3, "only": ["items.0.spec.replicas", "items.0.metadata.annotations"]}),
    deployment_case("rolls out", deployment(replicas=2), live(2), READY_ALL, {**DEPLOYED, "quiet": True}, NEW_IMAGE, live(3), {"wait": SETS, "sort": "spec.replicas", "until": lambda body: sorted(one["spec"]["replicas"] for one in body["items"]) == [1, 2], "only": ["items.0.metadata.annotations", "items.1.metadata.annotations"]},
                    {**READY_ALL, "of": SETS, "until": lambda body: sorted(one["spec"]["replicas"] for one in body["items"]) == [0, 2]},
                    {**DEPLOYED, "only": ["metadata.annotations", "status.replicas", "status.updatedReplicas", "status.availableReplicas", "status.conditions.0.reason", "status.conditions.1.reason", "status.conditions.1.message"]}),
    deployment_case("recreates", deployment(replicas=1, strategy={"type": "Recreate"}), live(1), READY_ALL, {**DEPLOYED, "quiet": True}, NEW_IMAGE,
                    {"wait": "pods?labelSelector=app%3Da", "until": lambda body: all("deletionTimestamp" in one["metadata"] for one in body["items"]), "quiet": True},
                    {"do": "DELETE pods?labelSelector=app%3Da", "body": {"gracePeriodSeconds": 0}, "quiet": True}, {"wait": "pods?labelSelector=app%3Da", "until": lambda body: body["items"][0]["spec"]["containers"][0]["image"] == "new:1", "only": ["kind"]}),
    deployment_case("keeps few old replica sets", deployment(replicas=0, revisionHistoryLimit=0), {"wait": SETS, "until": lambda body: len(body["items"]) == 1, "quiet": True},
                    {"wait": "deployments/x", "until": lambda body: body["status"].get("observedGeneration") == 1, "quiet": True}, NEW_IMAGE,
                    {"wait": SETS, "until": lambda body: len(body["items"]) == 1 and body["items"][0]["spec"]["template"]["spec"]["containers"][0]["image"] == "new:1", "only": ["items.0.metadata.annotations"]}),
    deployment_case("rolls back to an old replica set", deployment(replicas=0), {"wait": SETS, "until": lambda body: len(body["items"]) == 1, "quiet": True}, NEW_IMAGE, {"wait": SETS, "until": lambda body: len(body["items"]) == 2, "quiet": True},
                    {"do": "PATCH strategic deployments/x", "body": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "busybox:1.36"}]}}}}, "quiet": True},
                    {"wait": "deployments/x", "until": lambda body: body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3", "only": ["metadata.annotations", "metadata.generation"]},
                    {"wait": SETS, "until": lambda body: any("revision-history" in key for one in body["items"] for key in one["metadata"]["annotations"]), "only": ["kind"]}),
    deployment_case("copies annotations to its replica set", changed(deployment(replicas=0), "metadata/annotations", {"a": "b"}), {"wait": SETS, "until": lambda body: len(body["items"]) == 1, "only": ["items.0.metadata.annotations"]}),
    deployment_case("pauses", deployment(replicas=0), {"wait": "deployments/x", "until": lambda body: body["status"].get("observedGeneration") == 1, "quiet": True}, {"do": "PATCH merge deployments/x", "body": {"spec": {"paused": True}}, "quiet": True}, NEW_IMAGE,
                    {"wait": "deployments/x", "until": lambda body: body["status"]["observedGeneration"] == 3 and any(one["reason"] == "DeploymentPaused" for one in body["status"]["conditions"]), "only": ["status.updatedReplicas", "status.conditions.1.reason", "status.conditions.1.status"]}),
    deployment_case("misses its deadline", deployment(replicas=1, progressDeadlineSeconds=1), live(1), {"wait": "deployments/x", "until": lambda body: any(one["reason"] == "ProgressDeadlineExceeded" for one in body["status"]["conditions"]), "only": ["status.conditions.1"]}),
    deployment_case("waits until pods were ready long enough", deployment(replicas=1, minReadySeconds=3600, progressDeadlineSeconds=7200), live(1), {"pods": "app=a", "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2099-01-01T00:00:00Z"}]}},
                    {"wait": "deployments/x", "until": status_is(readyReplicas=1), "only": ["status.availableReplicas", "status.readyReplicas"]}),
    deployment_case("replaces a deleted pod", deployment(replicas=1), live(1), {"do": "DELETE pods?labelSelector=app%3Da", "body": {"gracePeriodSeconds": 0}, "quiet": True}, live(1), {"wait": SETS, "until": lambda body: body["items"][0]["status"]["replicas"] == 1, "only": ["items.0.status.replicas"]}),
    deployment_case("replaces a failed pod", deployment(replicas=1), live(1), {"pods": "app=a", "status": {"phase": "Failed"}}, pods(2, "app%3Da"), {"wait": SETS, "until": lambda body: body["items"][0]["status"]["replicas"] == 1, "only": ["items.0.status.replicas"]}),
    deployment_case("goes with everything in the foreground", deployment(replicas=1), live(1), {"do": "DELETE deployments/x?propagationPolicy=Foreground", "only": ["kind", "metadata.finalizers"]},
                    {"wait": "pods?labelSelector=app%3Da", "until": lambda body: all("deletionTimestamp" in one["metadata"] for one in body["items"]), "quiet": True}, {"do": "DELETE pods?labelSelector=app%3Da", "body": {"gracePeriodSeconds": 0}, "quiet": True},
                    {"wait": "deployments/x", "until": lambda code, body: code == 404}),
    {"name": "replica set: keeps pods", "steps": [create("replicasets", replica_set(replicas=2), quiet=True), live(2), {"wait": "replicasets/x", "until": status_is(replicas=2, fullyLabeledReplicas=2), "only": ["status"]}, READY_ALL,
        {"wait": "replicasets/x", "until": status_is(availableReplicas=2), "only": ["status"]}]},
    {"name": "replica set: adopts a pod", "steps": [create("pods", pod("mine", labels=LABELS, automountServiceAccountToken=False), quiet=True), create("replicasets", replica_set(replicas=1), quiet=True),
        {"wait": "pods/mine", "until": lambda body: body["metadata"].get("ownerReferences"), "only": ["metadata.ownerReferences"]}, {"wait": "replicasets/x", "until": status_is(replicas=1), "only": ["status.replicas"]}, {"do": "GET pods", "only": ["items.0.metadata.name", "items.1.metadata.name"]}]},
    {"name": "replica set: lets a relabelled pod go", "steps": [create("replicasets", replica_set(replicas=1), quiet=True), live(1), {"do": "GET pods?labelSelector=app%3Da", "keep": {"pod": "items.0.metadata.name"}, "quiet": True},
        {"do": "PATCH merge pods/{pod}", "body": {"metadata": {"labels": {"app": "other"}}}, "quiet": True}, {"wait": "pods/{pod}", "until": lambda body: not body["metadata"].get("ownerReferences"), "only": ["metadata.ownerReferences", "metadata.deletionTimestamp"]}, live(1)]},
    {"name": "replica set: pods of another stay", "steps": [create("replicasets", replica_set("y", replicas=1), quiet=True), live(1), create("replicasets", replica_set(replicas=1), quiet=True), live(2), {"do": "GET pods", "sort": "metadata.ownerReferences.0.name", "only": ["items.0.metadata.ownerReferences.0.name", "items.1.metadata.ownerReferences.0.name"]}]},
    {"name": "deployment: adopts what another left", "steps": [create("deployments", deployment(replicas=1), quiet=True), live(1), {"do": "DELETE deployments/x?propagationPolicy=Orphan", "quiet": True}, {"wait": "deployments/x", "until": lambda code, body: code == 404, "quiet": True},
        {"wait": SETS, "until": lambda body: not body["items"][0]["metadata"].get("ownerReferences"), "quiet": True}, create("deployments", deployment(replicas=1), quiet=True), {"wait": SETS, "until": lambda body: body["items"][0]["metadata"].get("ownerReferences"), "only": ["items.0.metadata.ownerReferences.0.kind", "items.1"]}]},
    {"name": "replica set: quota stops it", "steps": [create("resourcequotas", make("v1", "ResourceQuota", "q", spec={"hard": {"pods": "0"}}), quiet=True), {"wait": "resourcequotas/q", "until": lambda body: body["status"]["used"]["pods"] == "0", "quiet": True},
        create("replicasets", replica_set(replicas=1), quiet=True), {"wait": "replicasets/x", "until": lambda body: body["status"].get("conditions"), "only": ["status.replicas", "status.conditions.0.type", "status.conditions.0.reason", "status.conditions.0.status"]}]},
]


def set_case(name: str, obj: dict, *steps) -> dict:
    return {"name": f"stateful set: {name}", "steps": [create("statefulsets", obj, quiet=True), *steps]}


CLAIMS = {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}}]}
STATEFUL = [
    set_case("makes pods in order", stateful_set(replicas=2), live(1), {"wait": "pods/x-0", "until": lambda body: body["spec"].get("nodeName")}, {"do": "GET pods/x-1", "only": ["code"]}, READY_ALL, live(2), READY_ALL,
             {"wait": "statefulsets/x", "until": status_is(availableReplicas=2, observedGeneration=1), "only": ["status"]}),
    set_case("makes pods in parallel", stateful_set(replicas=3, podManagementPolicy="Parallel"), live(3), {"do": "GET pods?labelSelector=app%3Da", "only": ["items.0.metadata.name", "items.1.metadata.name", "items.2.metadata.name"]}),
    set_case("starts at another number", stateful_set(replicas=1, ordinals={"start": 5}), live(1), {"do": "GET pods/x-5", "only": ["metadata.name", "metadata.labels"]}),
    set_case("makes claims", stateful_set(replicas=1, **CLAIMS), live(1), {"do": "GET persistentvolumeclaims/data-x-0"}, {"do": "GET pods/x-0", "only": ["spec.volumes.0"]}),
    set_case("keeps a revision", stateful_set(replicas=0), {"wait": "controllerrevisions", "until": lambda body: len(body["items"]) == 1}),
    set_case("shrinks from the end", stateful_set(replicas=2, podManagementPolicy="Parallel"), live(2), READY_ALL, {"do": "PATCH merge statefulsets/x", "body": {"spec": {"replicas": 1}}, "quiet": True}, live(1), {"wait": "pods/x-1", "until": lambda body: "deletionTimestamp" in body["metadata"], "only": ["kind"]}),
    set_case("replaces a deleted pod by name", stateful_set(replicas=1), live(1), {"do": "DELETE pods/x-0", "body": {"gracePeriodSeconds": 0}, "quiet": True}, live(1), {"do": "GET pods/x-0", "only": ["metadata.name"]}),
    set_case("updates from the end", stateful_set(replicas=2, podManagementPolicy="Parallel"), live(2), READY_ALL, {"wait": "statefulsets/x", "until": status_is(availableReplicas=2), "quiet": True},
             {"do": "PATCH strategic statefulsets/x", "body": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "new:1"}]}}}}, "quiet": True},
             {"wait": "pods/x-1", "until": lambda body: "deletionTimestamp" in body["metadata"], "only": ["kind"]}, {"do": "GET pods/x-0", "only": ["metadata.deletionTimestamp"]},
             {"do": "DELETE pods/x-1", "body": {"gracePeriodSeconds": 0}, "quiet": True}, {"wait": "pods/x-1", "until": lambda body: body["spec"]["containers"][0]["image"] == "new:1", "only": ["kind"]},
             {"wait": "statefulsets/x", "until": status_is(updatedReplicas=1, currentReplicas=1), "only": ["status.updatedReplicas", "status.currentReplicas", "status.replicas"]}),
    set_case("updates only above its partition", stateful_set(replicas=2, podManagementPolicy="Parallel", updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}), live(2), READY_ALL, {"wait": "statefulsets/x", "until": status_is(availableReplicas=2), "quiet": True},
             {"do": "PATCH strategic statefulsets/x", "body": {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "new:1"}]}}}}, "quiet": True}, {"wait": "pods/x-1", "until": lambda body: "deletionTimestamp" in body["metadata"], "quiet": True},
             {"do": "DELETE pods/x-1", "body": {"gracePeriodSeconds": 0}, "quiet": True}, {"wait": "pods/x-1", "until": lambda body: body["spec"]["containers"][0]["image"] == "new:1", "quiet": True}, READY_ALL,
             {"wait": "statefulsets/x", "until": status_is(updatedReplicas=1, availableReplicas=2), "only": ["status.updatedReplicas", "status.currentReplicas"]}, {"do": "GET pods/x-0", "only": ["spec.containers.0.image", "metadata.deletionTimestamp"]}),
    set_case("a failed pod is made again", stateful_set(replicas=1), live(1), {"do": "GET pods/x-0", "keep": {"old": "metadata.uid"}, "quiet": True}, {"pods": "app=a", "status": {"phase": "Failed"}}, {"wait": "pods/x-0", "until": lambda body: body["status"]["phase"] == "Pending", "only": ["status.phase"]}),
]

SLICES = "endpointslices?labelSelector=kubernetes.io/service-name%3Dx"
ADDRESS = {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}
BACKEND = pod("p", labels=LABELS, containers=[{**CONTAINER, "ports": [{"name": "http", "containerPort": 8080}]}], automountServiceAccountToken=False, nodeName="node-1")


def has_endpoints(body) -> bool:
    return any(slice.get("endpoints") for slice in body["items"])


ENDPOINTS = [
    {"name": "endpoints: of a ready pod", "steps": [create("services", service(), quiet=True), create("pods", BACKEND, quiet=True), {"pods": "app=a", "status": {**RUNNING, **ADDRESS}},
        {"wait": SLICES, "until": lambda body: has_endpoints(body) and body["items"][0]["endpoints"][0]["conditions"]["ready"], "only": ["items.0.endpoints", "items.0.ports", "items.0.addressType", "items.0.metadata.labels", "items.0.metadata.ownerReferences"]},
        {"wait": "endpoints/x", "until": lambda body: body["subsets"][0].get("addresses"), "only": ["subsets", "metadata.labels"]}]},
    {"name": "endpoints: of a pod that is not ready", "steps": [create("services", service(), quiet=True), create("pods", BACKEND, quiet=True), {"pods": "app=a", "status": {"phase": "Running", **ADDRESS}},
        {"wait": SLICES, "until": has_endpoints, "only": ["items.0.endpoints"]}, {"wait": "endpoints/x", "until": lambda body: body["subsets"], "only": ["subsets"]}]},
    {"name": "endpoints: of a named port", "steps": [create("services", service(ports=[{"name": "web", "port": 80, "targetPort": "http"}]), quiet=True), create("pods", BACKEND, quiet=True), {"pods": "app=a", "status": {**RUNNING, **ADDRESS}},
        {"wait": SLICES, "until": has_endpoints, "only": ["items.0.ports"]}]},
    {"name": "endpoints: of a headless service", "steps": [create("services", service(clusterIP="None"), quiet=True), create("pods", changed(changed(BACKEND, "spec/hostname", "h"), "spec/subdomain", "x"), quiet=True), {"pods": "app=a", "status": {**RUNNING, **ADDRESS}},
        {"wait": SLICES, "until": has_endpoints, "only": ["items.0.endpoints", "items.0.metadata.labels"]}]},
    {"name": "endpoints: published before ready", "steps": [create("services", service(publishNotReadyAddresses=True), quiet=True), create("pods", BACKEND, quiet=True), {"pods": "app=a", "status": {"phase": "Running", **ADDRESS}},
        {"wait": SLICES, "until": has_endpoints, "only": ["items.0.endpoints"]}]},
    {"name": "endpoints: none without pods", "steps": [create("services", service(), quiet=True), {"wait": SLICES, "until": lambda body: body["items"], "only": ["items.0.endpoints", "items.0.ports", "items.0.addressType"]}, {"wait": "endpoints/x", "until": lambda body: body["metadata"]["name"] == "x"}]},
    {"name": "endpoints: of an ended pod", "steps": [create("services", service(), quiet=True), create("pods", BACKEND, quiet=True), {"pods": "app=a", "status": {**RUNNING, **ADDRESS}}, {"wait": SLICES, "until": has_endpoints, "quiet": True},
        {"pods": "app=a", "status": {"phase": "Succeeded"}}, {"wait": SLICES, "until": lambda body: body["items"] and not has_endpoints(body), "only": ["items.0.endpoints"]}]},
    {"name": "endpoints: go with the service", "steps": [create("services", service(), quiet=True), {"wait": SLICES, "until": lambda body: body["items"], "quiet": True}, {"do": "DELETE services/x", "only": ["kind", "status"]}, {"wait": SLICES, "until": lambda body: not body["items"], "only": ["items"]}, {"wait": "endpoints/x", "until": lambda code, body: code == 404}]},
    {"name": "endpoints: written by hand stay", "steps": [create("services", make("v1", "Service", spec={"ports": [{"port": 80}]}), quiet=True), create("endpoints", make("v1", "Endpoints", subsets=[{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]), quiet=True), {"do": "GET endpoints/x"}]},
]


def child(name: str, owner: str, **more) -> dict:
    return changed(config_map(name), "metadata/ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": "{" + owner + "}", **more}])


OWNER = create("configmaps", config_map("owner"), keep={"owner": "metadata.uid"}, quiet=True)
GONE = {"until": lambda code, body: code == 404}
COLLECTION = [
    {"name": "gc: children go in the background", "steps": [OWNER, create("configmaps", child("c", "owner"), quiet=True), {"do": "DELETE configmaps/owner?propagationPolicy=Background", "quiet": True}, {"wait": "configmaps/c", **GONE}]},
    {"name": "gc: children go by default", "steps": [OWNER, create("configmaps", child("c", "owner"), quiet=True), {"do": "DELETE configmaps/owner", "quiet": True}, {"wait": "configmaps/c", **GONE}]},
    {"name": "gc: grandchildren go", "steps": [OWNER, create("configmaps", child("c", "owner"), keep={"c": "metadata.uid"}, quiet=True), create("configmaps", child("d", "c"), quiet=True), {"do": "DELETE configmaps/owner", "quiet": True}, {"wait": "configmaps/d", **GONE}]},
    {"name": "gc: children stay as orphans", "steps": [OWNER, create("configmaps", child("c", "owner"), quiet=True), {"do": "DELETE configmaps/owner?propagationPolicy=Orphan", "only": ["kind", "metadata.finalizers"]}, {"wait": "configmaps/owner", "quiet": True, **GONE}, {"wait": "configmaps/c", "until": lambda body: not body["metadata"].get("ownerReferences")}]},
    {"name": "gc: the owner waits in the foreground", "steps": [OWNER, create("configmaps", changed(child("c", "owner", blockOwnerDeletion=True), "metadata/finalizers", ["a.example.com/x"]), quiet=True), {"do": "DELETE configmaps/owner?propagationPolicy=Foreground"},
        {"wait": "configmaps/c", "until": lambda body: "deletionTimestamp" in body["metadata"], "quiet": True}, {"do": "GET configmaps/owner", "only": ["metadata.finalizers"]}, {"do": "PATCH merge configmaps/c", "body": {"metadata": {"finalizers": None}}, "quiet": True}, {"wait": "configmaps/owner", **GONE}]},
    {"name": "gc: a child of two owners stays", "steps": [OWNER, create("configmaps", config_map("second"), keep={"second": "metadata.uid"}, quiet=True),
        create("configmaps", changed(config_map("c"), "metadata/ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": "{" + name + "}"} for name in ("owner", "second")]), quiet=True),
        {"do": "DELETE configmaps/owner", "quiet": True}, {"wait": "configmaps/c", "until": lambda body: len(body["metadata"]["ownerReferences"]) == 1, "only": ["metadata.ownerReferences.0.name"]}]},
    {"name": "gc: a child of nobody goes", "steps": [create("configmaps", changed(config_map("c"), "metadata/ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "00000000-0000-0000-0000-000000000001"}]), quiet=True), {"wait": "configmaps/c", **GONE}]},
    {"name": "gc: a cluster owner keeps its children", "steps": [create("clusterroles", make("rbac.authorization.k8s.io/v1", "ClusterRole", "owner-{ns}", rules=[]), keep={"owner": "metadata.uid"}, quiet=True),
        create("configmaps", changed(config_map("c"), "metadata/ownerReferences", [{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": "owner-{ns}", "uid": "{owner}"}]), quiet=True),
        create("configmaps", changed(config_map("d"), "metadata/ownerReferences", [{"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "00000000-0000-0000-0000-000000000002"}]), quiet=True), {"wait": "configmaps/d", "quiet": True, **GONE},
        {"do": "GET configmaps/c", "only": ["kind"]}, {"do": "DELETE clusterroles/owner-{ns}", "quiet": True}, {"wait": "configmaps/c", **GONE}]},
    {"name": "gc: a namespace goes with its content", "steps": [{"do": "POST namespaces", "body": make("v1", "Namespace", "own-{ns}"), "quiet": True}, {"do": "POST /api/v1/namespaces/own-{ns}/configmaps", "body": config_map(), "quiet": True},
        {"do": "DELETE namespaces/own-{ns}", "only": ["kind", "status.phase", "spec.finalizers"]}, {"wait": "namespaces/own-{ns}", **GONE}]},
    {"name": "gc: a namespace waits for a finalizer", "steps": [{"do": "POST namespaces", "body": make("v1", "Namespace", "own-{ns}"), "quiet": True}, {"do": "POST /api/v1/namespaces/own-{ns}/configmaps", "body": changed(config_map(), "metadata/finalizers", ["a.example.com/x"]), "quiet": True},
        {"do": "DELETE namespaces/own-{ns}", "quiet": True}, {"wait": "namespaces/own-{ns}", "until": lambda body: any(one["type"] == "NamespaceFinalizersRemaining" and one["status"] == "True" for one in body["status"]["conditions"]), "only": ["status"]},
        {"do": "POST /api/v1/namespaces/own-{ns}/configmaps", "body": config_map("late")}, {"do": "PATCH merge /api/v1/namespaces/own-{ns}/configmaps/x", "body": {"metadata": {"finalizers": None}}, "quiet": True}, {"wait": "namespaces/own-{ns}", **GONE}]},
]

UNSCHEDULABLE = lambda body: any(one["type"] == "PodScheduled" and one["status"] == "False" for one in body["status"].get("conditions", []))  # noqa: E731
OTHERS = [
    {"name": "scheduler: binds a pod", "steps": [create("pods", pod(automountServiceAccountToken=False), quiet=True), {"wait": "pods/x", "until": lambda body: body["spec"].get("nodeName"), "only": ["spec.nodeName", "status.phase", "status.conditions", "metadata.generation"]}]},
    {"name": "scheduler: no node is selected", "steps": [create("pods", pod(nodeSelector={"no": "where"}, automountServiceAccountToken=False), quiet=True), {"wait": "pods/x", "until": UNSCHEDULABLE, "only": ["spec.nodeName", "status"]}]},
    {"name": "scheduler: too much is asked for", "steps": [create("pods", pod(containers=[{**CONTAINER, "resources": {"requests": {"cpu": "5000"}}}], automountServiceAccountToken=False), quiet=True), {"wait": "pods/x", "until": UNSCHEDULABLE, "only": ["status"]}]},
    {"name": "scheduler: an unknown claim", "steps": [create("pods", pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}], automountServiceAccountToken=False), quiet=True), {"wait": "pods/x", "until": UNSCHEDULABLE, "only": ["status.conditions"]}]},
    {"name": "scheduler: a gate holds and is lifted", "steps": [create("pods", pod(schedulingGates=[{"name": "example.com/g"}], automountServiceAccountToken=False), quiet=True), {"do": "GET pods/x", "only": ["spec.nodeName"]},
        {"do": "PATCH json pods/x", "body": [{"op": "remove", "path": "/spec/schedulingGates"}], "only": ["kind"]}, {"wait": "pods/x", "until": lambda body: body["spec"].get("nodeName"), "only": ["spec.nodeName", "status.conditions.0.status"]}]},
    {"name": "scheduler: events", "steps": [create("pods", pod(automountServiceAccountToken=False), quiet=True), {"wait": "events", "until": lambda body: body["items"], "only": ["items.0.reason", "items.0.type", "items.0.message", "items.0.involvedObject.kind"]}]},
    {"name": "namespace: has an account and the CA", "steps": [{"do": "GET serviceaccounts/default"}, {"do": "GET configmaps/kube-root-ca.crt", "only": ["metadata.annotations", "metadata.name", "kind"]}]},
    {"name": "namespace: the account comes back", "steps": [{"do": "DELETE serviceaccounts/default", "quiet": True}, {"wait": "serviceaccounts/default", "until": lambda code, body: code == 200 and "deletionTimestamp" not in body["metadata"], "only": ["kind"]}]},
    {"name": "quota: counts and limits", "steps": [create("resourcequotas", make("v1", "ResourceQuota", "q", spec={"hard": {"count/secrets": "5", "pods": "1", "requests.cpu": "1"}}), quiet=True), {"wait": "resourcequotas/q", "until": lambda body: "used" in body["status"], "only": ["status.hard.pods", "status.used.pods"]},
        create("pods", pod(containers=[{**CONTAINER, "resources": {"requests": {"cpu": "500m"}}}], automountServiceAccountToken=False), quiet=True, until=lambda code, body: code == 201),
        create("pods", pod("y", containers=[{**CONTAINER, "resources": {"requests": {"cpu": "500m"}}}], automountServiceAccountToken=False))]},
    {"name": "cron job: starts a missed run", "steps": [create("cronjobs", cron_job(suspend=True, schedule="*/10 * * * *"), quiet=True), {"do": "PATCH merge cronjobs/x/status", "body": {"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}, "quiet": True},
        {"do": "PATCH merge cronjobs/x", "body": {"spec": {"suspend": False}}, "quiet": True}, {"wait": "jobs", "until": lambda body: body["items"], "only": ["items.0.metadata.annotations", "items.0.metadata.ownerReferences", "items.0.spec.completions"]},
        {"wait": "cronjobs/x", "until": lambda body: body["status"].get("active"), "only": ["status.lastScheduleTime", "status.active.0.kind", "status.active.0.apiVersion"]}]},
    {"name": "cron job: every so often", "steps": [create("cronjobs", cron_job(suspend=True, schedule="@every 10m"), quiet=True), {"do": "PATCH merge cronjobs/x/status", "body": {"status": {"lastScheduleTime": "2026-11-01T00:00:00Z"}}, "quiet": True},
        {"do": "PATCH merge cronjobs/x", "body": {"spec": {"suspend": False}}, "quiet": True}, {"wait": "jobs", "until": lambda body: body["items"], "only": ["items.0.spec.completions"]}]},
    {"name": "cron job: forbids two runs", "steps": [create("cronjobs", cron_job(suspend=True, schedule="*/10 * * * *", concurrencyPolicy="Forbid"), quiet=True), {"do": "PATCH merge cronjobs/x/status", "body": {"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}, "quiet": True},
        {"do": "PATCH merge cronjobs/x", "body": {"spec": {"suspend": False}}, "quiet": True}, {"wait": "cronjobs/x", "until": lambda body: body["status"].get("active"), "quiet": True}, {"do": "PATCH merge cronjobs/x/status", "body": {"status": {"lastScheduleTime": "2026-01-02T00:00:00Z"}}, "quiet": True},
        {"do": "GET jobs", "only": ["items.1"]}]},
    {"name": "cron job: sees its job end", "steps": [create("cronjobs", cron_job(suspend=True, schedule="*/10 * * * *"), quiet=True), {"do": "PATCH merge cronjobs/x/status", "body": {"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}, "quiet": True},
        {"do": "PATCH merge cronjobs/x", "body": {"spec": {"suspend": False}}, "quiet": True}, {"wait": "pods", "until": lambda body: body["items"], "quiet": True}, {"pods": "job-name", "status": DONE},
        {"wait": "cronjobs/x", "until": lambda body: body["status"].get("lastSuccessfulTime") and not body["status"].get("active"), "only": ["status"]}]},
    {"name": "cron job: is suspended", "steps": [create("cronjobs", cron_job(suspend=True, schedule="* * * * *"), quiet=True), {"do": "GET cronjobs/x", "only": ["status", "spec.suspend"]}]},
    {"name": "claim: waits without a class", "steps": [create("persistentvolumeclaims", claim(), quiet=True), {"wait": "persistentvolumeclaims/x", "until": lambda body: body["status"]["phase"] == "Pending", "only": ["status", "metadata.finalizers"]}]},
    {"name": "claim: binds a volume of its class", "steps": [{"do": "POST persistentvolumes", "body": make("v1", "PersistentVolume", "pv-{ns}", spec={"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/pv-x"}, "storageClassName": "{ns}"}), "quiet": True},
        create("persistentvolumeclaims", claim(storageClassName="{ns}"), quiet=True), {"wait": "persistentvolumeclaims/x", "until": lambda body: body["status"]["phase"] == "Bound", "only": ["status", "spec.volumeName", "metadata.annotations"]},
        {"wait": "persistentvolumes/pv-{ns}", "until": lambda body: body["status"]["phase"] == "Bound", "only": ["status.phase", "spec.claimRef.name"]}, {"do": "DELETE persistentvolumeclaims/x", "quiet": True},
        {"wait": "persistentvolumes/pv-{ns}", "until": lambda body: body["status"]["phase"] == "Released", "only": ["status.phase"]}, {"do": "DELETE persistentvolumes/pv-{ns}", "quiet": True}]},
]

CASES = JOBS + DEPLOYMENTS + STATEFUL + ENDPOINTS + COLLECTION + OTHERS
_ = GATED
