#!/usr/bin/env python3
"""Makes data/openapi.json.gz, data/rbac.json.gz and data/proto.json.gz from the Go module k8s.io/kubernetes and its siblings.

    go mod download k8s.io/kubernetes@v1.35.4
    python3 data/generate.py "$(go env GOMODCACHE)/k8s.io/kubernetes@v1.35.4"   # needs PyYAML

The last tells how the kinds are laid out in Kubernetes' protobuf encoding, which kubectl and other Go clients send. The first holds the published OpenAPI definitions of the kinds that localkube serves (schemas, merge keys, list types);
the second the roles and bindings that every cluster starts with.
"""
import gzip
import json
import pathlib
import re
import sys

import yaml

ROOTS = """
core.v1: Binding ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolumeClaim PersistentVolume Pod PodTemplate
 ReplicationController ResourceQuota Secret ServiceAccount Service
apps.v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
events.v1: Event
batch.v1: CronJob Job
autoscaling.v2: HorizontalPodAutoscaler
autoscaling.v1: Scale
networking.v1: IngressClass Ingress NetworkPolicy
policy.v1: PodDisruptionBudget Eviction
rbac.v1: ClusterRoleBinding ClusterRole RoleBinding Role
storage.v1: StorageClass
admissionregistration.v1: MutatingWebhookConfiguration ValidatingWebhookConfiguration
scheduling.v1: PriorityClass
coordination.v1: Lease
node.v1: RuntimeClass
discovery.v1: EndpointSlice
authentication.v1: TokenRequest TokenReview SelfSubjectReview
authorization.v1: SubjectAccessReview LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
"""
OTHERS = [
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
]


def roots():
    group = None
    for word in ROOTS.split():
        if word.endswith(":"):
            group = word[:-1]
        else:
            yield f"io.k8s.api.{group}.{word}"
    yield from OTHERS


def refs(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.rsplit("/", 1)[1]
            else:
                yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def write(path, value):
    text = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(text)
    print(path, len(text), path.stat().st_size)


def proto(module, definitions):
    """Message -> field number -> [JSON name or "" when inlined, type, flags]; r repeated, m map, k zero is kept."""
    siblings = [module.parent / f"{name}@v0.{module.name.split('.', 1)[1]}"
                for name in ["api", "apimachinery", "apiextensions-apiserver"]]
    kept, inlined, messages = set(), set(), {}
    files = [f for sibling in siblings for f in sibling.rglob("generated.proto")]
    for file in files:
        text = re.sub(r"//.*", "", file.read_text())
        package = re.search(r"^package ([\w.]+);", text, re.M).group(1)
        for go in file.parent.glob("*types*.go"):
            struct = None
            for line in go.read_text().splitlines():
                if start := re.match(r"type (\w+) struct", line):
                    struct = start.group(1)
                if field := re.match(r'\s+(?:\w+\s+)?(\S+)\s+`json:"([^"]*)"', line):
                    kind, tag = field.groups()
                    number = re.search(r'protobuf:"\w+,(\d+)', line)
                    name, _, options = tag.partition(",")
                    if number and (kind.startswith("*") or "omitempty" not in options):
                        kept.add((package, struct, number.group(1)))
                    if number and (not name or "inline" in options):
                        inlined.add((package, struct, number.group(1)))
        for name, body in re.findall(r"^message (\w+) \{(.*?)^\}", text, re.M | re.S):
            fields = {}
            for label, kind, field, number in re.findall(
                    r"(optional |repeated |)(map<\w+, [\w.]+>|[\w.]+) (\w+) = (\d+)", body):
                flags = "r" if label == "repeated " else ""
                if kind.startswith("map<"):
                    kind, flags = kind[4:-1].split(", ")[1], "m"
                if "." in kind:
                    kind = kind.lstrip(".")
                elif kind[0].isupper():
                    kind = f"{package}.{kind}"
                if (package, name, number) in kept:
                    flags += "k"
                fields[number] = ["" if (package, name, number) in inlined else field, kind, flags]
            messages[f"{package}.{name}"] = fields
    def openapi(name):
        head, tail = "k8s.io.", name.removeprefix("k8s.io.")
        return "io.k8s." + tail.replace("apiextensions_apiserver", "apiextensions-apiserver") if name.startswith(head) else name
    wanted, queue = {}, [m for m in messages if openapi(m) in definitions]
    queue += [m for m in messages if m.endswith((".DeleteOptions", ".Unknown"))]
    while queue:
        name = queue.pop()
        if name not in wanted and name in messages:
            wanted[name] = messages[name]
            queue.extend(kind for _, kind, _ in messages[name].values() if "." in kind)
    return wanted


def main():
    module = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    source = json.loads((module / "api/openapi-spec/swagger.json").read_text())["definitions"]
    wanted, queue = {}, list(roots())
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted[name] = source[name]
            queue.extend(refs(source[name]))
            if name + "List" in source:
                queue.append(name + "List")
    write(here / "openapi.json.gz", wanted)

    write(here / "proto.json.gz", proto(module, wanted))

    policy = module / "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata"
    items = []
    for file in ["cluster-roles", "cluster-role-bindings", "controller-roles", "controller-role-bindings",
                 "namespace-roles", "namespace-role-bindings"]:
        for item in yaml.safe_load((policy / f"{file}.yaml").read_text())["items"]:
            item["metadata"].pop("creationTimestamp", None)
            items.append(item)
    write(here / "rbac.json.gz", items)


main()
