"""What the server makes of new objects: defaults, generated fields, initial status."""

from objects import CONTAINER, LABELS, changed, claim, config_map, create, cron_job, daemon_set, deployment, job, make, pod, replica_set, service, stateful_set

RBAC = "rbac.authorization.k8s.io"
PROBES = {"livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"exec": {"command": ["true"]}}, "startupProbe": {"tcpSocket": {"port": "http"}},
          "ports": [{"name": "http", "containerPort": 80}], "lifecycle": {"preStop": {"httpGet": {"port": 80}}}}
ENV = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
       {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}, {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
VOLUMES = [{"name": "none"}, {"name": "secret", "secret": {"secretName": "s"}}, {"name": "map", "configMap": {"name": "c", "items": [{"key": "a", "path": "b"}]}},
           {"name": "host", "hostPath": {"path": "/tmp"}}, {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
           {"name": "down", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
           {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "c"}}]}},
           {"name": "image", "image": {"reference": "example.com/a:v1"}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
NO_TOKEN = {"automountServiceAccountToken": False}


def with_container(**fields) -> dict:
    return pod(containers=[{**CONTAINER, **fields}], **NO_TOKEN)


OBJECTS = {
    "pod": ("pods", pod(**NO_TOKEN)),
    "pod with a service account token": ("pods", pod()),
    "pod with the latest image": ("pods", with_container(image="busybox")),
    "pod with an image digest": ("pods", with_container(image="busybox@sha256:" + "0" * 64)),
    "pod with an image of a registry with a port": ("pods", with_container(image="localhost:5000/busybox")),
    "pod with probes": ("pods", with_container(**PROBES)),
    "pod with environment": ("pods", with_container(env=ENV, envFrom=[{"configMapRef": {"name": "c"}, "prefix": "P_"}])),
    "pod with volumes": ("pods", pod(volumes=VOLUMES, **NO_TOKEN)),
    "pod with limits only": ("pods", with_container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})),
    "pod with requests only": ("pods", with_container(resources={"requests": {"cpu": "0.5", "memory": "1024Mi"}})),
    "pod with quantities to round": ("pods", with_container(resources={"requests": {"cpu": "1500m", "memory": "1000000", "ephemeral-storage": "1.5Gi"}})),
    "pod with init containers and a sidecar": ("pods", pod(initContainers=[{"name": "i", "image": "i:1"}, {"name": "s", "image": "s:1", "restartPolicy": "Always"}], **NO_TOKEN)),
    "pod with host network": ("pods", changed(with_container(ports=[{"containerPort": 80}]), "spec/hostNetwork", True)),
    "pod with tolerations": ("pods", pod(tolerations=[{"operator": "Exists"}], **NO_TOKEN)),
    "pod with some tolerations": ("pods", pod(tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}], **NO_TOKEN)),
    "pod with a scheduling gate": ("pods", pod(schedulingGates=[{"name": "example.com/g"}], **NO_TOKEN)),
    "pod with the old service account field": ("pods", pod(serviceAccount="default", **NO_TOKEN)),
    "pod with security contexts": ("pods", changed(with_container(securityContext={"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}), "spec/securityContext", {"fsGroup": 1})),
    "pod with affinity": ("pods", pod(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": LABELS}, "topologyKey": "kubernetes.io/hostname"}]}}, **NO_TOKEN)),
    "pod with topology spread": ("pods", pod(topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}], **NO_TOKEN)),
    "pod with a grace period of zero": ("pods", pod(terminationGracePeriodSeconds=0, **NO_TOKEN)),
    "pod with a grpc probe": ("pods", with_container(livenessProbe={"grpc": {"port": 80}})),
    "job": ("jobs", job()),
    "job with parallelism": ("jobs", job(parallelism=3)),
    "job with completions": ("jobs", job(completions=3)),
    "indexed job": ("jobs", job(completions=2, completionMode="Indexed")),
    "indexed job with a limit per index": ("jobs", job(completions=2, completionMode="Indexed", backoffLimitPerIndex=1)),
    "job with a failure policy": ("jobs", job(podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}},
                                                                         {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]})),
    "job with labels in its template": ("jobs", job(template={"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER], "restartPolicy": "OnFailure"}})),
    "suspended job": ("jobs", job(suspend=True)),
    "job with a manual selector": ("jobs", job(manualSelector=True, selector={"matchLabels": LABELS},
                                              template={"metadata": {"labels": LABELS}, "spec": {"containers": [CONTAINER], "restartPolicy": "Never"}})),
    "cron job": ("cronjobs", cron_job()),
    "cron job in a time zone": ("cronjobs", cron_job(timeZone="Europe/Berlin", concurrencyPolicy="Forbid", startingDeadlineSeconds=60)),
    "deployment": ("deployments", deployment(replicas=0)),
    "deployment that recreates": ("deployments", deployment(replicas=0, strategy={"type": "Recreate"})),
    "deployment with surge": ("deployments", deployment(replicas=0, strategy={"rollingUpdate": {"maxSurge": 2}})),
    "replica set": ("replicasets", replica_set(replicas=0)),
    "stateful set": ("statefulsets", stateful_set(replicas=0)),
    "stateful set with claims": ("statefulsets", stateful_set(replicas=0, volumeClaimTemplates=[
        {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}])),
    "stateful set that updates on delete": ("statefulsets", stateful_set(replicas=0, updateStrategy={"type": "OnDelete"}, podManagementPolicy="Parallel")),
    "daemon set": ("daemonsets", changed(daemon_set(), "spec/template/spec/nodeSelector", {"no": "where"})),
    "service": ("services", service()),
    "service with named ports": ("services", service(ports=[{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 53, "protocol": "UDP"}])),
    "headless service": ("services", service(clusterIP="None")),
    "headless service without ports": ("services", make("v1", "Service", spec={"clusterIP": "None", "selector": LABELS})),
    "service without selector": ("services", make("v1", "Service", spec={"ports": [{"port": 80}]})),
    "node port service": ("services", service(type="NodePort")),
    "load balancer service": ("services", service(type="LoadBalancer")),
    "external name service": ("services", make("v1", "Service", spec={"type": "ExternalName", "externalName": "example.com"})),
    "service with client affinity": ("services", service(sessionAffinity="ClientIP")),
    "claim": ("persistentvolumeclaims", claim()),
    "config map": ("configmaps", config_map()),
    "config map with bytes": ("configmaps", make("v1", "ConfigMap", binaryData={"b": "AAEC"})),
    "config map without data": ("configmaps", make("v1", "ConfigMap")),
    "secret": ("secrets", make("v1", "Secret", data={"a": "eA=="})),
    "secret with text": ("secrets", make("v1", "Secret", stringData={"a": "x", "b": "y"}, data={"a": "eg=="})),
    "secret for basic auth": ("secrets", make("v1", "Secret", type="kubernetes.io/basic-auth", stringData={"username": "u"})),
    "service account": ("serviceaccounts", make("v1", "ServiceAccount")),
    "endpoints": ("endpoints", make("v1", "Endpoints", subsets=[{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}])),
    "endpoint slice": ("endpointslices", make("discovery.k8s.io/v1", "EndpointSlice", addressType="IPv4", endpoints=[{"addresses": ["10.1.2.3"]}], ports=[{"port": 80}])),
    "lease": ("leases", make("coordination.k8s.io/v1", "Lease", spec={"holderIdentity": "me", "leaseDurationSeconds": 10, "renewTime": "2026-01-01T00:00:00.000000Z"})),
    "role": ("roles", make(f"{RBAC}/v1", "Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
    "role without rules": ("roles", make(f"{RBAC}/v1", "Role")),
    "role binding": ("rolebindings", make(f"{RBAC}/v1", "RoleBinding", roleRef={"kind": "ClusterRole", "name": "view", "apiGroup": RBAC},
                                          subjects=[{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}])),
    "resource quota": ("resourcequotas", make("v1", "ResourceQuota", spec={"hard": {"requests.cpu": "1000m", "count/configmaps": "10"}})),
    "limit range": ("limitranges", make("v1", "LimitRange", spec={"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}}]})),
    "network policy": ("networkpolicies", make("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]})),
    "disruption budget": ("poddisruptionbudgets", make("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "selector": {"matchLabels": {"none": "x"}}})),
    "horizontal autoscaler": ("horizontalpodautoscalers", make("autoscaling/v2", "HorizontalPodAutoscaler", spec={
        "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}})),
    "controller revision": ("controllerrevisions", make("apps/v1", "ControllerRevision", revision=1, data={"a": 1})),
    "event": ("events", make("v1", "Event", involvedObject={"kind": "Pod", "name": "p", "namespace": "{ns}"}, reason="R", message="m", type="Normal")),
}

CLUSTER_OBJECTS = {
    "namespace": ("namespaces", make("v1", "Namespace", "conformance-a")),
    "persistent volume": ("persistentvolumes", make("v1", "PersistentVolume", "conformance", spec={
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}, "storageClassName": "none"})),
    "storage class": ("storageclasses", make("storage.k8s.io/v1", "StorageClass", "conformance", provisioner="example.com/p")),
    "priority class": ("priorityclasses", make("scheduling.k8s.io/v1", "PriorityClass", "conformance", value=10)),
    "cluster role": ("clusterroles", make(f"{RBAC}/v1", "ClusterRole", "conformance", rules=[{"nonResourceURLs": ["/x"], "verbs": ["get"]}])),
    "cluster role binding": ("clusterrolebindings", make(f"{RBAC}/v1", "ClusterRoleBinding", "conformance", roleRef={"kind": "ClusterRole", "name": "view", "apiGroup": RBAC},
                                                         subjects=[{"kind": "Group", "name": "g"}])),
    "node": ("nodes", make("v1", "Node", "conformance", spec={"unschedulable": True})),
    "mutating webhook": ("mutatingwebhookconfigurations", make("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "conformance", webhooks=[{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "n", "name": "s"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nothing"]}]}])),
    "validating webhook": ("validatingwebhookconfigurations", make("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "conformance", webhooks=[{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1/x"}}])),
}

CASES = [{"name": f"defaults of a {name}", "steps": [create(plural, obj)]} for name, (plural, obj) in OBJECTS.items()]
CASES += [{"name": f"defaults of a {name}", "steps": [create(plural, obj), {"do": f"DELETE {plural}/{obj['metadata']['name']}", "quiet": True}]}
          for name, (plural, obj) in CLUSTER_OBJECTS.items()]
