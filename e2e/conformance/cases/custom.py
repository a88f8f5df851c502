"""CustomResourceDefinitions: pruning, defaulting, validation, columns, subresources, versions."""

from objects import create

GROUP = "{ns}.example.com"
SPEC = {"type": "object", "required": ["size"], "properties": {
    "size": {"type": "integer", "minimum": 1, "maximum": 10},
    "colour": {"type": "string", "default": "red", "enum": ["red", "green"]},
    "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
    "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    "when": {"type": "string", "format": "date-time"},
    "any": {"x-kubernetes-int-or-string": True},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "nested": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "boolean"}}},
    "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-embedded-resource": True},
    "maybe": {"type": "string", "nullable": True},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "replicas": {"type": "integer"},
}}
STATUS = {"type": "object", "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}, "selector": {"type": "string"}}}


def definition(schema: dict | None = None, **version) -> dict:
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"things.{GROUP}"}, "spec": {
        "group": GROUP, "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}, "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}, {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                                         {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            "schema": {"openAPIV3Schema": schema or {"type": "object", "properties": {"spec": SPEC, "status": STATUS}}}, **version}]}}


def ready(body) -> bool:
    return any(one["type"] == "Established" and one["status"] == "True" for one in body["status"]["conditions"])


THINGS = "/apis/{ns}.example.com/v1/namespaces/{ns}/things"
CRD = f"customresourcedefinitions/things.{GROUP}"


def defined(crd: dict | None = None) -> list[dict]:
    everywhere = THINGS if (crd or definition())["spec"]["scope"] == "Namespaced" else "/apis/{ns}.example.com/v1/things"
    return [create("customresourcedefinitions", crd or definition(), quiet=True), {"wait": CRD, "until": ready, "quiet": True},
            {"wait": everywhere, "until": lambda code, body: code == 200, "quiet": True}]


def thing(name: str = "x", **spec) -> dict:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {"size": 1, **spec}}


def case(name: str, *steps, crd: dict | None = None) -> dict:
    return {"name": f"custom resource: {name}", "steps": [*defined(crd), *steps, {"do": f"DELETE {CRD}", "quiet": True}]}


def post(obj: dict, **more) -> dict:
    return {"do": f"POST {THINGS}", "body": obj, **more}


def patch(kind: str, body, path: str = "/x", **more) -> dict:
    return {"do": f"PATCH {kind} {THINGS}{path}", "body": body, **more}


BAD = {
    "below the minimum": {"size": 0}, "above the maximum": {"size": 11}, "of a wrong type": {"size": "big"}, "outside the enumeration": {"colour": "blue"},
    "against the pattern": {"name": "A"}, "too long": {"name": "abcdef"}, "with too many items": {"tags": ["a", "b", "c"]}, "with an item twice": {"tags": ["a", "a"]},
    "with a wrong item": {"tags": [1]}, "with a bad time": {"when": "now"}, "with a bad int or string": {"any": True}, "null where it may not be": {"size": None},
    "with a wrong map value": {"map": {"a": "b"}}, "with a wrong nested type": {"nested": {"b": "yes"}}, "with a list for a map": {"nested": []}, "with a fraction": {"size": 1.5},
    "with an embedded object without kind": {"template": {"a": 1}},
}
WITH_RULES = {"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [
    {"rule": "self.min <= self.max", "message": "min must not be above max"}, {"rule": "self.min >= 0"},
    {"rule": "self.max == oldSelf.max", "message": "max is fixed"}], "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "size": {"type": "integer"}}}}}

