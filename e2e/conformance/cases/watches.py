"""Sequences of watch events."""

from objects import changed, config_map, create, pod

SHOW = ["metadata.name", "data", "metadata.labels", "metadata.deletionTimestamp"]


def count(number: int):
    return lambda events: len(events) >= number


X = create("configmaps", changed(config_map(), "metadata/labels", {"a": "1"}), quiet=True)

CASES = [
    {"name": "watch create, update, delete", "steps": [{"watch": "configmaps", "as": "w"}, X, {"do": "PATCH merge configmaps/x", "body": {"data": {"k": "w"}}, "quiet": True},
        {"do": "DELETE configmaps/x", "quiet": True}, {"events": "w", "until": count(3), "only": SHOW}]},
    {"name": "watch an update that changes nothing", "steps": [X, {"watch": "configmaps", "as": "w"}, {"do": "PATCH merge configmaps/x", "body": {"data": {"k": "v"}}, "quiet": True},
        {"do": "PATCH merge configmaps/x", "body": {"data": {"k": "w"}}, "quiet": True}, {"events": "w", "until": count(1), "only": SHOW}]},
    {"name": "watch by label: an object comes and goes", "steps": [X, {"watch": "configmaps?labelSelector=a%3D2", "as": "w"},
        {"do": "PATCH merge configmaps/x", "body": {"metadata": {"labels": {"a": "2"}}}, "quiet": True}, {"do": "PATCH merge configmaps/x", "body": {"data": {"k": "w"}}, "quiet": True},
        {"do": "PATCH merge configmaps/x", "body": {"metadata": {"labels": {"a": "3"}}}, "quiet": True}, {"events": "w", "until": count(3), "only": SHOW}]},
    {"name": "watch by name", "steps": [{"watch": "configmaps?fieldSelector=metadata.name%3Dx", "as": "w"}, create("configmaps", config_map("y"), quiet=True), X, {"events": "w", "until": count(1), "only": SHOW}]},
    {"name": "watch from the start", "steps": [X, {"watch": "configmaps?resourceVersion=0&labelSelector=a", "as": "w"}, {"events": "w", "until": count(1), "only": SHOW}]},
    {"name": "watch with a bad version", "steps": [{"do": "GET configmaps?watch=true&resourceVersion=x"}]},
    {"name": "watch deletion with a finalizer", "steps": [create("configmaps", changed(config_map(), "metadata/finalizers", ["a.example.com/x"]), quiet=True), {"watch": "configmaps", "as": "w"},
        {"do": "DELETE configmaps/x", "quiet": True}, {"do": "PATCH merge configmaps/x", "body": {"metadata": {"finalizers": []}}, "quiet": True}, {"events": "w", "until": count(2), "only": [*SHOW, "metadata.finalizers"]}]},
    {"name": "watch deletion of a pod", "steps": [create("pods", pod(automountServiceAccountToken=False, nodeName="nowhere"), quiet=True), {"watch": "pods", "as": "w"},
        {"do": "DELETE pods/x", "body": {"gracePeriodSeconds": 5}, "quiet": True}, {"do": "DELETE pods/x", "body": {"gracePeriodSeconds": 0}, "quiet": True},
        {"events": "w", "until": count(3), "only": ["metadata.name", "metadata.deletionGracePeriodSeconds"]}]},
    {"name": "watch with initial events", "steps": [X, {"watch": "configmaps?labelSelector=a&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=", "as": "w"},
        {"events": "w", "until": count(2), "only": ["kind", "metadata.name", "metadata.annotations", "message"]}]},
    {"name": "watch what a status update does", "steps": [create("pods", pod(automountServiceAccountToken=False, nodeName="nowhere"), quiet=True), {"watch": "pods", "as": "w"},
        {"do": "PATCH strategic pods/x/status", "body": {"status": {"phase": "Running"}}, "quiet": True}, {"events": "w", "until": count(1), "only": ["metadata.generation", "status.phase"]}]},
]
