"""What `ferroflow` says at a shell, how it ends, and that it goes on where it was."""

import json
import os
import socket
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

from programs import apply, eventually, phase, pod, run


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="ferroflow-story-", dir="/var/tmp") as path:
        yield path


def refused(*arguments, **environment):
    """What it says on one line before it ends with 2."""
    code, out, error = run(*arguments, **environment)
    assert (code, out) == (2, ""), (code, out, error)
    assert error.endswith("\n") and error.count("\n") == 1, f"more than one line:\n{error}"
    return error.strip()


def test_a_taken_port(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused("up", "--port", port, "--data-dir", folder) == (
            f"ferroflow: port {port} on 127.0.0.1 is taken by another program; "
            "choose another with --port, or --port 0 for a free one"
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--bogus"], "unexpected argument '--bogus' found"),
        (["up", "--port", "abc"], "invalid value 'abc' for '--port <N>': invalid digit found in string"),
        (["up", "--port", "65536"], "invalid value '65536' for '--port <N>': 65536 is not in 0..=65535"),
        (["up", "--auth", "nobody"], "invalid value 'nobody' for '--auth <MODE>'; [possible values: same-user, token]"),
        (["bogus"], "unrecognized subcommand 'bogus'"),
        (
            ["completions", "nosh"],
            "invalid value 'nosh' for '<SHELL>'; [possible values: bash, elvish, fish, powershell, zsh]; "
            "tip: a similar value exists: 'zsh'",
        ),
    ],
)
def test_a_bad_flag(arguments, says):
    assert refused(*arguments) == f"ferroflow: {says}; see ferroflow --help"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('prot = 1\n', 'config file {file}: key "prot": unknown field'),
        ('port = "x"\n', 'config file {file}: key "port": invalid type: found string "x", expected u16; fix or remove it'),
        ('host = []\nport = \n', "config file {file} line 2: "),
        ('bind = "here"\n', 'bind: "here" is no IP address; use 127.0.0.1 or 0.0.0.0'),
        ('otlp_endpoint = "foo"\n', 'otlp_endpoint: "foo" is no URL of a host; write http://host:port'),
        ('events = "kafka://x"\n', 'events: "kafka://x" is no NATS URL; write nats://host:4222, or leave it empty'),
    ],
)
def test_a_bad_file(folder, content, says):
    file = folder + "/ferroflow.toml"
    with open(file, "w") as out:
        out.write(content)
    error = refused("up", "--config", file, "--data-dir", folder + "/data")
    assert error.startswith("ferroflow: " + says.format(file=file)), error
    assert not os.path.exists(folder + "/data"), "nothing is made before the settings are known to be good"


def test_a_file_that_is_not_there(folder):
    file = folder + "/none.toml"
    assert refused("up", "--config", file) == (
        f"ferroflow: config file {file}: No such file or directory (os error 2); "
        "check the path given with --config or FERROFLOW_CONFIG"
    )


def test_a_bad_variable(folder):
    assert refused("up", "--data-dir", folder, FERROFLOW_PORT="x") == (
        'ferroflow: environment variable FERROFLOW_PORT: invalid type: found string "x", expected u16; '
        "fix or remove it (ferroflow up --help lists the keys)"
    )


def test_a_data_folder_that_is_not_writable(folder):
    remedy = "choose another with --data-dir or change its owner"
    assert refused("up", "--port", 0, "--data-dir", "/proc/ferroflow") == (
        f"ferroflow: data folder /proc/ferroflow is not writable: No such file or directory (os error 2); {remedy}"
    )
    with open(folder + "/file", "w"):
        pass
    for inside, reason in (("file", "File exists (os error 17)"), ("file/sub", "Not a directory (os error 20)")):
        path = f"{folder}/{inside}"
        said = refused("up", "--port", 0, "--data-dir", path)
        assert said == f"ferroflow: data folder {path} is not writable: {reason}; {remedy}"


def test_a_cache_folder_that_is_not_writable(folder):
    assert refused("up", "--port", 0, "--data-dir", folder, "--cache-dir", "/proc/cache") == (
        "ferroflow: cache folder /proc/cache cannot be written: No such file or directory (os error 2); "
        "make it writable, or choose another with --cache-dir"
    )


def test_a_data_folder_of_a_newer_version(folder):
    with open(folder + "/version", "w") as out:
        out.write("99\n")
    assert refused("up", "--port", 0, "--data-dir", folder) == (
        f"ferroflow: data folder {folder} has version 99, newer than 1 of this ferroflow (0.1.0); "
        "use a newer ferroflow or another --data-dir"
    )


def test_a_folder_of_something_else(folder):
    with open(folder + "/version", "w") as out:
        out.write("PG 15\n")
    assert refused("up", "--port", 0, "--data-dir", folder) == (
        f'ferroflow: {folder}/version: "PG 15" is no version number; is {folder} the data folder of a ferroflow? '
        "choose another with --data-dir"
    )


