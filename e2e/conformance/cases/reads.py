"""Lists, selectors, paging, tables, errors of requests, deletes, discovery."""

from objects import LABELS, changed, claim, config_map, create, deployment, job, make, pod, service

MANY = [create("configmaps", changed(config_map(f"m{i}"), "metadata/labels", {"n": str(i), "even": str(i % 2 == 0).lower(), "all": "yes"}), quiet=True) for i in range(5)]
NAMES = ["kind", "code", "reason", "message", "metadata.remainingItemCount", "items.0.metadata.name", "items.1.metadata.name", "items.2.metadata.name",
         "items.3.metadata.name", "items.4.metadata.name", "items.5.metadata.name"]
TABLE = {"headers": {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}}
PARTIAL = {"headers": {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}}
PARTIAL_LIST = {"headers": {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}}
POD = pod(automountServiceAccountToken=False, nodeName="nowhere")


def selects(name: str, query: str) -> dict:
    return {"name": f"list {name}", "steps": [*MANY, {"do": f"GET configmaps?{query}", "only": NAMES}]}


def ended_sidecar(name: str, **status) -> dict:
    made = pod(automountServiceAccountToken=False, nodeName="nowhere", initContainers=[{"name": "s", "image": "s:1", "restartPolicy": "Always"}])
    sidecar = {"name": "s", "image": "s:1", "imageID": "", "ready": False, "started": False, "restartCount": 1, "state": {"terminated": {"exitCode": 143, "reason": "Error"}}}
    main = {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 2, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    told = {"phase": "Succeeded", "initContainerStatuses": [sidecar], "containerStatuses": [main], **status}
    return {"name": f"table of a pod with a sidecar that ended{name}", "steps": [create("pods", made, quiet=True),
        {"do": "PATCH strategic pods/x/status", "body": {"status": told}, "quiet": True}, {"do": "GET pods/x", **TABLE, "only": ["rows.0.cells"]}]}


INITIALIZED = {"type": "Initialized", "status": "True"}
CASES = [
    selects("by equal label", "labelSelector=n%3D1"),
    selects("by unequal label", "labelSelector=n!%3D1,all%3Dyes"),
    selects("by label in a set", "labelSelector=n+in+(1,3)"),
    selects("by label not in a set", "labelSelector=n+notin+(1,3),all"),
    selects("by present label", "labelSelector=even"),
    selects("by absent label", "labelSelector=!all"),
    selects("by two labels", "labelSelector=even%3Dtrue,n!%3D0"),
    selects("by number", "labelSelector=n%3E2"),
    selects("by a bad label selector", "labelSelector=a%3D%3D%3Db"),
    selects("by a label selector that ends early", "labelSelector=a+in+(b"),
    selects("by name", "fieldSelector=metadata.name%3Dm2"),
    selects("by other name", "fieldSelector=metadata.name!%3Dm2,metadata.name!%3Dkube-root-ca.crt"),
    selects("by an unknown field", "fieldSelector=data.k%3Dv"),
    selects("by a bad field selector", "fieldSelector=nothing"),
    selects("by label and field", "labelSelector=even%3Dtrue&fieldSelector=metadata.name%3Dm2"),
    {"name": "list in pages", "steps": [*MANY, {"do": "GET configmaps?limit=2&labelSelector=all", "keep": {"next": "metadata.continue"}, "only": NAMES[4:]},
        {"do": "GET configmaps?limit=2&labelSelector=all&continue={next}", "only": NAMES[4:]}]},
    {"name": "list in pages without selector", "steps": [*MANY, {"do": "GET configmaps?limit=4", "keep": {"next": "metadata.continue"}, "only": NAMES[4:]},
        {"do": "GET configmaps?limit=4&continue={next}", "only": NAMES[4:]}]},
    {"name": "list with a bad continue", "steps": [{"do": "GET configmaps?limit=2&continue=abc"}]},
    {"name": "list with a bad limit", "steps": [{"do": "GET configmaps?limit=x"}]},
    {"name": "list of nothing", "steps": [{"do": "GET pods"}]},
    {"name": "list of a namespace that does not exist", "steps": [{"do": "GET /api/v1/namespaces/none/pods"}]},
    {"name": "list pods by node", "steps": [create("pods", POD, quiet=True), {"do": "GET pods?fieldSelector=spec.nodeName%3Dnowhere", "only": NAMES}, {"do": "GET pods?fieldSelector=spec.nodeName%3Dother", "only": NAMES}]},
    {"name": "list pods by phase", "steps": [create("pods", POD, quiet=True), {"do": "GET pods?fieldSelector=status.phase%3DPending", "only": NAMES}, {"do": "GET pods?fieldSelector=status.phase!%3DPending", "only": NAMES}]},
    {"name": "list pods by an unknown field", "steps": [{"do": "GET pods?fieldSelector=spec.hostname%3Da"}]},
    {"name": "list secrets by type", "steps": [create("secrets", make("v1", "Secret", type="example.com/a"), quiet=True), {"do": "GET secrets?fieldSelector=type%3Dexample.com/a", "only": NAMES}]},
    {"name": "list of a custom accept type", "steps": [{"do": "GET configmaps", "headers": {"Accept": "text/plain"}}]},
    {"name": "get an object", "steps": [create("configmaps", config_map(), quiet=True), {"do": "GET configmaps/x"}]},
    {"name": "get an absent object", "steps": [{"do": "GET configmaps/none"}]},
    {"name": "get an absent deployment", "steps": [{"do": "GET deployments/none"}]},
    {"name": "get an unknown resource", "steps": [{"do": "GET /api/v1/namespaces/{ns}/things"}]},
    {"name": "get an unknown group", "steps": [{"do": "GET /apis/nothing.example.com/v1/things"}]},
    {"name": "get an unknown version", "steps": [{"do": "GET /apis/apps/v9/namespaces/{ns}/deployments"}]},
    {"name": "get an unknown path", "steps": [{"do": "GET /nothing"}]},
    {"name": "get an unknown subresource", "steps": [create("configmaps", config_map(), quiet=True), {"do": "GET configmaps/x/thing"}]},
    {"name": "get the metadata only", "steps": [create("configmaps", config_map(), quiet=True), {"do": "GET configmaps/x", **PARTIAL}]},
    {"name": "list the metadata only", "steps": [*MANY, {"do": "GET configmaps?labelSelector=n%3D1", **PARTIAL_LIST}]},
    {"name": "table of config maps", "steps": [*MANY, {"do": "GET configmaps?labelSelector=n%3D1", **TABLE}]},
    {"name": "table of one pod", "steps": [create("pods", POD, quiet=True), {"do": "GET pods/x", **TABLE, "only": ["kind", "columnDefinitions.0.name", "columnDefinitions.1.name", "columnDefinitions.2.name",
        "columnDefinitions.3.name", "columnDefinitions.4.name", "columnDefinitions.5.priority", "rows.0.cells"]}]},
    {"name": "table of a pod with a sidecar", "steps": [create("pods", pod(automountServiceAccountToken=False, nodeName="nowhere", initContainers=[{"name": "s", "image": "s:1", "restartPolicy": "Always"}]), quiet=True),
        {"do": "PATCH strategic pods/x/status", "body": {"status": {"phase": "Running", "initContainerStatuses": [{"name": "s", "image": "s:1", "imageID": "", "ready": True, "started": True, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": True, "started": True, "restartCount": 2, "state": {"running": {}}}]}}, "quiet": True}, {"do": "GET pods/x", **TABLE, "only": ["rows.0.cells"]}]},
    ended_sidecar(""),
    ended_sidecar(" after its pod", conditions=[INITIALIZED]),
    ended_sidecar(" beside a container that runs", phase="Running", conditions=[INITIALIZED],
                  containerStatuses=[{"name": "main", "image": "i", "imageID": "", "ready": True, "restartCount": 2, "state": {"running": {}}}]),
    *[{"name": f"table of a pod: {name}", "steps": [create("pods", POD, quiet=True), {"do": "PATCH strategic pods/x/status", "body": {"status": status}, "quiet": True}, {"do": "GET pods/x", **TABLE, "only": ["rows.0.cells"]}]}
      for name, status in {
          "waiting": {"containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}]},
          "crashed": {"phase": "Running", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
          "completed": {"phase": "Succeeded", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]},
          "failed": {"phase": "Failed", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]},
          "ended without a reason": {"phase": "Failed", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}]},
          "killed": {"phase": "Failed", "containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}}]},
          "evicted": {"phase": "Failed", "reason": "Evicted"}}.items()],
    {"name": "table of deployments", "steps": [create("deployments", deployment(replicas=0), quiet=True), {"do": "GET deployments", **TABLE, "only": ["rows.0.cells"]}]},
    {"name": "table of jobs", "steps": [create("jobs", job(suspend=True), quiet=True), {"do": "GET jobs", **TABLE, "only": ["rows.0.cells.0", "rows.0.cells.2", "rows.0.cells.5", "rows.0.cells.6"]}]},
    {"name": "table of services", "steps": [create("services", service(), quiet=True), {"do": "GET services", **TABLE, "only": ["rows.0.cells"]}]},
    {"name": "table of claims", "steps": [create("persistentvolumeclaims", claim(), quiet=True), {"do": "GET persistentvolumeclaims", **TABLE, "only": ["rows.0.cells"]}]},
    {"name": "create twice", "steps": [create("configmaps", config_map(), quiet=True), create("configmaps", config_map())]},
    {"name": "create of another kind", "steps": [{"do": "POST configmaps", "body": pod()}]},
    {"name": "create of another version", "steps": [{"do": "POST deployments", "body": {**deployment(), "apiVersion": "apps/v1beta1"}}]},
    {"name": "create without kind", "steps": [{"do": "POST configmaps", "body": {"metadata": {"name": "x"}}}]},
    {"name": "create of no json", "steps": [{"do": "POST configmaps", "body": "{not json"}]},
    {"name": "create with an unknown content type", "steps": [{"do": "POST configmaps", "body": config_map(), "headers": {"Content-Type": "text/plain"}}]},
    {"name": "create under a name", "steps": [{"do": "POST configmaps/x", "body": config_map()}]},
    {"name": "create with a resource version", "steps": [create("configmaps", changed(config_map(), "metadata/resourceVersion", "5"))]},
    {"name": "create with a generated name", "steps": [create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}})]},
    {"name": "create in a namespace that does not exist", "steps": [{"do": "POST /api/v1/namespaces/none/configmaps", "body": config_map()}]},
    {"name": "create with an unknown field", "steps": [create("configmaps", {**config_map(), "nothing": 1})]},
    {"name": "create with an unknown field, strictly", "steps": [{"do": "POST configmaps?fieldValidation=Strict", "body": {**config_map(), "nothing": 1}}]},
    {"name": "create with a wrong type", "steps": [create("configmaps", make("v1", "ConfigMap", data={"a": 1}))]},
    {"name": "create as a dry run", "steps": [{"do": "POST configmaps?dryRun=All", "body": config_map()}, {"do": "GET configmaps/x", "only": ["code"]}]},
    {"name": "create with a bad dry run", "steps": [{"do": "POST configmaps?dryRun=Some", "body": config_map()}]},
    {"name": "delete an object", "steps": [create("configmaps", config_map(), quiet=True), {"do": "DELETE configmaps/x"}, {"do": "GET configmaps/x"}]},
    {"name": "delete an absent object", "steps": [{"do": "DELETE configmaps/none"}]},
    {"name": "delete with a finalizer", "steps": [create("configmaps", changed(config_map(), "metadata/finalizers", ["a.example.com/x"]), quiet=True), {"do": "DELETE configmaps/x"},
        {"do": "PATCH merge configmaps/x", "body": {"data": {"late": "yes"}}}, {"do": "PATCH merge configmaps/x", "body": {"metadata": {"finalizers": []}}}, {"do": "GET configmaps/x"}]},
    {"name": "add a finalizer to a deleted object", "steps": [create("configmaps", changed(config_map(), "metadata/finalizers", ["a.example.com/x"]), quiet=True), {"do": "DELETE configmaps/x", "quiet": True},
        {"do": "PATCH strategic configmaps/x", "body": {"metadata": {"finalizers": ["b.example.com/y"]}}, "only": ["code", "reason", "details.causes"]},
        {"do": "PATCH merge configmaps/x", "body": {"metadata": {"finalizers": None}}, "quiet": True}]},
    {"name": "delete with a wrong uid", "steps": [create("configmaps", config_map(), quiet=True), {"do": "DELETE configmaps/x", "body": {"preconditions": {"uid": "other"}}}]},
    {"name": "delete with a wrong version", "steps": [create("configmaps", config_map(), quiet=True), {"do": "DELETE configmaps/x", "body": {"preconditions": {"resourceVersion": "1"}}, "only": ["code", "reason"]}]},
    {"name": "delete with a bad policy", "steps": [create("configmaps", config_map(), quiet=True), {"do": "DELETE configmaps/x?propagationPolicy=Sideways"}]},
    {"name": "delete as a dry run", "steps": [create("configmaps", config_map(), quiet=True), {"do": "DELETE configmaps/x?dryRun=All"}, {"do": "GET configmaps/x", "only": ["kind"]}]},
    {"name": "delete a running pod", "steps": [create("pods", POD, quiet=True), {"do": "PATCH strategic pods/x/status", "body": {"status": {"phase": "Running"}}, "quiet": True}, {"do": "DELETE pods/x", "body": {"gracePeriodSeconds": 7}},
        {"do": "DELETE pods/x", "body": {"gracePeriodSeconds": 0}}, {"do": "GET pods/x"}]},
    {"name": "delete a pod with its own grace period", "steps": [create("pods", POD, quiet=True), {"do": "DELETE pods/x", "only": ["metadata.deletionGracePeriodSeconds", "kind"]}, {"do": "DELETE pods/x?gracePeriodSeconds=0", "quiet": True}]},
    {"name": "delete a pod that no node has", "steps": [create("pods", pod(automountServiceAccountToken=False, schedulerName="none"), quiet=True), {"do": "DELETE pods/x"}, {"do": "GET pods/x"}]},
    {"name": "delete a pod that ended", "steps": [create("pods", POD, quiet=True), {"do": "PATCH strategic pods/x/status", "body": {"status": {"phase": "Succeeded"}}, "quiet": True}, {"do": "DELETE pods/x", "only": ["kind", "status.phase"]}, {"do": "GET pods/x"}]},
    {"name": "delete a collection", "steps": [*MANY, {"do": "DELETE configmaps?labelSelector=even%3Dtrue", "only": ["kind", "items.0.metadata.name", "items.1.metadata.name", "items.2.metadata.name"]}, {"do": "GET configmaps?labelSelector=all", "only": NAMES}]},
    {"name": "bind a pod", "steps": [create("pods", pod(automountServiceAccountToken=False, schedulerName="none"), quiet=True),
        {"do": "POST pods/x/binding", "body": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "x"}, "target": {"kind": "Node", "name": "node-1"}}},
        {"do": "GET pods/x", "only": ["spec.nodeName", "status.conditions"]},
        {"do": "POST pods/x/binding", "body": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "x"}, "target": {"kind": "Node", "name": "node-2"}}}]},
    {"name": "evict a pod", "steps": [create("pods", POD, quiet=True), {"do": "POST pods/x/eviction", "body": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x"}}}, {"do": "GET pods/x", "only": ["metadata.deletionGracePeriodSeconds"]}]},
    {"name": "ask for a token", "steps": [{"do": "POST serviceaccounts/default/token", "body": {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"], "expirationSeconds": 600}},
        "only": ["kind", "apiVersion", "metadata.name", "spec.audiences", "spec.expirationSeconds"]}]},
    {"name": "ask for a short token", "steps": [{"do": "POST serviceaccounts/default/token", "body": {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"], "expirationSeconds": 5}}}]},
    {"name": "review my access", "steps": [{"do": "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "body": {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "{ns}"}}}, "only": ["kind", "status.allowed"]}]},
    {"name": "review the access of nobody", "steps": [{"do": "POST /apis/authorization.k8s.io/v1/subjectaccessreviews", "body": {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "nobody", "resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "{ns}"}}}, "only": ["kind", "status.allowed"]}]},
    {"name": "access through a role", "steps": [
        create("roles", make("rbac.authorization.k8s.io/v1", "Role", "r", rules=[{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}, {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]}]), quiet=True),
        create("rolebindings", make("rbac.authorization.k8s.io/v1", "RoleBinding", "b", roleRef={"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}, subjects=[{"kind": "User", "name": "user-{ns}"}]), quiet=True),
        {"do": "POST /apis/authorization.k8s.io/v1/subjectaccessreviews", "body": {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "user-{ns}", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "{ns}"}}},
         "until": lambda body: body["status"]["allowed"], "quiet": True},
        *[{"do": "POST /apis/authorization.k8s.io/v1/subjectaccessreviews", "body": {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "user-{ns}", "resourceAttributes": attributes}}, "only": ["status.allowed"]}
          for attributes in ({"verb": "get", "resource": "pods", "namespace": "{ns}"}, {"verb": "create", "resource": "pods", "namespace": "{ns}"}, {"verb": "get", "resource": "pods", "subresource": "log", "namespace": "{ns}"},
                             {"verb": "get", "resource": "pods", "namespace": "default"}, {"verb": "get", "resource": "secrets", "name": "one", "namespace": "{ns}"}, {"verb": "get", "resource": "secrets", "name": "two", "namespace": "{ns}"})]]},
    {"name": "act as a user without rights", "steps": [{"do": "GET configmaps", "headers": {"Impersonate-User": "nobody"}}]},
    {"name": "act as nobody", "steps": [{"do": "GET configmaps", "headers": {"Authorization": "Bearer wrong"}}]},
    {"name": "discovery of a group", "steps": [{"do": "GET /apis/batch"}]},
    {"name": "discovery of batch", "steps": [{"do": "GET /apis/batch/v1", "only": ["kind", "groupVersion", "resources.0.name", "resources.0.verbs", "resources.1.name", "resources.1.verbs"]}]},
    {"name": "versions of the core", "steps": [{"do": "GET /api", "only": ["kind", "versions"]}]},
    {"name": "version", "steps": [{"do": "GET /version", "only": ["major", "minor"]}]},
    {"name": "health", "steps": [{"do": "GET /readyz"}, {"do": "GET /healthz"}, {"do": "GET /livez"}]},
]
_ = LABELS
