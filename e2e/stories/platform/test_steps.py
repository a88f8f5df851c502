"""Steps that somebody else ends."""

from programs import end_of, eventually, get, step_of, submit

SLEEPS = {"image": "python:3.11", "command": ["sh", "-c", "exec sleep 600"]}


def test_a_step_over_its_timeout_says_so(ferroflow):
    run, step = end_of(submit(ferroflow, SLEEPS, {"activeDeadlineSeconds": "2"}))
    wanted = "DeadlineExceeded: it ran longer than 2 s; allow it more with set_timeout() on the task"
    assert (run["state"], step["error"]["message"]) == ("FAILED", wanted)


def test_a_step_whose_pod_is_deleted_says_so(ferroflow):
    read = submit(ferroflow, SLEEPS)

    def runs():
        step = step_of(read())
        name = step and step.get("pod_name")
        return name and get(ferroflow, "pods", "--field-selector", f"metadata.name={name},status.phase=Running")["items"]

    [running] = eventually("the step runs", runs)
    ferroflow.kubectl("delete", "pod", running["metadata"]["name"], "--wait=false")
    run, step = end_of(read)
    assert (run["state"], step["error"]["message"]) == ("FAILED", "its Pod was deleted while it ran")