CASES = [
    {"name": "custom resource: definition", "steps": [create("customresourcedefinitions", definition()), {"wait": CRD, "until": ready, "only": ["status", "spec.conversion", "spec.names"]}, {"do": f"DELETE {CRD}", "quiet": True}]},
    {"name": "custom resource: definition under a wrong name", "steps": [create("customresourcedefinitions", {**definition(), "metadata": {"name": "other"}})]},
    {"name": "custom resource: definition without schema", "steps": [create("customresourcedefinitions", definition(schema={}))]},
    {"name": "custom resource: definition without versions", "steps": [create("customresourcedefinitions", {**definition(), "spec": {**definition()["spec"], "versions": []}}, only=["code", "reason", "details.causes.0"])]},
    case("defaults", post(thing())),
    case("nested defaults", post(thing(nested={}))),
    case("unknown fields are dropped", post(thing(unknown=1, nested={"c": 1}, free={"kept": [1]}))),
    case("unknown fields are refused strictly", {"do": f"POST {THINGS}?fieldValidation=Strict", "body": thing(unknown=1)}),
    case("values of all kinds", post(thing(when="2026-01-01T00:00:00Z", any="10%", tags=["a", "b"], map={"a": 1}, free={"x": None}, template={"apiVersion": "v1", "kind": "Pod", "spec": {}}))),
    case("null for a default", post(thing(colour=None, maybe=None))),
    case("status is dropped on create", post({**thing(), "status": {"phase": "New"}})),
    case("no spec", post({"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": "x"}})),
    *[case(f"refused {name}", post(thing(**spec))) for name, spec in BAD.items()],
    case("refused with two errors", post(thing(size=0, colour="blue"), only=["code", "reason", "kind"])),
    case("merge patch", post(thing(), quiet=True), patch("merge", {"spec": {"size": 5}})),
    case("merge patch to a wrong value", post(thing(), quiet=True), patch("merge", {"spec": {"size": 50}})),
    case("json patch", post(thing(), quiet=True), patch("json", [{"op": "replace", "path": "/spec/size", "value": 3}])),
    case("strategic patch is refused", post(thing(), quiet=True), patch("strategic", {"spec": {"size": 5}})),
    case("generation", post(thing(), quiet=True), patch("merge", {"metadata": {"labels": {"a": "b"}}}, only=["metadata.generation"]), patch("merge", {"spec": {"size": 2}}, only=["metadata.generation"])),
    case("status subresource", post(thing(), quiet=True), patch("merge", {"status": {"phase": "Up"}, "spec": {"size": 9}}, "/x/status"), patch("merge", {"status": {"phase": "Down"}, "spec": {"size": 3}})),
    case("scale subresource", post(thing(replicas=2), quiet=True), patch("merge", {"status": {"replicas": 1, "selector": "a=b"}}, "/x/status", quiet=True), {"do": f"GET {THINGS}/x/scale"}, patch("merge", {"spec": {"replicas": 4}}, "/x/scale"), {"do": f"GET {THINGS}/x", "only": ["spec.replicas", "metadata.generation"]}),
    case("table", post(thing(), quiet=True), patch("merge", {"status": {"phase": "Up"}}, "/x/status", quiet=True), {"do": f"GET {THINGS}", "headers": {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
         "only": ["kind", "columnDefinitions.0.name", "columnDefinitions.1.name", "columnDefinitions.1.type", "columnDefinitions.2.name", "columnDefinitions.3.name", "rows.0.cells"]}),
    case("list", post(thing("a"), quiet=True), post(thing("b"), quiet=True), {"do": f"GET {THINGS}"}),
    case("discovery", {"do": "GET /apis/{ns}.example.com/v1"}),
    case("delete", post(thing(), quiet=True), {"do": f"DELETE {THINGS}/x"}, {"do": f"GET {THINGS}/x"}),
    case("watch", {"watch": THINGS, "as": "w"}, post(thing(), quiet=True), patch("merge", {"spec": {"size": 2}}, quiet=True), {"do": f"DELETE {THINGS}/x", "quiet": True},
         {"events": "w", "until": lambda events: len(events) >= 3, "only": ["kind", "metadata.name", "spec.size", "spec.colour"]}),
    case("definition with objects is deleted", post(thing(), quiet=True), {"do": f"DELETE {CRD}", "only": ["code"]}, {"wait": THINGS, "until": lambda code, body: code == 404}),
    case("rules hold", post(thing(min=1, max=2)), crd=definition(WITH_RULES)),
    case("rules refuse", post(thing(min=3, max=2)), crd=definition(WITH_RULES)),
    case("rules without message", post(thing(min=-1, max=2)), crd=definition(WITH_RULES)),
    case("rules about changes", post(thing(min=1, max=2), quiet=True), patch("merge", {"spec": {"max": 3}}), patch("merge", {"spec": {"min": 2}}, only=["spec"]), crd=definition(WITH_RULES)),
    case("apply creates and owns", {"do": f"PATCH apply {THINGS}/x?fieldManager=me", "body": thing(size=2)}, {"do": f"PATCH apply {THINGS}/x?fieldManager=other", "body": thing(size=3)},
         {"do": f"PATCH apply {THINGS}/x?fieldManager=other&force=true", "body": thing(size=3)}, {"do": f"PATCH apply {THINGS}/x?fieldManager=me", "body": thing(size=3)}),
    case("a new cluster owner keeps its children", {"do": "POST /apis/{ns}.example.com/v1/things", "body": thing("owner"), "keep": {"owner": "metadata.uid"}, "quiet": True},
         *[create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [
             {"apiVersion": "{ns}.example.com/v1", "kind": "Thing", "name": "owner", "uid": uid, "controller": True, "blockOwnerDeletion": True}]}}, quiet=True)
           for name, uid in (("child", "{owner}"), ("doomed", "00000000-0000-0000-0000-000000000003"))],
         {"wait": "configmaps/doomed", "until": lambda code, body: code == 404, "within": 90, "quiet": True}, {"do": "GET configmaps/child", "only": ["kind", "metadata.deletionTimestamp"]},
         {"do": "DELETE /apis/{ns}.example.com/v1/things/owner?propagationPolicy=Foreground", "quiet": True}, {"wait": "configmaps/child", "until": lambda code, body: code == 404, "within": 90},
         crd={**definition(), "spec": {**definition()["spec"], "scope": "Cluster"}}),
]