def test_status_where_nothing_runs(folder):
    assert refused("status", "--data-dir", folder) == (
        f"ferroflow: no ferroflow runs in {folder}; start one with ferroflow up --data-dir {folder}"
    )


def test_version_and_completions():
    assert run("version") == (0, "ferroflow 0.1.0\n", "")
    code, script, error = run("completions", "bash")
    assert (code, error) == (0, "")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "complete -F _ferroflow" in script and "--data-dir" in script


@pytest.mark.parametrize("command", [["up"], ["serve"], ["status"], ["completions"], []])
def test_help_has_examples(command):
    code, text, error = run(*command, "--help")
    assert (code, error) == (0, "") and "Example" in text


def get(url):
    """Status and body, also of an error."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_a_running_one_writes_and_answers(ferroflow):
    endpoint = json.loads(ferroflow.endpoint_file.read_text())
    assert endpoint["url"] == f"http://localhost:{endpoint['port']}" and endpoint["port"] > 0
    assert get(ferroflow.url + "/healthz") == (200, "ok")
    assert get(ferroflow.url + "/readyz") == (200, "ok")

    modes = {p: stat.S_IMODE(os.stat(ferroflow.folder / p).st_mode) for p in (".", "run", "kubeconfig", "run/endpoint.json")}
    assert modes == {".": 0o700, "run": 0o700, "kubeconfig": 0o600, "run/endpoint.json": 0o600}

    code, out, error = run("status", "--data-dir", ferroflow.folder)
    assert (code, error) == (0, "")
    assert out == (
        f"running\ndashboard   {ferroflow.url}\nkubectl     kubectl --kubeconfig {ferroflow.kubeconfig}\n"
        f"data        {ferroflow.folder}\nprocess     {ferroflow.process.pid}\n"
    )
    said = refused("up", "--port", 0, "--data-dir", ferroflow.folder)
    assert said == (
        f"ferroflow: data folder {ferroflow.folder} is in use by another ferroflow; "
        "stop it, or choose another with --data-dir"
    )
    assert get(ferroflow.url + "/apis/nothing") == (
        404,
        '{"code":5,"details":[],"error":"no API at /apis/nothing; see docs/status.md for what is served",'
        '"message":"no API at /apis/nothing; see docs/status.md for what is served"}',
    )


def test_a_stop_and_a_second_start(fresh_ferroflow):
    ferroflow = fresh_ferroflow
    apply(ferroflow, pod("before", "echo I ran before the stop"), pod("meanwhile", "exec sleep 600"))
    eventually("the Pod ends", lambda: phase(ferroflow, "before") == "Succeeded")
    eventually("the Pod runs", lambda: phase(ferroflow, "meanwhile") == "Running")
    running = ("get", "pod", "meanwhile", "-o", "jsonpath={.status.containerStatuses[0]['restartCount','containerID']}")
    before, port = ferroflow.kubectl(*running), ferroflow.port

    started = time.monotonic()
    ferroflow.process.send_signal(2)
    assert ferroflow.process.wait(timeout=15) == 0
    assert time.monotonic() - started < 10
    code, _, error = run("status", "--data-dir", ferroflow.folder)
    assert code == 2 and f"ferroflow up --data-dir {ferroflow.folder}" in error

    ferroflow.start(port=port)
    assert ferroflow.port == port
    assert phase(ferroflow, "before") == "Succeeded"
    assert ferroflow.kubectl("logs", "before") == "I ran before the stop\n"
    assert (phase(ferroflow, "meanwhile"), ferroflow.kubectl(*running)) == ("Running", before), "what ran goes on"


def test_two_at_once_with_the_same_port_in_their_pods(ferroflow):
    other = type(ferroflow)(tempfile.mkdtemp(prefix="ferroflow-story-", dir="/var/tmp"))
    try:
        other.start()
        both = [ferroflow, other]
        for number, ferroflow in enumerate(both):
            script = f"mkdir w && cd w && echo {number} > who && exec python3 -m http.server --bind 0.0.0.0 8080"
            apply(ferroflow, pod("listens", script))
        for number, ferroflow in enumerate(both):
            whose = "/api/v1/namespaces/default/pods/listens:8080/proxy/who"

            def asked():
                done = ferroflow.kubectl("get", "--raw", whose, check=False)
                return done.returncode == 0 and done.stdout

            assert eventually(f"Pod of Ferroflow {number} answers", asked) == f"{number}\n"
        ips = [f.kubectl("get", "pod", "listens", "-o", "jsonpath={.status.podIP}") for f in both]
        assert ips[0] != ips[1], ips
    finally:
        other.end()
