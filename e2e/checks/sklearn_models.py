"""Compares the model server with scikit-learn itself: arrays, tables, texts, probabilities, a worker that dies.

Usage: python e2e/checks/sklearn_models.py MODELSERVER   (needs scikit-learn, pandas, joblib)
"""

import concurrent.futures
import glob
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

# A model that ends its process when it sees 666, and sleeps for the seconds that it sees above 1000.
BAD = """
import os, time
class Bad:
    n_features_in_ = 1
    def predict(self, rows):
        if 666 in rows: os._exit(9)
        if rows.max() > 1000: time.sleep(rows.max() - 1000)
        return rows[:, 0] * 2
"""


class Server:
    def __init__(self, server, path, *flags):
        command = [server, "--model_dir", path, "--host=127.0.0.1", "--http_port=0", f"--python={sys.executable}", *flags]
        env = {**os.environ, "PYTHONPATH": os.path.dirname(path), "SECRET_TOKEN": "x"}
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        self.url = self.child.stdout.readline().split()[-1]
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=60).read()
                return
            except urllib.error.HTTPError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        assert self.child.wait(20) == 0

    def post(self, path, body):
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def v1(self, instances):
        return self.post("/v1/models/model:predict", {"instances": instances})

    def v2(self, array, kind="FP64", **more):
        array = np.asarray(array)
        tensor = {"name": "x", "shape": list(array.shape), "datatype": kind, "data": array.ravel().tolist()}
        return self.post("/v2/models/model/infer", {"inputs": [tensor], **more})


def main():
    server = sys.argv[1]
    rows, kinds = load_iris(return_X_y=True)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.joblib")

        model = LogisticRegression(max_iter=500).fit(rows, kinds)
        joblib.dump(model, path)
        with Server(server, path) as served:
            status, body = served.v1(rows.tolist())
            assert status == 200 and body["predictions"] == model.predict(rows).tolist()
            status, body = served.v2(rows)
            assert body["outputs"][0]["datatype"] == "INT64" and body["outputs"][0]["data"] == model.predict(rows).tolist()
            status, body = served.v2(rows, outputs=[{"name": "predict"}, {"name": "predict_proba"}])
            proba = np.reshape(body["outputs"][1]["data"], body["outputs"][1]["shape"])
            assert [o["name"] for o in body["outputs"]] == ["predict", "predict_proba"]
            assert np.array_equal(proba, model.predict_proba(rows))
            status, body = served.v1([[1, 2, 3]])
            assert status == 400 and "X has 3 features, but LogisticRegression is expecting 4 features" in body["error"], body
            status, body = served.v2(rows, outputs=[{"name": "nope"}])
            assert status == 400 and "nope" in body["error"], body
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(lambda row: served.v1([row])[1]["predictions"][0], rows.tolist() * 4))
            assert answers == model.predict(rows).tolist() * 4
            lists = glob.glob(f"/proc/{served.child.pid}/task/*/children")
            worker = "".join(open(each).read() for each in lists).split()[0]
            assert b"SECRET_TOKEN" not in open(f"/proc/{worker}/environ", "rb").read()
            print("arrays, probabilities, faults, 16 at a time: ok")

        with Server(server, path, "--predict_proba") as served:
            assert served.v1(rows[:3].tolist())[1]["predictions"] == model.predict_proba(rows[:3]).tolist()
            print("predict_proba: ok")

        table = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "colour": ["red", "blue", "red", "blue"]})
        steps = ColumnTransformer([("one", OneHotEncoder(), ["colour"])], remainder="passthrough")
        model = make_pipeline(steps, LinearRegression()).fit(table, [1.0, 2.0, 3.0, 5.0])
        joblib.dump(model, path)
        with Server(server, path) as served:
            assert served.v1(table.to_dict("records"))[1]["predictions"] == model.predict(table).tolist()
            columns = [
                {"name": "size", "shape": [4], "datatype": "FP64", "data": table["size"].tolist()},
                {"name": "colour", "shape": [4], "datatype": "BYTES", "data": table["colour"].tolist()},
            ]
            body = {"parameters": {"content_type": "pd"}, "inputs": columns}
            answer = served.post("/v2/models/model/infer", body)[1]
            assert answer["outputs"][0]["data"] == model.predict(table).tolist()
            print("tables: ok")

        texts = ["good day", "bad day", "good", "bad bad"]
        model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, ["yes", "no", "yes", "no"])
        joblib.dump(model, path)
        with Server(server, path) as served:
            assert served.v1(texts)[1]["predictions"] == model.predict(texts).tolist()
            tensor = {"name": "t", "shape": [4], "datatype": "BYTES", "data": texts}
            answer = served.post("/v2/models/model/infer", {"inputs": [tensor]})[1]
            assert answer["outputs"][0] == {
                "name": "output-0", "shape": [4], "datatype": "BYTES", "data": model.predict(texts).tolist()
            }
            print("texts: ok")

        with open(os.path.join(folder, "bad.py"), "w") as file:
            file.write(BAD)
        sys.path.insert(0, folder)
        import bad

        joblib.dump(bad.Bad(), path)
        with Server(server, path, "--timeout=1") as served:
            assert served.v1([[2]]) == (200, {"predictions": [4]})
            status, body = served.v1([[666]])
            assert status == 500 and "ended twice on this request (exit code 9)" in body["error"], body
            assert served.v1([[3]]) == (200, {"predictions": [6]})
            status, body = served.v1([[1005]])
            assert status == 504 and body["error"].endswith("the model did not answer within 1 s"), body
            assert served.v1([[3]]) == (200, {"predictions": [6]})
            print("a worker that dies or hangs: ok")

        with open(path, "wb") as file:
            file.write(b"not a pickle")
        command = [server, "--model_dir", path, "--http_port=0", "--host=127.0.0.1", f"--python={sys.executable}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and "error: cannot load model \"model\": " in done.stderr, done
        print("broken pickle:", done.stderr.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
