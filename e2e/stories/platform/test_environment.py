"""What a container finds in its environment."""

from programs import apply, eventually, phase, pod


def test_texts_of_a_config_map_and_not_its_bytes(ferroflow):
    settings = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
        "data": {"color": "blue"}, "binaryData": {"bytes": "AAEC"},
    }
    made = pod("reads-settings", 'echo "$P_color ${P_bytes-none}"')
    made["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "settings"}, "prefix": "P_"}]
    apply(ferroflow, settings, made)
    eventually("the Pod ends", lambda: phase(ferroflow, "reads-settings") == "Succeeded")
    assert ferroflow.kubectl("logs", "reads-settings") == "blue none\n"
