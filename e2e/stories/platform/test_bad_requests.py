"""Requests to a served model that cannot be answered, and callers who may not call."""

import json
import select
import socket
import subprocess

import pytest
import requests
import yaml

ROW = {"name": "input-0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
LIMIT = 64 * 1024 * 1024
TENSOR = 'model "iris": tensor "input-0", field '


def infer(url, *tensors):
    return requests.post(f"{url}/v2/models/iris/infer", json={"inputs": list(tensors)}, timeout=30)


def test_a_good_request_is_answered(iris):
    answer = infer(iris, ROW)
    assert answer.status_code == 200 and answer.json()["outputs"][0]["shape"] == [1, 3]


BAD_TENSORS = [
    ({"shape": [2, 4]}, '"data": has 4 elements, but shape [2,4] needs 8'),
    ({"shape": [1, 3], "data": [1, 2, 3]}, '"shape": is [1,3], but the model takes 4 features per row'),
    ({"datatype": "BYTES"}, '"data": element 0 is 1, expected a text (datatype is BYTES)'),
    ({"datatype": "FP33"}, '"datatype": "FP33" is not one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, '
     "INT64, FP16, FP32, FP64, BYTES"),
    ({"data": [1, 2, 3, "a"]}, '"data": element 3 is "a", expected FP32'),
]


@pytest.mark.parametrize(("change", "message"), BAD_TENSORS)
def test_a_wrong_shape_or_datatype(iris, change, message):
    answer = infer(iris, ROW | change)
    assert (answer.status_code, answer.json()) == (400, {"error": TENSOR + message})


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (0, "unexpected end of input, expected an object at line 1 column 1 (byte 0)"),
        (50, 'unexpected end of input, expected `"` at line 1 column 51 (byte 50)'),
    ],
)
def test_truncated_json(iris, length, message):
    body = '{"inputs":[{"name":"input-0","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'[:length]
    kind = {"Content-Type": "application/json"}
    answer = requests.post(f"{iris}/v2/models/iris/infer", data=body, headers=kind, timeout=30)
    assert (answer.status_code, answer.json()) == (400, {"error": f'model "iris": request body is not valid JSON: {message}'})


def test_v1_with_too_few_features(iris):
    answer = requests.post(f"{iris}/v1/models/iris:predict", json={"instances": [[1, 2, 3]]}, timeout=30)
    message = 'model "iris": field "instances": is [1,3], but the model takes 4 features per row'
    assert (answer.status_code, answer.json()) == (400, {"error": message})


def test_a_model_that_is_not_served(iris):
    answer = requests.get(f"{iris}/v2/models/nope", timeout=30)
    assert (answer.status_code, answer.json()) == (404, {"error": 'model "nope" does not exist here; this server has "iris"'})


def memory(pattern):
    """Resident bytes of the processes with this on their command line."""
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout.split()
    pages = [int(open(f"/proc/{pid}/statm").read().split()[1]) for pid in found]
    return sum(pages) * 4096


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_of_1_gb(ferroflow, iris, chunked):
    before = memory(f"^{ferroflow.program} up .*{ferroflow.folder}")
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1000000000"
    head = f"POST /serving/default/iris/v2/models/iris/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    part = b"1," * 32768
    part = b"%x\r\n%s\r\n" % (len(part), part) if chunked else part
    sent, answer = 0, b""
    with socket.create_connection(("localhost", ferroflow.port), timeout=30) as connection:
        connection.sendall(head.encode())
        try:
            while sent < 1_000_000_000 and not select.select([connection], [], [], 0)[0]:
                connection.sendall(part)
                sent += 65536
            if chunked:
                connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer came before the end of the request
        # what was sent after the answer began may be answered too: only the first answer counts
        while b"}" not in answer:
            got = connection.recv(65536)
            assert got, answer
            answer += got
    assert answer.startswith(b"HTTP/1.1 413 Payload Too Large\r\n"), answer
    size = "is larger" if chunked else "has 1000000000 bytes"
    said = json.loads(answer[answer.index(b"{") : answer.index(b"}") + 1])
    remedy = "send fewer rows at a time or raise --max_request_bytes"
    assert said == {"error": f'model "iris": the request body {size}, the limit is {LIMIT}; {remedy}'}
    assert memory(f"^{ferroflow.program} up .*{ferroflow.folder}") - before < 128 * 1024 * 1024
    assert infer(iris, ROW).status_code == 200


