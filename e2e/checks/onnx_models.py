"""Compares the model server with onnxruntime's own Python API.

Usage: python e2e/checks/onnx_models.py MODELSERVER   (needs onnxruntime, onnx, skl2onnx, scikit-learn)
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def start(server, path, **env):
    command = [server, "--model_dir", path, "--host=127.0.0.1", "--http_port=0", f"--python={sys.executable}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **env})
    url = child.stdout.readline().split()[-1]
    while child.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/v2/health/ready", timeout=60).read()
            break
        except urllib.error.HTTPError:
            pass
    return child, url


def main():
    server = sys.argv[1]
    rows, kinds = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        forest = RandomForestClassifier(20, random_state=1).fit(rows, kinds)
        for zipmap in (False, True):
            graph = to_onnx(forest, rows[:1], options={id(forest): {"zipmap": zipmap}}, target_opset=18)
            onnx.save(graph, path)
            want = onnxruntime.InferenceSession(path).run(None, {"X": rows})
            child, url = start(server, path)
            tensor = {"name": "X", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
            status, body = post(f"{url}/v2/models/model/infer", {"inputs": [tensor]})
            assert status == 200, body
            for output, expected in zip(body["outputs"], want):
                got = np.array(output["data"]).reshape(output["shape"])
                # The order of a sum depends on the number of threads.
                assert np.allclose(got, expected, rtol=0, atol=2e-7), (output["name"], np.abs(got - expected).max())
            assert len(body["outputs"]) == (1 if zipmap else 2)
            status, body = post(f"{url}/v1/models/model:predict", {"instances": rows.tolist()})
            assert status == 200 and body["predictions"] == want[0].tolist()
            for change, text in (
                ({"datatype": "FP64"}, 'model "model": tensor "X", field "datatype": is FP64, but the model takes FP32'),
                ({"shape": [75, 8]}, 'model "model": tensor "X", field "shape": is [75,8], but the model takes [-1,4]'),
            ):
                status, body = post(f"{url}/v2/models/model/infer", {"inputs": [{**tensor, **change}]})
                assert (status, body["error"]) == (400, text), body
            child.terminate()
            assert child.wait(20) == 0
        print("forest, with and without zipmap: ok")

        node = helper.make_node("Add", ["a", "b"], ["sum"])
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in "ab"]
        output = helper.make_tensor_value_info("sum", TensorProto.INT64, ["n"])
        graph = helper.make_graph([node], "g", inputs, [output])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
        child, url = start(server, path)
        pair = [{"name": name, "shape": [3], "datatype": "INT64", "data": [1, 2, 3]} for name in "ba"]
        status, body = post(f"{url}/v2/models/model/infer", {"inputs": pair})
        assert body["outputs"] == [{"name": "sum", "shape": [3], "datatype": "INT64", "data": [2, 4, 6]}], body
        status, body = post(f"{url}/v2/models/model/infer", {"inputs": pair[:1]})
        assert (status, body["error"]) == (400, 'model "model": field "inputs": "a" is missing'), body
        status, body = post(f"{url}/v2/models/model/infer", {"inputs": [{**pair[0], "name": "c"}]})
        assert status == 400 and '"c" is not an input of the model, which has "a", "b"' in body["error"], body
        status, body = post(f"{url}/v1/models/model:predict", {"instances": [1]})
        assert status == 400 and "use V2" in body["error"], body
        child.terminate()
        assert child.wait(20) == 0
        print("several inputs: ok")

        done = subprocess.run(
            [server, "--model_dir", path, "--host=127.0.0.1", "--http_port=0", "--python=/usr/bin/false"], capture_output=True, text=True
        )
        assert done.returncode == 1 and "ONNX Runtime is not there: install the package onnxruntime" in done.stderr, done
        with open(path, "wb") as file:
            file.write(b"junk")
        command = [server, "--model_dir", path, "--host=127.0.0.1", "--http_port=0", f"--python={sys.executable}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1, done
        print("failures:", done.stderr.strip())


if __name__ == "__main__":
    main()