def same(text):
    return {"code": 7, "details": [], "error": text, "message": text}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_page_of_another_origin(ferroflow, method):
    headers = {"Origin": "http://evil.example.org"}
    answer = requests.request(method, f"{ferroflow.url}/apis/v2beta1/runs", headers=headers, timeout=30)
    host = f"localhost:{ferroflow.port}"
    text = f'origin "http://evil.example.org" is another site than host "{host}"; only ferroflow\'s own pages may call its API'
    assert (answer.status_code, answer.json()) == (403, same(text))
    own = requests.get(f"{ferroflow.url}/apis/v2beta1/runs", headers={"Origin": ferroflow.url}, timeout=30)
    assert own.status_code == 200


def test_a_form_of_another_site(ferroflow):
    answer = requests.post(f"{ferroflow.url}/apis/v2beta1/runs", headers={"Sec-Fetch-Site": "cross-site"}, timeout=30)
    text = "a page of another site sent this request; only ferroflow's own pages may change things"
    assert (answer.status_code, answer.json()) == (403, same(text))


@pytest.mark.parametrize("path", ["/", "/apis/v2beta1/runs", "/kube/api", "/serving/default/iris/v2", "/s3/mlpipeline"])
def test_a_name_that_was_rebound(ferroflow, path):
    answer = requests.get(ferroflow.url + path, headers={"Host": "evil.example.org"}, timeout=30)
    text = 'host "evil.example.org" is not a name of this ferroflow; use localhost, or start it with --host evil.example.org'
    assert (answer.status_code, answer.json()) == (403, same(text))


def as_nobody(url, *headers, flags=()):
    """Status and body that another OS user gets."""
    flags = [*flags, *(part for header in headers for part in ("-H", header))]
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sk", "-m", "20", "-w", "\n%{http_code}"]
    done = subprocess.run([*command, *flags, url], capture_output=True, text=True, timeout=60, check=True)
    body, code = done.stdout.rsplit("\n", 1)
    return int(code), body


def test_another_user_of_the_machine(ferroflow):
    text = "this connection is of another user; send Authorization: Bearer with a token from the owner's kubeconfig"
    for path in ("/", "/apis/v2beta1/runs", "/kube/api/v1/secrets", "/metrics", "/serving/default/iris/v2"):
        code, body = as_nobody(ferroflow.url + path)
        assert (code, json.loads(body)) == (401, same(text) | {"code": 16}), path
    config = yaml.safe_load(ferroflow.kubeconfig.read_text())
    token = config["users"][0]["user"]["token"]
    assert as_nobody(ferroflow.url + "/apis/v2beta1/runs", f"Authorization: Bearer {token}")[0] == 200
    code, body = as_nobody(ferroflow.url + "/apis/v2beta1/runs", f"Authorization: Bearer {token}x")
    assert (code, json.loads(body)["message"]) == (401, "the bearer token is not valid or has expired; get a new one")

    kubernetes = config["clusters"][0]["cluster"]["server"]
    code, body = as_nobody(kubernetes + "/api/v1/namespaces/default/secrets")
    assert code == 403 and json.loads(body)["message"].startswith('secrets is forbidden: User "system:anonymous" cannot list')
    for path in ("/apis/v2beta1/runs", "/artifacts/v1/list?prefix=", "/s3/mlpipeline"):
        code, body = as_nobody(ferroflow.url + path)
        assert code in (401, 403), (path, code, body)


def test_another_user_at_the_address_of_a_pod(ferroflow, iris):
    """Anybody may bind a Pod's address on loopback; that makes nobody the Pod."""
    labels = "serving.kserve.io/inferenceservice=iris"
    address = ferroflow.kubectl("get", "pods", "-l", labels, "-o", "jsonpath={.items[0].status.podIP}")
    for path in ("/apis/v2beta1/runs", "/kube/api/v1/pods", "/serving/default/iris/v2"):
        code, body = as_nobody(f"http://127.0.0.1:{ferroflow.port}{path}", flags=("--interface", address))
        assert (code, json.loads(body)["code"]) == (401, 16), (path, code, body)


@pytest.mark.parametrize("file", ["kubeconfig", "kube", "run", "artifacts", "."])
def test_another_user_reads_no_file(ferroflow, file):
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", str(ferroflow.folder / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Permission denied" in done.stderr, done.stderr
